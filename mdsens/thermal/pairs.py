"""The radial distribution function: pairs at a distance, over those of a gas of the same density.

    g(r) = <n(r) V> / (M 4 pi r² dr),

with n(r) the pairs in the shell of a frame and M the number of pairs of atoms, N (N - 1) / 2, or N_a N_b of
two species. Frames stay where they are when parameters move, so that it changes through their weights alone.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import number, whole
from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.strain import volume_of
from mdsens.structure import Structure
from mdsens.thermal.point import ThermalObservable, ThermalPoint


@dataclasses.dataclass(frozen=True)
class PairHistogram:
    """g(r) of one frame.

    Attributes:
        reach: largest distance, Å; lists of neighbors are made for it.
        bins: shells up to there.
        between: atomic numbers of the two species; None: of all atoms.
    """

    reach: float
    bins: int
    between: tuple[int, int] | None = None

    @property
    def edges(self) -> Float[np.ndarray, " edges"]:
        """Where shells begin and end, Å."""
        return np.linspace(0.0, self.reach, self.bins + 1)

    def __call__(self, potential: Potential, structure: Structure, neighbors: Neighbors) -> Array:
        squares = jnp.sum(neighbors.vectors(structure) ** 2, axis=-1)
        shells = jnp.floor(jnp.sqrt(squares) * (self.bins / self.reach)).astype(int)
        counted = neighbors.valid & (shells < self.bins)
        one, other = structure.species[neighbors.i], structure.species[neighbors.j]
        pairs = structure.n_atoms * (structure.n_atoms - 1) / 2
        if self.between is not None:
            counted &= self._of_species(one, other)
            pairs = self._pairs(structure)
        found = jnp.zeros(self.bins).at[jnp.clip(shells, 0, self.bins - 1)].add(counted)
        sizes = jnp.diff(jnp.asarray(4 / 3 * np.pi * self.edges**3))
        return found * volume_of(structure.cell) / (pairs * sizes)

    def _of_species(self, one: Array, other: Array) -> Array:
        assert self.between is not None
        a, b = self.between
        return ((one == a) & (other == b)) | ((one == b) & (other == a))

    def _pairs(self, structure: Structure) -> Array:
        assert self.between is not None
        a, b = (jnp.sum(structure.species == z) for z in self.between)
        same = self.between[0] == self.between[1]
        return a * (a - 1) / 2 if same else a * b


@dataclasses.dataclass(frozen=True)
class MeanPairs:
    """The average of a histogram."""

    histogram: PairHistogram

    def __call__(self, point: ThermalPoint) -> tuple[Array]:
        """g in each shell."""
        return (point.mean(point.of(self.histogram)),)


def radial_distribution(
    r_max: float, bins: int = 60, between: Sequence[str] | None = None
) -> ThermalObservable:
    """g(r), an array with one number for each shell; its `grid` are the middles of the shells.

    Args:
        r_max: where the last shell ends, Å.
        bins: shells, all of one thickness.
        between: two elements, such as ("Si", "O"); by default all atoms.
    Raises:
        InputError: no length, no count, or not two elements.
    """
    reach = number("r_max", r_max, "Å", above=0.0)
    counts = whole("bins", bins, at_least=1)
    species = None if between is None else _numbers(between)
    histogram = PairHistogram(reach, counts, species)
    edges = histogram.edges
    middles = tuple(((edges[1:] + edges[:-1]) / 2).tolist())
    plain = ThermalObservable(("rdf",), ("1",), MeanPairs(histogram), (histogram,), bulk=True)
    return dataclasses.replace(plain, grid=middles, grid_unit="Å")


def _numbers(between: Sequence[str]) -> tuple[int, int]:
    from ase.data import atomic_numbers

    known = [atomic_numbers.get(symbol) for symbol in between]
    if isinstance(between, str) or len(known) != 2 or None in known:
        raise InputError(f"between = {between!r}: give two chemical symbols, such as ('Si', 'O').")
    return tuple(known)  # pyright: ignore
