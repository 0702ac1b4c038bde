"""What has an average at a temperature: numbers of each frame, and what fluctuations make of them.

An observable here is a function of all frames with their weights, the energy U of each, its volume V, and
whatever else it asks to be measured. With n coordinates that move and an ideal gas of as many (their momenta
are Maxwell's, and are put in by hand), strain derivatives W = dU/de, W2 = d²U/de² for the isotropic stretch
x -> x (1 + e), and S_k, B_kl for the six strains:

    pressure            p   = n kT / 3V - <W> / 3V
    heat capacity       C   = n k / 2 + var(U + pV) / kT²              (at constant volume: without pV)
    thermal expansion   a   = cov(V, U + pV) / (kT² <V>)               (at constant pressure)
    bulk modulus        K   = kT <V> / var(V)                          (at constant pressure)
                            = n kT / 3V + [<W2> - 2 <W> - var(W) / kT] / 9V         (at constant volume)
    elastic constants   C_kl = [<B_kl> - t_l <S_k> - cov(S_k, S_l) / kT + n kT t_k t_l / 3] / V,
                                                                       t = (1, 1, 1, 0, 0, 0)

The last is the change of the mean stress with the strain, as `mdsens.observables` has it at zero temperature:
Born's term, the fluctuation of the stress, and the ideal gas.

Sources: Squire, Holt, Hoover, Physica 42, 388 (1969); Allen, Tildesley, Computer Simulation of Liquids
    (2017), section 2.5; Lutsko, J. Appl. Phys. 65, 2991 (1989).
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.checks import nearest
from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.observables.calls import called, is_call
from mdsens.observables.geometry import angle, distance, tetrahedrality
from mdsens.observables.observable import Observable, State
from mdsens.potentials.base import Potential
from mdsens.strain import strain_matrix
from mdsens.structure import Structure
from mdsens.thermal.frames import FrameFunction
from mdsens.thermal.pairs import radial_distribution
from mdsens.thermal.point import ThermalObservable, ThermalPoint
from mdsens.units import BOLTZMANN, GPA

CONSTANT = re.compile(r"C([1-6])([1-6])")
DIAGONAL = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)  # t: a strain of this kind changes the volume


# --- measured in each frame -----------------------------------------------------------------------------


def _stretched(potential: Potential, structure: Structure, neighbors: Neighbors) -> Callable[[Array], Array]:
    return lambda e: potential.energy(structure.deformed((1 + e) * jnp.eye(3)), neighbors)


def virial(potential: Potential, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
    """W = dU/de of the isotropic stretch, eV."""
    stretched = _stretched(potential, structure, neighbors)
    return jax.jvp(stretched, (jnp.zeros(()),), (jnp.ones(()),))[1]


def stiffness(potential: Potential, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
    """W2 = d²U/de² of the isotropic stretch, eV."""
    stretched = _stretched(potential, structure, neighbors)
    slope = lambda e: jax.jvp(stretched, (e,), (jnp.ones(()),))[1]
    return jax.jvp(slope, (jnp.zeros(()),), (jnp.ones(()),))[1]


def _strained(
    potential: Potential, structure: Structure, neighbors: Neighbors
) -> Callable[[Array, Array], Array]:
    def energy(strain: Array, further: Array) -> Array:
        first = structure.deformed(jnp.eye(3) + strain_matrix(strain))
        return potential.energy(first.deformed(jnp.eye(3) + strain_matrix(further)), neighbors)

    return energy


def strain_slopes(potential: Potential, structure: Structure, neighbors: Neighbors) -> Float[Array, "6"]:
    """S_k = dU / d strain_k, eV: volume times stress."""
    none = jnp.zeros(6)
    return jax.grad(_strained(potential, structure, neighbors), argnums=1)(none, none)


def strain_bends(potential: Potential, structure: Structure, neighbors: Neighbors) -> Float[Array, "6 6"]:
    """B_kl = dS_k / d strain_l, eV."""
    none = jnp.zeros(6)
    slopes = lambda strain: jax.grad(_strained(potential, structure, neighbors), argnums=1)(strain, none)
    return jax.jacfwd(slopes)(none)


@dataclasses.dataclass(frozen=True)
class InEveryFrame:
    """An `Observable` of one arrangement, in every frame: its number of this place."""

    observable: Observable
    place: int

    def __call__(self, potential: Potential, structure: Structure, neighbors: Neighbors) -> Array:
        states = {name: State(structure, neighbors) for name in self.observable.states or ("structure",)}
        return self.observable.measure(potential, states)[self.place]


# --- functions of averages ------------------------------------------------------------------------------


def mean_energy(point: ThermalPoint) -> tuple[Array]:
    """<U>, eV."""
    return (point.mean(point.energy),)


def mean_energy_per_atom(point: ThermalPoint) -> tuple[Array]:
    """<U> / N, eV."""
    return (point.mean(point.energy) / point.n_atoms,)


def mean_volume(point: ThermalPoint) -> tuple[Array]:
    """<V>, Å³."""
    return (point.mean(point.volume),)


def mean_density(point: ThermalPoint) -> tuple[Array]:
    """N / <V>, 1/Å³."""
    return (point.n_atoms / point.mean(point.volume),)


def mean_pressure(point: ThermalPoint) -> tuple[Array]:
    """GPa."""
    pressures = (point.ideal() - point.of(virial) / 3) / point.volume
    return (GPA * point.mean(pressures),)


def heat_capacity(point: ThermalPoint) -> tuple[Array]:
    """Of all atoms, with their momenta, eV/K."""
    H = point.enthalpy
    of_potential = point.covariance(H, H) / (point.kT * point.temperature)
    return (of_potential + point.freedom * BOLTZMANN / 2,)


def thermal_expansion(point: ThermalPoint) -> tuple[Array]:
    """d ln<V> / dT, 1/K."""
    change = point.covariance(point.volume, point.enthalpy) / (point.kT * point.temperature)
    return (change / point.mean(point.volume),)


def bulk_modulus(point: ThermalPoint) -> tuple[Array]:
    """-V dp/dV at constant temperature, GPa."""
    if point.pressure is not None:
        V = point.volume
        return (GPA * point.kT * point.mean(V) / point.covariance(V, V),)
    W = point.of(virial)
    born = point.mean(point.of(stiffness)) - 2 * point.mean(W)
    of_potential = (born - point.covariance(W, W) / point.kT) / 9
    return (GPA * (point.ideal() + of_potential) / point.volume[0],)


@dataclasses.dataclass(frozen=True)
class ElasticConstants:
    """Entries of the matrix, GPa.

    Attributes:
        entries: their rows and columns, from 0.
    """

    entries: tuple[tuple[int, int], ...]

    def __call__(self, point: ThermalPoint) -> tuple[Array, ...]:
        """Born's term, fluctuation, ideal gas."""
        S, B = point.of(strain_slopes), point.mean(point.of(strain_bends))
        mean, t = point.mean(S), jnp.array(DIAGONAL)
        deviation = S - mean
        spread = jnp.einsum("f,fk,fl->kl", point.weights, deviation, deviation)
        gas = point.ideal() * jnp.outer(t, t)
        C = (B - jnp.outer(mean, t) - spread / point.kT + gas) / point.volume[0]
        return tuple(GPA * C[row, column] for row, column in self.entries)


