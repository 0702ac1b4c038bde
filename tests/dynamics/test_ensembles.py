"""Chains of thermostats and moving cells: conservation, exact distributions, and what is refused."""

import dataclasses
from typing import ClassVar

import ase.build
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.dynamics import langevin, npt, nve, nvt_nose_hoover
from mdsens.dynamics.barostat import exponential
from mdsens.dynamics.freedom import count_freedom, without_rotation
from mdsens.errors import CellCollapseError, InputError, TimestepError
from mdsens.units import BOLTZMANN

pytest.importorskip("jax_md", reason="jax-md is not installed")

LJ = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=5.0, cut=ms.Smooth())
ARGON = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.3, cubic=True))
OPTIONS = dict(temperature=30.0, record_every=10, replicas=4, skin=1.0)
FULL = dict(cell="full", friction=0.002, barostat_time=1000.0, pressure=1e-3)
MANY, kT = 300, BOLTZMANN * 300.0


class CellSprings(eqx.Module):
    """Atoms that feel nothing, in a cell whose shape and size are on springs: exact averages are known."""

    uses_neighbors: ClassVar[bool] = False
    stiffness: Array  # eV
    edge: Array  # Å
    pull: Array | float = 0.0  # eV/Å², on each atom towards the origin

    @property
    def cutoff(self):
        return jnp.asarray(jnp.inf)

    def energy(self, structure, neighbors=None):
        metric = structure.cell @ structure.cell.T / self.edge**2
        return 0.5 * self.stiffness * jnp.sum((metric - jnp.eye(3)) ** 2) + 0.5 * self.pull * jnp.sum(
            structure.positions**2
        )


