"""Pairs sorted by the atom that looks, over atoms and the images of atoms that it sees.

On the host for lists of vesin, on the device for those of the cell list; both give the same.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from mdsens.arrays import places_in_rows


class ByAtom(NamedTuple):
    """Both directions of all pairs, ordered by the atom that looks: who, its place in the row, at what."""

    atom: np.ndarray
    place: np.ndarray
    neighbor: np.ndarray
    owner: np.ndarray
    image: np.ndarray
    n_atoms: int

    @property
    def width(self) -> int:
        return int(self.place.max(initial=-1)) + 1

    def rows(self, width: int, nobody: int) -> np.ndarray:
        rows = np.full((self.n_atoms, width), nobody, np.int32)
        rows[self.atom, self.place] = self.neighbor
        return rows


def by_atom(i: np.ndarray, j: np.ndarray, shift: np.ndarray, n_atoms: int) -> ByAtom:
    """Both directions of pairs that are given once."""
    atom = np.concatenate([i, j])
    # numpy sorts numbers of 16 bits in linear time
    short = atom.astype(np.uint16) if n_atoms <= 2**16 else atom
    order = np.argsort(short, kind="stable")
    place = places_in_rows(np.bincount(atom, minlength=n_atoms))
    neighbor = np.concatenate([j, i])[order]
    farthest = np.abs(shift).max(axis=0, initial=0).astype(np.int64)
    there = shift_numbers(shift, farthest)
    away = np.concatenate([there, -there])[order]
    outside = away != 0
    owner, image, index = _distinct_images(neighbor[outside], away[outside], farthest, n_atoms)
    neighbor[outside] = n_atoms + index
    return ByAtom(atom[order], place, neighbor, owner, image, n_atoms)


def width_and_images(i: np.ndarray, j: np.ndarray, shift: np.ndarray, n_atoms: int) -> tuple[int, int]:
    """The longest row of these pairs, and how many images they hold: those of `by_atom`."""
    width = int(np.bincount(np.concatenate([i, j]), minlength=1).max(initial=0))
    farthest = np.abs(shift).max(axis=0, initial=0).astype(np.int64)
    there = shift_numbers(shift, farthest)
    outside = there != 0
    away, of_j, of_i = there[outside], j[outside], i[outside]
    numbers = [away * n_atoms + of_j, -away * n_atoms + of_i]
    return width, _count_different(np.concatenate(numbers))


def _count_different(numbers: np.ndarray) -> int:
    if len(numbers) == 0:
        return 0
    low = numbers.min()
    size = int(numbers.max() - low) + 1
    if size > 64 * len(numbers):
        return len(np.unique(numbers))
    marked = np.zeros(size, bool)
    marked[numbers - low] = True
    return int(np.count_nonzero(marked))


def shift_numbers(shift: np.ndarray, farthest: np.ndarray) -> np.ndarray:
    """One whole number for each shift by cell vectors, its negative for the opposite one, 0 for none.

    Args:
        shift: (pairs, 3) whole numbers. farthest: the largest of each column, without its sign.
    """
    # s = (s_0 b_1 + s_1) b_2 + s_2 with b_k = 2 farthest_k + 1 values of s_k
    _, b, c = 2 * farthest + 1
    along = shift.T
    return (along[0] * (b * c) + along[1] * c + along[2]).astype(np.int64)


def _distinct_images(
    owner: np.ndarray, away: np.ndarray, farthest: np.ndarray, n_atoms: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # The different (owner, image) there are, and which of them each one given is. One whole number stands for
    # both, and these numbers are marked in an array of all there could be, unless that is very long.
    if len(owner) == 0:
        return owner, np.zeros((0, 3), np.int32), owner
    spans = 2 * farthest + 1
    lowest = shift_numbers(farthest, farthest)
    number = (away + lowest) * n_atoms + owner
    size = int(spans.prod()) * n_atoms
    if size > 64 * len(owner):
        distinct, index = np.unique(number, return_inverse=True)
    else:
        marked = np.zeros(size, bool)
        marked[number] = True
        distinct = np.flatnonzero(marked)
        index = (np.cumsum(marked) - 1)[number]
    cells = np.stack(np.unravel_index(distinct // n_atoms, tuple(spans)), axis=-1)
    image = (cells - farthest).astype(np.int32)
    return (distinct % n_atoms).astype(owner.dtype), image, index


# --- on the device

# One whole number for an image of an atom: 10 bits for each shift, 31 for the atom. HOME stands for the atom
# itself, and for the directions of padded pairs.
_HALF = 512
HOME = np.iinfo(np.int64).max


@jax.jit
def image_numbers(shift, j, i, valid) -> Int[Array, "directions"]:
    """The number of the image at the other end, for both directions of all pairs."""
    both = jnp.concatenate([shift, -shift]).astype(jnp.int64)
    powers = jnp.array([4 * _HALF**2, 2 * _HALF, 1])
    cells = (both + _HALF) @ powers
    number = cells * 2**31 + jnp.concatenate([j, i])
    away = jnp.any(both != 0, axis=-1) & jnp.tile(valid, 2)
    return jnp.where(away, number, HOME)


@jax.jit
def count_distinct(numbers) -> Int[Array, ""]:
    """How many different images there are."""
    ordered = jnp.sort(numbers)
    first = jnp.diff(ordered, prepend=-1) != 0
    return jnp.sum(first & (ordered != HOME))


@functools.partial(jax.jit, static_argnames=("n_atoms", "width", "room"))
def by_atom_on_device(i, j, shift, valid, numbers, n_atoms, width, room):
    """`near`, `owner` and `image` of `Neighbors`, in arrays of these shapes."""
    distinct = jnp.unique(numbers, size=room + 1, fill_value=HOME)[:room]
    used = distinct != HOME
    owner = jnp.where(used, distinct % 2**31, 0).astype(jnp.int32)
    cells = distinct // 2**31
    digits = jnp.stack(jnp.unravel_index(cells, (2 * _HALF,) * 3), axis=-1)
    image = jnp.where(used[:, None], (digits - _HALF).astype(float), 0.0)
    neighbor = jnp.concatenate([j, i])
    neighbor = jnp.where(numbers == HOME, neighbor, n_atoms + jnp.searchsorted(distinct, numbers))
    # Sorted by atom, an entry's place in its row is its distance from where the row begins.
    atom = jnp.where(jnp.tile(valid, 2), jnp.concatenate([i, j]), n_atoms)
    order = jnp.argsort(atom)
    atom = atom[order]
    place = jnp.arange(len(atom)) - jnp.searchsorted(atom, atom)
    rows = jnp.full((n_atoms, width), n_atoms + room, jnp.int32)
    neighbor = neighbor[order].astype(jnp.int32)
    # padded slots fall outside, and are dropped
    near = rows.at[atom, place].set(neighbor, mode="drop")
    return near, owner, image
