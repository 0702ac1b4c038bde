"""Thermodynamics of harmonic vibrations: free energy, entropy, heat capacity.

Each vibration is an oscillator with the levels (n + 1/2) h nu. At the temperature T, with x = h nu / kT,

    F = h nu / 2 + kT ln(1 - exp(-x)),      S = -dF/dT,      C = T dS/dT,

summed over all modes of all waves of a mesh, for one cell. The three shifts of the crystal at q = 0 are left
out; a finer mesh leaves less of them. Classical oscillators are not meant: at high temperature F tends to
theirs.

Source: Born, Huang, Dynamical Theory of Crystal Lattices (1954), section 4.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from mdsens.checks import number
from mdsens.implicit.spectral_sums import spectral_sum
from mdsens.observables.elastic import require_bulk
from mdsens.observables.meshes import WaveMesh, mesh_of, weights_of
from mdsens.observables.observable import Observable, States
from mdsens.potentials.base import Potential
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.units import BOLTZMANN, PLANCK, THZ

QUANTUM = PLANCK * THZ  # h nu in eV of a mode with omega^2 = 1 eV/Å²/u
KINDS = {"free_energy": "eV", "entropy": "eV/K", "heat_capacity": "eV/K"}

Kind = str


def oscillator(square: Float[Array, ""], temperature: Float[Array, ""]) -> Float[Array, ""]:
    """Free energy of one oscillator, eV, from its omega^2 (eV/Å²/u) and a temperature above zero (K)."""
    quantum = QUANTUM * jnp.sqrt(square)
    kT = BOLTZMANN * temperature
    return quantum / 2 + kT * jnp.log(-jnp.expm1(-quantum / kT))


def ground_state(square: Float[Array, ""], temperature: Float[Array, ""]) -> Float[Array, ""]:
    """The same at T = 0."""
    return QUANTUM * jnp.sqrt(square) / 2 + 0 * temperature


def free_energy_of(
    matrices: Complex[Array, "waves modes modes"],
    mesh: WaveMesh,
    temperature: Float[Array, ""],
    one: Callable[..., Array],
) -> Float[Array, ""]:
    """F of one cell, eV, out of the dynamical matrices of all waves."""
    function = lambda square: one(square, temperature)
    counted = jnp.asarray(mesh.vibrates)
    sums = jax.vmap(lambda D, count: spectral_sum(D, function, count))(matrices, counted)
    return jnp.dot(weights_of(mesh), sums)


def oscillator_at(temperature: float) -> Callable[..., Array]:
    """`oscillator`, or `ground_state` at T = 0."""
    return oscillator if temperature > 0 else ground_state


@dataclasses.dataclass(frozen=True)
class Vibrations:
    """F, S or C of the vibrations of one cell."""

    state: str
    kind: Kind
    temperature: float
    mesh: WaveMesh | None = None

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        mesh = self.mesh
        assert mesh is not None
        matrices = mesh.matrices(potential, states[self.state])
        one = oscillator_at(self.temperature)
        F = lambda T: free_energy_of(matrices, mesh, T, one)
        T = jnp.asarray(self.temperature)
        if self.kind == "free_energy":
            return (F(T),)
        S = lambda T: -jax.jvp(F, (T,), (jnp.ones_like(T),))[1]
        if self.kind == "entropy":
            return (S(T),)
        return (T * jax.jvp(S, (T,), (jnp.ones_like(T),))[1],)


@dataclasses.dataclass(frozen=True)
class FindMesh:
    """Makes the mesh for the relaxed state, and refuses unstable crystals."""

    observable: Observable
    function: Any
    counts: tuple[int, int, int]

    def __call__(self, states: Mapping[str, Equilibrium]) -> Observable:
        what = self.observable.names[0]
        state = states[self.function.state]
        require_bulk(state.structure, what)
        mesh = WaveMesh.of(state, self.counts, what)
        function = dataclasses.replace(self.function, mesh=mesh)
        return dataclasses.replace(self.observable, function=function, bind=None)


def vibrational(kind: Kind, T: float, mesh: Any = 4, state: str = "structure") -> Observable:
    """One of the harmonic functions of state, of one given cell: see `vibrational_free_energy`."""
    counts = mesh_of(mesh)
    temperature = number("T", T, "K", at_least=0)
    name = f"vibrational_{kind}(T={temperature:g}, mesh={list(counts)})"
    function = Vibrations(state, kind, temperature)
    plain = Observable((name,), (KINDS[kind],), function, (state,))
    return dataclasses.replace(plain, bind=FindMesh(plain, function, counts))


def vibrational_free_energy(T: float, mesh: Any = 4, state: str = "structure") -> Observable:
    """Free energy of the vibrations of one given cell, eV, without its potential energy.

    Args:
        T: temperature, K; at 0 what is left is the zero-point energy.
        mesh: waves along each reciprocal vector of the given cell.
    Raises:
        InputError: a negative temperature, no mesh; when bound to states: not periodic in three directions,
            or a mode without a restoring force.
    """
    return vibrational("free_energy", T, mesh, state)


def vibrational_entropy(T: float, mesh: Any = 4, state: str = "structure") -> Observable:
    """Entropy of the vibrations of one given cell, eV/K: `vibrational_free_energy`."""
    return vibrational("entropy", T, mesh, state)


def vibrational_heat_capacity(T: float, mesh: Any = 4, state: str = "structure") -> Observable:
    """Heat capacity at constant volume of one given cell, eV/K: `vibrational_free_energy`."""
    return vibrational("heat_capacity", T, mesh, state)
