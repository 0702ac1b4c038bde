"""Systems of OpenMM: its own numbers, what it has that we have not, and molecules that relax."""

import json
from pathlib import Path
from xml.etree import ElementTree

import jax
import numpy as np
import peroxide
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import FileFormatError, InputError
from mdsens.potentials.bonded import dihedral_angles

FOLDER = Path(__file__).parents[1] / "data" / "molecules"
CASES = json.loads((FOLDER / "openmm.json").read_text(encoding="utf-8"))["cases"]


def structure_of(name):
    case = CASES[name]
    return ms.Structure.create(case["positions"], case["symbols"], case["cell"])


@pytest.mark.parametrize("name", ["alanine-dipeptide", "water"])
def test_energy_and_forces_are_those_of_openmm(name):
    mine = ms.energy_forces_stress(ms.read_openmm(FOLDER / f"{name}.xml"), structure_of(name))
    # OpenMM's constant of Coulomb's law is 5e-12 off
    assert_allclose(mine.energy, CASES[name]["energy"], rtol=1e-10)
    forces = np.array(CASES[name]["forces"])
    assert_allclose(mine.forces, forces, atol=1e-11 * np.abs(forces).max())


def edited(folder, changes, name="water"):
    """The file with other attributes, {path of an element: {attribute: value}}."""
    tree = ElementTree.parse(FOLDER / f"{name}.xml")
    for path, attributes in changes.items():
        element = tree.getroot().find(path)
        assert element is not None
        element.attrib.update(attributes)
    tree.write(folder / "system.xml")
    return folder / "system.xml"


NONBONDED = "Forces/Force[@type='NonbondedForce']"


def test_switched_lennard_jones_and_what_lies_beyond_are_those_of_openmm(tmp_path):
    # all but the end of Lennard-Jones is the same in both
    switch = {"useSwitchingFunction": "1", "switchingDistance": "0.33"}
    files = (FOLDER / "water.xml", edited(tmp_path, {NONBONDED: switch}))
    structure, energies = structure_of("water"), []
    for file in files:
        parts = ms.read_openmm(file).parts
        (wells,) = (part for part in parts if isinstance(part, ms.MolecularLennardJones))
        energies.append(float(ms.energy(wells, structure)))
    wanted = CASES["water"]["energy_switched"] - CASES["water"]["energy"]
    # OpenMM takes the integral over the switch as a difference of larger numbers
    assert energies[1] - energies[0] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.peer
def test_a_system_of_python_with_any_phase_has_the_forces_of_openmm():
    openmm = pytest.importorskip("openmm")
    system = openmm.System()
    for mass in (1.008, 15.999, 15.999, 1.008):
        system.addParticle(mass)
    bonds, angles, torsions = (
        openmm.HarmonicBondForce(),
        openmm.HarmonicAngleForce(),
        openmm.PeriodicTorsionForce(),
    )
    for i, j, length in ((0, 1, 0.097), (1, 2, 0.145), (2, 3, 0.097)):
        bonds.addBond(i, j, length, 300000.0)
    for i in (0, 1):
        angles.addAngle(i, i + 1, i + 2, 1.75, 600.0)
    torsions.addTorsion(0, 1, 2, 3, 2, 0.7, 8.0)
    torsions.addTorsion(0, 1, 2, 3, 1, -1.9, 5.0)
    for force in (bonds, angles, torsions, openmm.CMMotionRemover()):
        system.addForce(force)
    positions = 0.1 * peroxide.positions() + np.random.default_rng(5).normal(scale=0.02, size=(4, 3))
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    potential = ms.read_openmm(system, types=["HO", "OH", "OH", "HO"])
    mine = ms.energy_forces_stress(potential, ms.Structure.create(10 * positions, ["H", "O", "O", "H"]))
    assert_allclose(ms.units.to_kJ_per_mol(mine.energy), state.getPotentialEnergy()._value, rtol=1e-12)
    forces = state.getForces(asNumpy=True)._value
    assert_allclose(ms.units.to_kJ_per_mol(mine.forces) * 10, forces, atol=1e-11 * np.abs(forces).max())
    assert {"HarmonicBonds.k[HO-OH]", "PeriodicDihedrals.k[HO-OH-OH-HO:2]"} <= set(
        ms.parameter_values(potential)
    )


# --- names


def test_terms_with_the_same_numbers_are_one_type_and_charges_are_called_by_atoms():
    pdb = FOLDER.parents[2] / "data" / "alanine-dipeptide.pdb"
    import mdtraj

    named = ms.read_openmm(FOLDER / "alanine-dipeptide.xml", mdtraj.load_topology(str(pdb)))
    names = set(ms.parameter_values(named))
    assert {"MolecularCharges.charge[ALA2-CA]", "MolecularCharges.charge[ALA2-HB1]"} <= names
    assert "MolecularCharges.charge[ALA2-HB2]" not in names  # it has the charge of HB1
    assert {"HarmonicBonds.r0[C1-C2]", "MolecularLennardJones.scale14", "HarmonicAngles.k[C1-C2-O]"} <= names
    bonds = next(part for part in named.parts if isinstance(part, ms.HarmonicBonds))
    assert (len(bonds.types), len(bonds.atoms)) == (8, 21)
    fractions = [float(p.scale14) for p in named.parts if hasattr(p, "scale14")]
    assert_allclose(fractions, [0.5, 0.833333])


