"""Thermal expansion: harmonic vibrations whose frequencies depend on the cell.

At the temperature T the cell takes the strain e at which the free energy, with the work against the pressure,
is stationary:

    G(e) = d/de [ E(e) + F_vib(e, T) + p V(e) ] = 0.

It moves with the parameters and with the temperature by the derivative of that equation,

    J de = - (dG/dtheta) dtheta - (dG/dT) dT,      J = dG/de.

The function of an observable takes one Newton step, e = e0 - J0^-1 G(e0), from the solution e0 that was found
before, with J0 held: its value is e0 and its first derivative that of the solution. Coefficients of expansion
are de/dT, relative to the length at T.

Atoms on sites that symmetry fixes follow the strain: fcc, bcc, hcp, diamond, rock salt. Others come to
rest in each strained cell, where E is lowest; what vibrations do to them within the cell is left out (zero
static internal stress).

A mode feels the volume by its Grueneisen parameter, gamma = - d ln(nu) / d ln(V).

Source: Born, Huang, Dynamical Theory of Crystal Lattices (1954), section 4; Allen, Phys. Rev. B 92, 064106
(2015); Taylor, Barrera, Allan, Barron, Phys. Rev. B 56, 14380 (1997), on atoms that settle.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import number
from mdsens.errors import InputError, NotConvergedError
from mdsens.neighbors import Neighbors
from mdsens.observables.constants import Constants
from mdsens.observables.crystal import conventional
from mdsens.observables.dispersion import FindModes, Modes, Phonon, mode_numbers
from mdsens.observables.elastic import require_bulk
from mdsens.observables.force_constants import Phi
from mdsens.observables.meshes import WaveMesh, mesh_of
from mdsens.observables.observable import Observable, State, States
from mdsens.observables.thermal import free_energy_of, oscillator_at
from mdsens.observables.wave_vectors import wave_vector
from mdsens.potentials.base import Potential
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.structure import Structure, volume

STEPS = 30  # of Newton's method, some five are needed
SETTLED = 1e-11  # strain: the last step is shorter
LARGEST = 0.05  # strain of one Newton step
ORDERS = 3  # of derivatives: two by the strain, one by the parameters
AT_REST = 1e-6  # of the largest curvature: shifts of the crystal
STILL = 1e-5  # Å per unit strain: atoms that move less than this in the cell follow the strain
UNIAXIAL = range(75, 195)  # space groups with one axis unlike the others
ORTHORHOMBIC = range(16, 75)

Strains = Float[Array, "strains"]
Tensor = tuple[tuple[float, float, float], ...]


Enthalpy = Callable[[Strains, Float[Array, ""]], Float[Array, ""]]


def taylor_terms(function: Callable[[Strains], Any], e: Strains, order: int) -> list[Any]:
    """A function at e, and its first and second derivatives if asked for: trees of arrays."""

    def value(e: Strains) -> tuple[Any, Any]:
        found = function(e)
        return found, found

    slope_and_value = jax.jacfwd(value, has_aux=True)
    if order == 1:
        slope, found = slope_and_value(e)
        return [found, slope]

    def both(e: Strains) -> tuple[Any, Any]:
        slope, found = slope_and_value(e)
        return slope, (slope, found)

    curvature, (slope, found) = jax.jacfwd(both, has_aux=True)(e)
    return [found, slope, curvature]


def polynomial(terms: Sequence[Array], e: Strains) -> Array:
    """f + f' e + e f'' e / 2, as far as there are terms; the last axes of derivatives are those of e."""
    total = terms[0] + terms[1] @ e
    return total if len(terms) == 2 else total + (terms[2] @ e) @ e / 2


@dataclasses.dataclass(frozen=True)
class Settling:
    """Where atoms come to rest in a strained cell: they follow the strain, and then the forces.

    From the solution u0 at one strain, with the Hessian K there, steps u - K^+ dE/du come one order closer to
    the solution at another strain, of other parameters, each: three of them give it with three derivatives.

    Attributes:
        shift: u0, Å. inverse: K^+ off the shifts of the crystal and off fixed coordinates, Å²/eV. Arrays, or
            constants.
    """

    shift: Any
    inverse: Any

    def settled(self, potential: Potential, neighbors: Neighbors, strained: Structure) -> Structure:
        """The structure at rest."""
        shift, inverse = _numbers(self.shift), _numbers(self.inverse)
        x = strained.positions + shift
        for _ in range(ORDERS):
            slope = _slope(potential, neighbors, strained, x)
            x = x - (inverse @ slope.ravel()).reshape(x.shape)
        return strained.at(x)

    @property
    def constant(self) -> "Settling":
        """Compared by its numbers, for what is compiled."""
        return Settling(Constants(self.shift), Constants(self.inverse))

    @classmethod
    def of(cls, potential: Potential, neighbors: Neighbors, strained: Structure, shift: Any) -> Self:
        """Solved in plain numbers, from a shift nearby."""
        free = np.ravel(~np.asarray(strained.fixed))
        for _ in range(STEPS):
            x = strained.positions + jnp.asarray(shift)
            slope, K = _slope_and_hessian(potential, neighbors, strained, x)
            inverse = np.linalg.pinv(np.where(free[:, None] & free, K, 0.0), rcond=AT_REST, hermitian=True)
            step = -(inverse @ np.ravel(slope)).reshape(x.shape)
            shift = shift + step
            if np.abs(step).max() < SETTLED:
                return cls(shift, inverse)
        raise NotConvergedError(
            f"the atoms did not come to rest in a strained cell within {STEPS} Newton steps (the last moved "
            f"one of them by {np.abs(step).max():.1e} Å): the crystal is soft there, or the strain of this "
            "temperature is large. Ask for a lower temperature, or relax with a smaller fmax first."
        )


