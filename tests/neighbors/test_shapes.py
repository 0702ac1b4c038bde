"""Shapes of lists: enough room, in few sizes, and never less than is kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdsens.neighbors.shapes import (
    COARSE_ATOMS,
    NOTHING_KEPT,
    WIDTHS,
    Capacity,
    coarse_slots,
    exactly,
    shared,
    slots,
    with_some_room,
)

COUNTS = st.integers(0, 10**7)


@given(COUNTS, COUNTS)
def test_slots_are_enough_and_what_is_kept_stays(needed, kept):
    found = slots(needed, kept)
    assert found >= needed
    assert found == kept if needed <= kept else found > kept


@given(st.integers(16, 10**7))
def test_room_is_two_percent_at_least_and_ten_and_a_step_at_most(needed):
    found = slots(needed, 0)
    assert 1.02 * needed <= found <= 1.02 * needed * (1 + 1 / 8) + 1
    # few sizes: between two powers of two there are sixteen at most
    step = 2 ** max(int(np.ceil(np.log2(needed))) - 4, 0)
    assert found % step == 0


@given(st.integers(1, 10**6))
def test_coarse_widths_are_multiples_of_few_and_at_most_half_as_long_again(needed):
    found = coarse_slots(needed, 0)
    assert needed <= found
    if needed >= WIDTHS[0]:
        assert found <= 1.5 * needed
    while found % 2 == 0:
        found //= 2
    assert found in WIDTHS


def test_neighboring_numbers_share_a_coarse_width():
    assert [coarse_slots(n, 0) for n in (1, 5, 6, 7, 8, 10, 11, 14, 15)] == [5, 5, 7, 7, 10, 10, 14, 14, 20]
    assert coarse_slots(9, 12) == 12


def test_nothing_needs_nothing():
    assert slots(0, 0) == coarse_slots(0, 0) == 0
    assert exactly(3, NOTHING_KEPT, NOTHING_KEPT) == NOTHING_KEPT


CAPACITIES = st.builds(Capacity, COUNTS, st.integers(0, 500), COUNTS, COUNTS)


@pytest.mark.parametrize("shape", [exactly, with_some_room, shared])
@given(n_atoms=st.integers(1, 4000), needed=CAPACITIES, kept=CAPACITIES)
def test_every_shape_holds_what_is_needed_and_what_was_kept(shape, n_atoms, needed, kept):
    found = shape(n_atoms, needed, kept)
    for name in Capacity._fields:
        assert getattr(found, name) >= max(getattr(needed, name), getattr(kept, name))


def test_similar_structures_share_a_shape_and_large_ones_waste_little():
    one = shared(64, Capacity(600, 21, 300, 0), NOTHING_KEPT)
    other = shared(64, Capacity(640, 25, 330, 0), NOTHING_KEPT)
    assert one == other
    n = COARSE_ATOMS + 1
    needed = Capacity(30 * n, 80, 5000, 0)
    found = shared(n, needed, NOTHING_KEPT)
    assert found == with_some_room(n, needed, NOTHING_KEPT)
    assert found.pairs < 1.1 * needed.pairs
