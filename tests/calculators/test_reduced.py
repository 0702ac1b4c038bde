"""Reduced energies of mdsens potentials, of ASE and of OpenMM as functions that JAX can differentiate."""

import sys
from pathlib import Path

import ase
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.calculators.reduced import reduced_ase, reduced_openmm, reduced_potential
from mdsens.errors import InputError, NonFiniteError
from mdsens.neighbors import Capacity, find_neighbors
from mdsens.testing import central_difference
from mdsens.units import BOLTZMANN, KJ_PER_MOL, NM

DATA = Path(__file__).parents[2] / "data"
KT = BOLTZMANN * 300.0  # eV
BENT = np.array([[0.0, 0.0, 0.0], [2.6, 0.1, 0.0], [0.2, 2.5, 0.3], [0.1, 0.4, 2.7]])  # Å


def gold(calculator):
    atoms = ase.Atoms("Au4", BENT)
    atoms.calc = calculator
    return atoms


def test_constants_agree_with_each_other():
    # kB per mole is the gas constant 8.31446261815324 J/mol/K (exact); our kB and eV have ten digits
    assert_allclose(1e3 * BOLTZMANN / KJ_PER_MOL, 8.31446261815324, rtol=1e-9)


def test_energy_and_forces_are_those_of_ase():
    atoms = gold(EMT())
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    u = reduced_ase(atoms, 300.0)
    x = jnp.asarray(BENT / NM)
    assert_allclose(u(x), energy / KT, rtol=1e-14)
    # the same numbers, up to rounding of Å and nm
    for value, gradient in (jax.value_and_grad(u)(x), jax.jit(jax.value_and_grad(u))(x)):
        assert_allclose(value, energy / KT, rtol=1e-13)
        assert_allclose(gradient, -forces * NM / KT, rtol=1e-11, atol=1e-11)
    # many frames without JAX
    energies, host_forces = u.evaluate(np.asarray(x)[None])
    assert_allclose(energies, [energy / KT], rtol=1e-13)
    assert_allclose(host_forces[0], forces * NM / KT, rtol=1e-11, atol=1e-11)
    # forward mode, along one direction
    direction = jnp.asarray(np.random.default_rng(0).normal(size=x.shape))
    assert_allclose(jax.jvp(u, (x,), (direction,))[1], jnp.vdot(jax.grad(u)(x), direction), rtol=1e-13)


def test_precision_of_positions_is_that_of_the_energy():
    u = reduced_ase(gold(EMT()), 300.0)
    value, gradient = jax.value_and_grad(u)(jnp.asarray(BENT / NM, jnp.float32))
    assert value.dtype == gradient.dtype == jnp.float32


def test_second_derivatives_from_a_host_program_raise():
    u = reduced_ase(gold(EMT()), 300.0)
    x = jnp.asarray(BENT / NM)
    for second in (jax.hessian(u), jax.grad(lambda x: jnp.sum(jax.grad(u)(x) ** 2)), jax.jit(jax.hessian(u))):
        with pytest.raises(InputError, match="second derivatives"):
            second(x)


def test_constraints_and_atoms_are_left_alone():
    atoms = gold(EMT())
    forces = atoms.get_forces()
    atoms.set_constraint(FixAtoms([0, 1]))
    gradient = jax.grad(reduced_ase(atoms, 300.0))(jnp.asarray(BENT / NM))
    assert_allclose(gradient, -forces * NM / KT, rtol=1e-11, atol=1e-11)
    assert_allclose(atoms.positions, BENT, rtol=0)
    assert len(atoms.constraints) == 1


def test_a_potential_has_the_same_energy_here_and_in_ase():
    epsilon, sigma = 0.3, 2.4
    theirs = reduced_ase(gold(LennardJones(epsilon=epsilon, sigma=sigma, rc=50.0, smooth=False)), 300.0)
    ours = reduced_potential(
        ms.LennardJones(epsilon, sigma, elements=("Au",)), ms.Structure.create(BENT, ["Au"] * 4), 300.0
    )
    x = jnp.asarray(BENT / NM)
    value, gradient = jax.jit(jax.value_and_grad(ours))(x)
    # theirs is shifted to zero at 50 Å: by 4 epsilon (sigma / rc)⁶ = 1.5e-8 eV a pair
    assert_allclose(value, theirs(x), atol=6 * 2e-8 / KT)
    assert_allclose(gradient, jax.grad(theirs)(x), rtol=1e-11, atol=1e-10)
    assert jax.jit(ours)(x.astype(jnp.float32)).dtype == jnp.float32


