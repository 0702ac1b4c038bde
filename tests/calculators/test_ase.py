"""The ASE calculator: right numbers, ASE's conventions, and no work done twice while atoms move."""

import copy
import json
import pickle
import subprocess
import sys

import ase.build
import ase.units
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.lj import LennardJones as ASELennardJones
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from compilations import compilations
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar

import mdsens as ms
import mdsens.calculators.ase as calculators_ase
from mdsens.strain import to_voigt

SW = ms.StillingerWeber(
    2.1683, 2.0951, 1.8, 21.0, 1.2, -0.333333333333, 7.049556277, 0.6022245584, 4.0, 0.0, elements=("Si",)
)
LJ = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=6.5)


def silicon(rattle: float = 0.1, strain: float = 0.02) -> ase.Atoms:
    """Eight atoms off their sites, in a strained cell: smaller than two cutoffs."""
    atoms = ase.build.bulk("Si", "diamond", a=5.43, cubic=True)
    atoms.rattle(rattle, seed=1)
    atoms.set_cell(
        atoms.cell.array @ (np.eye(3) + strain * np.array([[1.0, 0.3, 0], [0.3, -0.5, 0.2], [0, 0.2, 0.4]])),
        scale_atoms=True,
    )
    atoms.calc = ms.calculators.MDSens(SW)
    return atoms


def argon() -> ase.Atoms:
    """The same for four atoms of a fcc crystal."""
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(0.1, seed=2)
    atoms.set_cell(
        atoms.cell.array @ (np.eye(3) + 0.02 * np.array([[1.0, 0.3, 0], [0.3, -0.5, 0.2], [0, 0.2, 0.4]])),
        scale_atoms=True,
    )
    atoms.calc = ms.calculators.MDSens(LJ)
    return atoms


@pytest.mark.parametrize(
    ("name", "case", "potential"),
    [("stillinger_weber", "sw-si-rattled-64", SW), ("lennard_jones", "lj-ar-rattled-108-shifted", None)],
)
def test_energy_forces_and_stress_are_those_of_lammps(name, case, potential):
    record = references.table(name)[case]
    potential = potential or ms.LennardJones(
        0.0104, 3.405, elements=("Ar",), cutoff_radius=7.5, cut=ms.Shifted()
    )
    atoms = references.structure(record).to_ase()
    atoms.calc = ms.calculators.MDSens(potential)
    references.assert_agrees(atoms.get_potential_energy(), record["values"]["energy"], "energy")
    references.assert_agrees(
        atoms.get_potential_energy(force_consistent=True), record["values"]["energy"], "free energy"
    )
    references.assert_agrees(atoms.get_forces(), record["values"]["forces"], "forces")
    references.assert_agrees(atoms.get_stress(), record["values"]["stress"], "stress")
    # a sum of about a hundred terms of order 1 eV: rounding 1e-13
    assert_allclose(atoms.get_potential_energies().sum(), atoms.get_potential_energy(), rtol=1e-13)


def test_forces_and_stress_are_derivatives_of_the_energy():
    atoms = silicon()
    # Central differences: truncation ~ step² E''' ~ 1e-8 at 1e-4 Å, rounding 1e-14 * 30 eV / 1e-4 Å ~ 1e-9.
    assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=1e-6)
    assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-5), atol=1e-7)


@pytest.mark.parametrize("pbc", [(True, True, False), (False, False, True), False])
def test_slabs_wires_and_clusters_agree_with_the_calculator_of_ase(pbc):
    atoms = ase.build.fcc111("Ar", (2, 2, 3), a=5.3, vacuum=6.0, orthogonal=True)
    atoms.rattle(0.1, seed=3)
    atoms.pbc = pbc
    atoms.calc = ASELennardJones(sigma=3.405, epsilon=0.0104, rc=7.5, ro=None, smooth=False)
    # ASE shifts each pair to zero at the cutoff
    mine = atoms.copy()
    mine.calc = ms.calculators.MDSens(
        ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=7.5, cut=ms.Shifted())
    )
    # same formula in another order of summation
    assert_allclose(mine.get_potential_energy(), atoms.get_potential_energy(), rtol=1e-12)
    assert_allclose(mine.get_potential_energies(), atoms.get_potential_energies(), rtol=1e-11)
    assert_allclose(mine.get_forces(), atoms.get_forces(), atol=1e-13)
    assert_allclose(mine.get_stress(), atoms.get_stress(), atol=1e-15)
    # half of what each pair contributes belongs to each of its atoms
    assert_allclose(mine.get_stresses(), atoms.get_stresses(), atol=1e-15)


