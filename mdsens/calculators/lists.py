"""Neighbor lists of the last structures that a calculator has seen.

A calculator that several images of a path share sees another structure at each call. Each image moves little
between two of its own calls, so the list to try is the one that was made nearest to where the atoms are now.
"""

from typing import NamedTuple

import numpy as np

from mdsens.ghosts import number_of_real
from mdsens.neighbors import Capacity, Neighbors
from mdsens.structure import Structure

KEPT = 16  # lists
MOST_PAIRS = 4_000_000  # in all of them together: some hundred megabytes


class _Kept(NamedTuple):
    neighbors: Neighbors
    positions: np.ndarray
    shape: tuple[int, int, tuple[bool, bool, bool]]  # arrays, real atoms, periodicity


class RecentLists:
    """The last few lists, the one that was used last at the end."""

    def __init__(self) -> None:
        self._kept: list[_Kept] = []

    def __len__(self) -> int:
        return len(self._kept)

    def nearest(self, structure: Structure, near_enough: float = 0.0) -> Neighbors | None:
        """The list made nearest to this structure, if one is for as many atoms and the same periodicity.

        Args:
            near_enough: Å; the latest list from which no coordinate is farther is taken at once.
        """
        k = self._nearest(structure, near_enough)
        if k is None:
            return None
        self._kept.append(self._kept.pop(k))
        return self._kept[-1].neighbors

    def capacity(self, structure: Structure) -> Capacity | None:
        """Shapes of the lists for such a structure, to be kept so that nothing is compiled again."""
        shape = _shape(structure)
        alike = [kept.neighbors.capacity for kept in self._kept if kept.shape == shape]
        if not alike:
            return None
        return Capacity(*(max(sizes) for sizes in zip(*alike, strict=True)))

    def add(self, structure: Structure, neighbors: Neighbors) -> None:
        """Keep a new list; the one that was not used for longest gives way."""
        self._kept.append(_Kept(neighbors, np.asarray(structure.positions), _shape(structure)))
        while len(self._kept) > 1 and (len(self._kept) > KEPT or self._pairs() > MOST_PAIRS):
            self._kept.pop(0)

    def clear(self) -> None:
        """Forget all of them: another cutoff, another skin."""
        self._kept.clear()

    def _pairs(self) -> int:
        return sum(kept.neighbors.i.shape[0] for kept in self._kept)

    def _nearest(self, structure: Structure, near_enough: float) -> int | None:
        shape, positions = _shape(structure), np.asarray(structure.positions)
        nearest, least = None, np.inf
        for k in reversed(range(len(self._kept))):
            kept = self._kept[k]
            if kept.shape != shape:
                continue
            distance = float(np.abs(kept.positions - positions).max())
            if distance <= near_enough:
                return k
            if distance < least or nearest is None:
                nearest, least = k, distance
        return nearest


def _shape(structure: Structure) -> tuple[int, int, tuple[bool, bool, bool]]:
    return structure.n_atoms, number_of_real(structure), structure.pbc
