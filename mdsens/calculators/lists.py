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
    pbc: tuple[bool, bool, bool]
    n_real: int


class RecentLists:
    """The last few lists, the one that was used last at the end."""

    def __init__(self) -> None:
        self._kept: list[_Kept] = []

    def __len__(self) -> int:
        return len(self._kept)

    def nearest(self, structure: Structure) -> Neighbors | None:
        """The list made nearest to this structure, if one is for as many atoms and the same periodicity."""
        k = self._nearest(structure)
        if k is None:
            return None
        self._kept.append(self._kept.pop(k))
        return self._kept[-1].neighbors

    def capacity(self, structure: Structure) -> Capacity | None:
        """Shapes of the lists for such a structure, to be kept so that nothing is compiled again."""
        alike = [kept.neighbors.capacity for kept in self._kept if _alike(kept, structure)]
        if not alike:
            return None
        return Capacity(*(max(sizes) for sizes in zip(*alike, strict=True)))

    def add(self, structure: Structure, neighbors: Neighbors) -> None:
        """Keep a new list; the one that was not used for longest gives way."""
        positions, n = np.asarray(structure.positions), number_of_real(structure)
        self._kept.append(_Kept(neighbors, positions, structure.pbc, n))
        while len(self._kept) > 1 and (len(self._kept) > KEPT or self._pairs() > MOST_PAIRS):
            self._kept.pop(0)

    def clear(self) -> None:
        """Forget all of them: another cutoff, another skin."""
        self._kept.clear()

    def _pairs(self) -> int:
        return sum(kept.neighbors.i.shape[0] for kept in self._kept)

    def _nearest(self, structure: Structure) -> int | None:
        alike = [k for k, kept in enumerate(self._kept) if _alike(kept, structure)]
        return min(alike, key=lambda k: self._distance(self._kept[k], structure), default=None)

    @staticmethod
    def _distance(kept: _Kept, structure: Structure) -> float:
        return float(np.abs(kept.positions - np.asarray(structure.positions)).max())


def _alike(kept: _Kept, structure: Structure) -> bool:
    shape = len(kept.positions), kept.n_real, kept.pbc
    return shape == (structure.n_atoms, number_of_real(structure), structure.pbc)