def test_stresses_of_atoms_add_up_to_the_stress_where_three_atoms_interact():
    atoms = silicon()
    stresses = atoms.get_stresses()
    assert stresses.shape == (len(atoms), 6)
    # sums of some tens of terms of order 0.01 eV/Å³
    assert_allclose(stresses.sum(0), atoms.get_stress(), atol=1e-14)


def test_a_free_cluster_has_forces_but_no_stress():
    atoms = ase.Atoms(
        "Ar3",
        [[0, 0, 0], [3.9, 0, 0], [1.9, 3.4, 0]],
        calculator=ms.calculators.MDSens(ms.LennardJones(0.0104, 3.405, elements=("Ar",))),
    )
    assert np.abs(atoms.get_forces()).max() > 1e-4
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stresses()


def test_a_form_without_site_energies_says_so_and_gives_the_rest():
    class Spring(ms.Potential):
        elements: tuple[str, ...] = ()
        source: str = ""

        @property
        def cutoff(self):
            return jnp.asarray(3.0)

        def energy(self, structure, neighbors):
            return jnp.sum(structure.positions**2)

    atoms = ase.Atoms("H2", [[0.5, 0, 0], [0, 1.0, 0]], calculator=ms.calculators.MDSens(Spring()))
    assert "energies" not in atoms.calc.implemented_properties
    assert atoms.get_potential_energy() == 1.25
    for missing in (atoms.get_potential_energies, atoms.get_stresses):
        with pytest.raises(PropertyNotImplementedError):
            missing()


def test_bfgs_with_a_cell_filter_finds_the_perfect_crystal():
    atoms = argon()
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-6, steps=200)
    crystal = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
    crystal.calc = atoms.calc

    def energy(a: float) -> float:
        crystal.set_cell([a, a, a], scale_atoms=True)
        return crystal.get_potential_energy()

    best = minimize_scalar(energy, bracket=(5.1, 5.3, 5.5), tol=1e-8)
    # The error of the energy is F² / curvature ~ (1e-6)² / 0.01 eV, far below 1e-8; a minimum of energies
    # rounded to 1e-15 eV is known to sqrt(1e-15 / curvature) ~ 1e-7 Å.
    assert_allclose(atoms.get_potential_energy(), best.fun, rtol=0, atol=1e-8)
    assert_allclose(atoms.cell.lengths(), best.x, rtol=1e-4)
    assert_allclose(atoms.cell.angles(), 90, atol=1e-2)


def test_dynamics_conserves_energy_and_compiles_nothing_after_the_first_steps():
    atoms = ase.build.bulk("Si", "diamond", a=5.43, cubic=True)
    atoms.calc = ms.calculators.MDSens(SW, skin=0.15)
    speeds = np.sqrt(1200 * ase.units.kB / atoms.get_masses())[:, None]
    atoms.set_velocities(speeds * np.random.default_rng(0).normal(size=(8, 3)))
    dynamics = VelocityVerlet(atoms, 0.5 * ase.units.fs)
    lists, energies = set(), []

    def watch():
        latest = atoms.calc._lists._kept[-1].neighbors
        lists.add(id(latest.positions))
        kept.append(latest)  # so that ids are not reused
        energies.append(atoms.get_total_energy())

    kept: list[ms.Neighbors] = []
    dynamics.attach(watch)
    dynamics.run(60)  # until a list has been rebuilt
    assert len(lists) > 1
    with compilations() as compiled:
        dynamics.run(340)
    assert len(lists) > 5
    assert compiled == []
    # Verlet at 0.5 fs: the total energy oscillates by (omega dt)² / 24 ~ 1e-4 of the kinetic energy (0.93 eV)
    # and does not drift; a force that is no derivative of the energy, or a missed pair, shows at 1e-2.
    assert np.ptp(energies) < 1e-3
    assert abs(np.mean(energies[-100:]) - np.mean(energies[100:200])) < 1e-4


