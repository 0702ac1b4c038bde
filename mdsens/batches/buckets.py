"""Which structures share compiled programs: a few numbers of atoms, and for each one shape of its lists.

A program is compiled for the shapes of its arrays, and takes seconds. Structures are filled up with ghosts
(`mdsens.ghosts`) to one of a few sizes; all of them are known beforehand, so that the sizes are those that
cost the least.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from mdsens.ghosts import size_for, with_ghosts
from mdsens.neighbors import Capacity
from mdsens.neighbors.lists import room_for
from mdsens.neighbors.shapes import NOTHING_KEPT
from mdsens.potentials.base import Potential
from mdsens.quantities import neighbors_of
from mdsens.relaxation.equilibrium import default_skin
from mdsens.structure import Structure

FEW = 3  # sizes in one batch; each costs the compilation of two steppers


@dataclasses.dataclass
class Buckets:
    """Sizes and list shapes of the structures of one batch.

    Attributes:
        potential: says whether it may meet ghosts; if not, each number of atoms is a size of its own.
        sizes: number of atoms -> number of atoms and ghosts.
        capacities: shapes of lists that all structures of a size have fitted in so far.
    """

    potential: Potential
    sizes: dict[int, int]
    capacities: dict[int, Capacity]

    @classmethod
    def of(cls, potential: Potential, numbers: Sequence[int]) -> "Buckets":
        """The sizes that serve structures with these numbers of atoms."""
        sizes = few_sizes(numbers, FEW) if potential.ghosts else {n: n for n in numbers}
        return cls(potential, sizes, {})

    def look_at(self, structure: Structure, skin: float | None) -> None:
        """Make room for the list that the structure starts with."""
        full = self.filled(structure)
        skin = default_skin(self.potential) if skin is None else skin
        self.keep(full.n_atoms, self._room(full, skin))

    def _room(self, full: Structure, skin: float) -> Capacity:
        on_host = jax.default_backend() == "cpu" and np.isinf(self.potential.shortest_wave)
        if on_host:
            return room_for(full, float(self.potential.cutoff), skin)
        return neighbors_of(self.potential, full, skin).capacity

    def filled(self, structure: Structure) -> Structure:
        """The structure with its ghosts."""
        if not self.potential.ghosts:
            return structure
        return with_ghosts(structure, self.sizes[structure.n_atoms])

    def capacity(self, size: int) -> Capacity:
        """Shapes that lists of this size keep at least."""
        return self.capacities.get(size, NOTHING_KEPT)

    def keep(self, size: int, needed: Capacity) -> None:
        """Lists of this size have needed these shapes."""
        self.capacities[size] = Capacity(*map(max, self.capacity(size), needed))


def few_sizes(numbers: Sequence[int], at_most: int) -> dict[int, int]:
    """Number of atoms -> size of its arrays, in so many sizes, with the fewest ghosts in all.

    Args:
        numbers: of atoms, of each structure.
        at_most: different sizes.
    """
    count = collections.Counter(map(size_for, numbers))
    sizes = sorted(count)
    # Sizes in a row share the largest of them. The cheapest way to cut the first j of them into k groups,
    #     cost(j, k) = min over i < j of cost(i, k - 1) + s_j (c_i+1 + ... + c_j),
    # with c structures of size s each.
    best: dict[tuple[int, int], tuple[int, tuple[int, ...]]] = {(0, k): (0, ()) for k in range(at_most + 1)}
    for k in range(1, at_most + 1):
        for j in range(1, len(sizes) + 1):
            before = [i for i in range(j) if (i, k - 1) in best]
            best[j, k] = min(_with_last_group(best, sizes, count, i, j, k) for i in before)
    _, chosen = best[len(sizes), at_most]
    return {n: next(size for size in sorted(chosen) if size >= n) for n in set(numbers)}


def _with_last_group(
    best: Mapping[tuple[int, int], tuple[int, tuple[int, ...]]],
    sizes: Sequence[int],
    count: Mapping[int, int],
    i: int,
    j: int,
    k: int,
) -> tuple[int, tuple[int, ...]]:
    cost, chosen = best[i, k - 1]
    largest = sizes[j - 1]
    members = sum(count[size] for size in sizes[i:j])
    return cost + largest * members, (*chosen, largest)
