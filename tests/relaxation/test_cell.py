"""Cells relaxed to a load: what is free comes to the target, what is held stays, exactly."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from states import SHEAR, copper

import mdsens as ms
from mdsens.strain import to_voigt

MASK = (True, False, True, False, True, False)  # xx, zz, xz free


def strain(relaxed, start):
    """Voigt strain between two cells, and its antisymmetric rest."""
    F = np.linalg.solve(np.asarray(start.cell), np.asarray(relaxed.structure.cell))
    e = (F + F.T) / 2 - np.eye(3)
    return np.array([e[0, 0], e[1, 1], e[2, 2], 2 * e[1, 2], 2 * e[0, 2], 2 * e[0, 1]]), np.abs(F - F.T).max()


def test_a_free_cell_takes_on_the_stress_it_is_given_and_does_not_turn():
    potential, start = copper()
    relaxed = ms.relax(potential, start, cell="full", stress=SHEAR, fmax=1e-10)
    assert_allclose(to_voigt(relaxed.stress), SHEAR, rtol=0, atol=1e-12)
    assert np.abs(relaxed.forces).max() < 1e-10 and float(relaxed.stress_error) < 1e-11
    assert strain(relaxed, start)[1] < 1e-15
    # a few steps, not hundreds: the walk knows the work of a stress that has no energy
    assert int(relaxed.steps) < 60


def test_a_pressure_is_a_stress_with_a_minus_sign():
    potential, start = copper()
    pressed = ms.relax(potential, start, cell="full", pressure=0.02, fmax=1e-10)
    stressed = ms.relax(potential, start, cell="full", stress=[-0.02] * 3 + [0.0] * 3, fmax=1e-10)
    assert_allclose(pressed.stress, -0.02 * np.eye(3), rtol=0, atol=1e-12)
    assert_allclose(stressed.structure.cell, pressed.structure.cell, rtol=0, atol=1e-9)
    assert float(ms.volume(pressed.structure)) < float(
        ms.volume(ms.relax(potential, start, cell="full", fmax=1e-10).structure)
    )


def test_a_mask_frees_its_strains_and_no_other():
    potential, start = copper()
    start = start.deformed(
        jnp.eye(3) + 0.02 * jnp.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    )  # xy stays, xz goes
    relaxed = ms.relax(potential, start, cell=MASK, pressure=0.01, fmax=1e-10)
    free, held = np.array(MASK), ~np.array(MASK)
    moved, turned = strain(relaxed, start)
    assert_allclose(moved[held], 0, atol=1e-15)
    assert np.abs(moved[free]).min() > 1e-4 and turned < 1e-15
    # the work of the free strains vanishes, which is the stress up to the strain of a few percent
    off = to_voigt(relaxed.stress + 0.01 * np.eye(3))
    assert np.abs(off[free]).max() < 0.05 * np.abs(off[held]).max()


def test_fixed_coordinates_follow_the_cell():
    potential, start = copper()
    fixed = np.zeros((4, 3), bool)
    fixed[[1, 2]] = True
    held = ms.Structure.create(start.positions, start.symbols, start.cell, fixed=fixed)
    relaxed = ms.relax(potential, held, cell=MASK, pressure=0.01, fmax=1e-10)
    inside = lambda s: np.asarray(s.positions) @ np.linalg.inv(np.asarray(s.cell))
    assert_allclose(inside(relaxed.structure)[[1, 2]], inside(held)[[1, 2]], atol=1e-14)
    assert np.abs(inside(relaxed.structure) - inside(held))[[0, 3]].max() > 1e-4


def test_a_held_cell_is_held_exactly():
    potential, start = copper()
    relaxed = ms.relax(potential, start, fmax=1e-10)
    assert_allclose(relaxed.structure.cell, start.cell, rtol=0, atol=0)
    assert jnp.max(jnp.abs(relaxed.stress)) > 1e-3  # and so it stands under stress


def test_relaxing_again_from_the_end_takes_no_step():
    # the reference of the strain is the start: another start, another vector of unknowns, the same state
    potential, start = copper()
    first = ms.relax(potential, start, cell="full", stress=SHEAR, fmax=1e-10)
    again = ms.relax(potential, first.structure, cell="full", stress=SHEAR, fmax=1e-8)
    assert int(again.steps) == 0
    assert_allclose(again.structure.cell, first.structure.cell, rtol=0, atol=1e-14)


def test_a_cell_that_runs_away_is_stopped_with_advice():
    potential, start = copper()
    with pytest.raises(
        ms.errors.CellCollapseError,
        match=r"reached 5\.00 times .*\(allowed 0\.2 to 5\.0\).*check the sign of pressure",
    ):
        ms.relax(potential, start, cell=MASK, pressure=-0.5)
