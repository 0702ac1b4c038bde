"""Relaxed geometry: distances of atoms, angles between bonds, and how ordered a neighborhood is.

Which images of the atoms are meant is looked up once, in the relaxed state: the nearest ones. They stay the
same while atoms and cell move.

Tetrahedral order of an atom with its four nearest neighbors is

    q = 1 - (3/8) sum_{j<k} (cos theta_jk + 1/3)²,

one for a perfect tetrahedron and zero on the average for directions at random. Steinhardt's order of degree l
with n neighbors is the length of the mean of their spherical harmonics; by the addition theorem

    q_l² = 4 pi / (2l + 1) sum_m |1/n sum_j Y_lm(j)|² = 1/n² sum_jk P_l(cos theta_jk),

P_l being Legendre's polynomials: one where all bonds are parallel, about n^(-1/2) for directions at random.

Source: Errington, Debenedetti, Nature 409, 318 (2001), doi:10.1038/35053024; Steinhardt, Nelson, Ronchetti,
Phys. Rev. B 28, 784 (1983), doi:10.1103/PhysRevB.28.784.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import whole
from mdsens.errors import InputError
from mdsens.observables.observable import Observable, States
from mdsens.potentials.base import Potential
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.structure import Structure

FEW = 64  # atoms: in smaller cells images of images may be neighbors
EQUAL = 1e-6  # relative: distances that do not differ
Bond = tuple[int, int, tuple[int, int, int]]  # from, to, whole cell vectors to the image of the second


@dataclasses.dataclass(frozen=True)
class Distance:
    """Length of a bond, Å."""

    state: str
    bonds: tuple[Bond, ...] = ()

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        (d,) = vectors(states[self.state].structure, self.bonds)
        return (jnp.linalg.norm(d),)


@dataclasses.dataclass(frozen=True)
class Angle:
    """Angle between two bonds of one atom, degrees."""

    state: str
    bonds: tuple[Bond, ...] = ()

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        u, v = vectors(states[self.state].structure, self.bonds)
        # smooth at every angle but 0 and 180°
        sine = jnp.linalg.norm(jnp.cross(u, v))
        return (jnp.degrees(jnp.arctan2(sine, u @ v)),)


@dataclasses.dataclass(frozen=True)
class Tetrahedrality:
    """Tetrahedral order of an atom."""

    state: str
    bonds: tuple[Bond, ...] = ()

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        d = vectors(states[self.state].structure, self.bonds)
        units = d / jnp.linalg.norm(d, axis=1, keepdims=True)
        cosines = jnp.stack([units[j] @ units[k] for j, k in itertools.combinations(range(4), 2)])
        return (1 - 3 / 8 * jnp.sum((cosines + 1 / 3) ** 2),)


@dataclasses.dataclass(frozen=True)
class Steinhardt:
    """Steinhardt's order of an atom, of one degree."""

    state: str
    degree: int
    bonds: tuple[Bond, ...] = ()

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        d = vectors(states[self.state].structure, self.bonds)
        units = d / jnp.linalg.norm(d, axis=1, keepdims=True)
        return (jnp.sqrt(jnp.mean(legendre(self.degree, units @ units.T))),)


