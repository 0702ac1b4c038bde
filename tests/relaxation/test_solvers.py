"""All ways downhill lead to the same minimum, and say so when they did not get there."""

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from numpy.testing import assert_allclose
from states import cluster

import mdsens as ms


def shaken(size: float) -> tuple[ms.Potential, ms.Structure]:
    """The cluster, its atoms moved by about `size` Å from the minimum."""
    potential, start = cluster()
    return potential, start.at(start.positions + size * np.random.default_rng(2).normal(size=(13, 3)))


# --- solvers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "fmax"),
    [
        (ms.FIRE(), 1e-8),
        (ms.LBFGS(), 1e-8),
        (ms.LBFGS(preconditioned=False), 1e-8),
        (ms.NewtonCG(), 1e-10),
        (ms.DampedNewton(), 1e-10),
        (ms.AutoRelaxer(), 1e-10),
        (ms.AutoRelaxer(robust=ms.JaxMDFIRE(dt_start=0.01, dt_max=0.05), switch=1e-2), 1e-10),
    ],
    ids=["fire", "lbfgs", "bare lbfgs", "newton-cg", "damped newton", "auto", "jax-md fire, then newton-cg"],
)
def test_every_solver_finds_the_minimum_of_the_cluster(solver, fmax):
    potential, start = shaken(0.06)
    relaxed = ms.relax(potential, start, solver=solver, fmax=fmax)
    assert relaxed.status is ms.Status.CONVERGED and float(relaxed.fmax) <= fmax
    case = references.table("lennard_jones")["lj13-binary-cluster"]
    # the energy is off by F² / (2 curvature), 1e-18: what is left is rounding
    assert_allclose(relaxed.energy, case["values"]["energy"]["value"], rtol=0, atol=1e-11)
    # nothing of the walk shifts a cluster: forces sum to zero
    assert_allclose(
        jnp.mean(relaxed.structure.positions, axis=0), jnp.mean(start.positions, axis=0), atol=1e-12
    )


def test_newton_needs_few_steps_near_the_minimum():
    relaxed = ms.relax(*shaken(0.01), solver=ms.NewtonCG(), fmax=1e-11)
    assert int(relaxed.steps) <= 8  # quadratic: the number of right digits doubles


def test_stopping_early_is_an_error_that_holds_what_was_reached():
    potential, start = shaken(0.06)
    message = r"stopped after max_steps, after 2 steps: the force on atom \d+ \((Ar|Kr)\) is"
    with pytest.raises(ms.errors.NotConvergedError, match=message) as caught:
        ms.relax(potential, start, max_steps=2)
    assert "above fmax = 1.0e-08 eV/Å. Raise max_steps (now 2)" in str(caught.value)
    partial = caught.value.partial
    assert isinstance(partial, ms.Relaxed) and int(partial.steps) == 2
    quiet = ms.relax(potential, start, max_steps=2, throw=False)
    assert quiet.status is ms.Status.MAX_STEPS and float(quiet.fmax) > 1e-8
    assert_allclose(quiet.structure.positions, partial.structure.positions, atol=0)
    with pytest.raises(ms.errors.NotConvergedError):  # while differentiating too
        jax.grad(lambda p: ms.relax(p, start, max_steps=2).energy)(potential)


def test_a_tolerance_below_rounding_ends_without_a_step_downhill():
    potential, start = cluster()
    with pytest.raises(ms.errors.NotConvergedError, match=r"no step lowers the energy.*accept a larger fmax"):
        ms.relax(potential, start, fmax=1e-30, solver=ms.NewtonCG())


# --- stationary states that are no minima, and one that is
# ------------------------------------------------------------------


def raft() -> tuple[ms.Potential, ms.Structure]:
    """The atoms of the cluster in a plane, free to leave it.

    No force points out of it, and no atom wants to stay.
    """
    potential, start = cluster()
    flat = np.array([[1.1 * i + 0.55 * j, 0.95 * j, 0.3] for i in range(4) for j in range(4)][:13])
    flat[:, :2] += np.random.default_rng(3).normal(size=(13, 2)) * 0.03
    return potential, start.at(jnp.asarray(flat))


