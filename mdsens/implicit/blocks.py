"""A symmetric sparse matrix of 3 x 3 blocks: what a Hessian of short range is, once it is written down.

Rows are padded to one length, so that a product is one look-up and one sum, in the same program for any
pattern of the same shape.
"""

from collections.abc import Callable
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.arrays import places_in_rows

Vector = Float[Array, "unknowns"]


def in_steps_of_four(needed: int) -> int:
    """The next multiple of four."""
    return -(-needed // 4) * 4


class BlockMatrix(eqx.Module):
    """Blocks B_ij of 3 x 3, those of a row side by side.

    Attributes:
        columns: (points, width) j of each block of row i; unused places hold a block of zeros at column 0.
        blocks: (3, 3, points, width): the first two indices are those within a block.
    """

    columns: Int[Array, "points width"]
    blocks: Float[Array, "3 3 points width"]

    @classmethod
    def of(
        cls,
        i: Int[np.ndarray, "entries"],
        j: Int[np.ndarray, "entries"],
        blocks: Float[np.ndarray, "entries 3 3"],
        n_points: int,
        width_for: Callable[[int], int] = in_steps_of_four,
    ) -> Self:
        """The sum of blocks at (i, j), any number of them at one place; both (i, j) and (j, i) are given.

        Args:
            width_for: places in a row, from those needed: few different ones, as each is compiled.
        """
        from scipy.sparse import csr_matrix

        order = _by_row_and_column(i, j, n_points)
        i, j = i[order], j[order]
        changes = (np.diff(i) != 0) | (np.diff(j) != 0)
        first = np.flatnonzero(np.concatenate([[True], changes])[: len(i)])
        # a product with ones adds up blocks wherever they stand
        ones, ends = np.ones(len(order)), np.append(first, len(order))
        adding = csr_matrix((ones, order, ends), shape=(len(first), len(order)))
        total = (adding @ blocks.reshape(-1, 9)).reshape(-1, 3, 3)
        row, column = i[first], j[first]
        counts = np.bincount(row, minlength=n_points)
        place = places_in_rows(counts)
        width = width_for(int(counts.max(initial=1)))
        columns = np.zeros((n_points, width), np.int32)
        columns[row, place] = column
        placed = np.zeros((3, 3, n_points, width))
        placed[:, :, row, place] = np.moveaxis(total, 0, -1)
        return cls(jax.device_put(columns), jax.device_put(placed))

    @property
    def n_points(self) -> int:
        """Rows of blocks."""
        return self.columns.shape[0]

    def __call__(self, v: Vector) -> Vector:
        """The product with a vector of 3 numbers a point."""
        points = v.reshape(-1, 3)
        x, y, z = (points[:, b][self.columns] for b in range(3))
        products = (a[0] * x + a[1] * y + a[2] * z for a in self.blocks)
        rows = [jnp.sum(product, axis=1) for product in products]
        return jnp.stack(rows, axis=-1).reshape(-1)

    def dense(self) -> np.ndarray:
        """The whole matrix (3 points, 3 points), for a few hundred points."""
        from scipy.sparse import bsr_array

        n, width = self.columns.shape
        blocks = np.moveaxis(np.asarray(self.blocks), (0, 1), (2, 3))
        columns = np.asarray(self.columns).reshape(-1)
        begins = width * np.arange(n + 1)
        # blocks at one place are added: unused places, which hold zeros, change nothing
        sparse = bsr_array((blocks.reshape(-1, 3, 3), columns, begins), shape=(3 * n, 3 * n))
        return sparse.toarray()


def _by_row_and_column(
    i: Int[np.ndarray, "entries"], j: Int[np.ndarray, "entries"], n_points: int
) -> Int[np.ndarray, "entries"]:
    """The order of the entries by i, and by j where i is the same."""
    # numpy sorts numbers of 16 bits in linear time
    if n_points > 2**16:
        return np.lexsort((j, i))
    by_column = np.argsort(j.astype(np.uint16), kind="stable")
    by_row = np.argsort(i[by_column].astype(np.uint16), kind="stable")
    return by_column[by_row]


class BorderedMatrix(eqx.Module):
    """A block matrix, and full rows for a few unknowns more at the end.

    Attributes:
        core: for the points.
        border: (few, unknowns) rows of the others, symmetric to their columns.
    """

    core: BlockMatrix
    border: Float[Array, "few unknowns"]

    def __call__(self, v: Vector) -> Vector:
        """The product with a vector."""
        n = 3 * self.core.n_points
        points, others = v[:n], v[n:]
        of_points = self.core(points) + self.border[:, :n].T @ others
        return jnp.concatenate([of_points, self.border @ v])

    def dense(self) -> np.ndarray:
        """The whole matrix, for a few hundred points."""
        border, core = np.asarray(self.border), self.core.dense()
        if not len(border):
            return core
        to_points = border[:, : len(core)]
        return np.block([[core, to_points.T], [border]])
