"""Waves of a cell: all that are longer than a limit, one of each two that are opposite, in any lattice."""

import itertools

import numpy as np
import pytest

from mdsens.errors import InputError
from mdsens.neighbors.waves import find_waves, outlast, padded

CELLS = {
    "cubic": 6.0 * np.eye(3),
    "flat": np.diag([5.0, 7.0, 1.5]),
    "hexagonal": np.array([[5.0, 0, 0], [-2.5, 2.5 * np.sqrt(3), 0], [0, 0, 8.0]]),
    "primitive fcc": 2.5 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]),
    "very skew": np.array([[5.0, 0, 0], [12.0, 4.0, 0], [-9.0, 7.0, 5.0]]),
}


def by_hand(cell, limit):
    """All n with 0 < |k| < limit, both signs, from a box that is large enough."""
    reciprocal = 2 * np.pi * np.linalg.inv(cell).T
    m = int(limit * np.linalg.norm(cell, axis=1).max() / (2 * np.pi)) + 1
    found = set()
    for n in itertools.product(range(-m, m + 1), repeat=3):
        k = np.array(n) @ reciprocal
        if any(n) and k @ k < limit * limit:
            found.add(n)
    return found


@pytest.mark.parametrize("name", CELLS)
def test_one_of_each_two_opposite_waves_is_there_and_no_other(name):
    found = [tuple(n) for n in find_waves(CELLS[name], 3.0).tolist()]
    assert len(set(found)) == len(found)
    opposite = [(-a, -b, -c) for a, b, c in found]
    assert not set(found) & set(opposite)
    assert set(found) | set(opposite) == by_hand(CELLS[name], 3.0)
    lengths = np.linalg.norm(np.array(found) @ np.linalg.inv(CELLS[name]).T, axis=1)
    assert np.all(np.diff(lengths) > -1e-12)  # the longest waves come first


def test_the_limit_tells_shells_of_waves_apart_and_below_all_leaves_none():
    cell = np.diag([2 * np.pi] * 3)  # |k| = |n|
    shells = {0.999: 0, 1.001: 3, 1.414: 3, 1.415: 9, 1.733: 13}
    for limit, count in shells.items():
        assert len(find_waves(cell, limit)) == count


@pytest.mark.parametrize("name", CELLS)
def test_a_set_outlasts_the_stretch_that_it_was_made_for(name):
    limit, stretch = 2.5, 0.1
    kept = {tuple(n) for n in find_waves(CELLS[name], outlast(limit, stretch)).tolist()}
    kept |= {(-a, -b, -c) for a, b, c in kept}
    random = np.random.default_rng(3)
    for _ in range(20):
        change = random.normal(size=(3, 3))
        F = np.eye(3) + stretch * change / np.linalg.norm(change, 2)
        assert by_hand(CELLS[name] @ F, limit) <= kept


def test_padding_adds_waves_of_zero_which_sums_leave_out():
    waves = find_waves(CELLS["cubic"], 2.0)
    more = padded(waves, len(waves) + 5)
    np.testing.assert_array_equal(more[: len(waves)], waves)
    assert not more[len(waves) :].any()


def test_more_waves_than_memory_holds_are_refused_with_their_number():
    with pytest.raises(InputError, match=r"about .* waves of this cell are longer than .* Å; the limit is"):
        find_waves(np.diag([300.0] * 3), 60.0)
