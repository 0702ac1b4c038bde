"""Ghosts: atoms that nobody sees, so that structures of different sizes share compiled programs.

A program is compiled for one shape of its arrays, which takes seconds and memory that never comes back. So
arrays are filled up to one of a few sizes. What fills them is fixed, has no neighbors, no charge and no
energy, and stands behind the real atoms; what a user gets to see is without ghosts.

    outside                         within relaxations, their derivatives, calculators
    structure, n atoms     ->       `with_ghosts(structure)`: size_for(n) atoms, `real` says which
    neighbors, n atoms     ->       `list_with_ghosts(neighbors, structure)`

Real atoms keep their places, so that x[:n] of any array is theirs, and sums over all atoms with zeros for
ghosts are what they would be without them. A potential says whether it may meet ghosts (`Potential.ghosts`).
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from mdsens.arrays import on_device
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.structure import Structure

# Numbers of atoms, ghosts included. Those that crystals often have when they are repeated are among them:
# cubes of 1, 2 and 3 cells of diamond (8, 64, 216) or fcc (4, 32, 108, 256). If n is spread evenly between 20
# and 200, five sizes serve, and arrays are 25 % longer than they must be on the average, twice as long at
# most (33 atoms in 64); most of the time of a step so small is spent on calls, not on atoms.
SIZES = (4, 8, 16, 32, 64, 108, 160, 216, 256)
# Beyond: from one power of two to the next in this many equal steps. Arrays are longer by half a step on the
# average, 4 %, and by 12.5 % at most; half of that from FINER atoms on.
STEPS = 8
FINER = 1024

FAR = 1e3  # Å from the origin; there ghosts stand in a row, so that no two are at one place
APART = 10.0  # Å


def size_for(n: int) -> int:
    """Number of atoms, ghosts included, of the arrays for n atoms."""
    for size in SIZES:
        if n <= size:
            return size
    power = 1 << (n.bit_length() - 1)
    step = power // (STEPS if n < FINER else 2 * STEPS)
    return -(-n // step) * step


def with_ghosts(structure: Structure, size: int | None = None) -> Structure:
    """The structure filled up with ghosts, if it is not yet.

    Args:
        size: atoms and ghosts; by default `size_for` the atoms.
    """
    if structure.real is not None:
        return structure
    n = structure.n_atoms
    size = size_for(n) if size is None else size
    spare = size - n
    charges = structure.charges
    return dataclasses.replace(
        structure,
        positions=_appended(structure.positions, ghost_places(spare)),
        species=_repeated_first(structure.species, spare),
        masses=_appended(structure.masses, np.ones(spare)),
        fixed=_appended(structure.fixed, np.ones((spare, 3), bool)),
        charges=None if charges is None else _zeros_appended(charges, spare),
        columns={name: _zeros_appended(values, spare) for name, values in structure.columns.items()},
        real=on_device(np.arange(size) < n),
    )


def padded(potential: Potential, structure: Structure) -> Structure:
    """The structure with ghosts, if the potential may meet them."""
    return with_ghosts(structure) if potential.ghosts else structure


def without_ghosts(structure: Structure, n: int | None = None) -> Structure:
    """The structure with its real atoms alone.

    Args:
        n: their number, where it is known (under jit); by default it is counted.
    """
    if structure.real is None:
        return structure
    n = number_of_real(structure) if n is None else n
    per_atom = ("positions", "species", "masses", "fixed", "charges")
    there = {name: getattr(structure, name) for name in per_atom}
    kept = {name: first(values, n) for name, values in there.items() if values is not None}
    columns = {name: first(values, n) for name, values in structure.columns.items()}
    return dataclasses.replace(structure, **kept, columns=columns, real=None)


def moved(structure: Structure, positions: np.ndarray, cell: np.ndarray) -> Structure:
    """The real atoms elsewhere (plain numbers, Å), ghosts where they are."""
    ghosts = np.asarray(structure.positions)[len(positions) :]
    return structure.at(on_device(np.concatenate([positions, ghosts])), on_device(cell))


def number_of_real(structure: Structure) -> int:
    """Number of atoms without ghosts, as a plain number: not under jit."""
    if structure.real is None:
        return structure.n_atoms
    return int(np.sum(np.asarray(structure.real)))


def list_with_ghosts(neighbors: Neighbors, structure: Structure) -> Neighbors:
    """A list of the real atoms alone as one for the structure with its ghosts, who have no neighbors."""
    n, size = neighbors.n_atoms, structure.n_atoms
    if n == size:
        return neighbors
    spare = size - n
    near = _moved(neighbors.near, n, spare)
    rows = np.full((spare, neighbors.width), neighbors.nobody + spare, np.int32)
    positions = _appended(neighbors.positions, ghost_places(spare))
    return dataclasses.replace(neighbors, positions=positions, near=_appended(near, rows))


def list_without_ghosts(neighbors: Neighbors, n: int) -> Neighbors:
    """A list for a structure with ghosts as one of its n real atoms alone."""
    spare = neighbors.n_atoms - n
    if spare == 0:
        return neighbors
    near = _moved(first(neighbors.near, n), neighbors.n_atoms, -spare)
    return dataclasses.replace(neighbors, positions=first(neighbors.positions, n), near=near)


def first(values: Any, n: int) -> Any:
    """The first n rows. Plain numbers are cut on the host: nothing is compiled for a size that comes once."""
    if isinstance(values, Tracer):
        return values[:n]
    return on_device(np.asarray(values)[:n])


def real_part(vector: Any, n: int, size: int) -> np.ndarray:
    """Of plain unknowns (..., 3 size + strains) those of the n real atoms, and the strains."""
    vector = np.asarray(vector)
    atoms, strains = vector[..., : 3 * n], vector[..., 3 * size :]
    return np.concatenate([atoms, strains], axis=-1)


def _appended(values: Any, more: np.ndarray) -> Any:
    if isinstance(values, Tracer):
        return jnp.concatenate([values, jnp.asarray(more, values.dtype)])
    values = np.asarray(values)
    return on_device(np.concatenate([values, more.astype(values.dtype)]))


def _zeros_appended(values: Any, spare: int) -> Any:
    return _appended(values, np.zeros((spare, *np.shape(values)[1:])))


def _repeated_first(values: Any, spare: int) -> Any:
    # ghosts are of the species of the first atom: every potential that knows the structure knows them
    if isinstance(values, Tracer):
        return jnp.concatenate([values, jnp.broadcast_to(values[:1], (spare,))])
    values = np.asarray(values)
    return on_device(np.concatenate([values, np.repeat(values[:1], spare)]))


def _moved(near: Any, n: int, by: int) -> Any:
    # images, and nobody behind them, are counted from the number of atoms on
    if isinstance(near, Tracer):
        return jnp.where(near >= n, near + by, near)
    near = np.asarray(near)
    moved = np.where(near >= n, near + by, near)
    return on_device(moved.astype(near.dtype))


def ghost_places(spare: int) -> np.ndarray:
    """Where so many ghosts stand, Å."""
    places = np.zeros((spare, 3))
    places[:, 0] = FAR + APART * np.arange(spare)
    return places
