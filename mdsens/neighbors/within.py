"""The pairs of a list that lie within a shorter reach: where all are known, no search is needed.

A list with a skin holds many pairs beyond the cutoff, and what is worked out for every pair, or for every two
of an atom, costs a multiple of what it needs to.
"""

import dataclasses

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
    x, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    owner, image = np.asarray(neighbors.owner), np.asarray(neighbors.image)
    near = np.asarray(neighbors.near)
    # nobody stands at infinity
    nobody = np.full((1, 3), np.inf)
    points = np.concatenate([x, x[owner] + image @ cell, nobody])
    of_rows = _within(points, near, x[:, None], reach)
    return dataclasses.replace(
        neighbors,
        near=on_device(_compressed(near, of_rows, neighbors.nobody)),
        valid=on_device(_flat_within(neighbors, x, cell, reach)),
        reach=on_device(reach, float),
        positions=structure.positions,
        cell=structure.cell,
    )


def _flat_within(neighbors: Neighbors, x: Plain, cell: Plain, reach: float) -> Bool[np.ndarray, "pairs"]:
    images = np.asarray(neighbors.shift) @ cell
    origins = x[np.asarray(neighbors.i)] - images
    valid = np.asarray(neighbors.valid)
    return valid & _within(x, np.asarray(neighbors.j), origins, reach)


def _within(
    points: Float[np.ndarray, "points 3"], chosen: Int[np.ndarray, "*shape"], origins: Plain, reach: float
) -> Bool[np.ndarray, "*shape"]:
    """Which of the chosen points lie within reach of their origins."""
    squares = np.zeros(chosen.shape)
    for axis in range(3):  # numbers apart from each other are read in long runs
        along = points[:, axis].take(chosen)
        along -= origins[..., axis]
        along *= along
        squares += along
    return squares < reach**2


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
