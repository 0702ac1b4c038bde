"""Thermal expansion: harmonic vibrations whose frequencies depend on the cell.

At the temperature T the cell takes the strain e at which the free energy, with the work against the pressure,
is stationary:

    G(e) = d/de [ E(e) + F_vib(e, T) + p V(e) ] = 0.

It moves with the parameters and with the temperature by the derivative of that equation,

    J de = - (dG/dtheta) dtheta - (dG/dT) dT,      J = dG/de.

The function of an observable takes one Newton step, e = e0 - J0^-1 G(e0), from the solution e0 that was found
before, with J0 held: its value is e0 and its first derivative that of the solution. Coefficients of expansion
are de/dT, relative to the length at T.

Atoms stand on sites that symmetry fixes, so that they follow the strain: fcc, bcc, hcp, diamond, rock salt.

A mode feels the volume by its Grueneisen parameter, gamma = - d ln(nu) / d ln(V).

Source: Born, Huang, Dynamical Theory of Crystal Lattices (1954), section 4; Allen, Phys. Rev. B 92, 064106
(2015).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import number
from mdsens.errors import InputError, NotConvergedError
from mdsens.observables.crystal import conventional
from mdsens.observables.dispersion import FindModes, Modes, Phonon, mode_numbers
from mdsens.observables.elastic import require_bulk
from mdsens.observables.meshes import WaveMesh, mesh_of
from mdsens.observables.observable import Observable, State, States
from mdsens.observables.thermal import free_energy_of, oscillator_at
from mdsens.observables.wave_vectors import wave_vector
from mdsens.potentials.base import Potential
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.structure import volume

STEPS = 30  # of Newton's method, some five are needed
SETTLED = 1e-11  # strain: the last step is shorter
LARGEST = 0.05  # strain of one Newton step
STILL = 1e-5  # Å per unit strain: atoms that move less than this in the cell follow the strain
UNIAXIAL = range(75, 195)  # space groups with one axis unlike the others
ORTHORHOMBIC = range(16, 75)

Strains = Float[Array, "strains"]
Tensor = tuple[tuple[float, float, float], ...]


@dataclasses.dataclass(frozen=True)
class ThermalStrain:
    """The crystal at a temperature.

    Attributes:
        basis: strains that are free. pressure: eV/Å³.
        strain: e0. inverse: J0^-1.
    """

    temperature: float
    pressure: float
    basis: tuple[Tensor, ...]
    mesh: WaveMesh
    strain: tuple[float, ...] = ()
    inverse: tuple[tuple[float, ...], ...] = ()

    def deformation(self, e: Strains) -> Float[Array, "3 3"]:
        """F = 1 + sum_k e_k B_k."""
        return jnp.eye(3) + jnp.einsum("k,kab->ab", e, jnp.array(self.basis))

    def enthalpy(self, potential: Potential, state: State, e: Strains, T: Array) -> Float[Array, ""]:
        """E + F_vib + p V of the strained cell, eV."""
        structure = state.structure.deformed(self.deformation(e))
        energy = potential.energy(structure, state.neighbors)
        strained = State(structure, state.neighbors)
        matrices = self.mesh.matrices(potential, strained)
        F = free_energy_of(matrices, self.mesh, T, oscillator_at(self.temperature))
        return energy + F + self.pressure * volume(structure)

    def forces(self, potential: Potential, state: State, e: Strains, T: Array) -> Strains:
        """G."""
        merit = lambda e: self.enthalpy(potential, state, e, T)
        return jax.jacfwd(merit)(e)

    def stiffness(
        self, potential: Potential, state: State, e: Strains, T: Array
    ) -> Float[Array, "strains strains"]:
        """J."""
        return jax.jacfwd(lambda e: self.forces(potential, state, e, T))(e)

    def solution(self, potential: Potential, state: State, T: Array) -> Strains:
        """e, with its first derivative."""
        e0 = jnp.array(self.strain)
        return e0 - jnp.array(self.inverse) @ self.forces(potential, state, e0, T)


@dataclasses.dataclass(frozen=True)
class ThermalVolume:
    """Volume of the given cell at a temperature, Å³."""

    state: str
    expansion: ThermalStrain | None = None

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        state, expansion = states[self.state], self.expansion
        assert expansion is not None
        e = expansion.solution(potential, state, jnp.asarray(expansion.temperature))
        return (volume(state.structure) * jnp.linalg.det(expansion.deformation(e)),)


@dataclasses.dataclass(frozen=True)
class ExpansionCoefficients:
    """Coefficients of thermal expansion, 1/K: of the volume, or of the lengths along the free axes."""

    state: str
    by_axes: bool
    expansion: ThermalStrain | None = None

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        state, expansion = states[self.state], self.expansion
        assert expansion is not None
        T = jnp.asarray(expansion.temperature)
        e = expansion.solution(potential, state, T)
        by_T = lambda T: expansion.forces(potential, state, e, T)
        push = jax.jvp(by_T, (T,), (jnp.ones_like(T),))[1]
        rate = -jnp.linalg.solve(expansion.stiffness(potential, state, e, T), push)
        basis = jnp.array(expansion.basis)
        change = jnp.einsum("k,kab->ab", rate, basis)
        relative = change @ jnp.linalg.inv(expansion.deformation(e))
        if not self.by_axes:
            return (jnp.trace(relative),)
        sizes = jnp.einsum("kab,kab->k", basis, basis)
        return (jnp.einsum("kab,ab->k", basis, relative) / sizes,)


@dataclasses.dataclass(frozen=True)
class FindExpansion:
    """Solves for the strain at the temperature, in plain numbers."""

    observable: Observable
    function: ThermalVolume | ExpansionCoefficients
    temperature: float
    counts: tuple[int, int, int]
    by_axes: bool

    def __call__(self, states: Mapping[str, Equilibrium]) -> Observable:
        what = self.observable.names[0]
        state = states[self.function.state]
        require_bulk(state.structure, what)
        _require_fixed_sites(state, what)
        mesh = WaveMesh.of(state, self.counts, what)
        basis = _axes(state, what) if self.by_axes else (_tensor(np.eye(3) / 3),)
        start = ThermalStrain(self.temperature, _pressure(state), basis, mesh)
        function = dataclasses.replace(self.function, expansion=_solved(start, state, what))
        return dataclasses.replace(self.observable, function=function, bind=None)


def thermal_volume(T: float, mesh: Any = 4, axes: bool = False, state: str = "structure") -> Observable:
    """Volume of the given cell at a temperature, Å³, by quasi-harmonic vibrations.

    Args:
        T: temperature, K; at 0 the zero-point vibrations expand the crystal.
        mesh: waves along each reciprocal vector of the given cell.
        axes: the axes of the crystal expand by themselves; if False, all alike.
    Raises:
        InputError: a negative temperature; when bound to states: no crystal, an unstable one, atoms that
            symmetry does not hold in place. NotConvergedError: no volume at which the free energy is
            stationary.
    """
    return _expansion("thermal_volume", "Å³", ThermalVolume(state), T, mesh, axes)


def thermal_expansion(T: float, mesh: Any = 4, axes: bool = False, state: str = "structure") -> Observable:
    """Coefficient of thermal expansion of the volume, 1/K; with `axes` of the lengths along each free axis.

    Free axes: a of a cubic crystal; a, c of a hexagonal, trigonal or tetragonal one; a, b, c of an
    orthorhombic one.

    Args:
        T: temperature, K, above 0.
        mesh, axes, state: as for `thermal_volume`.
    Raises:
        InputError, NotConvergedError: as `thermal_volume`.
    """
    number("T", T, "K", above=0)
    return _expansion("thermal_expansion", "1/K", ExpansionCoefficients(state, axes), T, mesh, axes)


def _expansion(name: str, unit: str, function: Any, T: float, mesh: Any, axes: bool) -> Observable:
    counts = mesh_of(mesh)
    temperature = number("T", T, "K", at_least=0)
    ending = ", axes=True" if axes else ""
    title = f"{name}(T={temperature:g}, mesh={list(counts)}{ending})"
    plain = Observable((title,), (unit,), function, (function.state,))
    return dataclasses.replace(plain, bind=FindExpansion(plain, function, temperature, counts, axes))


# --- how modes feel the volume


@dataclasses.dataclass(frozen=True)
class Grueneisen:
    """- d ln(nu) / d ln(V) of modes, the atoms following the strain."""

    phonon: Phonon

    @property
    def state(self) -> str:
        """The state it is measured on."""
        return self.phonon.state

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        state = states[self.state]

        def squares(log_volume: Float[Array, ""]) -> Float[Array, "groups"]:
            structure = state.structure.deformed(jnp.exp(log_volume / 3) * jnp.eye(3))
            return self.phonon.squares(potential, State(structure, state.neighbors))

        zero = jnp.zeros(())
        value, slope = jax.jvp(squares, (zero,), (jnp.ones(()),))
        return (self.phonon.modes.chosen(-slope / (2 * value)),)


@dataclasses.dataclass(frozen=True)
class FindGrueneisen:
    """Finds the modes as `FindModes` does, and refuses those at rest."""

    observable: Observable
    function: Grueneisen

    def __call__(self, states: Mapping[str, Equilibrium]) -> Observable:
        what = self.observable.names[0]
        state = states[self.function.state]
        require_bulk(state.structure, what)
        _require_fixed_sites(state, what)
        phonon = self.function.phonon
        found: Any = FindModes(dataclasses.replace(self.observable, bind=None), phonon)(states).function
        if found.modes.numbers is None and found.modes.shifts:
            raise InputError(
                f"{what}: modes at rest have no Grueneisen parameter: ask for others (mode=...)."
            )
        return dataclasses.replace(self.observable, function=Grueneisen(found), bind=None)


def grueneisen(q: Any, mode: int | None = None, modes: Any = None, state: str = "structure") -> Observable:
    """Grueneisen parameters of the modes of a wave, - d ln(nu) / d ln(V).

    Args:
        q, mode, modes, state: as for `phonon`.
    Raises:
        InputError: as `phonon`; when bound to states: modes at rest, atoms that symmetry does not hold.
    """
    chosen = Modes(wave_vector(q), mode_numbers(mode, modes))
    function = Grueneisen(Phonon(state, chosen))
    plain = Observable((f"grueneisen{chosen.title}",), ("",), function, (state,))
    return dataclasses.replace(plain, bind=FindGrueneisen(plain, function))


# --- in plain numbers -----------------------------------------------------------------------------


def _pressure(state: Equilibrium) -> float:
    target = np.asarray(state.landscape.target)
    return -float(np.trace(target)) / 3


def _tensor(matrix: np.ndarray) -> Tensor:
    a, b, c = ((float(x), float(y), float(z)) for x, y, z in matrix)
    return a, b, c


def _axes(state: Equilibrium, what: str) -> tuple[Tensor, ...]:
    found = conventional(state.structure, what, perfect=True)
    along = [np.outer(axis, axis) for axis in np.array(found.axes)]
    if found.is_cubic:
        return (_tensor(np.eye(3)),)
    if found.number in UNIAXIAL:
        return _tensor(np.eye(3) - along[2]), _tensor(along[2])
    if found.number in ORTHORHOMBIC:
        return _tensor(along[0]), _tensor(along[1]), _tensor(along[2])
    raise InputError(
        f"{what}: the axes of a crystal with the space group {found.symbol} ({found.number}) do not keep "
        "their angles: leave axes out, and all lengths expand alike."
    )


@eqx.filter_jit
def _strain_forces(potential: Potential, state: State) -> Float[Array, "strains atoms 3"]:
    def forces(strain: Float[Array, "3 3"]) -> Float[Array, "atoms 3"]:
        structure = state.structure.deformed(jnp.eye(3) + strain)
        energy = lambda x: potential.energy(structure.at(x), state.neighbors)
        return jax.grad(energy)(structure.positions)

    axes = jnp.einsum("ka,kb->kab", jnp.eye(3), jnp.eye(3))
    return jax.vmap(lambda B: jax.jvp(forces, (jnp.zeros((3, 3)),), (B,))[1])(axes)


def _require_fixed_sites(state: Equilibrium, what: str) -> None:
    """Raise where atoms move in a cell that is stretched along its axes, the cell's own strain apart."""
    seen = State(state.structure, state.neighbors)
    forces = np.asarray(_strain_forces(state.potential, seen))
    # all axes alike, which every crystal feels; and the axis that stands apart, where there is one
    largest = np.abs(forces.sum(axis=0)).max()
    stiff = max(float(state.certificate.highest_curvature), 1e-12) if state.n_atoms > 1 else 1.0
    if largest / stiff > STILL:
        raise InputError(
            f"{what}: the atoms of this crystal move within the cell when it expands (by about "
            f"{largest / stiff:.1e} Å per unit strain), and only crystals whose atoms are held by symmetry "
            "are supported: fcc, bcc, hcp, diamond, rock salt and their like."
        )