def test_a_state_held_by_symmetry_alone_is_refused():
    potential, start = raft()
    with pytest.raises(
        ms.errors.SaddlePointError, match=r"curvature along one mode is -.*displaced along it"
    ) as caught:
        ms.relax(potential, start)
    saddle = caught.value.partial
    assert float(saddle.fmax) < 1e-8
    assert_allclose(saddle.structure.positions[:, 2], 0.3, atol=1e-12)
    with pytest.raises(ms.errors.SaddlePointError):
        jax.grad(lambda p: ms.relax(p, start).energy)(potential)
    assert ms.relax(potential, start, throw=False).status is ms.Status.SADDLE
    assert ms.relax(potential, start, check_minimum=False).status is ms.Status.CONVERGED
    # displaced along the mode, as the message says, it folds up
    pushed = start.at(saddle.structure.positions + 0.1 * jnp.asarray(ms.certify(saddle).mode))
    assert float(ms.relax(potential, pushed).energy) < float(saddle.energy) - 1.0


def test_the_ideal_silicon_vacancy_is_a_minimum_of_its_own():
    # Its forces vanish by symmetry, but unlike most such states it is stable: the lowest curvature is 1.71
    # eV/Å². The deeper minimum, four neighbors drawn in, is the one in the tables.
    case = references.table("stillinger_weber")["sw-si-vacancy-63"]
    atoms = ase.build.bulk(
        "Si", cubic=True, a=case["values"]["zero_pressure"]["lattice_constant"]["value"]
    ) * (2, 2, 2)
    del atoms[0]
    relaxed = ms.relax(references.potential(case), ms.Structure.from_ase(atoms))
    assert int(relaxed.steps) == 0
    per_atom = -2 * 2.1683  # four half bonds of depth epsilon
    assert_allclose(relaxed.energy - 63 * per_atom, 2 * 2.1683, rtol=1e-8)  # four broken half bonds
    assert relaxed.energy > case["values"]["fixed_cell"]["energy"]["value"] + 1
    assert_allclose(ms.certify(relaxed).lowest_curvature, 1.7118, atol=1e-4)


# --- what is held ---------------------------------------------------------------------------------


def test_a_plane_of_atoms_stays_a_plane_with_z_fixed():
    potential, start = raft()
    held = ms.Structure.create(start.positions, start.symbols, fixed=np.tile([False, False, True], (13, 1)))
    relaxed = ms.relax(potential, held, fmax=1e-10)
    assert_allclose(relaxed.structure.positions[:, 2], 0.3, atol=0)
    assert np.abs(relaxed.forces[:, :2]).max() < 1e-10
    J = jax.jacfwd(lambda p: ms.relax(p, held, fmax=1e-10).structure.positions)(potential)
    x = relaxed.structure.positions
    # in the plane, the cluster grows as it does in space; shifts and the turn in the plane are in the gauge
    growth = sum(np.asarray(J.sigma)[:, :, k] * potential.sigma[k] for k in range(3))
    assert_allclose(growth, (x - jnp.mean(x, axis=0)).at[:, 2].set(0.0), atol=1e-8)


def test_constraints_of_ase_are_kept():
    potential, start = cluster()
    atoms = Atoms(start.symbols, np.asarray(start.positions) * 1.02)
    atoms.set_constraint([FixAtoms([0, 4]), FixCartesian([7], (True, False, False))])
    relaxed = ms.relax(potential, ms.Structure.from_ase(atoms), fmax=1e-9)
    x = np.asarray(relaxed.structure.positions)
    assert_allclose(x[[0, 4]], atoms.positions[[0, 4]], atol=0)
    assert x[7, 0] == atoms.positions[7, 0] and x[7, 1] != atoms.positions[7, 1]
    forces = np.asarray(relaxed.forces)
    assert np.abs(forces[[0, 4]]).max() > 1e-3  # held, not at rest
    assert np.abs(np.delete(forces, [0, 4, 7], axis=0)).max() < 1e-9
