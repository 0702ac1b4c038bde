"""Atoms by number: numbers that cannot be meant, nearest images in any cell, and where they are not clear."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.potentials.indices import (
    Indices,
    check_atoms,
    check_images,
    half_thickness,
    nearest_vectors,
    require_kinds,
    require_table,
)

CELLS = {
    "cubic": 9.0 * np.eye(3),
    "hexagonal": np.array([[8.0, 0, 0], [-4.0, 4 * np.sqrt(3), 0], [0, 0, 12.0]]),
    "primitive fcc": 6.0 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]),
}


# --- numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [[-1, 0], [0.5], "abc", [[0, 1], [2]], [True, False], None])
def test_what_is_no_whole_number_of_zero_or_more_is_refused(values):
    with pytest.raises(InputError, match="give whole numbers, 0 or more, which count atoms or types"):
        Indices(values)


def test_equal_numbers_are_equal_in_any_form_and_shapes_make_a_difference():
    one = Indices([[0, 1], [1, 2]])
    assert one == Indices(np.array([[0, 1], [1, 2]], np.uint8)) == Indices.of(one)
    assert hash(one) == hash(Indices(jnp.array([[0, 1], [1, 2]])))
    assert one != Indices([0, 1, 1, 2]) and one != Indices([[0, 1], [1, 3]]) and one != [[0, 1], [1, 2]]
    assert Indices.of(one) is one
    assert len(one) == 2 and len(Indices([])) == 0
    with pytest.raises(ValueError, match="read-only"):
        one.array[0, 0] = 5


def test_rows_have_so_many_different_atoms():
    require_table("atoms", Indices([[0, 1], [2, 1]]), 2)
    require_table("atoms", Indices([]), 4)
    with pytest.raises(InputError, match=r"atoms have shape \(2, 2\): give 3 atoms in each row"):
        require_table("atoms", Indices([[0, 1], [2, 1]]), 3)
    with pytest.raises(InputError, match=r"atoms, row 1: \[2, 0, 2\] names an atom twice"):
        require_table("atoms", Indices([[0, 1, 2], [2, 0, 2]]), 3)


@pytest.mark.parametrize(
    ("kind", "types", "message"),
    [
        ([0, 1], ("a", "b"), r"kind has shape \(2,\): give the type of each of the 3 bonds"),
        ([0, 1, 2], ("a", "b"), "kind counts to 2, and there are 2 types: 0 is the first"),
        ([0, 1, 0], ("a", "a"), "types: 'a' stands twice"),
    ],
)
def test_types_are_those_that_there_are(kind, types, message):
    require_kinds("kind", Indices([0, 1, 1]), 3, ("a", "b"), "bonds")
    with pytest.raises(InputError, match=message):
        require_kinds("kind", Indices(kind), 3, types, "bonds")


def test_a_molecule_with_too_few_atoms_is_another_one():
    pair = ms.Structure.create([[0.0, 0, 0], [1.0, 0, 0]], ["H", "H"])
    check_atoms("HarmonicBonds", np.array([[0, 1]]), pair)
    with pytest.raises(InputError, match="HarmonicBonds names atom 2, and the structure has atoms 0 to 1"):
        check_atoms("HarmonicBonds", np.array([[0, 2]]), pair)


# --- images ---------------------------------------------------------------------------------------------


def two(cell, pbc, d):
    first = np.array([0.3, 0.2, 0.1])
    return ms.Structure.create(np.array([first, first + d]), ["C", "O"], cell, pbc)


PAIRS = np.array([[0, 1], [1, 0]])


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, False, True)])
def test_what_is_nearer_than_half_the_thickness_is_found_in_any_image(name, pbc):
    cell, random = CELLS[name], np.random.default_rng(1)
    for _ in range(10):
        d = random.normal(size=3)
        d *= random.uniform(0.1, 0.95) * float(half_thickness(two(cell, pbc, d))) / np.linalg.norm(d)
        image = random.integers(-3, 4, 3) * np.array(pbc)
        structure = two(cell, pbc, d + image @ cell)
        assert_allclose(nearest_vectors(structure, PAIRS), [d, -d], atol=1e-12)
        check_images("bonds", PAIRS, structure)


@pytest.mark.parametrize("name", CELLS)
def test_half_the_thickness_is_that_between_faces(name):
    cell = CELLS[name]
    volume = abs(np.linalg.det(cell))
    areas = [np.linalg.norm(np.cross(cell[(k + 1) % 3], cell[(k + 2) % 3])) for k in range(3)]
    structure = two(cell, True, [1.0, 0, 0])
    assert float(half_thickness(structure)) == pytest.approx(0.5 * min(volume / area for area in areas))


def test_open_directions_have_no_images_and_no_thickness():
    far = two(9.0 * np.eye(3), False, [30.0, 0, 0])
    assert half_thickness(far) == np.inf
    assert_allclose(nearest_vectors(far, PAIRS)[0], [30.0, 0, 0])
    check_images("bonds", PAIRS, far)
    # a slab is as thick as it repeats, whatever the vacuum vector is
    for vacuum in (2.0, 100.0):
        slab = two(np.diag([9.0, 7.0, vacuum]), (True, True, False), [0, 0, 1.0])
        assert float(half_thickness(slab)) == pytest.approx(3.5)


def test_a_pair_as_far_apart_as_half_the_cell_is_ambiguous_and_said_so():
    structure = two(9.0 * np.eye(3), True, [4.6, 0, 0])
    check_images("bonds", PAIRS, two(9.0 * np.eye(3), True, [4.4, 0, 0]))
    check_images("bonds", np.zeros((0, 2), int), structure)
    # the nearest image is 4.4 Å away: it is the one at the corner that is not clear
    check_images("bonds", PAIRS, structure)
    corner = two(9.0 * np.eye(3), True, [4.4, 4.4, 0])
    with pytest.raises(InputError, match=r"bonds ties atoms 0 and 1, .* 6.22 Å apart, not less than half"):
        check_images("bonds", PAIRS, corner)


def test_the_image_has_no_derivative_and_the_vector_follows_the_cell():
    structure = two(CELLS["hexagonal"], True, [1.0 - 8.0, 0.5, 0.2])
    length = lambda cell: jnp.sum(nearest_vectors(structure.at(structure.positions, cell), PAIRS[:1]) ** 2)
    slope = jax.grad(length)(structure.cell)
    # d = x_1 - x_0 + A: twice d along A, and nothing along the others
    d = np.array([1.0, 0.5, 0.2])
    assert_allclose(slope, np.outer([1, 0, 0], 2 * d), atol=1e-12)
