"""A supercell of a crystal, and the pairs in it, made of those of the cell that it repeats.

The vectors of a supercell are whole combinations of the cell vectors, A = S a. Many matrices S give one
lattice; one of them is

        | p q r |
    S = | 0 s t |,      0 <= q < s,   0 <= r < u,   0 <= t < u.
        | 0 0 u |

The supercell holds p s u cells. The points R = (x, y, z) with 0 <= x < p, 0 <= y < s, 0 <= z < u stand for
them, and any other point is brought among these by taking off the first row of S as often as p goes into x,
then the second, then the third.

A wave exp(2 pi i q . R), q in fractions of the reciprocal cell, repeats with the supercell if S q is whole.
The smallest supercell of a wave has as many cells as the least common multiple of the denominators of q.

Source: Lloyd-Williams, Monserrat, Phys. Rev. B 92, 184301 (2015), doi:10.1103/PhysRevB.92.184301.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.neighbors import Neighbors
from mdsens.structure import Structure

Row = tuple[int, int, int]
Wave = tuple[Fraction, Fraction, Fraction]


@dataclasses.dataclass(frozen=True)
class Supercell:
    """Which cells make up a supercell.

    Attributes:
        rows: S of the module docstring.
    """

    rows: tuple[Row, Row, Row]

    @classmethod
    def diagonal(cls, counts: Sequence[int]) -> Self:
        """So many cells along each cell vector."""
        a, b, c = counts
        return cls(((a, 0, 0), (0, b, 0), (0, 0, c)))

    @classmethod
    def of_wave(cls, q: Wave) -> Self:
        """The smallest one that a wave repeats with."""
        third = _shortest(q[2:])
        second = _shortest(q[1:], third)
        first = _shortest(q, second, third)
        return cls((first, second, third))

    @property
    def matrix(self) -> Int[np.ndarray, "3 3"]:
        """S as an array."""
        return np.array(self.rows)

    @property
    def sides(self) -> tuple[int, int, int]:
        """The p, s and u of S."""
        (p, _, _), (_, s, _), (_, _, u) = self.rows
        return p, s, u

    @property
    def n_cells(self) -> int:
        """Cells in it."""
        p, s, u = self.sides
        return p * s * u

    @property
    def points(self) -> Int[np.ndarray, "cells 3"]:
        """R of each cell, the last coordinate counting fastest."""
        return np.array(list(itertools.product(*map(range, self.sides))))

    def holds(self, q: Sequence[float], tolerance: float = 1e-9) -> bool:
        """Whether a wave repeats with it."""
        turns = self.matrix @ np.asarray(q, float)
        return bool(np.all(np.abs(turns - np.round(turns)) < tolerance))

    def place(self, R: Any) -> tuple[Any, Any]:
        """The number of the cell that each point (..., 3) stands in, and its shift in supercell vectors."""
        x = [R[..., k] for k in range(3)]
        shifts = []
        for k, row in enumerate(self.rows):
            times = x[k] // row[k]
            x = [x[m] - times * row[m] for m in range(3)]
            shifts.append(times)
        _, s, u = self.sides
        return (x[0] * s + x[1]) * u + x[2], jnp.stack(shifts, axis=-1)


def _shortest(q: Sequence[Fraction], *below: Row) -> Row:
    """The row of S with the fewest cells along its own coordinate, those below it being known."""
    free = [range(row[3 - len(below) + k]) for k, row in enumerate(below)]
    for first in itertools.count(1):
        for rest in itertools.product(*free):
            turns = first * q[0] + sum(n * part for n, part in zip(rest, q[1:], strict=True))
            if turns.denominator == 1:
                zeros = (0,) * (2 - len(below))
                a, b, c = (*zeros, first, *rest)
                return a, b, c
    raise AssertionError("a wave of fractions repeats with its common denominator")


# --- what stands in it ----------------------------------------------------------------------------


def repeated(structure: Structure, supercell: Supercell) -> Structure:
    """The atoms of all cells, cell after cell, without ghosts. Traceable."""
    n = supercell.n_cells
    shifts = jnp.asarray(supercell.points, float) @ structure.cell
    places = shifts[:, None] + structure.positions[None]
    charges = structure.charges
    return Structure(
        positions=places.reshape(-1, 3),
        cell=jnp.asarray(supercell.matrix, float) @ structure.cell,
        species=jnp.tile(structure.species, n),
        masses=jnp.tile(structure.masses, n),
        fixed=jnp.tile(structure.fixed, (n, 1)),
        pbc=structure.pbc,
        charges=None if charges is None else jnp.tile(charges, n),
        columns={name: jnp.concatenate([values] * n) for name, values in structure.columns.items()},
    )


def repeated_list(
    neighbors: Neighbors,
    supercell: Supercell,
    structure: Structure,
    waves: Int[np.ndarray, "waves 3"] | None = None,
) -> Neighbors:
    """The list of a supercell out of that of its cell. Traceable.

    Args:
        structure: the supercell, from `repeated`.
        waves: those of the supercell, where the list has waves.
    """
    n, cells = neighbors.n_atoms, supercell.n_cells
    points = jnp.asarray(supercell.points, float)[:, None]
    first = n * jnp.arange(cells)[:, None]
    # j stands `shift` away from the cell of i
    cell_of_j, shift = supercell.place(points + neighbors.shift)
    i = first + neighbors.i
    j = n * cell_of_j.astype(neighbors.j.dtype) + neighbors.j
    cell_of_owner, image = supercell.place(points + neighbors.image)
    owner = n * cell_of_owner.astype(neighbors.owner.dtype) + neighbors.owner
    return Neighbors(
        i=i.reshape(-1),
        j=j.reshape(-1),
        shift=shift.reshape(-1, 3),
        valid=jnp.tile(neighbors.valid, cells),
        reach=neighbors.reach,
        positions=structure.positions,
        cell=structure.cell,
        near=_rows_of_all_cells(neighbors, cells),
        owner=owner.reshape(-1),
        image=image.reshape(-1, 3),
        waves=None if waves is None else jnp.asarray(waves, jnp.int32),
    )


def _rows_of_all_cells(neighbors: Neighbors, cells: int) -> Int[Array, "atoms width"]:
    """`near`: atoms of the same cell, images of this cell, nobody."""
    n, images = neighbors.n_atoms, neighbors.owner.shape[0]
    cell = jnp.arange(cells)[:, None, None]
    near = neighbors.near[None]
    atom = n * cell + near
    image = n * cells + images * cell + (near - n)
    nobody = cells * (n + images)
    seen = jnp.where(near < n, atom, jnp.where(near < neighbors.nobody, image, nobody))
    return seen.reshape(cells * n, -1).astype(neighbors.near.dtype)


def thickness(cell: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """Distance between opposite faces of a cell, Å, along each cell vector."""
    return 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
