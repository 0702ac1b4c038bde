"""The pairs of a list that lie within a shorter reach: where all are known, no search is needed.

A list with a skin holds many pairs beyond the cutoff, and what is worked out for every pair, or for every two
of an atom, costs a multiple of what it needs to.
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from mdsens.arrays import on_device
from mdsens.neighbors.lists import Neighbors
from mdsens.neighbors.shapes import COARSE_ATOMS, coarse_slots, slots
from mdsens.structure import Structure

Plain = Float[np.ndarray, "..."]


def nearer(neighbors: Neighbors, structure: Structure, reach: float) -> Neighbors:
    """The list of the pairs within `reach`, without skin, out of one that holds them all.

    Args:
        neighbors: a list that is complete for this structure within `reach`, in plain numbers.
        reach: Å.
    """
    x, cell, near, owner, image, i, j, shift, valid = jax.device_get(
        (
            structure.positions,
            structure.cell,
            neighbors.near,
            neighbors.owner,
            neighbors.image,
            neighbors.i,
            neighbors.j,
            neighbors.shift,
            neighbors.valid,
        )
    )
    points = np.concatenate([x, x[owner] + image @ cell])
    of_rows = _among_rows(points, near, reach)
    of_pairs = valid & _within(x[j] - x[i] + shift @ cell, reach)
    return dataclasses.replace(
        neighbors,
        near=on_device(_compressed(near, of_rows, neighbors.nobody)),
        valid=on_device(of_pairs),
        reach=on_device(reach, float),
        positions=structure.positions,
        cell=structure.cell,
    )


def _within(vectors: Plain, reach: float) -> Bool[np.ndarray, "..."]:
    squares = np.einsum("...k,...k->...", vectors, vectors)
    return squares < reach**2


def _among_rows(
    points: Float[np.ndarray, "extended 3"], near: Int[np.ndarray, "atoms width"], reach: float
) -> Bool[np.ndarray, "atoms width"]:
    """Which places of the rows hold somebody within reach."""
    there = near < len(points)
    somebody = np.where(there, near, 0)
    centers = points[: len(near), None]
    return there & _within(points[somebody] - centers, reach)


def _compressed(
    near: Int[np.ndarray, "atoms width"], kept: Bool[np.ndarray, "atoms width"], nobody: int
) -> Int[np.ndarray, "atoms fewer"]:
    """Rows with those kept alone, in their order, and nobody in the places left."""
    counts = kept.sum(axis=1)
    longest = int(counts.max(initial=1))
    width = _width_for(longest, len(near))
    places = np.cumsum(kept, axis=1) - 1
    atoms = np.nonzero(kept)[0]
    rows = np.full((len(near), width), nobody, near.dtype)
    rows[atoms, places[kept]] = near[kept]
    return rows


def _width_for(longest: int, n_atoms: int) -> int:
    # one of few widths, as each is compiled
    return coarse_slots(longest) if n_atoms <= COARSE_ATOMS else slots(longest, 0)
