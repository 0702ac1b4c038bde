"""Barriers, attempt frequencies and rates of a passage from one minimum over a saddle point to another.

In the harmonic approximation the rate of crossing is (Vineyard)

    k = nu exp(-(E_saddle - E_minimum) / k_B T),      nu = prod_i nu_i(minimum) / prod_j nu_j(saddle),

i over all vibrations of the minimum, j over those of the saddle point with a positive curvature: one fewer.
With D = M^(-1/2) H M^(-1/2) and the determinant taken off the motions that cost no energy,

    ln(2 pi nu) = [ln det D(minimum) - ln |det D(saddle)| + ln |omega_-^2|] / 2,

omega_-^2 being the one negative eigenvalue at the saddle point. d ln det D = tr(D^+ dD), and d omega_-^2 =
v . dD v with its eigenvector v held: no eigenvector is ever differentiated. Fixed coordinates do not vibrate.

Source: Vineyard, J. Phys. Chem. Solids 3, 121 (1957).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.checks import number
from mdsens.errors import InputError
from mdsens.gauge import find_gauge, orthonormal
from mdsens.observables.observable import Observable, State, States
from mdsens.observables.phonons import dynamical_matrix
from mdsens.potentials.base import Potential
from mdsens.relaxation.equilibrium import DENSE_LIMIT, Equilibrium
from mdsens.units import BOLTZMANN, THZ

PER_SECOND = 1e12  # THz


def vibrations(potential: Potential, state: State) -> Float[Array, "modes modes"]:
    """D of a state, eV/Å²/u, with 1 along the motions that cost no energy and along fixed coordinates."""
    structure, neighbors = state
    gauge = find_gauge(potential, structure, neighbors, 0)
    # D M^(1/2) t = M^(-1/2) H t = 0 for a rigid motion t
    weights = jnp.repeat(jnp.sqrt(structure.masses), 3)
    still = orthonormal(gauge.rigid * weights, structure.count * jnp.mean(structure.masses))
    projector = jnp.diag(gauge.free.astype(float)) - still.T @ still
    D = dynamical_matrix(potential, state)
    return projector @ D @ projector + jnp.eye(len(D)) - projector


def log_attempt_frequency(potential: Potential, minimum: State, saddle: State) -> Float[Array, ""]:
    """ln(nu) of the module docstring, nu in THz."""
    bottom = vibrations(potential, minimum)
    top = vibrations(potential, saddle)
    mode = jnp.linalg.eigh(jax.lax.stop_gradient(top))[1][:, 0]
    negative = mode @ top @ mode
    stiffer = jnp.linalg.slogdet(bottom)[1] - jnp.linalg.slogdet(top)[1]
    return (stiffer + jnp.log(-negative)) / 2 + jnp.log(THZ)


def height(potential: Potential, minimum: State, saddle: State) -> Float[Array, ""]:
    """Energy from the minimum up to the saddle point, eV."""
    low = potential.energy(minimum.structure, minimum.neighbors)
    return potential.energy(saddle.structure, saddle.neighbors) - low


@dataclasses.dataclass(frozen=True)
class Height:
    """The barrier, eV."""

    minimum: str
    saddle: str

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        return (height(potential, states[self.minimum], states[self.saddle]),)


@dataclasses.dataclass(frozen=True)
class AttemptFrequency:
    """Vineyard's attempt frequency, THz."""

    minimum: str
    saddle: str

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        found = log_attempt_frequency(potential, states[self.minimum], states[self.saddle])
        return (jnp.exp(found),)


@dataclasses.dataclass(frozen=True)
class Rate:
    """Rate of crossing at a temperature in K, 1/s."""

    minimum: str
    saddle: str
    temperature: float

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        minimum, saddle = states[self.minimum], states[self.saddle]
        boltzmann = height(potential, minimum, saddle) / (BOLTZMANN * self.temperature)
        return (PER_SECOND * jnp.exp(log_attempt_frequency(potential, minimum, saddle) - boltzmann),)


