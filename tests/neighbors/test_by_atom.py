"""Pairs sorted by the atom that looks: each pair twice, images told apart, nobody in unused places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdsens.arrays import places_in_rows
from mdsens.neighbors.by_atom import by_atom, width_and_images


@given(st.lists(st.integers(0, 6), max_size=30))
def test_places_count_from_zero_in_each_row(counts):
    expected = [place for count in counts for place in range(count)]
    np.testing.assert_array_equal(places_in_rows(np.array(counts, int)), expected)


def random_pairs(seed, n_atoms, n_pairs):
    random = np.random.default_rng(seed)
    i, j = random.integers(0, n_atoms, (2, n_pairs))
    shift = random.integers(-2, 3, (n_pairs, 3)).astype(float)
    return i, j, shift


@pytest.mark.parametrize(("n_atoms", "n_pairs"), [(1, 4), (3, 10), (40, 200), (70_000, 300)])
def test_both_ends_of_each_pair_see_the_other_in_its_image(n_atoms, n_pairs):
    i, j, shift = random_pairs(1, n_atoms, n_pairs)
    found = by_atom(i, j, shift, n_atoms)
    seen = []
    for atom, neighbor in zip(found.atom.tolist(), found.neighbor.tolist(), strict=True):
        inside = neighbor < n_atoms
        owner = neighbor if inside else int(found.owner[neighbor - n_atoms])
        image = (0, 0, 0) if inside else tuple(found.image[neighbor - n_atoms].tolist())
        seen.append((atom, owner, image))
    wanted = []
    for a, b, s in zip(i.tolist(), j.tolist(), shift.astype(int).tolist(), strict=True):
        wanted += [(a, b, tuple(s)), (b, a, tuple(-x for x in s))]
    assert sorted(seen) == sorted(wanted)


@pytest.mark.parametrize("n_atoms", [3, 40])
def test_every_image_stands_once_and_none_is_an_atom_itself(n_atoms):
    i, j, shift = random_pairs(2, n_atoms, 300)
    found = by_atom(i, j, shift, n_atoms)
    images = list(zip(found.owner.tolist(), map(tuple, found.image.tolist()), strict=True))
    assert len(set(images)) == len(images)
    assert all(any(image) for _, image in images)


def test_rows_hold_nobody_where_no_neighbor_is():
    found = by_atom(np.array([0, 0]), np.array([1, 2]), np.zeros((2, 3)), 4)
    assert found.width == 2
    np.testing.assert_array_equal(found.rows(3, nobody=9), [[1, 2, 9], [0, 9, 9], [0, 9, 9], [9, 9, 9]])


def test_no_pairs_leave_empty_rows():
    none = np.zeros(0, int)
    found = by_atom(none, none, np.zeros((0, 3)), 2)
    assert found.width == 0 and len(found.owner) == 0
    np.testing.assert_array_equal(found.rows(1, nobody=2), [[2], [2]])


@pytest.mark.parametrize(("n_atoms", "n_pairs"), [(1, 4), (3, 0), (40, 200), (70_000, 300)])
def test_rows_and_images_are_counted_without_a_list(n_atoms, n_pairs):
    i, j, shift = random_pairs(3, n_atoms, n_pairs)
    found = by_atom(i, j, shift, n_atoms)
    assert width_and_images(i, j, shift, n_atoms) == (found.width, len(found.owner))