@dataclasses.dataclass(frozen=True)
class MeanOf:
    """Averages of what was measured in each frame."""

    measured: tuple[FrameFunction, ...]

    def __call__(self, point: ThermalPoint) -> tuple[Array, ...]:
        """One for each."""
        return tuple(point.mean(point.of(function)) for function in self.measured)


# --- by name --------------------------------------------------------------------------------------------

NAMED: dict[str, ThermalObservable] = {
    "energy": ThermalObservable(("energy",), ("eV",), mean_energy),
    "energy_per_atom": ThermalObservable(("energy_per_atom",), ("eV",), mean_energy_per_atom),
    "volume": ThermalObservable(("volume",), ("Å³",), mean_volume, bulk=True),
    "density": ThermalObservable(("density",), ("1/Å³",), mean_density, bulk=True),
    "pressure": ThermalObservable(("pressure",), ("GPa",), mean_pressure, (virial,), bulk=True),
    "heat_capacity": ThermalObservable(("heat_capacity",), ("eV/K",), heat_capacity),
    "thermal_expansion": ThermalObservable(
        ("thermal_expansion",), ("1/K",), thermal_expansion, cell="moving", bulk=True
    ),
    "bulk_modulus": ThermalObservable(
        ("bulk_modulus",), ("GPa",), bulk_modulus, (virial, stiffness), bulk=True
    ),
}

