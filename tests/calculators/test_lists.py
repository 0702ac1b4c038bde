"""Lists of neighbors that a shared calculator keeps: the nearest one is found, the oldest gives way."""

import numpy as np
import pytest

import mdsens as ms
from mdsens.calculators import lists
from mdsens.calculators.lists import RecentLists

START = np.array([[0.0, 0, 0], [3.8, 0, 0], [0, 3.8, 0]])


def moved(by: float, **options) -> ms.Structure:
    return ms.Structure.create(START + by, ["Ar"] * 3, **options)


def kept(*shifts: float) -> tuple[RecentLists, list]:
    recent, found = RecentLists(), []
    for shift in shifts:
        found.append(ms.find_neighbors(moved(shift), 5.0))
        recent.add(moved(shift), found[-1])
    return recent, found


def test_the_list_made_nearest_is_tried():
    recent, found = kept(0.0, 1.0, 2.0)
    assert recent.nearest(moved(0.1)) is found[0]
    assert recent.nearest(moved(1.4)) is found[1]
    assert recent.nearest(moved(9.0)) is found[2]


def test_the_latest_list_is_taken_where_it_is_near_enough():
    recent, found = kept(0.0, 0.3)
    assert recent.nearest(moved(0.1), near_enough=0.25) is found[1]
    assert recent.nearest(moved(0.1), near_enough=0.15) is found[0]


def test_a_list_is_for_as_many_atoms_with_the_same_periodicity():
    recent, _ = kept(0.0)
    assert recent.nearest(ms.Structure.create(START[:2], ["Ar"] * 2)) is None
    assert recent.nearest(moved(0.0, cell=[9.0] * 3)) is None
    assert recent.capacity(moved(0.0, cell=[9.0] * 3)) is None


def test_the_list_that_was_not_used_for_longest_gives_way(monkeypatch):
    monkeypatch.setattr(lists, "KEPT", 3)
    recent, found = kept(0.0, 1.0, 2.0)
    assert recent.nearest(moved(0.0)) is found[0]  # used: now the latest
    recent.add(moved(3.0), ms.find_neighbors(moved(3.0), 5.0))
    assert len(recent) == 3
    assert recent.nearest(moved(1.1)) is not found[1]  # gone
    assert recent.nearest(moved(0.0)) is found[0]


def test_all_lists_together_hold_so_many_pairs_at_most_but_one_always_stays(monkeypatch):
    monkeypatch.setattr(lists, "MOST_PAIRS", 0)
    recent, found = kept(0.0, 1.0)
    assert len(recent) == 1 and recent.nearest(moved(0.0)) is found[1]


def test_shapes_are_the_largest_of_those_kept_so_that_nothing_is_compiled_again():
    recent, found = kept(0.0)
    crowded = ms.Structure.create(START * 0.5, ["Ar"] * 3)
    recent.add(crowded, ms.find_neighbors(crowded, 9.0))
    capacity = recent.capacity(moved(0.0))
    assert capacity.pairs >= found[0].capacity.pairs
    again = ms.find_neighbors(moved(0.0), 5.0, 0.0, capacity)
    assert again.capacity == capacity


def test_what_is_forgotten_is_not_found():
    recent, _ = kept(0.0, 1.0)
    recent.clear()
    assert len(recent) == 0 and recent.nearest(moved(0.0)) is None


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_list_used_last_is_the_latest(shift):
    recent, found = kept(0.0, 1.0)
    assert recent.nearest(moved(shift)) is found[0]
    assert recent._kept[-1].neighbors is found[0]
