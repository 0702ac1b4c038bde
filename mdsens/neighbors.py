"""Pairs of atoms within reach, for any cell and any periodicity.

A pair is (i, j, shift): atom j's image lies at x_j + shift @ cell. Every pair stands once, also an atom with its
own image, also several images of one atom: cells smaller than the cutoff are right. The list is made for
reach = cutoff + skin and stays complete while the atoms move little (`is_complete`).

Two builders give the same pairs: vesin on the host (any cell), and jax-md's cell list on the device (cells larger
than twice the reach along every vector), where a rebuild on the host would cost hundreds of force calls.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdsens.errors import InputError, NonFiniteError, TracedError
from mdsens.structure import Structure, complete_cell

ALL_PAIRS_LIMIT = 5000  # atoms; without a cutoff every pair counts and the list grows as N²


class Neighbors(eqx.Module):
    """Pairs within `reach`, padded so that a rebuilt list has the shape of the old one.

    Attributes:
        i, j: (pairs,) atom indices; padded slots hold 0.
        shift: (pairs, 3) whole cell vectors between the image of j and j itself.
        valid: (pairs,) False in padded slots.
        reach: cutoff + skin the list was made for, Å (inf: all pairs of a cluster).
        positions, cell: where the list was made, Å; `is_complete` compares with them.
    """

    i: Int[Array, "pairs"]
    j: Int[Array, "pairs"]
    shift: Float[Array, "pairs 3"]
    valid: Bool[Array, "pairs"]
    reach: Float[Array, ""]
    positions: Float[Array, "atoms 3"]
    cell: Float[Array, "3 3"]

    @property
    def capacity(self) -> int:
        return self.i.shape[0]

    def vectors(self, structure: Structure) -> Float[Array, "pairs 3"]:
        """Vectors from i to the image of j, Å. Padded slots point farther than any cutoff."""
        x = structure.positions
        d = x[self.j] - x[self.i] + self.shift @ structure.cell
        # A padded slot must be harmless in every derivative: a constant vector beyond the reach.
        far = jnp.array([2.0, 0.0, 0.0], d.dtype) * jnp.where(jnp.isfinite(self.reach), self.reach, 1.0)
        return jnp.where(self.valid[:, None], d, far)

    def slack(self, structure: Structure, cutoff: Float[Array, ""]) -> Float[Array, ""]:
        """How far, in Å, the list is from missing a pair within `cutoff`; negative: rebuild."""
        # Old cell h, new cell h F. A pair left out had |d| > reach; now it is d F + (w_j - w_i) with w = x - x_old F:
        #     |d F + w_j - w_i|  >=  (1 - |F - 1|) reach - 2 max|w|
        # so the list is complete while this bound is above the cutoff. Missing cell vectors never change.
        missing = jnp.sum(self.cell**2, axis=1) == 0
        fill = _complement(self.cell, missing)
        old = jnp.where(missing[:, None], fill, self.cell)
        new = jnp.where(missing[:, None], fill, structure.cell)
        deformation = jnp.linalg.solve(old, new)
        moved = structure.positions - self.positions @ deformation
        stretch = jnp.sqrt(jnp.sum((deformation - jnp.eye(3)) ** 2))
        bound = (1.0 - stretch) * self.reach - 2.0 * jnp.sqrt(jnp.max(jnp.sum(moved**2, axis=-1)))
        return jnp.where(jnp.isfinite(self.reach), bound - cutoff, jnp.inf)


def _complement(cell: Float[Array, "3 3"], missing: Bool[Array, "3"]) -> Float[Array, "3 3"]:
    # Unit vectors orthogonal to the cell vectors present, one in each missing row. The last right singular vectors
    # span what the rows leave out.
    orthogonal = jnp.linalg.svd(cell)[2]
    return orthogonal[jnp.clip(jnp.sum(~missing) + jnp.cumsum(missing) - 1, 0, 2)]


def find_neighbors(structure: Structure, cutoff: float, skin: float = 0.0, capacity: int = 0) -> Neighbors:
    """All pairs within cutoff + skin, found on the host.

    Args:
        structure: concrete positions and cell, or differentiated ones (the list itself has no derivative).
        cutoff: Å; inf for a free cluster whose atoms all interact.
        skin: extra reach, Å, so that the list outlives small moves.
        capacity: slots at least kept, so that shapes (and compiled code) do not change when pairs are fewer.
    Raises:
        InputError: infinite cutoff with periodic boundaries or for more than ALL_PAIRS_LIMIT atoms.
        NonFiniteError: NaN or infinite positions or cell.
        TracedError: called under jit or vmap, where positions have no values.
    """
    # A list is piecewise constant in positions and cell. The custom rule says so, and lets the host see the values
    # behind any number of nested derivatives.
    @jax.custom_jvp
    def build(positions, cell):
        if isinstance(positions, jax.core.Tracer) or isinstance(cell, jax.core.Tracer):
            raise TracedError(
                "neighbors are searched on the host and need concrete positions: under jax.jit or jax.vmap pass "
                "neighbors=find_neighbors(structure, cutoff, skin) made outside."
            )
        return _build_on_host(np.asarray(positions), np.asarray(cell), structure.pbc, float(cutoff), float(skin), capacity)

    @build.defjvp
    def rule(primals, tangents):
        neighbors = build(*primals)
        return neighbors, jax.tree.map(_zero_tangent, neighbors)

    return build(structure.positions, structure.cell)


def _zero_tangent(leaf):
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    return np.zeros(leaf.shape, jax.dtypes.float0)


def _build_on_host(positions: np.ndarray, cell: np.ndarray, pbc: tuple[bool, ...], cutoff: float, skin: float, capacity: int) -> Neighbors:
    n = len(positions)
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        bad = np.flatnonzero(~np.isfinite(positions).all(1))
        where = f"atom {bad[0]} is at {positions[bad[0]]}" if len(bad) else "the cell is not finite"
        raise NonFiniteError(f"cannot search neighbors: {where}. Check the structure that was read or built.")
    if np.isinf(cutoff):
        if any(pbc):
            raise InputError("this potential has no cutoff, so a periodic structure has infinitely many pairs: give it a cutoff.")
        if n > ALL_PAIRS_LIMIT:
            raise InputError(f"all pairs of {n} atoms do not fit (limit {ALL_PAIRS_LIMIT}): give the potential a cutoff.")
        i, j = np.triu_indices(n, 1)
        shift, reach = np.zeros((len(i), 3)), np.inf
    else:
        import vesin

        reach = cutoff + skin
        search = vesin.NeighborList(cutoff=reach, full_list=False)
        i, j, shift = search.compute(points=positions, box=complete_cell(cell), periodic=list(pbc), quantities="ijS")
    slots = _slots(len(i), capacity)
    pad = slots - len(i)
    return Neighbors(
        i=jnp.asarray(np.pad(i.astype(np.int32), (0, pad))),
        j=jnp.asarray(np.pad(j.astype(np.int32), (0, pad))),
        shift=jnp.asarray(np.pad(shift.astype(float), ((0, pad), (0, 0)))),
        valid=jnp.asarray(np.arange(slots) < len(i)),
        reach=jnp.asarray(reach),
        positions=jnp.asarray(positions),
        cell=jnp.asarray(cell),
    )


def _slots(pairs: int, capacity: int) -> int:
    # Some room, in coarse steps of about 6 %: a list rebuilt after a small move keeps its shape.
    if pairs <= capacity:
        return capacity
    step = 2 ** max(int(np.ceil(np.log2(max(pairs, 16)))) - 4, 0)
    return int(np.ceil(1.02 * pairs / step)) * step