CALLS: dict[str, Callable[..., Any]] = {
    "rdf": radial_distribution,
    "distance": distance,
    "angle": angle,
    "tetrahedrality": tetrahedrality,
}

TEXTS = {
    "energy": "potential energy, eV; energy_per_atom",
    "volume": "of the cell, Å³; density: atoms in it, 1/Å³",
    "pressure": "of motion and potential, GPa",
    "heat_capacity": "of all atoms, eV/K: at constant pressure where the cell moves, else at constant volume",
    "thermal_expansion": "d ln V / dT, 1/K, where the cell moves",
    "bulk_modulus": "at constant temperature, GPa",
    "C11 ... C66": "elastic constants at constant temperature, GPa, where the cell is held",
    "rdf(r_max=6, bins=60)": "pairs at a distance, over those of a gas",
    "distance(0, 1)": "of two atoms, Å; angle(0, 1, 2): at the middle one, °; tetrahedrality(0)",
}


def elastic_constants(names: Sequence[str]) -> ThermalObservable:
    """Elastic constants at constant temperature, GPa, computed together: "C11" ... "C66".

    Raises:
        InputError: another name.
    """
    entries = []
    for name in names:
        found = CONSTANT.fullmatch(name)
        if found is None:
            raise InputError(f"no elastic constant '{name}': use C11 ... C66.")
        entries.append((int(found[1]) - 1, int(found[2]) - 1))
    function, units = ElasticConstants(tuple(entries)), ("GPa",) * len(entries)
    return ThermalObservable(
        tuple(names), units, function, (strain_slopes, strain_bends), cell="held", bulk=True
    )


def chosen(observables: Any, structure: Structure) -> tuple[ThermalObservable, ...]:
    """Observables as they were given: names, calls, `Observable` of a frame, or `ThermalObservable`.

    Args:
        structure: one of the frames, for observables that look at one first.
    Raises:
        InputError: none, an unknown name (the nearest is suggested), or something that is none of these.
    """
    single = isinstance(observables, (str, Observable, ThermalObservable))
    items = [observables] if single else list(observables)
    if not items:
        raise InputError(f"no observables are given: name some of {', '.join(TEXTS)}.")
    constants = [item for item in items if isinstance(item, str) and CONSTANT.fullmatch(item)]
    others = [_one(item, structure) for item in items if item not in constants]
    found = [*others, elastic_constants(constants)] if constants else others
    names = [name for observable in found for name in observable.names]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two observables are called '{name}': ask for one of them at a time.")
    return tuple(found)


def _one(item: Any, structure: Structure) -> ThermalObservable:
    if isinstance(item, str):
        item = _by_name(item)
    if isinstance(item, ThermalObservable):
        return item
    if not isinstance(item, Observable):
        raise InputError(
            f"an observable is {type(item).__name__}: give a name out of {', '.join(TEXTS)}, an "
            "mdsens.Observable of one frame, or a ThermalObservable."
        )
    frame: Any = SimpleNamespace(structure=structure)
    bound = item.bound({name: frame for name in item.states})
    measured = tuple(InEveryFrame(bound, place) for place in range(len(bound.names)))
    return ThermalObservable(bound.names, bound.units, MeanOf(measured), measured)


def _by_name(name: str) -> Any:
    if is_call(name):
        return called(name, CALLS, "structure")
    if name not in NAMED:
        alike = nearest(name, [*NAMED, "C11", "C12", "C44", *CALLS], 0.3)
        raise InputError(f"no thermal observable '{name}'.{alike} There are: {', '.join(TEXTS)}.")
    return NAMED[name]
