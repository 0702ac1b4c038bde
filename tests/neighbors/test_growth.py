"""Shapes of lists that grow during a run: each change of them compiles everything anew."""

import numpy as np
import pytest

from mdsens.neighbors import Capacity
from mdsens.neighbors.shapes import FEW, GROWTH, grown

ATOMS = 500


def needed(neighbors: int) -> Capacity:
    """Of atoms that have so many neighbors each, every fourth of them an image."""
    return Capacity(pairs=ATOMS * neighbors // 2, width=neighbors, images=ATOMS * neighbors // 4)


def shapes_while(numbers) -> list[Capacity]:
    """Those that a run would have, one after the other."""
    shapes = [needed(numbers[0])]
    for number in numbers[1:]:
        wanted = Capacity(*map(max, needed(number), shapes[-1]))
        if wanted != shapes[-1]:
            shapes.append(grown(wanted, shapes[-1], ATOMS))
    return shapes


def test_a_gas_that_comes_together_changes_the_shape_of_its_lists_a_few_times():
    shapes = shapes_while(range(61))
    # from none to sixty neighbors: in steps of FEW up to FEW / (GROWTH - 1) = 20, by GROWTH from there on
    most = 20 / FEW + np.log(60 / 20) / np.log(GROWTH) + 1
    assert len(shapes) <= most
    assert shapes[-1].width < GROWTH * 61


def test_neighbors_that_come_and_go_change_no_shape_and_what_served_stays():
    rng = np.random.default_rng(0)
    shapes = shapes_while(rng.poisson(40, size=300))
    assert len(shapes) <= 5
    served = Capacity(pairs=1000, width=60, images=20, waves=7)
    wider = grown(Capacity(pairs=1000, width=60, images=21, waves=9), served, ATOMS)
    assert wider == Capacity(pairs=1000, width=60, images=21 + ATOMS, waves=9)


@pytest.mark.parametrize("number", [1, 19, 20, 21, 1000])
def test_a_shape_that_grew_has_room_for_a_fifth_or_for_a_few_more(number):
    wider = grown(needed(number), Capacity(), ATOMS)
    assert wider.width >= max(number + FEW, int(GROWTH * number))
    pairs = needed(number).pairs
    assert wider.pairs >= max(pairs + FEW * ATOMS // 2, int(GROWTH * pairs))
