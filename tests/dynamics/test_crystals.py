"""Molecular dynamics under potentials: periodic crystals, lists that run out, coordinates that are held."""

import dataclasses

import ase.build
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.dynamics import SinglePrecision, langevin, nve
from mdsens.dynamics.host import Simulation
from mdsens.errors import InputError, NonFiniteError
from mdsens.units import ACCELERATION, BOLTZMANN

pytest.importorskip("jax_md", reason="jax-md is not installed")

# forces are smooth up to the cutoff, so that Verlet's error is that of its formula
LJ = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=5.0, cut=ms.Smooth())
CRYSTAL = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True).repeat(2)  # 32 atoms
CHARGES = np.array([0.1, -0.1] * 16)
CRYSTAL.set_initial_charges(CHARGES)
CRYSTAL.set_array("radii", 2 * CHARGES)
ARGON = ms.Structure.from_ase(CRYSTAL, columns=["radii"])
SLAB_FIXED = np.array([[k < 8] * 3 for k in range(32)])


def hot(**options):
    """30 K, in steps of 10 fs."""
    return nve(
        LJ, ARGON, **({"temperature": 30.0, "timestep": 10.0, "steps": 200, "record_every": 10} | options)
    )


@pytest.fixture(scope="module")
def run():
    return hot(skin=0.4)


def test_a_run_whose_lists_are_renewed_equals_one_with_a_huge_skin(run, monkeypatch):
    lists = []
    search = Simulation._neighbors
    monkeypatch.setattr(Simulation, "_neighbors", lambda self, *a: lists.append(1) or search(self, *a))
    narrow, wide = hot(skin=0.4), hot(skin=3.0)
    assert len(lists) > 4  # one of them the wide one's
    # Sums in another order: 1e-16 of 1 Å a step, enlarged a hundredfold in 2 ps.
    assert_allclose(narrow.positions, wide.positions, rtol=0, atol=1e-11)
    assert_allclose(narrow.total, wide.total, rtol=1e-12)
    assert_allclose(narrow.positions, run.positions, rtol=0, atol=0)


def test_energy_of_a_crystal_is_conserved_to_the_square_of_the_timestep(run):
    fine = hot(skin=0.4, timestep=5.0, steps=400, record_every=20)
    assert_allclose(fine.time, run.time)
    # the next order is (w dt)² / 12, with w dt = 0.13 of argon's fastest phonon (2 THz) at 10 fs
    assert_allclose(run.drift().fluctuation / fine.drift().fluctuation, 4, rtol=0.05)
    assert run.drift().fluctuation < 1e-3


def test_total_momentum_is_conserved_and_records_know_cell_charges_and_forces(run):
    momentum = (run.masses[:, None] * run.velocities).sum(1)
    assert_allclose(momentum, 0, atol=1e-13)
    assert_allclose(run.temperatures[0], 30.0, rtol=0.3)  # of 93 coordinates: relative width sqrt(2 / 93)
    assert run.pbc == (True, True, True) and np.array_equal(run.cell, ARGON.cell)
    last = run.structures()[-1]
    assert last.pbc == ARGON.pbc and np.array_equal(last.cell, ARGON.cell)
    assert np.array_equal(last.charges, CHARGES)
    assert np.array_equal(last.columns["radii"], 2 * CHARGES)
    energy, forces, _ = ms.energy_forces_stress(LJ, last)
    # the same sums in another order
    assert_allclose(run.potential[-1], energy, rtol=1e-12)
    assert_allclose(run.forces[-1], forces, atol=1e-13)


def test_replicas_of_one_structure_are_runs_of_their_own(run):
    many = hot(skin=0.4, replicas=2)
    assert many.positions.shape == (21, 2, 32, 3)
    # compiled for another number of replicas: rounding
    assert_allclose(many.positions[:, 0], run.positions, atol=1e-11)
    assert np.abs(many.positions[-1, 1] - run.positions[-1]).max() > 0.1
    listed = nve(LJ, [ARGON, ARGON], steps=1, record_every=1, temperature=30.0)
    assert listed.positions.shape == (2, 2, 32, 3)


def test_velocities_make_a_temperature_unnecessary(run):
    again = hot(velocities=run.velocities[0], temperature=None, skin=0.4)
    assert again.temperature is None
    # velocities were momenta over masses: rounding, enlarged a hundredfold in 2 ps
    assert_allclose(again.positions, run.positions, rtol=0, atol=1e-11)
    with pytest.raises(InputError, match=r"give temperature= in K, or velocities="):
        hot(temperature=None)


@pytest.mark.parametrize("move", [nve, langevin])
def test_held_coordinates_stay_and_carry_no_kinetic_energy(move):
    slab = dataclasses.replace(ARGON, fixed=jnp.asarray(SLAB_FIXED))
    held = move(LJ, slab, steps=60, record_every=20, timestep=10.0, temperature=30.0)
    assert np.array_equal(held.positions[:, :8], np.tile(ARGON.positions[:8], (4, 1, 1)))
    assert np.abs(held.positions[-1, 8:] - ARGON.positions[8:]).max() > 0.1
    assert (held.velocities[:, :8] == 0).all() and held.freedom == 72
    assert_allclose(held.temperatures, 2 * held.kinetic / (72 * BOLTZMANN), rtol=1e-14)
    assert np.asarray(held.structures()[-1].fixed)[:8].all()
    if move is nve:
        # (w dt)² / 8 with w dt = 0.13, between two records of the oscillation
        assert np.ptp(held.total) < 2e-3 * held.kinetic[0]
    with pytest.raises(InputError, match=r"atom 0 is fixed and has the velocity"):
        nve(LJ, slab, steps=1, record_every=1, velocities=np.full((32, 3), 0.001))