@dataclasses.dataclass(frozen=True)
class CheckPassage:
    """Refuses states that are no minimum and saddle point of the same atoms.

    Attributes:
        dense: all vibrations are needed.
    """

    observable: Observable
    minimum: str
    saddle: str
    dense: bool

    def __call__(self, states: Mapping[str, Equilibrium]) -> Observable:
        low, top = states[self.minimum], states[self.saddle]
        what = self.observable.title
        if low.structure.symbols != top.structure.symbols:
            raise InputError(
                f"{what}: the states '{self.minimum}' and '{self.saddle}' are of different atoms "
                f"({low.n_atoms} and {top.n_atoms}): a passage has the same ones in the same order."
            )
        low.certificate.require_minimum(f"{what}: the state '{self.minimum}'")
        top.certificate.require_transition_state(f"{what}: the state '{self.saddle}'")
        if self.dense:
            self._check_vibrations(low, top)
        return dataclasses.replace(self.observable, bind=None)

    def _check_vibrations(self, low: Equilibrium, top: Equilibrium) -> None:
        what = self.observable.title
        if 3 * low.n_atoms > DENSE_LIMIT:
            raise InputError(
                f"{what} needs all vibrations of {low.n_atoms} atoms (at most {DENSE_LIMIT // 3}): fix those "
                "far away in a smaller cell, or ask for the barrier alone."
            )
        if low.gauge.rank != top.gauge.rank:
            raise InputError(
                f"{what}: '{self.minimum}' has {low.gauge.rank} vibrations and '{self.saddle}' "
                f"{top.gauge.rank}: an atom that touches nothing in one of them. Remove it."
            )


def barrier(minimum: str = "initial", saddle: str = "saddle") -> Observable:
    """Energy from a minimum up to a saddle point, eV.

    Args:
        minimum, saddle: names of the states.
    Raises:
        SaddlePointError: when bound to states: no minimum, or no saddle point with one negative mode.
        InputError: states of different atoms.
    """
    plain = Observable((_name("barrier", minimum),), ("eV",), Height(minimum, saddle), (minimum, saddle))
    return _checked(dataclasses.replace(plain, ghosts=True), minimum, saddle, dense=False)


def attempt_frequency(minimum: str = "initial", saddle: str = "saddle") -> Observable:
    """Vineyard's attempt frequency out of a minimum over a saddle point, THz.

    Raises:
        As `barrier`; InputError: more atoms than dense Hessians serve.
    """
    name = _name("attempt_frequency", minimum)
    plain = Observable((name,), ("THz",), AttemptFrequency(minimum, saddle), (minimum, saddle))
    return _checked(plain, minimum, saddle, dense=True)


def rate(temperature: float, minimum: str = "initial", saddle: str = "saddle") -> Observable:
    """Rate of crossing in the harmonic approximation, 1/s.

    Args:
        temperature: K.
    Raises:
        As `attempt_frequency`; InputError: a temperature that is not positive.
    """
    temperature = number("temperature", temperature, "K", above=0)
    name = _name(f"rate_{temperature:g}K", minimum)
    plain = Observable((name,), ("1/s",), Rate(minimum, saddle, temperature), (minimum, saddle))
    return _checked(plain, minimum, saddle, dense=True)


def _name(what: str, minimum: str) -> str:
    return f"backward_{what}" if minimum == "final" else what


def _checked(plain: Observable, minimum: str, saddle: str, *, dense: bool) -> Observable:
    return dataclasses.replace(plain, bind=CheckPassage(plain, minimum, saddle, dense))


def passage_by_name(name: str) -> Observable | None:
    """The observable that a name such as "backward_rate_300K" means; None for other names."""
    backward = name.startswith("backward_")
    what = name.removeprefix("backward_")
    minimum = "final" if backward else "initial"
    if what == "barrier":
        return barrier(minimum)
    if what == "attempt_frequency":
        return attempt_frequency(minimum)
    temperature = _temperature(what)
    return None if temperature is None else rate(temperature, minimum)


def _temperature(what: str) -> float | None:
    if not (what.startswith("rate_") and what.endswith("K")):
        return None
    try:
        value: Any = float(what[len("rate_") : -1])
    except ValueError:
        return None
    return value