@eqx.filter_jit
def _newton(
    expansion: ThermalStrain, potential: Potential, state: State, e: Strains, T: Array
) -> tuple[Strains, Float[Array, "strains strains"], Float[Array, ""]]:
    forces = expansion.forces(potential, state, e, T)
    stiffness = expansion.stiffness(potential, state, e, T)
    structure = state.structure.deformed(expansion.deformation(e))
    return forces, stiffness, state.neighbors.slack(structure, potential.cutoff)


def _solved(expansion: ThermalStrain, state: Equilibrium, what: str) -> ThermalStrain:
    seen = State(state.structure, state.neighbors)
    T = jnp.asarray(expansion.temperature)
    e = np.zeros(len(expansion.basis))
    for _ in range(STEPS):
        G, J, slack = _newton(expansion, state.potential, seen, jnp.asarray(e), T)
        if not float(slack) >= 0:
            break
        step = -np.linalg.solve(np.asarray(J), np.asarray(G))
        if not np.isfinite(step).all():
            break
        e = e + np.clip(step, -LARGEST, LARGEST)
        if np.abs(step).max() < SETTLED:
            if np.linalg.eigvalsh((J + J.T) / 2).min() <= 0:
                break
            inverse = np.linalg.inv(np.asarray(J))
            rows = tuple(tuple(map(float, row)) for row in inverse)
            return dataclasses.replace(expansion, strain=tuple(map(float, e)), inverse=rows)
    raise NotConvergedError(
        f"{what}: no strain near the relaxed crystal makes the free energy stationary (last strain "
        f"{np.abs(e).max():.3f}). At this temperature the quasi-harmonic crystal is not stable, or it "
        "expands beyond its neighbor list: take a lower temperature, or relax with a larger skin "
        "(relax(skin=...))."
    )