IDEAL = ms.Structure.create(
    np.array([[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [0, 0, 5]]), ["Ar"] * 4, cell=[10.0, 10.0, 10.0]
)


def free_gas(steps=1200, record_every=40, **options):
    """Records that have forgotten the start."""
    common = dict(temperature=300.0, timestep=4.0, friction=0.01, barostat_time=100.0, replicas=MANY)
    return npt(steps=steps, record_every=record_every, **(common | options))


@pytest.fixture(scope="module")
def gas():
    return free_gas(
        system=CellSprings(jnp.asarray(0.0), jnp.asarray(10.0)), positions=IDEAL, pressure=5 * kT / 1e3
    )


@pytest.fixture(scope="module")
def elastic():
    springs = CellSprings(jnp.asarray(1.0), jnp.asarray(10.0))
    return free_gas(system=springs, positions=IDEAL, cell="full", pressure=2 * kT / 1e3)


@pytest.mark.validation
def test_volumes_of_an_ideal_gas_have_their_gamma_distribution(gas):
    # exp(-P V / kT) V^N dV: mean (N + 1) kT / P and variance (N + 1) (kT / P)²
    volumes, unit = gas.volumes[10:], kT / gas.pressure
    n = 5
    independent = 5 * MANY  # of 20 records, correlated over about four
    assert_allclose(volumes.mean() / unit, n, rtol=4 / np.sqrt(n * independent))
    # the relative variance of a variance is 2 + 6 / (N + 1)
    assert_allclose(volumes.var() / unit**2, n, rtol=4 * np.sqrt((2 + 6 / n) / independent))


@pytest.mark.validation
def test_atoms_and_cell_share_energy_equally(gas, elastic):
    for run, strains in ((gas, 1), (elastic, 6)):
        assert run.freedom == 12
        settled = run.temperatures[10:]
        assert_allclose(settled.mean(), 300.0, rtol=4 * np.sqrt(2 / 12 / (10 * MANY)))
        assert_allclose(settled.std() / 300.0, np.sqrt(2 / 12), rtol=0.03)
        # W |g|² / 2 with W = (n + 3) kT time² / 3 has kT / 2 for each strain
        squares = (run.cell_velocity[10:] ** 2).sum((-2, -1)).mean() * 15 / 3 * 100.0**2
        # the integrator's own error is (w dt)² / 4 = 0.012 at w = sqrt(4 eV / W) = 0.055 / fs
        assert_allclose(squares, strains, rtol=4 * np.sqrt(2 / strains / (10 * MANY)) + 0.02)


@pytest.mark.validation
def test_pressure_is_that_asked_for_and_its_work_that_of_the_virial_identity(elastic):
    # In exp(-(E + P V) / kT) V dμ(h), an average of a derivative by a strain vanishes:
    #     <p_ij> = P 1,   <(p_ij - P 1) V> = -kT 1.
    pressures, volumes = elastic.pressures[10:], elastic.volumes[10:]
    off = pressures - elastic.pressure * np.eye(3)
    blocks = off.mean(0), (off * volumes[..., None, None]).mean(0)  # of each replica, independent
    for values, exact in zip(blocks, (0.0, -kT), strict=True):
        error = values.std(0) / np.sqrt(MANY)
        assert (np.abs(values.mean(0) - exact * np.eye(3)) < 4 * error + 0.01 * kT * (exact != 0)).all()
    # a cell that gives way by 10 % in every strain has seen them all
    lengths = np.linalg.norm(elastic.cell[10:], axis=-1)
    assert 0.02 < (lengths.std() / 10.0) < 0.2
    assert np.abs(elastic.cell[20:, :, 0, 1]).max() > 0.2


@pytest.mark.parametrize(
    ("move", "options", "tolerance"),
    [
        (nvt_nose_hoover, {"thermostat_time": 500.0}, 0.05),
        # noise of its own for each timestep: the average over replicas is left to chance
        (npt, FULL, 0.5),
        (langevin, {"friction": 0.002}, 0.5),
    ],
)
def test_each_ensemble_conserves_its_energy_to_the_square_of_the_timestep(move, options, tolerance):
    coarse, fine = (
        move(
            LJ,
            ARGON,
            timestep=dt,
            steps=round(3000 / dt),
            **(OPTIONS | options | {"record_every": round(50 / dt)}),
        )
        for dt in (10.0, 5.0)
    )
    # the next order is (w dt)² / 12, with w dt = 0.13 of argon's fastest phonon (2 THz) at 10 fs
    ratio = np.mean(coarse.drift().fluctuation) / np.mean(fine.drift().fluctuation)
    assert_allclose(ratio, 4, rtol=tolerance)
    assert np.mean(coarse.drift().fluctuation) < 3e-3  # kJ/mol, of 0.125 for kT / 2
    assert coarse.total.std(0).min() > 10 * coarse.conserved.std(0).max()  # energy alone goes to and fro


def opened_by_mdtraj(run, file):
    mdtraj = pytest.importorskip("mdtraj")
    run.write(file)
    read = mdtraj.load(str(file))
    # nm in float32, all replicas of a record before the next record
    assert_allclose(10 * read.xyz, run.positions.reshape(-1, *run.positions.shape[2:]), atol=1e-5)
    assert_allclose(1000 * read.unitcell_volumes, run.volumes.ravel(), rtol=1e-5)


def test_records_of_a_moving_cell_know_stress_and_cell_of_each_replica(tmp_path):
    run = npt(LJ, ARGON, timestep=10.0, steps=300, **(OPTIONS | FULL))
    assert run.cell.shape == run.stress.shape == (31, 4, 3, 3) and run.pressure == 1e-3
    for replica in (0, 3):
        last = run.structures(replica)[-1]
        assert_array_equal(last.cell, run.cell[-1, replica])
        energy, forces, stress = ms.energy_forces_stress(LJ, last)
        # sums over another list
        assert_allclose(run.potential[-1, replica], energy, rtol=1e-12)
        assert_allclose(run.forces[-1, replica], forces, atol=1e-12)
        assert_allclose(run.stress[-1, replica], stress, atol=1e-14)
    opened_by_mdtraj(run, tmp_path / "npt.h5")
    alone = run.of_replica(3)
    assert_array_equal(alone.volumes, run.volumes[:, 3])
    assert_array_equal(alone.pressures, run.pressures[:, 3])
    # a run that goes on has the cells, and their motion, of the last record
    rest = npt(LJ, run, timestep=10.0, steps=10, **(OPTIONS | FULL | {"seed": 1, "replicas": None}))
    assert_array_equal(rest.cell[0], run.cell[-1])
    assert_allclose(rest.cell_velocity[0], run.cell_velocity[-1], rtol=1e-14)
    assert rest.time[0] == run.time[-1]


def test_exponentials_of_matrices_are_those_of_scipy():
    import scipy.linalg

    rng = np.random.default_rng(0)
    for size in (1e-8, 1e-2, 1.0, 3.0):
        matrix = rng.normal(size=(3, 3))
        matrix = size * (matrix + matrix.T) / np.linalg.norm(matrix + matrix.T)
        assert_allclose(exponential(jnp.asarray(matrix)), scipy.linalg.expm(matrix), rtol=1e-13, atol=1e-13)


# --- degrees of freedom ---------------------------------------------------------------------------------


def test_coordinates_that_share_the_kinetic_energy_are_counted():
    rng = np.random.default_rng(0)
    masses, x = np.array([1.0, 2, 3, 4]), rng.normal(size=(1, 4, 3))
    moving = rng.normal(size=(1, 4, 3))
    resting = moving - np.average(moving, axis=1, weights=masses)[:, None]
    still = without_rotation(masses, x, resting)
    count = lambda v, fixed=None, pbc=(False,) * 3, x=x: count_freedom(masses, fixed, pbc, x, v)
    assert count(moving) == 12 and count(resting) == 9 and count(still) == 6
    assert count(still, pbc=(True, False, False)) == 9
    # in a plane: the center of mass rests in the two directions that nothing holds
    flat = np.zeros((4, 3), bool)
    flat[:, 2] = True
    assert count(resting * [1, 1, 0], flat) == 6 and count(moving * [1, 1, 0], flat) == 8
    one_held = np.zeros((4, 3), bool)
    one_held[0] = True
    assert count(resting * ~one_held, one_held) == 9
    # atoms in a line turn about two axes
    line = np.arange(4.0)[None, :, None] * np.ones(3)
    v = without_rotation(masses, line, resting)
    assert count(v, x=line) == 7
    assert_allclose(np.cross(line, masses[:, None] * v).sum(1), 0, atol=1e-12)
    assert count_freedom(masses[:1], None, (False,) * 3, x[:, :1], moving[:, :1]) == 3


def test_a_chain_of_thermostats_starts_a_cluster_without_rotation_and_keeps_it():
    cluster = ms.Structure.create(
        np.array([[0.0, 0, 0], [3.8, 0, 0], [1.9, 3.3, 0.2], [1.9, 1.1, 3.2]]), ["Ar"] * 4
    )
    run = nvt_nose_hoover(
        LJ, cluster, temperature=10.0, timestep=5.0, steps=200, record_every=10, thermostat_time=200.0
    )
    assert run.freedom == 6 and run.thermostat_time == 200.0
    p = run.masses[:, None] * run.velocities
    assert_allclose(np.cross(run.positions, p).sum(1), 0, atol=1e-13)
    assert run.drift().fluctuation < 1e-3 and run.stress is None
    with pytest.raises(InputError, match="these atoms have no cell, and so no volume"):
        _ = run.volumes
    with pytest.raises(InputError, match="the stress was not recorded"):
        _ = run.pressures


def test_velocities_of_a_plane_have_no_common_drift():
    flat = dataclasses.replace(ARGON, fixed=jnp.asarray(np.tile([False, False, True], (4, 1))))
    run = nve(LJ, flat, temperature=30.0, timestep=5.0, steps=10, record_every=10, replicas=4)
    assert_allclose(run.velocities.sum(2), 0, atol=1e-15)
    assert run.freedom == 6


# --- what is refused, and runs that go wrong -------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell": None}, r"cell = None: a pressure needs a cell that moves"),
        ({"cell": "hydrostatic"}, r"cell='hydrostatic' is unknown"),
        (
            {"positions": ms.Structure.create([[0.0, 0, 0], [3.8, 0, 0]], ["Ar"] * 2)},
            r"has no cell.*Give it one",
        ),
        (
            {"positions": dataclasses.replace(ARGON, pbc=(True, True, False))},
            r"not periodic \(cell vector c, .*\(True, True, False, False, False, True\)",
        ),
        (
            {"positions": dataclasses.replace(ARGON, fixed=ARGON.fixed.at[2].set(True))},
            r"atom 2 is held along x, and the cell moves",
        ),
        ({"temperature": None}, r"temperature = None: give one real number in K"),
        ({"temperature": 0.0}, r"temperature = 0.0: it must be finite and above 0"),
        ({"barostat_time": 0.0}, r"barostat_time = 0.0"),
        ({"friction": 0.0}, r"friction = 0.0"),
        ({"pressure": np.nan}, r"pressure = nan"),
        ({"note_every": -1.0}, r"note_every = -1.0"),
        ({"resume": True}, r"name output="),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_a_pressure_that_nothing_can_answer_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        npt(**({"system": LJ, "positions": ARGON, "steps": 10, "temperature": 30.0} | changes))


def test_a_slab_is_pressed_along_its_plane_alone_and_a_volume_is_needed():
    slab = dataclasses.replace(ARGON, pbc=(True, True, False), cell=ARGON.cell.at[2].set(0.0))
    plane = dict(cell=(True, True, False, False, False, True), temperature=30.0, timestep=5.0)
    with pytest.raises(InputError, match=r"acts on a volume, and the cell lacks a vector"):
        npt(LJ, slab, steps=10, pressure=1e-3, **plane)
    run = npt(LJ, slab, steps=40, barostat_time=200.0, **plane)
    assert (run.cell[:, 2] == 0).all() and (run.cell[:, :, 2] == 0).all()
    assert np.ptp(run.cell[:, 0, 0]) > 1e-3 and run.stress is None


def test_a_timestep_that_is_too_large_is_said():
    # springs of w = sqrt(k / m) = 0.049 / fs, and Verlet blows up from w dt = 2 on
    springs = CellSprings(jnp.asarray(0.0), jnp.asarray(10.0), jnp.asarray(10.0))
    options = dict(temperature=30.0, steps=60, record_every=1)
    assert len(nve(springs, IDEAL, timestep=10.0, **options).time) == 61
    with pytest.raises(TimestepError, match=r"steps of 42 fs are too large.* Take 21 fs or less") as caught:
        nve(springs, IDEAL, timestep=42.0, **options)
    assert len(caught.value.partial.time) > 1


def test_a_cell_that_evaporates_or_becomes_flat_is_said(gas):
    free = dict(system=CellSprings(jnp.asarray(0.0), jnp.asarray(10.0)), positions=IDEAL)
    with pytest.raises(CellCollapseError, match=r"times that of the start at step .*evaporates") as caught:
        free_gas(**free, pressure=0.05 * gas.pressure, steps=4000)
    assert len(caught.value.partial.time) > 1
    with pytest.raises(CellCollapseError, match=r"cell of replica \d+ has become flat .*resists no shear"):
        free_gas(**free, pressure=gas.pressure, cell="full", steps=4000)


def test_replicas_under_a_pressure_may_differ_in_their_cells():
    other = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.4, cubic=True))
    run = npt(
        LJ, [ARGON, other, ARGON, other], timestep=10.0, steps=10, **(OPTIONS | FULL | {"replicas": None})
    )
    assert_allclose(run.volumes[0], np.array([5.3, 5.4, 5.3, 5.4]) ** 3, rtol=1e-14)
    with pytest.raises(InputError, match="differ in more than positions"):
        nve(LJ, [ARGON, other], temperature=30.0, steps=10)