@pytest.mark.parametrize("change", ["atoms", "species", "pbc", "cell", "far move"])
def test_changed_atoms_give_what_a_fresh_calculator_gives(change):
    binary = ms.LennardJones(
        [0.0104, 0.012, 0.014], [3.405, 3.5, 3.6], elements=("Ar", "Kr"), cutoff_radius=6.0
    )
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(0.1, seed=2)
    atoms.calc = ms.calculators.MDSens(binary)
    before = atoms.get_potential_energy()
    match change:
        case "atoms":
            del atoms[0]
        case "species":
            atoms.symbols[1] = "Kr"
        case "pbc":
            atoms.pbc = (True, False, True)
        case "cell":
            atoms.set_cell(atoms.cell * 0.8, scale_atoms=True)
        case "far move":
            atoms.positions[0] += 1.0
    fresh = atoms.copy()
    fresh.calc = ms.calculators.MDSens(binary)
    assert abs(atoms.get_potential_energy() - before) > 1e-3
    # the lists may list their pairs in another order
    assert_allclose(atoms.get_potential_energy(), fresh.get_potential_energy(), rtol=1e-13)
    assert_allclose(atoms.get_forces(), fresh.get_forces(), atol=1e-12)


def test_parameters_are_set_by_name_and_say_what_the_potential_is():
    atoms = argon()
    before, described = atoms.get_potential_energy(), atoms.calc.todict()
    assert json.loads(json.dumps(described)) == described
    assert (described["form"], described["epsilon"], described["skin"]) == ("LennardJones", 0.0104, None)
    assert {"source", "elements", "cutoff_radius"} <= set(described)
    assert atoms.calc.set(epsilon=0.0208) == {"epsilon": 0.0208}
    # epsilon is the only energy of the form
    assert_allclose(atoms.get_potential_energy(), 2 * before, rtol=1e-14)
    assert atoms.calc.todict() == described | {"epsilon": 0.0208}
    assert atoms.calc.set(skin=0.5) == {"skin": 0.5} and atoms.calc.skin == 0.5
    with pytest.raises(ms.errors.InputError, match=r"no parameter 'epsilom'\. Did you mean 'epsilon'"):
        atoms.calc.set(epsilom=1.0)
    with pytest.raises(ms.errors.InputError, match="epsilon"):
        atoms.calc.set(epsilon=-1.0)
    assert repr(atoms.calc) == "MDSens(LennardJones(Ar, epsilon=0.0208, sigma=3.405), skin=0.5)"


def test_a_calculator_is_copied_sent_and_built_as_others_are(tmp_path):
    atoms = argon()
    forces = atoms.get_forces()
    for calc in (copy.deepcopy(atoms.calc), pickle.loads(pickle.dumps(atoms.calc))):
        other = atoms.copy()
        other.calc = calc
        assert np.array_equal(other.get_forces(), forces)
    named = atoms.copy()
    ms.calculators.MDSens("ar-lennard-jones", atoms=named, directory=tmp_path, label="ar")
    assert named.calc.parameters["source"] and np.isfinite(named.get_potential_energy())


def test_float64_switched_off_later_is_an_error():
    atoms = argon()
    atoms.get_forces()
    atoms.rattle(0.01)
    with jax.enable_x64(False), pytest.raises(ms.errors.PrecisionError):
        atoms.get_forces()


