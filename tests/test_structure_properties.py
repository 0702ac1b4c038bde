"""Structures on random cells: repeated, deformed, turned and handed to ASE, against arithmetic by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from ase.constraints import FixAtoms, FixCartesian
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.constraints import held_axes_of
from mdsens.errors import InputError
from mdsens.structure import complete_cell

NUMBERS = st.floats(-5, 5)
N = 3


@st.composite
def structures(draw, pbc=None):
    cell = np.diag(draw(arrays(float, 3, elements=st.floats(3, 9)))) + np.tril(
        draw(arrays(float, (3, 3), elements=st.floats(-1, 1))), -1
    )
    positions = draw(arrays(float, (N, 3), elements=NUMBERS))
    species = draw(st.lists(st.integers(1, 94), min_size=N, max_size=N))
    masses = draw(arrays(float, N, elements=st.floats(1, 200)))
    fixed = draw(arrays(bool, (N, 3)))
    periodic = tuple(draw(st.tuples(*[st.booleans()] * 3))) if pbc is None else pbc
    return ms.Structure.create(positions, species, cell, periodic, masses, fixed)


PERIODIC = structures((True, True, True))
TIMES = st.tuples(*[st.integers(1, 3)] * 3)


@given(PERIODIC, TIMES)
def test_a_repeated_cell_has_so_many_times_everything(structure, times):
    repeated, copies = structure.repeat(times), int(np.prod(times))
    assert repeated.n_atoms == copies * N
    assert_allclose(ms.volume(repeated), copies * ms.volume(structure), rtol=1e-12)
    assert_allclose(repeated.masses.sum(), copies * structure.masses.sum(), rtol=1e-12)
    assert repeated.symbols == structure.symbols * copies
    assert_array_equal(repeated.fixed, np.tile(structure.fixed, (copies, 1)))
    # every copy lies a whole number of cell vectors away
    shifts = (np.asarray(repeated.positions).reshape(copies, N, 3) - structure.positions) @ np.linalg.inv(
        np.asarray(structure.cell)
    )
    assert_allclose(shifts, np.round(shifts), atol=1e-9)
    assert len(np.unique(np.round(shifts[:, 0]), axis=0)) == copies


@given(PERIODIC, st.integers(1, 2), st.integers(1, 2))
def test_repeating_twice_is_repeating_by_the_product(structure, one, other):
    twice = structure.repeat(one).repeat(other)
    at_once = structure.repeat(one * other)
    assert_allclose(twice.cell, at_once.cell, rtol=1e-13)
    order = [np.lexsort(np.round(np.asarray(s.positions), 6).T) for s in (twice, at_once)]
    assert_allclose(twice.positions[order[0]], at_once.positions[order[1]], atol=1e-5)


@given(structures(), arrays(float, (3, 3), elements=st.floats(-0.2, 0.2)))
def test_deformed_cells_keep_fractional_coordinates(structure, strain):
    deformation = np.eye(3) + strain
    deformed = structure.deformed(jnp.asarray(deformation))
    cell = np.asarray(structure.cell)
    assert_allclose(
        np.asarray(deformed.positions) @ np.linalg.inv(np.asarray(deformed.cell)),
        np.asarray(structure.positions) @ np.linalg.inv(cell),
        atol=1e-9,
    )
    assert_allclose(
        ms.volume(deformed), float(ms.volume(structure)) * abs(np.linalg.det(deformation)), rtol=1e-9
    )
    for name in ("species", "masses", "fixed"):
        assert_array_equal(getattr(deformed, name), getattr(structure, name))


@given(structures())
def test_ase_gets_everything_and_gives_it_back(structure):
    atoms = structure.to_ase()
    assert_array_equal(atoms.positions, structure.positions)
    assert_array_equal(atoms.cell.array, structure.cell)
    assert tuple(bool(along) for along in atoms.pbc) == structure.pbc
    back = ms.Structure.from_ase(atoms)
    for name in ("positions", "cell", "species", "masses", "fixed"):
        assert_array_equal(getattr(back, name), getattr(structure, name))


@given(arrays(bool, (N, 3)))
def test_constraints_of_ase_hold_what_is_fixed(fixed):
    structure = ms.Structure.create(np.eye(3), ["Ar"] * 3, fixed=fixed)
    atoms = structure.to_ase()
    forces = np.ones((3, 3))
    for constraint in atoms.constraints:
        assert isinstance(constraint, (FixAtoms, FixCartesian))
        constraint.adjust_forces(atoms, forces)
    assert_array_equal(forces == 0, fixed)


@given(st.lists(st.booleans(), min_size=3, max_size=3), st.floats(2, 9), st.floats(2, 9), st.floats(2, 9))
def test_a_structure_is_periodic_where_it_has_vectors(along, a, b, c):
    cell = np.diag([a, b, c]) * np.array(along)[:, None]
    structure = ms.Structure.create([[0.0, 0, 0]], ["Ar"], cell)
    assert structure.pbc == tuple(along)
    assert (float(ms.volume(structure)) > 0) == all(along)


@pytest.mark.parametrize("axis", range(3))
def test_a_direction_without_a_vector_cannot_be_periodic(axis):
    cell = np.diag([4.0, 5.0, 6.0])
    cell[axis] = 0
    pbc = [False] * 3
    pbc[axis] = True
    with pytest.raises(InputError, match=f"periodic along cell vector {axis + 1}, but that vector is zero"):
        ms.Structure.create([[0.0, 0, 0]], ["Ar"], cell, pbc)


@given(st.lists(st.booleans(), min_size=3, max_size=3), st.floats(2, 9), st.floats(2, 9), st.floats(2, 9))
def test_missing_vectors_are_filled_up_to_a_cell_that_can_be_inverted(along, a, b, c):
    cell = np.diag([a, b, c]) * np.array(along)[:, None]
    complete = complete_cell(cell)
    assert abs(np.linalg.det(complete)) > 1e-6
    assert_array_equal(complete[np.array(along)], cell[np.array(along)])


@given(arrays(bool, 3), st.permutations(range(3)))
def test_in_a_cell_along_the_axes_fractions_are_coordinates(mask, order):
    cell = np.diag([3.0, 4.0, 5.0])[list(order)]
    held = held_axes_of(mask, cell)
    expected = np.zeros(3, bool)
    for k, axis in enumerate(order):
        expected[axis] = mask[k]
    assert_array_equal(held, expected)


@pytest.mark.parametrize("mask", [[True, False, False], [False, True, False]])
def test_in_a_skew_cell_some_fractions_are_no_coordinates(mask):
    skew = np.array([[3.0, 0, 0], [1.0, 3.0, 0], [1.0, 1.0, 3.0]])
    assert held_axes_of(np.array(mask), skew) is None
    # the moves that stay free span x, or x and y
    assert_array_equal(held_axes_of(np.array([False, True, True]), skew), [False, True, True])
    assert_array_equal(held_axes_of(np.array([False, False, True]), skew), [False, False, True])
