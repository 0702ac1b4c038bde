"""Lists of several structures in one shape hold the pairs that each structure's own list holds."""

import jax
import numpy as np
import pytest

import mdsens as ms
from mdsens.neighbors import find_neighbors
from mdsens.neighbors.stacked import capacity_of, find_stacked

CUTOFF, SKIN = 3.0, 0.3


@pytest.fixture(scope="module")
def structures():
    """The same ten atoms, spread out and crowded: their lists are of different lengths."""
    places = np.random.default_rng(0).uniform(0, 1, (10, 3))
    species = ["Ar"] * 10
    return [ms.Structure.create(places * edge, species, [edge] * 3) for edge in (9.0, 6.0, 4.0)]


def pairs_of(one) -> list[tuple]:
    i, j = np.asarray(one.i), np.asarray(one.j)
    shift = np.asarray(one.shift)
    real = np.asarray(one.valid)
    return sorted(
        (int(a), int(b), *map(int, s)) for a, b, s in zip(i[real], j[real], shift[real], strict=True)
    )


def test_each_structure_finds_its_own_pairs_in_a_list_of_the_common_shape(structures):
    stacked = find_stacked(structures, CUTOFF, SKIN)
    for k, structure in enumerate(structures):
        one = jax.tree.map(lambda leaf, k=k: leaf[k], stacked)
        assert one.capacity == capacity_of(stacked)
        alone = find_neighbors(structure, CUTOFF, SKIN)
        assert pairs_of(one) == pairs_of(alone)


def test_a_shape_that_serves_is_kept(structures):
    kept = capacity_of(find_stacked(structures, CUTOFF, SKIN))
    assert capacity_of(find_stacked(structures[:1], CUTOFF, SKIN, kept)) == kept
    wanted = kept._replace(pairs=kept.pairs + 5000)
    assert capacity_of(find_stacked(structures, CUTOFF, SKIN, wanted)).pairs == wanted.pairs