def test_hessian_and_elastic_constants_are_those_of_differences_and_of_the_observable():
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.calc = ms.calculators.MDSens(LJ)
    constants = atoms.calc.get_elastic_constants(atoms)
    assert_allclose(constants, ms.observables.elastic_constants(LJ, ms.Structure.from_ase(atoms)), atol=1e-14)
    atoms.rattle(0.1, seed=1)
    hessian = atoms.calc.get_property("hessian", atoms)
    assert np.array_equal(hessian, hessian.T) and hessian.shape == (12, 12)
    step, forces = 1e-4, []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.calc = atoms.calc
        moved.positions[1, 2] += sign * step
        forces.append(moved.get_forces())
    # differences: the fourth derivative times step² / 6, about 1e-8
    assert_allclose(hessian[5], -(forces[0] - forces[1]).ravel() / (2 * step), atol=1e-7)
    many = ms.Structure.create(np.zeros((3001, 3)), ["Ar"] * 3001)
    with pytest.raises(ms.errors.InputError, match="9003 x 9003 numbers"):
        calculators_ase._hessian(LJ, many, None)


def test_images_that_share_a_calculator_keep_their_lists(monkeypatch):
    built = []
    search = calculators_ase.neighbors_of
    monkeypatch.setattr(calculators_ase, "neighbors_of", lambda *a: built.append(1) or search(*a))
    calc = ms.calculators.MDSens(LJ)
    images = [argon() for _ in range(3)]
    for k, image in enumerate(images):
        image.positions[0] += k  # farther apart than the skin
        image.calc = calc
    rng = np.random.default_rng(0)
    for _ in range(3):
        for image in images:
            image.get_forces()
            image.positions += 0.01 * rng.normal(size=image.positions.shape)
    assert len(built) == 3 and len(calc._lists) == 3
    fresh = images[0].copy()
    fresh.calc = ms.calculators.MDSens(LJ)
    assert_allclose(images[0].get_forces(), fresh.get_forces(), atol=1e-12)


def test_another_potential_is_used_at_once():
    atoms = argon()
    before = atoms.get_potential_energy()
    atoms.calc.potential = ms.replace_parameters(atoms.calc.potential, {"epsilon": 2 * 0.0104})
    # epsilon is the only energy of the form
    assert_allclose(atoms.get_potential_energy(), 2 * before, rtol=1e-14)


def test_a_cell_vector_taken_away_from_a_periodic_crystal_is_an_error():
    atoms = argon()
    atoms.get_forces()
    atoms.cell[2] = 0
    with pytest.raises(ms.errors.InputError, match="periodic along cell vector 3"):
        atoms.get_forces()


def test_the_numbers_are_those_of_energy_forces_stress():
    atoms = argon()
    energy, forces, stress = ms.energy_forces_stress(LJ, ms.Structure.from_ase(atoms))
    assert_allclose(atoms.get_potential_energy(), float(energy), rtol=1e-14)
    assert_allclose(atoms.get_forces(), forces, atol=1e-13)
    assert_allclose(atoms.get_stress(), to_voigt(stress), atol=1e-15)


def test_stress_and_energies_come_when_asked_for_and_then_at_once(monkeypatch):
    evaluated = []
    evaluate = calculators_ase._evaluate_with_slack
    monkeypatch.setattr(
        calculators_ase, "_evaluate_with_slack", lambda *a: evaluated.append(a[-1]) or evaluate(*a)
    )
    atoms = argon()
    atoms.get_forces()
    assert set(atoms.calc.results) == {"energy", "free_energy", "forces"}
    energies, stress = atoms.get_potential_energies(), atoms.get_stress()
    assert_allclose(energies.sum(), atoms.get_potential_energy(), rtol=1e-13)
    assert evaluated == [False, True]  # energies are no reason to form forces again
    atoms.positions += 0.1  # all of them: the same stress
    atoms.get_forces()
    assert {"stress", "energies"} < set(atoms.calc.results)
    assert_allclose(atoms.get_stress(), stress, atol=1e-13)
    atoms.positions[0] += 0.01  # the stress was asked for above, the energies were not
    atoms.get_forces()
    assert "stress" in atoms.calc.results and "energies" not in atoms.calc.results
    assert len(evaluated) == 4


