"""Lists of several structures with the same atoms, of one shape: stacked, and compiled for once.

A list that has outgrown its shape makes everything compile anew, which takes longer than thousands of steps
of a small system. In a gas the numbers of neighbors fluctuate by their square root, and atoms that start on a
lattice without neighbors find some soon: a shape that has to grow gets room for what comes next.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mdsens.neighbors.lists import Neighbors, find_neighbors
from mdsens.neighbors.shapes import Capacity, grown
from mdsens.structure import Structure


def find_stacked(
    structures: Sequence[Structure],
    cutoff: float,
    skin: float,
    capacity: Capacity | None = None,
    *,
    shortest_wave: float = np.inf,
) -> Neighbors:
    """A list for each structure, stacked along a first axis.

    Args:
        structures: as many atoms in each.
        cutoff, skin, shortest_wave: Å, as for `find_neighbors`.
        capacity: the shape of one list, if it serves; with room to spare where it does not (`grown`).
    """
    find = lambda structure, kept: find_neighbors(structure, cutoff, skin, kept, shortest_wave=shortest_wave)
    lists = [find(structure, capacity) for structure in structures]
    if capacity is not None and _largest(lists) != capacity:
        wanted = grown(_largest(lists), capacity, lists[0].n_atoms)
        lists = [find(structure, wanted) for structure in structures]
    # A list that is asked to keep a shape may add some room to it: until all have the same.
    while len({one.capacity for one in lists}) > 1:
        largest = _largest(lists)
        lists = [find(structure, largest) for structure in structures]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *lists)


def _largest(lists: Sequence[Neighbors]) -> Capacity:
    sizes = zip(*(one.capacity for one in lists), strict=True)
    return Capacity(*map(max, sizes))


def capacity_of(stacked: Neighbors) -> Capacity:
    """The shape of one of the lists that are stacked."""
    waves = 0 if stacked.waves is None else stacked.waves.shape[1]
    return Capacity(stacked.i.shape[1], stacked.width, stacked.owner.shape[1], waves)