def test_no_pair_is_missed_wherever_the_atoms_go():
    # a potential with a cutoff; built with the atoms far apart, used with them close together and in between
    potential = ms.load_potential("si-stillinger-weber-1985")
    apart = ms.Structure.create(100.0 * np.arange(15.0).reshape(5, 3), ["Si"] * 5)
    rng = np.random.default_rng(4)
    x = np.array(
        [[0.0, 0, 0], [2.3, 0, 0], [-0.7, 2.2, 0], [-0.7, -1.1, 1.9], [0.0, 0.3, -2.4]]
    ) + 0.1 * rng.normal(size=(5, 3))
    frames = np.stack([x, 1.5 * x, 20 * x])
    u = reduced_potential(potential, apart, 300.0)
    energies = jax.jit(jax.vmap(u))(jnp.asarray(frames / NM))
    for k, frame in enumerate(frames):
        structure = apart.at(jnp.asarray(frame))
        list_of_frame = find_neighbors(structure, float(potential.cutoff), capacity=Capacity(16, 8))
        assert_allclose(
            energies[k], ms.energy(potential, structure, list_of_frame) / KT, rtol=1e-12, atol=1e-12
        )
    assert abs(float(energies[0])) > 50  # bound by several kT, so the comparison is of something
    assert float(energies[2]) == 0.0


def test_a_potential_is_differentiable_by_its_parameters():
    u = reduced_potential(
        ms.Morse(0.5, 1.4, 2.6, elements=("Au",)), ms.Structure.create(BENT, ["Au"] * 4), 300.0
    )
    x = jnp.asarray(1.1 * BENT / NM)
    slopes = jax.jit(jax.grad(lambda potential: u(x, potential)))(u.potential)
    differences = central_difference(
        jax.jit(lambda potential: u(x, potential)), u.potential, step=1e-3, order=4
    )
    for name in ("D0", "alpha", "r0"):
        assert_allclose(getattr(slopes, name), getattr(differences, name), rtol=1e-8)
    assert_allclose(slopes.D0 * 0.5, u(x), rtol=1e-13)  # the energy is proportional to D0