def test_a_file_of_ours_keeps_molecules_to_the_last_digit(tmp_path):
    potential = ms.load_potential(FOLDER / "alanine-dipeptide.xml")
    ms.save_potential(potential, tmp_path / "field.toml")
    again = ms.load_potential(tmp_path / "field.toml")
    assert ms.parameter_values(again) == ms.parameter_values(potential)
    assert jax.tree.structure(again) == jax.tree.structure(potential)


# --- what there is no counterpart for


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NONBONDED: {"method": "2"}}, "charges cut off in a reaction field.* nonbondedMethod=PME or Ewald"),
        ({NONBONDED: {"method": "5"}}, "Lennard-Jones by PME, which has no counterpart"),
        ({NONBONDED: {"type": "GBSAOBCForce"}}, "has a GBSAOBCForce.*without implicit solvent"),
        ({NONBONDED: {"type": "CustomBondForce"}}, r"has a CustomBondForce.*Remove it, or add .* a \+ b"),
        ({"Forces/Force/Bonds/Bond": {"k": "stiff"}}, "<Bond> has the attributes .*; the numbers k, d"),
        ({f"{NONBONDED}/Exceptions/Exception": {"eps": "1"}}, "Lennard-Jones of particles 0 and 1 is an exc"),
    ],
)
def test_what_has_no_counterpart_is_refused_with_a_remedy(tmp_path, changes, message):
    with pytest.raises((InputError, FileFormatError), match=message):
        ms.read_openmm(edited(tmp_path, changes))


@pytest.mark.parametrize(
    ("inside", "content", "message"),
    [
        ("Constraints", "<Constraint d='.1' p1='0' p2='1'/>", "1 constraints.* constraints=None, rigidWater"),
        ("Particles/Particle", "<TwoParticleSite/>", r"particle 0 is a virtual site \(TwoParticleSite\)"),
        (f"{NONBONDED}/ParticleOffsets", "<Offset/>", "has ParticleOffsets, whose parameters are not known"),
    ],
)
def test_what_holds_atoms_by_other_means_is_refused(tmp_path, inside, content, message):
    tree = ElementTree.parse(FOLDER / "water.xml")
    place = tree.getroot().find(inside)
    assert place is not None
    place.append(ElementTree.fromstring(content))
    tree.write(tmp_path / "system.xml")
    with pytest.raises(InputError, match=message):
        ms.read_openmm(tmp_path / "system.xml")


def test_what_is_no_system_is_refused(tmp_path):
    file = tmp_path / "field.xml"
    with pytest.raises(FileFormatError, match="no file"):
        ms.read_openmm(file)
    file.write_text("<ForceField/>")
    with pytest.raises(FileFormatError, match="holds a <ForceField> and no <System>"):
        ms.load_potential(file)
    file.write_text("<System")
    with pytest.raises(FileFormatError, match="is no XML file"):
        ms.read_openmm(file)
    file.write_text("<System/>")
    with pytest.raises(InputError, match="this System has no forces"):
        ms.read_openmm(file)
    with pytest.raises(InputError, match=r"is no System: give an openmm\.System"):
        ms.read_openmm(3)


def test_atoms_of_another_molecule_are_refused():
    water = FOLDER / "water.xml"
    with pytest.raises(InputError, match="the topology has 22 atoms and the System 81 particles"):
        ms.read_openmm(water, (22, []))
    with pytest.raises(InputError, match="3 types for 81 particles"):
        ms.read_openmm(water, types=["O", "H", "H"])
    with pytest.raises(InputError, match="knows its atoms by number"):
        ms.load_potential(water, ["O"])
    with pytest.raises(InputError, match="names atom 80, and the structure has atoms 0 to 21"):
        ms.energy(ms.read_openmm(water), structure_of("alanine-dipeptide"))


# --- relaxed


@pytest.mark.validation
def test_torsions_and_energy_of_a_relaxed_peptide_follow_the_force_field():
    potential, start = ms.load_potential(FOLDER / "alanine-dipeptide.xml"), structure_of("alanine-dipeptide")
    names = (
        "HarmonicBonds.r0[C2-N]", "HarmonicAngles.theta0[C1-N-C2]", "PeriodicDihedrals.k[N-C1-C2-N:2]",
        "MolecularLennardJones.sigma[O]", "MolecularLennardJones.scale14", "MolecularCharges.scale14",
    )  # fmt: skip
    values = np.array([ms.parameter_values(potential)[name] for name in names])
    atoms = np.array([4, 6, 8, 14])  # phi

    def measured(x, start=start):
        changed = ms.replace_parameters(potential, dict(zip(names, x, strict=True)))
        relaxed = ms.relax(changed, start, fmax=1e-10)
        steps = [
            relaxed.structure.positions[atoms[k + 1]] - relaxed.structure.positions[atoms[k]]
            for k in range(3)
        ]
        phi = dihedral_angles(*(step[None] for step in steps))[0]
        return jax.numpy.stack([phi, ms.energy(changed, relaxed.structure)]), relaxed.structure

    exact = jax.jacrev(lambda x: measured(x)[0])(jax.numpy.asarray(values))
    _, near = measured(values)
    for k, name in enumerate(names):
        step = 1e-4 * values[k] * np.eye(len(values))[k]
        there, back = (measured(values + s * step, near)[0] for s in (1, -1))
        slope = (there - back) / (2 * step[k])
        assert_allclose(exact[:, k], slope, rtol=1e-5, atol=1e-7, err_msg=name)