def _numbers(given: Any) -> Any:
    return given.array if isinstance(given, Constants) else given


def _slope(potential: Potential, neighbors: Neighbors, structure: Structure, x: Array) -> Array:
    return jax.grad(lambda x: potential.energy(structure.at(x), neighbors))(x)


@eqx.filter_jit
def _slope_and_hessian(
    potential: Potential, neighbors: Neighbors, structure: Structure, x: Float[Array, "atoms 3"]
) -> tuple[Float[Array, "atoms 3"], Float[Array, "unknowns unknowns"]]:
    slope = lambda x: _slope(potential, neighbors, structure, x)
    K = jax.jacfwd(slope)(x)
    return slope(x), K.reshape(x.size, x.size)


@dataclasses.dataclass(frozen=True)
class ThermalStrain:
    """The crystal at a temperature.

    Attributes:
        basis: strains that are free. pressure: eV/Å³.
        strain: e0. inverse: J0^-1.
        settling: where atoms come to rest at each strain; None where symmetry holds them.
    """

    temperature: float
    pressure: float
    basis: tuple[Tensor, ...]
    mesh: WaveMesh
    strain: tuple[float, ...] = ()
    inverse: tuple[tuple[float, ...], ...] = ()
    settling: Settling | None = None

    def deformation(self, e: Strains) -> Float[Array, "3 3"]:
        """F = 1 + sum_k e_k B_k."""
        return jnp.eye(3) + jnp.einsum("k,kab->ab", e, jnp.array(self.basis))

    def crystal(self, potential: Potential, state: State, e: Strains) -> Structure:
        """The strained cell, with its atoms where they come to rest in it."""
        strained = state.structure.deformed(self.deformation(e))
        if self.settling is None:
            return strained
        return self.settling.settled(potential, state.neighbors, strained)

    def parts(self, potential: Potential, state: State, e: Strains) -> tuple[Float[Array, ""], Phi]:
        """E + p V of the strained cell, eV, and its force constants."""
        structure = self.crystal(potential, state, e)
        work = potential.energy(structure, state.neighbors) + self.pressure * volume(structure)
        phi = self.mesh.repetition.force_constants(potential, State(structure, state.neighbors))
        return work, phi

    def near(self, potential: Potential, state: State, e: Strains, order: int) -> Enthalpy:
        """E + F_vib + p V, eV, of a small further strain and a temperature: with `order` derivatives by it.

        The potential is asked for the Taylor series of the force constants once. What is differentiated
        again, by the strain, the temperature and both, are sums over small matrices.
        """
        terms = taylor_terms(lambda e: self.parts(potential, state, e), e, order)
        one = oscillator_at(self.temperature)

        def enthalpy(further: Strains, T: Float[Array, ""]) -> Float[Array, ""]:
            work, phi = jax.tree.map(lambda *each: polynomial(each, further), *terms)
            matrices = self.mesh.matrices_of(phi, state.structure)
            return work + free_energy_of(matrices, self.mesh, T, one)

        return enthalpy

    def forces(self, potential: Potential, state: State, e: Strains, T: Array) -> Strains:
        """G."""
        enthalpy = self.near(potential, state, e, 1)
        return jax.grad(enthalpy)(jnp.zeros_like(e), T)

    def stiffness_and_push(
        self, potential: Potential, state: State, e: Strains, T: Array
    ) -> tuple[Float[Array, "strains strains"], Strains]:
        """J, and dG/dT."""
        enthalpy = self.near(potential, state, e, 2)
        none = jnp.zeros_like(e)
        G = jax.grad(enthalpy)
        by_T = jax.jvp(lambda T: G(none, T), (T,), (jnp.ones_like(T),))[1]
        return jax.jacfwd(G)(none, T), by_T

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
        stiffness, push = expansion.stiffness_and_push(potential, state, e, T)
        rate = -jnp.linalg.solve(stiffness, push)
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
        InputError: a negative temperature; when bound to states: no crystal, or an unstable one.
            NotConvergedError: no volume at which the free energy is
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
    """- d ln(nu) / d ln(V) of modes, the atoms following the strain, or settling in the strained cell."""

    phonon: Phonon
    settling: Settling | None = None

    @property
    def state(self) -> str:
        """The state it is measured on."""
        return self.phonon.state

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        state = states[self.state]

        def squares(log_volume: Float[Array, ""]) -> Float[Array, "groups"]:
            structure = state.structure.deformed(jnp.exp(log_volume / 3) * jnp.eye(3))
            if self.settling is not None:
                structure = self.settling.settled(potential, state.neighbors, structure)
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
        phonon = self.function.phonon
        found: Any = FindModes(dataclasses.replace(self.observable, bind=None), phonon)(states).function
        if found.modes.numbers is None and found.modes.shifts:
            raise InputError(
                f"{what}: modes at rest have no Grueneisen parameter: ask for others (mode=...)."
            )
        settling = _settling(state, (_tensor(np.eye(3)),))
        held = None if settling is None else settling.constant
        return dataclasses.replace(self.observable, function=Grueneisen(found, held), bind=None)


