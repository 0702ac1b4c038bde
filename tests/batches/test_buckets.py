"""Sizes of a batch: few, and with the fewest ghosts."""

import itertools

import numpy as np
import pytest

from mdsens.batches.buckets import few_sizes
from mdsens.ghosts import size_for

rng = np.random.default_rng(4)


@pytest.mark.parametrize("at_most", [1, 2, 3, 5])
def test_no_other_choice_of_so_many_sizes_has_fewer_ghosts(at_most):
    numbers = rng.integers(2, 240, size=40).tolist()
    chosen = few_sizes(numbers, at_most)
    assert len(set(chosen.values())) <= at_most
    possible = sorted({size_for(n) for n in numbers})
    least = np.inf
    for sizes in itertools.combinations(possible, min(at_most, len(possible))):
        if max(sizes) >= max(numbers):
            least = min(least, sum(next(s for s in sizes if s >= n) for n in numbers))
    assert sum(chosen[n] for n in numbers) == least


def test_every_structure_fits_in_its_size_and_sizes_that_serve_alone_stay():
    numbers = [8, 8, 63, 200, 64]
    chosen = few_sizes(numbers, 3)
    assert all(chosen[n] >= n for n in numbers)
    assert chosen[8] == size_for(8) and chosen[63] == chosen[64] == size_for(64)


def test_one_atom_has_a_size():
    assert few_sizes([1], 3) == {1: size_for(1)}
