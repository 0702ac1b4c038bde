"""Pairs on the device, by jax-md's cell list, where a search on the host would cost hundreds of force calls.

The cell is cut into boxes at least `reach` thick, so that the partners of an atom lie in its own box or a box
that touches it. Every atom then looks at its own box and at 13 of its 26 neighbors, one of each opposite two:
each pair comes up once. Boxes are counted along the cell vectors, so triclinic and elongated cells need
nothing special.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdsens.errors import InputError
from mdsens.structure import complete_cell

FEWEST = 3  # boxes along each vector: with fewer, two offsets lead to the same box and pairs come twice


class Pairs(NamedTuple):
    """Padded pairs (see `mdsens.neighbors.Neighbors`), and the largest number of partners of an atom."""

    i: Int[Array, "pairs"]
    j: Int[Array, "pairs"]
    shift: Float[Array, "pairs 3"]
    valid: Bool[Array, "pairs"]
    most: int


class Grid(NamedTuple):
    """Boxes along the cell vectors.

    Attributes:
        counts: boxes along each vector.
        low, thickness: where the boxes begin and how thick they are, in fractions of the cell vectors.
    """

    counts: tuple[int, int, int]
    low: np.ndarray
    thickness: np.ndarray


def fits(cell: np.ndarray, pbc: tuple[bool, ...], reach: float) -> bool:
    """Whether the cell is at least three reaches thick along each periodic vector, as boxes need."""
    thick = _heights(complete_cell(cell)) >= FEWEST * reach
    return bool(np.all(thick | ~np.asarray(pbc)))


def _heights(cell: np.ndarray) -> np.ndarray:
    # distance between opposite faces: 1 / |reciprocal vector|, and those are the columns of the inverse
    return 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)


def cut_into_boxes(positions: np.ndarray, cell: np.ndarray, pbc: tuple[bool, ...], reach: float) -> Grid:
    """Boxes at least `reach` thick: the whole cell along periodic vectors, around the atoms along the others.

    Args:
        positions, cell: Å; no row of the cell may be zero.
    Raises:
        InputError: a periodic vector has no room for three boxes.
    """
    periodic = np.asarray(pbc)
    heights = _heights(cell)
    if not fits(cell, pbc, reach):
        raise InputError(
            f"the cell is {np.round(heights, 2)} Å thick, and the cell list needs {FEWEST} x {reach:g} Å "
            "(cutoff + skin) along each periodic vector: repeat the cell, or let find_neighbors choose its "
            "builder."
        )
    fractional = positions @ np.linalg.inv(cell)
    low = np.where(periodic, 0.0, fractional.min(0))
    # a little more than the extent, so that the last atom lies inside the last box
    extent = np.where(periodic, 1.0, (fractional.max(0) - low) * (1 + 1e-9))
    most = np.floor(extent * heights / reach).astype(int)
    counts = np.maximum(most, FEWEST)
    # In a mostly empty cell thicker boxes do: no more boxes than atoms.
    while counts.prod() > max(len(positions), FEWEST**3):
        counts[counts.argmax()] = max(counts.max() // 2, FEWEST)
    open_thickness = np.maximum(extent / counts, reach / heights)
    thickness = np.where(periodic, 1 / counts, open_thickness)
    a, b, c = counts.tolist()
    return Grid((a, b, c), low, thickness)


def find_pairs(
    positions: np.ndarray, cell: np.ndarray, pbc: tuple[bool, ...], reach: float, slots: Callable[[int], int]
) -> Pairs:
    """All pairs within `reach` (Å), each once.

    Nothing can overflow: atoms per box and pairs are counted first, and the arrays made to measure.

    Args:
        slots: from the number of pairs to the length of the padded arrays.
    Raises:
        InputError: a periodic vector has no room for three boxes.
    """
    cell = complete_cell(cell)
    grid = cut_into_boxes(positions, cell, pbc, reach)
    fractional = jnp.asarray(positions) @ jnp.asarray(np.linalg.inv(cell))
    places = _places(fractional, jnp.asarray(grid.low), jnp.asarray(grid.thickness), pbc)
    # rounded up, so that few different shapes are ever compiled
    capacity = -(-int(_fullest(places, grid.counts)) // 8) * 8
    lengths = jnp.asarray(cell), jnp.asarray(reach)
    hits, partners = _look(places, fractional, *lengths, pbc, grid.counts, capacity)
    room = slots(int(jnp.sum(hits)))
    i, j, shift, valid, most = _collect(hits, partners, fractional, pbc, room)
    return Pairs(i, j, shift, valid, int(most))


@functools.partial(jax.jit, static_argnames="pbc")
def _places(fractional, low, thickness, pbc) -> Float[Array, "atoms 3"]:
    # positions in units of boxes
    wrapped = fractional - jnp.floor(fractional)
    inside = jnp.where(jnp.array(pbc), wrapped, fractional - low)
    return inside / thickness


@functools.partial(jax.jit, static_argnames="counts")
def _fullest(places, counts) -> Int[Array, ""]:
    from jax_md import partition

    boxes: Any = np.array([counts], float)  # jax-md counts boxes with numpy, whatever it declares
    return jnp.max(partition.count_cell_filling(places, boxes, 1.0))


def _nearest_image(fractional, i, j, pbc):
    # Boxes on either side of a face touch through it. Three boxes or more along the vector: the nearest image
    # is the only one within reach.
    whole = jnp.round(fractional[j] - fractional[i])
    return jnp.where(jnp.array(pbc), -whole, 0.0)


@functools.partial(jax.jit, static_argnames=("pbc", "counts", "capacity"))
def _look(
    places, fractional, cell, reach, pbc, counts, capacity
) -> tuple[Bool[Array, "14 atoms k"], Int[Array, "14 atoms k"]]:
    from jax_md import partition

    edges: Any = np.array(counts, float)
    boxes = partition.cell_list(edges, 1.0).update(places, capacity)
    contents = boxes.id_buffer.reshape(-1, capacity)  # atoms of each box; empty slots hold n
    n = fractional.shape[0]
    atom = jnp.arange(n)[:, None]
    # half of the offsets: those whose first entry that is not zero is positive, and the box itself
    offsets = np.array([o for o in np.ndindex(3, 3, 3)]) - 1
    offsets = offsets[len(offsets) // 2 :]

    def look_at(offset):
        box = (boxes.particle_cell_id + offset) % jnp.array(counts)
        x, y, z = jnp.moveaxis(box, -1, 0)
        number = x + counts[0] * (y + counts[1] * z)
        partner = contents[number]
        j = jnp.minimum(partner, n - 1)
        image = _nearest_image(fractional, atom, j, pbc)
        d = (fractional[j] - fractional[atom] + image) @ cell
        near = jnp.sum(d * d, axis=-1) < reach**2
        once = jnp.any(offset != 0) | (partner > atom)
        return near & (partner < n) & once, j

    return jax.lax.map(look_at, jnp.array(offsets))


@functools.partial(jax.jit, static_argnames=("pbc", "slots"))
def _collect(hits, partners, fractional, pbc, slots):
    n = fractional.shape[0]
    place = jnp.nonzero(hits.reshape(-1), size=slots, fill_value=0)[0]
    valid = jnp.arange(slots) < jnp.sum(hits)
    atom, partner = (place // hits.shape[2]) % n, partners.reshape(-1)[place]
    i = jnp.where(valid, atom, 0).astype(jnp.int32)
    j = jnp.where(valid, partner, 0).astype(jnp.int32)
    shift = jnp.where(valid[:, None], _nearest_image(fractional, i, j, pbc), 0.0)
    count = jnp.zeros(n, jnp.int32).at[i].add(valid)
    count = count.at[j].add(valid)
    return i, j, shift, valid, jnp.max(count)