def test_properties_that_are_always_wanted_are_always_there():
    atoms = argon()
    atoms.calc = ms.calculators.MDSens(LJ, properties=["stress", "energies"])
    for _ in range(3):
        atoms.positions[0] += 0.01
        atoms.get_potential_energy()
        assert {"stress", "energies"} < set(atoms.calc.results)
    with pytest.raises(ms.errors.InputError, match=r"properties has 'stresss'. Did you mean 'stress'\?"):
        ms.calculators.MDSens(LJ, properties="stresss")


def test_every_change_of_the_atoms_is_noticed():
    atoms = argon()
    atoms.get_forces()
    assert atoms.calc.check_state(atoms) == []
    for name, changed in (
        ("positions", lambda other: other.positions.__setitem__((0, 0), 0.1)),
        ("cell", lambda other: other.cell.__setitem__((0, 1), 1e-9)),
        ("pbc", lambda other: other.pbc.__setitem__(2, False)),
        ("numbers", lambda other: other.numbers.__setitem__(1, 36)),
        ("initial_charges", lambda other: other.set_initial_charges([0.1, 0, 0, 0])),
    ):
        other = atoms.copy()
        changed(other)
        assert atoms.calc.check_state(other) == [name]


def test_what_cannot_be_computed_is_an_error_each_time():
    atoms = argon()
    atoms.symbols[0] = "C"
    for _ in range(2):  # the second request finds ASE's copy of the atoms unchanged
        with pytest.raises(ms.errors.InputError, match="no parameters for C"):
            atoms.get_potential_energy()
    atoms = argon()
    atoms.get_forces()
    atoms.positions[3, 0] = np.nan
    with pytest.raises(ms.errors.NonFiniteError, match="atom 3"):
        atoms.get_forces()
    atoms = ase.Atoms("Ar2", [[0, 0, 0], [0, 0, 0]], cell=[20, 20, 20], calculator=ms.calculators.MDSens(LJ))
    with pytest.raises(ms.errors.NonFiniteError, match=r"atoms 0 \(Ar\) and 1 \(Ar\)"):
        atoms.get_potential_energy()


def test_wrong_arguments_are_refused():
    with pytest.raises(ms.errors.InputError, match="skin = -1"):
        ms.calculators.MDSens(SW, skin=-1.0)
    with pytest.raises(ms.errors.InputError, match="not float"):
        ms.calculators.MDSens(1.0)
    with pytest.raises(ms.errors.InputError, match="ar-lennard-jone"):
        ms.calculators.MDSens("ar-lennard-jone")
    with jax.enable_x64(False), pytest.raises(ms.errors.PrecisionError):
        ms.calculators.MDSens(SW)
    with pytest.raises(ms.errors.InputError, match="MDSens has no atoms yet"):
        ms.calculators.MDSens(SW).get_hessian()


def test_importing_mdsens_does_not_import_ase():
    code = (
        "import sys, mdsens as ms; assert 'ase' not in sys.modules; "
        "assert ms.calculators.MDSens.__name__ == 'MDSens'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_atom_far_away_does_not_kill_python():
    atoms = ase.Atoms("Ar3", [[0, 0, 0], [0, 0, 3.8], [1e6, 0, 0]], calculator=ms.calculators.MDSens(LJ))
    pair = atoms[:2]
    pair.calc = ms.calculators.MDSens(LJ)
    assert_allclose(atoms.get_potential_energy(), pair.get_potential_energy(), rtol=1e-12)
    run = ms.dynamics.nve(LJ, ms.Structure.from_ase(atoms), steps=1, record_every=1, temperature=10.0)
    assert np.isfinite(run.positions).all()


def test_charges_of_the_atoms_count_and_new_ones_are_noticed():
    atoms = ase.Atoms("NaCl", [[0.0, 0.0, 0.0], [2.5, 0.0, 0.0]])
    atoms.calc = ms.calculators.MDSens(ms.Ewald())
    for q in (1.0, 0.5):
        atoms.set_initial_charges([q, -q])
        assert_allclose(atoms.get_potential_energy(), -ms.units.COULOMB * q * q / 2.5, rtol=1e-14)