class Odd(Calculator):
    """Energies that no calculator should have."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, energy):
        super().__init__()
        self.energy = energy

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": self.energy, "forces": np.full((len(self.atoms), 3), self.energy)}


def test_nan_energies_and_positions_raise():
    x = jnp.asarray(BENT / NM)
    u = reduced_ase(gold(Odd(np.nan)), 300.0)
    with pytest.raises(NonFiniteError, match=r"closest atoms 0 Au and 2 Au 2\.53 Å apart"):
        u(x)
    with pytest.raises(
        Exception, match="energy nan eV or a force is not finite in frame 0 of 1"
    ):  # JAX's own class
        jax.jit(u)(x)
    assert (
        float(reduced_ase(gold(Odd(np.inf)), 300.0)(x)) == np.inf
    )  # overlapping atoms: a frame without weight
    with pytest.raises(NonFiniteError, match="positions that are not finite"):
        jax.grad(reduced_ase(gold(EMT()), 300.0))(x.at[1, 1].set(jnp.nan))


@pytest.mark.parametrize("temperature", [0.0, -300.0, np.nan, np.inf, None])
def test_temperature_must_be_one(temperature):
    with pytest.raises(InputError, match="temperature"):
        reduced_ase(gold(EMT()), temperature)
    with pytest.raises(InputError, match="temperature"):
        reduced_potential(
            ms.LennardJones(0.3, 2.4, elements=("Au",)), ms.Structure.create(BENT, ["Au"] * 4), temperature
        )


def test_input_errors_say_what_to_do():
    potential, structure = ms.LennardJones(0.3, 2.4, elements=("Au",)), ms.Structure.create(BENT, ["Au"] * 4)
    with pytest.raises(InputError, match="have no calculator"):
        reduced_ase(ase.Atoms("Au4", BENT), 300.0)
    with pytest.raises(InputError, match="use reduced_potential"):
        reduced_ase(gold(ms.calculators.MDSens(potential)), 300.0)
    with pytest.raises(InputError, match="pbc=False"):
        reduced_potential(potential, ms.Structure.create(BENT, ["Au"] * 4, cell=[9.0, 9.0, 9.0]), 300.0)
    with pytest.raises(InputError, match="no parameters for Cu"):
        reduced_potential(potential, ms.Structure.create(BENT, ["Cu"] * 4), 300.0)
    with pytest.raises(InputError, match=r"shape \(3, 3\) for 4 atoms"):
        reduced_potential(potential, structure, 300.0)(jnp.zeros((3, 3)))
    with pytest.raises(InputError, match="one frame"):
        reduced_ase(gold(EMT()), 300.0)(jnp.zeros((5, 3)))


def test_without_openmm_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openmm", None)
    with pytest.raises(InputError, match="pip install openmm"):
        reduced_openmm(None, 300.0)


# --- OpenMM: alanine dipeptide, frames and numbers of data/alanine-dipeptide.h5
# ------------------------------------


@pytest.fixture(scope="module")
def peptide():
    app = pytest.importorskip("openmm.app", reason="OpenMM is not installed")
    pdb = app.PDBFile(str(DATA / "alanine-dipeptide.pdb"))
    field = app.ForceField("amber99sbildn.xml", "amber99_obc.xml")
    make = lambda **options: field.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, **options)
    return make, pdb


@pytest.fixture(scope="module")
def frames():
    with h5py.File(DATA / "alanine-dipeptide.h5") as file:
        return {
            name: np.asarray(file[name][::100], float) for name in ("positions", "potential_energy", "forces")
        }


@pytest.mark.peer
def test_openmm_energies_and_forces_are_those_stored(peptide, frames):
    u = reduced_openmm(peptide[0](constraints=None), 300.0)
    energies, gradients = jax.jit(jax.vmap(jax.value_and_grad(u)))(jnp.asarray(frames["positions"]))
    kT = KT / KJ_PER_MOL  # kJ/mol
    # Positions are stored in float32: half a unit in the last place of 0.5 nm is 3e-8 nm, for each of 66
    # coordinates. Times forces of 840 kJ/mol/nm (rms) that is 2e-4 kJ/mol; bonds of 3e5 kJ/mol/nm² make 1e-2
    # kJ/mol/nm of it, the largest of a thousand numbers four times as much.
    assert_allclose(kT * energies, frames["potential_energy"], atol=1e-3)
    assert_allclose(-kT * gradients, frames["forces"], atol=0.06)


@pytest.mark.peer
def test_openmm_contexts_and_simulations_are_taken_as_they_are(peptide, frames):
    import openmm

    make, pdb = peptide
    system = make(constraints=None)
    simulation = openmm.app.Simulation(
        pdb.topology, system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    x = jnp.asarray(frames["positions"][0])
    expected = float(reduced_openmm(system, 300.0)(x))
    for given in (simulation, simulation.context):
        assert float(reduced_openmm(given, 300.0)(x)) == expected
    assert_allclose(2 * reduced_openmm(system, 600.0)(x), expected, rtol=1e-14)


@pytest.mark.peer
def test_openmm_input_errors(peptide):
    import openmm

    make, pdb = peptide
    with pytest.raises(InputError, match="12 constraints"):
        reduced_openmm(make(constraints=openmm.app.HBonds), 300.0)
    with pytest.raises(InputError, match="no platform 'TPU'"):
        reduced_openmm(make(constraints=None), 300.0, platform="TPU")
    with pytest.raises(InputError, match="createSystem"):
        reduced_openmm(pdb.topology, 300.0)
    with pytest.raises(InputError, match="for 22 atoms"):
        reduced_openmm(make(constraints=None), 300.0)(jnp.zeros((21, 3)))