def test_a_bath_warms_a_crystal_to_its_temperature():
    warm = langevin(
        LJ, ARGON, steps=600, record_every=20, timestep=10.0, temperature=30.0, friction=0.01, replicas=4
    )
    # 20 records x 4 replicas x 96 velocities; correlated over 100 fs, half the time between records
    v2 = (warm.velocities[11:] ** 2).mean() * warm.masses[0] / ACCELERATION
    assert_allclose(v2, BOLTZMANN * 30.0, rtol=4 * np.sqrt(2 / (20 * 4 * 96)) + 0.01)


def test_a_list_that_one_step_uses_up_gets_a_wider_skin_and_atoms_that_fly_apart_are_said():
    assert_allclose(hot(skin=1e-4, steps=20).positions, hot(skin=3.0, steps=20).positions, atol=1e-12)
    v = np.zeros((32, 3))
    v[3, 0] = 2.0  # Å/fs: 20 Å a step
    with pytest.raises(NonFiniteError, match=r"atom 3 moves 20 Å in a step of 10 fs") as caught:
        hot(velocities=v)
    assert len(caught.value.partial.time) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positions": CRYSTAL}, r"not Atoms: give Structure.create.*Structure.from_ase"),
        ({"positions": np.asarray(ARGON.positions)}, r"mdsens.Structure"),
        ({"positions": [ARGON, ms.Structure.from_ase(CRYSTAL * (1, 1, 2))]}, r"structures 0 and 1 differ"),
        ({"positions": dataclasses.replace(ARGON, species=ARGON.species + 1)}, r"no parameters for K"),
        ({"skin": 0.0}, r"skin = 0.0"),
        ({"replicas": 0}, r"replicas = 0"),
        ({"steps": 10.0}, r"steps = 10.0: give a whole number"),
        (
            {"positions": dataclasses.replace(ARGON, positions=ARGON.positions.at[1].set(ARGON.cell[0]))},
            r"atoms 0 and 1 are 0 Å apart",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_moved_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        nve(**({"system": LJ, "positions": ARGON, "steps": 10, "temperature": 30.0} | arguments))


def test_a_reduced_potential_moves_as_the_potential_does():
    x = np.array([[0.0, 0, 0], [3.8, 0, 0], [1.9, 3.3, 0.2]])
    cluster = ms.Structure.create(x, ["Ar"] * 3)
    far = ms.LennardJones(0.0104, 3.405, elements=("Ar",))  # no cutoff
    options = {"steps": 100, "timestep": 10.0, "temperature": 30.0}
    direct = nve(far, cluster, **options)
    reduced = nve(ms.calculators.reduced_potential(far, cluster, 300.0), x, **options)
    # units of kT and nm in between: rounding
    assert_allclose(reduced.positions, direct.positions, atol=1e-11)
    assert_allclose(reduced.potential, direct.potential, rtol=1e-12)
    assert direct.cell is None and reduced.species == (18, 18, 18)


def test_forces_in_float32_leave_the_run_and_its_conserved_energy_as_they_are(run):
    rounded = nve(
        SinglePrecision(LJ),
        ARGON,
        velocities=run.velocities[0],
        timestep=10.0,
        steps=200,
        record_every=10,
        skin=0.4,
    )
    assert rounded.positions.dtype == rounded.potential.dtype == np.float64
    # float32 rounds positions of 10 Å by 5e-7 Å, where the curvature is below 1 eV/Å²
    difference = np.abs(rounded.forces[0] - run.forces[0]).max()
    assert 0 < difference < 1e-6
    # that noise, over 2 ps in which errors grow a hundredfold
    assert_allclose(rounded.positions, run.positions, rtol=0, atol=1e-2)
    # the energy of Verlet's own error, and 1e-7 of 2.6 eV
    assert_allclose(np.ptp(rounded.total), np.ptp(run.total), rtol=0.05, atol=2e-6)
    assert_allclose(rounded.stress[0], run.stress[0], atol=1e-8)


def test_float32_is_for_potentials_that_compute_in_it():
    with pytest.raises(InputError, match=r"must be a Potential, not int"):
        SinglePrecision(3)
    with pytest.raises(InputError, match="no parameters for K"):
        other = dataclasses.replace(ARGON, species=ARGON.species + 1)
        nve(SinglePrecision(LJ), other, steps=10, temperature=30.0)

    class Stubborn(ms.LennardJones):
        def energy(self, structure, neighbors):
            return super().energy(structure, neighbors).astype(jnp.float64)

    stubborn = Stubborn(0.0104, 3.405, elements=("Ar",), cutoff_radius=5.0, cut=ms.Smooth())
    with pytest.raises(InputError, match=r"Stubborn computes in float64 whatever it is given"):
        nve(SinglePrecision(stubborn), ARGON, steps=10, temperature=30.0)
