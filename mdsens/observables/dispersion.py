"""Vibrations of any wave that repeats with a supercell: frequencies and group velocities.

The displacements u_iR = v_i exp(i k . R) / sqrt(m_i) of a wave obey D(q) v = omega^2 v with the dynamical
matrix of `mdsens.observables.force_constants`. Modes are counted from 1, the lowest, to 3 n, the highest. An
imaginary frequency is shown as a negative one.

Modes that symmetry makes equal are measured together, as the mean of their omega^2: none of them alone has a
derivative (`mdsens.implicit.groups`). At q = 0 the three shifts of the crystal have the frequency zero and no
derivative; they are zero here.

Group velocity. With D(k) v = omega^2 v,

    v_g = d omega / dk = (1 / 2 omega) d(omega^2) / dk.

q counts in reciprocal vectors, q_a = a . k / 2 pi, so that d/dk = sum_a (a / 2 pi) d/dq_a.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mdsens.checks import short, whole
from mdsens.errors import InputError
from mdsens.implicit.groups import group_means, groups_of
from mdsens.observables.force_constants import Images, Repetition, wide_supercell
from mdsens.observables.observable import Observable, State, States
from mdsens.observables.polar import field_of_wave, require_ions
from mdsens.observables.primitive import PrimitiveCell
from mdsens.observables.supercells import Supercell
from mdsens.observables.wave_vectors import Wave, three, wave_vector, written
from mdsens.potentials.base import Potential
from mdsens.relaxation.equilibrium import DENSE_LIMIT, Equilibrium
from mdsens.structure import Structure
from mdsens.units import THZ

Groups = tuple[tuple[int, int], ...]

VELOCITY = 2 * np.pi * THZ / 10  # sqrt(eV / u) in km/s
AT_REST = 1e-6  # of the largest omega^2: below this a mode at q = 0 is a shift of the crystal


@dataclasses.dataclass(frozen=True)
class Modes:
    """Which modes of a wave are measured.

    Attributes:
        q: the wave. numbers: of the modes, from 1; None: all.
        groups: first and last (from 0) of each group of equal modes, known after `FindModes`.
        shifts: groups that are shifts of the whole crystal.
        direction: along which q = 0 is approached, in the field of the wave; None: without that field.
    """

    q: Wave
    numbers: tuple[int, ...] | None
    direction: tuple[float, float, float] | None = None
    groups: Groups = ()
    shifts: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """As text."""
        chosen = "" if self.numbers is None else f", modes={list(self.numbers)}"
        if self.numbers is not None and len(self.numbers) == 1:
            chosen = f", mode={self.numbers[0]}"
        if self.direction is not None:
            chosen += f", direction={list(self.direction)}"
        return f"(q={written(self.q)}{chosen})"

    @property
    def fractions(self) -> Float[np.ndarray, "3"]:
        """q as numbers."""
        return np.array([float(x) for x in self.q])

    def chosen(self, of_groups: Float[Array, "groups ..."]) -> Float[Array, "..."]:
        """The value of the group asked for; for all modes, each with that of its group."""
        if self.numbers is None:
            sizes = [last - first + 1 for first, last in self.groups]
            return jnp.repeat(of_groups, np.array(sizes), axis=0)
        return of_groups[self.group_of(self.numbers[0])]

    def group_of(self, number: int) -> int:
        """Which group a mode belongs to."""
        lasts = [last for _, last in self.groups]
        return int(np.searchsorted(lasts, number - 1))


@dataclasses.dataclass(frozen=True)
class Phonon:
    """Frequencies of the modes of a wave, THz."""

    state: str
    modes: Modes
    repetition: Repetition | None = None

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        squares = self.squares(potential, states[self.state])
        return (self.modes.chosen(frequencies(squares, self.modes.shifts)),)

    def squares(self, potential: Potential, state: State) -> Float[Array, "groups"]:
        """omega^2 of each group, eV/Å²/u."""
        return group_means(self.matrix(potential, state), self.modes.groups)

    def matrix(self, potential: Potential, state: State) -> Complex[Array, "modes modes"]:
        """The dynamical matrix."""
        repetition = _known(self.repetition)
        phi = repetition.force_constants(potential, state)
        matrix = repetition.dynamical_matrix(phi, state.structure, self.modes.fractions)
        if self.modes.direction is None:
            return matrix
        direction = self.modes.direction
        return matrix + field_of_wave(potential, state.structure, repetition.primitive, direction)


@dataclasses.dataclass(frozen=True)
class PhononVelocity:
    """Group velocities of the modes of a wave, km/s, along x, y, z."""

    state: str
    modes: Modes
    repetition: Repetition | None = None
    images: Images | None = None

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        state = states[self.state]
        repetition, images = _known(self.repetition), _known(self.images)
        phi = repetition.force_constants(potential, state)
        shape = (phi.shape[0], phi.shape[2], phi.shape[3])

        def squares(q: Float[Array, "3"]) -> Float[Array, "groups"]:
            phases = images.phases(q, shape)
            terms = phi * phases[:, None, :, :, None]
            return group_means(repetition.weighed(terms, state.structure), self.modes.groups)

        q = jnp.asarray(self.modes.fractions)
        slopes = jax.jacfwd(squares)(q)
        a = repetition.primitive.cell(state.structure)
        by_k = slopes @ a / (2 * jnp.pi)
        omega = jnp.sqrt(squares(q))
        velocity = VELOCITY * by_k / (2 * omega[:, None])
        return (self.modes.chosen(velocity),)


@dataclasses.dataclass(frozen=True)
class FindModes:
    """Looks at the modes of the relaxed state: which are equal, and whether those asked for are a group."""

    observable: Observable
    function: Phonon | PhononVelocity

    def __call__(self, states: Mapping[str, Equilibrium]) -> Observable:
        state, modes = states[self.function.state], self.function.modes
        what = self.observable.names[0]
        if modes.direction is not None:
            require_ions(state.potential, what)
        primitive = _primitive(state, what)
        if 3 * primitive.n_atoms > DENSE_LIMIT:
            raise InputError(
                f"{what} needs all vibrations of the primitive cell, which has {primitive.n_atoms} atoms (at "
                f"most {DENSE_LIMIT // 3})."
            )
        supercell = Supercell.of_wave(_in_given_cell(modes.q, primitive, state.structure, what))
        phonon = Phonon(self.function.state, modes, Repetition.of(state, primitive, supercell, what))
        seen = State(state.structure, state.neighbors)
        values = np.linalg.eigvalsh(_matrix(phonon, state.potential, seen))
        found = _with_groups(modes, values, what)
        if isinstance(self.function, Phonon):
            function: Any = dataclasses.replace(phonon, modes=found)
        else:
            function = _velocity(self.function, found, primitive, state, values, what)
        return dataclasses.replace(self.observable, function=function, bind=None)


def phonon(
    q: Any,
    mode: int | None = None,
    modes: Sequence[int] | None = None,
    state: str = "structure",
    direction: Any = None,
) -> Observable:
    """Frequencies of a vibration with a wave vector, THz; negative if imaginary.

    Exact for a potential of any range: they come from the supercell that the wave repeats with.

    Args:
        q: fractions of the reciprocal cell of the primitive cell (that of spglib, where the given cell is not
            primitive; `PrimitiveCell`).
        mode: its number, from 1, the lowest, to 3 n, the highest.
        modes: numbers of equal modes: their mean. By default all modes of the wave, in an array; equal ones
            have the derivative of their mean.
        state: name of the state.
        direction: for ions at q = 0: along which the wave is long, in fractions of the reciprocal cell. Its
            field then lifts the longitudinal modes (`mdsens.observables.polar`).
    Raises:
        InputError: q repeats with no supercell; when bound to states: a mode that belongs to a group of equal
            ones and is asked for alone, or that is not there; a shift of the crystal asked for; a potential
            made for particular atoms.
    """
    chosen = Modes(wave_vector(q), mode_numbers(mode, modes), direction=_direction(q, direction))
    plain = Observable((f"phonon{chosen.title}",), ("THz",), Phonon(state, chosen), (state,))
    return dataclasses.replace(plain, bind=FindModes(plain, Phonon(state, chosen)))


def phonon_velocity(
    q: Any, mode: int | None = None, modes: Sequence[int] | None = None, state: str = "structure"
) -> Observable:
    """Group velocity of a vibration along x, y and z, km/s: d omega / dk.

    For potentials of finite range. Equal modes have the velocity of their mean.

    Args:
        q, mode, modes, state: as for `phonon`.
    Raises:
        InputError: as `phonon`; when bound to states: interactions without end (Coulomb sums), an unstable
            mode, or modes at rest among those asked for.
    """
    chosen = Modes(wave_vector(q), mode_numbers(mode, modes))
    function = PhononVelocity(state, chosen)
    plain = Observable((f"phonon_velocity{chosen.title}",), ("km/s",), function, (state,))
    return dataclasses.replace(plain, bind=FindModes(plain, function))


def frequencies(squares: Float[Array, "groups"], shifts: tuple[int, ...] = ()) -> Float[Array, "groups"]:
    """Frequencies in THz out of omega^2; negative if imaginary, zero and without derivative for shifts."""
    still = np.isin(np.arange(len(squares)), shifts)
    safe = jnp.where(still, 1.0, squares)
    signed = jnp.sign(safe) * jnp.sqrt(jnp.abs(safe))
    return jnp.where(still, 0.0, THZ * signed)


def _direction(q: Any, direction: Any) -> tuple[float, float, float] | None:
    if direction is None:
        return None
    wave = wave_vector(q)
    x, y, z = (float(n) for n in three("direction", direction))
    if any(wave) or not (x or y or z):
        raise InputError(
            f"direction = {short(direction)} at q = {written(wave)}: a direction says how q = [0, 0, 0] is "
            "approached, and is not zero itself."
        )
    return x, y, z


# --- what is looked at once -----------------------------------------------------------------------


def _known(value: Any) -> Any:
    if value is None:
        raise InputError("this observable has seen no state yet: bind it first (Observable.bound).")
    return value


def mode_numbers(mode: int | None, modes: Sequence[int] | None) -> tuple[int, ...] | None:
    """The modes that are asked for, in order; None: all.

    Raises:
        InputError: both are given, or no numbers of 1 or more.
    """
    if mode is not None and modes is not None:
        raise InputError("mode and modes are both given: give one of them.")
    if mode is not None:
        return (whole("mode", mode, at_least=1),)
    if modes is None:
        return None
    if isinstance(modes, str) or not isinstance(modes, Sequence) or not len(modes):
        raise InputError(f"modes = {short(modes)}: give numbers of equal modes, such as [5, 6].")
    return tuple(sorted(whole("modes", number, at_least=1) for number in modes))


def _primitive(state: Equilibrium, what: str) -> PrimitiveCell:
    if not any(state.structure.pbc):
        raise InputError(
            f"{what} is a wave in a crystal, and this structure is not periodic (pbc = "
            f"{state.structure.pbc}): for a cluster ask for gamma_phonon."
        )
    return PrimitiveCell.of(state.structure)


def _in_given_cell(q: Wave, primitive: PrimitiveCell, structure: Structure, what: str) -> Wave:
    """q in fractions of the reciprocal cell of the given cell."""
    for k, periodic in enumerate(structure.pbc):
        if q[k] != 0 and not periodic:
            raise InputError(
                f"{what}: the structure does not repeat along cell vector {k + 1} (pbc = {structure.pbc}), "
                f"so q[{k}] must be 0."
            )
    (u, v, w) = q
    a, b, c = (k * u + m * v + n * w for k, m, n in primitive.matrix)
    return a, b, c


@eqx.filter_jit
def _matrix(phonon: Phonon, potential: Potential, state: State) -> Complex[Array, "modes modes"]:
    return phonon.matrix(potential, state)


def _with_groups(modes: Modes, values: np.ndarray, what: str) -> Modes:
    resting = not any(modes.q)
    # one atom has no vibrations at q = 0 but the shifts: what is there is rounding
    alone = resting and len(values) == 3
    groups = ((0, 2),) if alone else tuple(groups_of(values))
    at_rest = alone | (np.abs(values) < AT_REST * np.abs(values).max())
    shifts = tuple(g for g, (first, _) in enumerate(groups) if resting and at_rest[first])
    found = dataclasses.replace(modes, groups=groups, shifts=shifts)
    if modes.numbers is not None:
        _require_group(found, values, what)
    return found


def _require_group(modes: Modes, values: np.ndarray, what: str) -> None:
    numbers = modes.numbers or (1,)
    if numbers[-1] > len(values):
        raise InputError(f"{what}: there are {len(values)} modes, counted from 1.")
    group = modes.group_of(numbers[0])
    first, last = modes.groups[group]
    members = tuple(range(first + 1, last + 2))
    square = values[first]
    frequency = THZ * np.sign(square) * np.sqrt(abs(square))
    if group in modes.shifts:
        raise InputError(
            f"{what}: mode {numbers[0]} is a shift of the whole crystal, whose frequency is zero and stays "
            "zero: leave it out."
        )
    if numbers != members:
        listed = ", ".join(map(str, members))
        alone = "belongs to a group of equal modes" if len(members) > 1 else "is alone"
        raise InputError(
            f"{what}: mode {numbers[0]} {alone} at {frequency:.4f} THz, and single members of a group have "
            f"no derivatives: ask for modes=[{listed}], their mean."
        )


def _velocity(
    function: PhononVelocity,
    modes: Modes,
    primitive: PrimitiveCell,
    state: Equilibrium,
    values: np.ndarray,
    what: str,
) -> PhononVelocity:
    potential = state.potential
    if not potential.local or np.isinf(float(potential.cutoff)):
        raise InputError(
            f"{what}: {type(potential).__name__} has interactions without end, and a velocity needs force "
            "constants of a finite range. Take differences of `phonon` at two wave vectors."
        )
    if modes.numbers is None and (modes.shifts or values[0] <= 0):
        raise InputError(
            f"{what}: modes at rest or unstable have no velocity: ask for others by mode=... or modes=[...]."
        )
    if modes.numbers is not None and values[modes.numbers[0] - 1] <= 0:
        raise InputError(f"{what}: mode {modes.numbers[0]} is unstable (imaginary) and has no velocity.")
    # two atoms feel each other through a third one between them
    supercell = wide_supercell(state.structure, 2 * float(potential.cutoff))
    repetition = Repetition.of(state, primitive, supercell, what)
    images = Images.of(state.structure, repetition)
    return dataclasses.replace(function, modes=modes, repetition=repetition, images=images)