def grueneisen(q: Any, mode: int | None = None, modes: Any = None, state: str = "structure") -> Observable:
    """Grueneisen parameters of the modes of a wave, - d ln(nu) / d ln(V).

    Args:
        q, mode, modes, state: as for `phonon`.
    Raises:
        InputError: as `phonon`; when bound to states: modes at rest.
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
def _strain_forces(
    potential: Potential, state: State, basis: Float[Array, "strains 3 3"]
) -> Float[Array, "strains atoms 3"]:
    def forces(strain: Float[Array, "3 3"]) -> Float[Array, "atoms 3"]:
        structure = state.structure.deformed(jnp.eye(3) + strain)
        return _slope(potential, state.neighbors, structure, structure.positions)

    return jax.vmap(lambda B: jax.jvp(forces, (jnp.zeros((3, 3)),), (B,))[1])(basis)


def _settling(state: Equilibrium, basis: Sequence[Tensor]) -> Settling | None:
    """None where symmetry holds the atoms in a cell that is strained so: they follow the strain."""
    seen = State(state.structure, state.neighbors)
    forces = np.asarray(_strain_forces(state.potential, seen, jnp.array(basis)))
    stiff = max(float(state.certificate.highest_curvature), 1e-12) if state.n_atoms > 1 else 1.0
    if np.abs(forces).max() / stiff < STILL:
        return None
    unmoved = np.zeros((state.n_atoms, 3))
    return Settling.of(state.potential, state.neighbors, state.structure, unmoved)


@eqx.filter_jit
def _newton(
    expansion: ThermalStrain,
    potential: Potential,
    state: State,
    e: Strains,
    T: Array,
    settling: tuple[Array, Array] | None,
) -> tuple[Strains, Float[Array, "strains strains"], Float[Array, ""]]:
    if settling is not None:
        expansion = dataclasses.replace(expansion, settling=Settling(*settling))
    enthalpy = expansion.near(potential, state, e, 2)
    G = jax.grad(enthalpy)
    none = jnp.zeros_like(e)
    structure = expansion.crystal(potential, state, e)
    return G(none, T), jax.jacfwd(G)(none, T), state.neighbors.slack(structure, potential.cutoff)


def _solved(expansion: ThermalStrain, state: Equilibrium, what: str) -> ThermalStrain:
    potential, seen = state.potential, State(state.structure, state.neighbors)
    T = jnp.asarray(expansion.temperature)
    e = np.zeros(len(expansion.basis))
    settling = _settling(state, expansion.basis)
    for _ in range(STEPS):
        if settling is not None:
            strained = state.structure.deformed(expansion.deformation(jnp.asarray(e)))
            settling = Settling.of(potential, state.neighbors, strained, settling.shift)
        known = None if settling is None else (jnp.asarray(settling.shift), jnp.asarray(settling.inverse))
        G, J, slack = _newton(expansion, potential, seen, jnp.asarray(e), T, known)
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
            held = None if settling is None else settling.constant
            strain = tuple(map(float, e))
            return dataclasses.replace(expansion, strain=strain, inverse=rows, settling=held)
    raise NotConvergedError(
        f"{what}: no strain near the relaxed crystal makes the free energy stationary (last strain "
        f"{np.abs(e).max():.3f}). At this temperature the quasi-harmonic crystal is not stable, or it "
        "expands beyond its neighbor list: take a lower temperature, or relax with a larger skin "
        "(relax(skin=...))."
    )
