"""Frequencies of vibrations with the wave vector zero of the given cell.

With masses m the displacements u = v / sqrt(m) obey D v = omega^2 v,

    D = M^(-1/2) H M^(-1/2),    H = d2E / dx dx    (cell held).

Modes that symmetry makes equal are measured together. A perturbation mixes them, and each of them alone has
no derivative; the mean of their omega^2 has one:

    omega^2 = tr(V^T D V) / g,    d omega^2 = tr(V^T dD V) / g,

V being any basis of the g modes. Its own motion counts in second order only, so V may be held.
"""

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.batching import map_rows
from mdsens.checks import whole
from mdsens.errors import InputError
from mdsens.implicit.groups import groups_of, held
from mdsens.observables.observable import Observable, State, States
from mdsens.potentials.base import Potential
from mdsens.relaxation.equilibrium import DENSE_LIMIT, Equilibrium
from mdsens.units import THZ


@dataclasses.dataclass(frozen=True)
class GammaPhonon:
    """Frequency (THz) of modes `first` to `last` in ascending order, their mean; negative if imaginary."""

    state: str
    first: int
    last: int

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        state = states[self.state]
        all_modes = jnp.linalg.eigh(dynamical_matrix(*held((potential, state))))[1]
        modes = all_modes[:, self.first : self.last + 1].T
        products = apply_dynamical_matrix(potential, state, modes)
        square = jnp.mean(jnp.sum(modes * products, axis=1))
        return (THZ * jnp.sign(square) * jnp.sqrt(jnp.abs(square)),)


@dataclasses.dataclass(frozen=True)
class FindGroup:
    """Finds which modes are equal, in the relaxed state."""

    state: str
    rank: int

    def __call__(self, states: Mapping[str, Equilibrium]) -> Observable:
        state = states[self.state]
        if 3 * state.n_atoms > DENSE_LIMIT:
            raise InputError(
                f"gamma_phonon needs all vibrations of '{self.state}', which has {state.n_atoms} atoms (at "
                f"most {DENSE_LIMIT // 3}): measure it on the primitive cell."
            )
        squares = np.asarray(frequencies_squared(state))
        groups = groups_of(squares)
        if self.rank > len(groups):
            raise InputError(
                f"gamma_phonon(rank={self.rank}): '{self.state}' has {len(groups)} groups of equal modes."
            )
        first, last = groups[-self.rank]
        return _observable(GammaPhonon(self.state, first, last))


def gamma_phonon(state: str = "structure", rank: int = 1) -> Observable:
    """Frequency in THz of a vibration with the wave vector zero of the given cell; negative if imaginary.

    In a primitive cell of diamond the highest is the optical (Raman) mode. A repeated cell folds other wave
    vectors in. Equal modes are measured together. Fixed coordinates vibrate like all others.

    Args:
        rank: which group of equal modes, counted from the highest.
    Raises:
        InputError: no whole number; when bound to states: fewer groups, or too many atoms.
    """
    rank = whole("rank", rank, at_least=1)
    plain = _observable(GammaPhonon(state, 0, 0))
    return dataclasses.replace(plain, bind=FindGroup(state, rank))


def _observable(function: GammaPhonon) -> Observable:
    return Observable(("gamma_phonon",), ("THz",), function, (function.state,))


def frequencies_squared(state: Equilibrium) -> Float[Array, "modes"]:
    """omega^2 of all modes, ascending, eV/Å²/u."""
    seen = State(state.structure, state.neighbors)
    return _eigenvalues(state.potential, seen)


@eqx.filter_jit
def _eigenvalues(potential: Potential, state: State) -> Float[Array, "modes"]:
    return jnp.linalg.eigvalsh(dynamical_matrix(potential, state))


def dynamical_matrix(potential: Potential, state: State) -> Float[Array, "modes modes"]:
    """D of a structure, eV/Å²/u."""
    rows = apply_dynamical_matrix(potential, state, jnp.eye(3 * state.structure.n_atoms))
    return (rows + rows.T) / 2


def apply_dynamical_matrix(
    potential: Potential, state: State, vectors: Float[Array, "rows modes"]
) -> Float[Array, "rows modes"]:
    """D times each row."""
    structure, neighbors = state
    weights = jnp.repeat(1 / jnp.sqrt(structure.masses), 3)

    def slope(x: Float[Array, "modes"]) -> Float[Array, "modes"]:
        at = lambda x: potential.energy(structure.at(x.reshape(-1, 3)), neighbors)
        return jax.grad(at)(x)

    push = jax.linearize(slope, structure.positions.ravel())[1]
    return map_rows(lambda v: weights * push(weights * v), vectors)
