"""Force constants of a crystal, and the dynamical matrix of a wave.

In a supercell of N cells the energy has the second derivatives

    Phi(i; R j) = d2E / dx_i0 dx_jR,

between an atom i of the cell at the origin and the atom j of the cell at R; all images of that atom in other
supercells are counted in it. A wave that repeats with the supercell feels no more than that:

    D_ij(q) = sum_R Phi(i; R j) exp(2 pi i q . R) / sqrt(m_i m_j),

exactly, whatever the range of the interaction. For other waves, each image must have a phase of its own: the
force constants are given to the nearest images, in equal shares, and D(q) is exact as soon as the supercell
is wider than twice the range of Phi.

One product with the Hessian of the supercell gives one row (i, direction) for all R and j.

Source: Parlinski, Li, Kawazoe, Phys. Rev. Lett. 78, 4063 (1997), doi:10.1103/PhysRevLett.78.4063.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from mdsens.batching import map_rows
from mdsens.errors import InputError
from mdsens.neighbors.waves import find_waves, outlast
from mdsens.observables.constants import Constants
from mdsens.observables.observable import State
from mdsens.observables.primitive import PrimitiveCell
from mdsens.observables.supercells import Supercell, repeated, repeated_list, thickness
from mdsens.potentials.base import Potential
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.structure import Structure

MOST_ATOMS = 20_000  # of a supercell
EQUAL = 1e-4  # of an atom's size: images as near as this are equally near

Phi = Float[Array, "kinds 3 cells atoms 3"]


@dataclasses.dataclass(frozen=True)
class Repetition:
    """A crystal, its primitive cell, and a supercell of the given cell.

    Attributes:
        waves: of the supercell, for potentials that sum over waves.
    """

    primitive: PrimitiveCell
    supercell: Supercell
    waves: Constants | None = None

    @classmethod
    def of(cls, state: Equilibrium, primitive: PrimitiveCell, supercell: Supercell, what: str) -> Self:
        """For a relaxed state.

        Raises:
            InputError: the potential was made for particular atoms, which cannot be repeated; or the
                supercell has more than MOST_ATOMS atoms; or it was made for one cell.
        """
        potential = state.potential
        if potential.knows_atoms:
            raise InputError(
                f"{what}: {type(potential).__name__} was made for particular atoms, by their numbers, and a "
                "supercell has others. Take a potential that finds its atoms by their distance."
            )
        if potential.knows_cell:
            raise InputError(
                f"{what}: {type(potential).__name__} has a mesh that was made for one cell, and a supercell "
                "needs another. Take Ewald, which sums over the waves of any cell."
            )
        atoms = state.n_atoms * supercell.n_cells
        if atoms > MOST_ATOMS:
            raise InputError(
                f"{what}: the supercell of {supercell.n_cells} cells has {atoms} atoms, above {MOST_ATOMS}. "
                "Take a smaller one, or start from the primitive cell."
            )
        return cls(primitive, supercell, _waves_of(state, supercell))

    def force_constants(self, potential: Potential, state: State) -> Phi:
        """Phi(i; R j), eV/Å², with i the atoms of the primitive cell. Traceable."""
        large = repeated(state.structure, self.supercell)
        waves = None if self.waves is None else self.waves.array
        neighbors = repeated_list(state.neighbors, self.supercell, large, waves)

        def slope(x: Float[Array, "coordinates"]) -> Float[Array, "coordinates"]:
            energy = lambda x: potential.energy(large.at(x.reshape(-1, 3)), neighbors)
            return jax.grad(energy)(x)

        push = jax.linearize(slope, large.positions.ravel())[1]
        places = 3 * np.array(self.primitive.first)[:, None] + np.arange(3)
        units = np.zeros((places.size, 3 * large.n_atoms))
        units[np.arange(places.size), places.ravel()] = 1.0
        rows = map_rows(push, jnp.asarray(units))
        cells, atoms = self.supercell.n_cells, state.structure.n_atoms
        return rows.reshape(self.primitive.n_atoms, 3, cells, atoms, 3)

    def dynamical_matrix(self, phi: Phi, structure: Structure, q: Sequence[float]) -> Complex[Array, "m m"]:
        """D(q) of a wave that repeats with the supercell, eV/Å²/u; q in fractions of the primitive cell."""
        points = self.primitive.points(self.supercell.points)
        phases = np.exp(2j * np.pi * (points @ np.asarray(q, float)))
        return self.weighed(phi * jnp.asarray(phases)[..., None], structure)

    def weighed(self, terms: Complex[Array, "kinds 3 cells atoms 3"], structure: Structure):
        """D out of force constants with their phases: summed over the images, divided by masses."""
        sums = jnp.einsum("iaRjb,jk->iakb", terms, jnp.asarray(self.primitive.of_kind))
        roots = jnp.sqrt(structure.masses[jnp.array(self.primitive.first)])
        weights = 1 / (roots[:, None] * roots)
        n = 3 * self.primitive.n_atoms
        matrix = (sums * weights[:, None, :, None]).reshape(n, n)
        return (matrix + matrix.conj().T) / 2


def _waves_of(state: Equilibrium, supercell: Supercell) -> Constants | None:
    longest = state.potential.shortest_wave
    if np.isinf(longest) or not all(state.structure.pbc):
        return None
    cell = supercell.matrix @ np.asarray(state.structure.cell)
    reach = float(state.neighbors.reach)
    skin = reach - float(state.potential.cutoff)
    return Constants(find_waves(cell, outlast(2 * np.pi / longest, skin / reach)))


# --- any wave: each image with a phase of its own


@dataclasses.dataclass(frozen=True)
class Images:
    """The nearest images of each atom of a supercell, seen from each atom of the primitive cell.

    Attributes:
        points: (images, 3) whole primitive vectors to each image, as for `PrimitiveCell.points`.
        pairs: (images,) which (i, R, j) it belongs to, counted through.
        shares: (images,) its part of the force constants.
    """

    points: Constants
    pairs: Constants
    shares: Constants

    @classmethod
    def of(cls, structure: Structure, repetition: Repetition) -> Self:
        """Found in plain numbers."""
        primitive, supercell = repetition.primitive, repetition.supercell
        cell = np.asarray(structure.cell)
        large = supercell.matrix @ cell
        vectors, size = _vectors(structure, repetition), np.cbrt(abs(np.linalg.det(cell)) / structure.n_atoms)
        shifts = _shifts_near(structure.pbc)
        flat = vectors.reshape(-1, 3)
        lengths = np.linalg.norm(flat[:, None] + shifts @ large, axis=2)
        nearest = lengths < lengths.min(axis=1, keepdims=True) + EQUAL * size
        pair, shift = np.nonzero(nearest)
        homes = np.broadcast_to(primitive.points(supercell.points), vectors.shape).reshape(-1, 3)
        turns = shifts @ supercell.matrix @ np.array(primitive.matrix)
        shares = 1 / nearest.sum(axis=1)[pair]
        return cls(Constants(homes[pair] + turns[shift]), Constants(pair), Constants(shares))

    def phases(
        self, q: Float[Array, "3"], shape: tuple[int, int, int]
    ) -> Complex[Array, "kinds cells atoms"]:
        """sum over the images of their share times exp(2 pi i q . R); q may be traced."""
        turns = jnp.asarray(self.points.array, float) @ q
        each = jnp.asarray(self.shares.array) * jnp.exp(2j * jnp.pi * turns)
        nothing = jnp.zeros(shape, each.dtype).ravel()
        total = nothing.at[self.pairs.array].add(each)
        return total.reshape(shape)


def _vectors(structure: Structure, repetition: Repetition) -> Float[np.ndarray, "kinds cells atoms 3"]:
    """Vectors from each atom of the primitive cell to each atom of the supercell, Å."""
    positions = np.asarray(structure.positions)
    shifts = repetition.supercell.points @ np.asarray(structure.cell)
    places = shifts[:, None] + positions
    return places[None] - positions[list(repetition.primitive.first)][:, None, None]


def _shifts_near(pbc: tuple[bool, bool, bool]) -> Int[np.ndarray, "shifts 3"]:
    """Supercell vectors that may lead from an atom of a supercell to its nearest image."""
    ranges = [range(-2, 3) if periodic else range(1) for periodic in pbc]
    return np.array(list(itertools.product(*ranges)))


def wide_supercell(structure: Structure, range_of_forces: float) -> Supercell:
    """The smallest number of cells along each cell vector that is wider than twice a range (Å)."""
    wide = thickness(np.asarray(structure.cell))
    counts = [
        int(np.floor(2 * range_of_forces / along)) + 1 if periodic else 1
        for along, periodic in zip(wide, structure.pbc, strict=True)
    ]
    return Supercell.diagonal(counts)