def legendre(degree: int, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Legendre's polynomial."""
    # l P_l = (2l - 1) x P_(l-1) - (l - 1) P_(l-2)
    before, now = jnp.ones_like(x), x
    for n in range(2, degree + 1):
        before, now = now, ((2 * n - 1) * x * now - (n - 1) * before) / n
    return now


@dataclasses.dataclass(frozen=True)
class FindBonds:
    """Finds the images of the atoms in the relaxed state.

    Attributes:
        pairs: the atoms of each bond; with `nearest`, one atom, and so many of its nearest neighbors.
        distinct: the next neighbor must be farther away, so that it is no accident which ones are meant.
    """

    observable: Observable
    function: Any
    pairs: tuple[tuple[int, int], ...]
    center: int | None = None
    nearest: int = 0
    distinct: bool = False

    def __call__(self, states: Mapping[str, Equilibrium]) -> Observable:
        structure = states[self.function.state].structure
        what = self.observable.names[0]
        atoms = [self.center] if self.center is not None else [k for pair in self.pairs for k in pair]
        for atom in atoms:
            _require_atom(atom, structure, what)
        if self.center is None:
            bonds = tuple(_nearest_bonds(structure, i, [j], 1, what)[0] for i, j in self.pairs)
        else:
            everybody = list(range(structure.n_atoms))
            bonds = tuple(_nearest_bonds(structure, self.center, everybody, self.nearest, what))
        if self.distinct:
            _require_distinct(structure, bonds, what)
        function = dataclasses.replace(self.function, bonds=bonds)
        return dataclasses.replace(self.observable, function=function, bind=None)


def distance(i: int, j: int, state: str = "structure") -> Observable:
    """Distance of two atoms, the nearest images, Å.

    Raises:
        InputError: no atom numbers; when bound to states: an atom that is not there.
    """
    pair = (whole("i", i), whole("j", j))
    plain = Observable((f"distance({pair[0]}, {pair[1]})",), ("Å",), Distance(state), (state,))
    return dataclasses.replace(plain, bind=FindBonds(plain, Distance(state), (pair,)))


def angle(i: int, j: int, k: int, state: str = "structure") -> Observable:
    """Angle i-j-k at atom j, degrees, between the nearest images.

    Raises:
        InputError: as `distance`.
    """
    a, b, c = whole("i", i), whole("j", j), whole("k", k)
    plain = Observable((f"angle({a}, {b}, {c})",), ("°",), Angle(state), (state,))
    return dataclasses.replace(plain, bind=FindBonds(plain, Angle(state), ((b, a), (b, c))))


def tetrahedrality(atom: int, state: str = "structure") -> Observable:
    """Tetrahedral order of an atom: 1 for a perfect tetrahedron of its four nearest neighbors.

    Raises:
        InputError: no atom number; when bound to states: an atom that is not there, or has no four neighbors.
    """
    center = whole("atom", atom)
    function = Tetrahedrality(state)
    plain = Observable((f"tetrahedrality({center})",), ("",), function, (state,))
    return dataclasses.replace(plain, bind=FindBonds(plain, function, (), center, 4))


def steinhardt(atom: int, degree: int = 6, neighbors: int = 12, state: str = "structure") -> Observable:
    """Steinhardt's order q_l of an atom among its nearest neighbors.

    q_4 and q_6 of perfect crystals: 0.1909 and 0.5745 (fcc, 12 neighbors), 0.0972 and 0.4848 (hcp, 12),
    0.5092 and 0.6285 (bcc, 8), 0.0364 and 0.5107 (bcc, 14).

    Args:
        atom: its number.
        degree: l; what is zero by symmetry (odd ones in crystals with an inversion) has no derivative.
        neighbors: how many of the nearest ones count.
    Raises:
        InputError: numbers out of range; when bound to states: an atom that is not there, fewer neighbors, or
            one more that is as near as the last of them.
    """
    center = whole("atom", atom)
    order = whole("degree", degree, at_least=1)
    count = whole("neighbors", neighbors, at_least=1)
    function = Steinhardt(state, order)
    name = f"steinhardt({center}, degree={order}, neighbors={count})"
    plain = Observable((name,), ("",), function, (state,))
    return dataclasses.replace(plain, bind=FindBonds(plain, function, (), center, count, True))


def vectors(structure: Structure, bonds: Sequence[Bond]) -> Float[Array, "bonds 3"]:
    """The vectors of some bonds, Å."""
    i = jnp.array([bond[0] for bond in bonds])
    j = jnp.array([bond[1] for bond in bonds])
    shifts = jnp.array([bond[2] for bond in bonds], float)
    return structure.positions[j] - structure.positions[i] + shifts @ structure.cell


def _require_atom(atom: int, structure: Structure, what: str) -> None:
    if atom >= structure.n_atoms:
        raise InputError(
            f"{what}: there is no atom {atom}; {structure.n_atoms} atoms are counted from 0 to "
            f"{structure.n_atoms - 1}."
        )


def _nearest_bonds(structure: Structure, i: int, others: list[int], count: int, what: str) -> list[Bond]:
    shifts, lengths = _distances(structure, i, others)
    order = np.argsort(lengths, axis=None, kind="stable")[:count]
    places = [np.unravel_index(k, lengths.shape) for k in order]
    if len(places) < count or not all(np.isfinite(lengths[place]) for place in places):
        raise InputError(f"{what}: atom {i} has fewer than {count} other atoms about it.")
    return [(i, others[int(a)], _whole(shifts[int(s)])) for a, s in places]


def _distances(structure: Structure, i: int, others: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Whole cell vectors to images, and (others, images) how far they are; not an atom and itself."""
    # in a slanted cell of a few atoms neighbors stand beyond the next cells
    reach = 1 if structure.n_atoms > FEW else 2
    ranges = [range(-reach, reach + 1) if along else (0,) for along in structure.pbc]
    shifts = np.array(list(itertools.product(*ranges)))
    x, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    d = x[others][:, None] - x[i] + shifts @ cell
    lengths = np.linalg.norm(d, axis=2)
    return shifts, np.where(lengths < 1e-6, np.inf, lengths)


def _require_distinct(structure: Structure, bonds: Sequence[Bond], what: str) -> None:
    center, n = bonds[0][0], len(bonds)
    _, lengths = _distances(structure, center, list(range(structure.n_atoms)))
    ordered = np.append(np.sort(lengths, axis=None), np.inf)
    last, next_one = ordered[n - 1], ordered[n]
    if next_one - last > EQUAL * last:
        return
    alike = np.flatnonzero(np.abs(ordered - last) <= EQUAL * last)
    fewer, more = int(alike[0]), int(alike[-1]) + 1
    below = f"{fewer} or {more}" if fewer else f"{more}"
    raise InputError(
        f"{what}: neighbor {n} of atom {center} and the next one are both {last:.4f} Å away, and which of "
        f"them counts would be an accident: ask for neighbors={below}."
    )


def _whole(shift: np.ndarray) -> tuple[int, int, int]:
    a, b, c = (int(n) for n in shift)
    return a, b, c
