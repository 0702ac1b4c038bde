"""Follow a minimum along a parameter, the pressure or a strain, as far as it exists.

From each point the next is predicted to second order, w + w' ds + w'' ds² / 2, and corrected by Newton steps.
Steps are as long as first order is good to 10 %, |w''| ds / 2 <= 0.1 |w'|, or half of the way to a fold.
Near a fold the lowest curvature falls as the root of the distance,

    c(s) = c_0 sqrt(|s_fold - s|)    =>    s_fold - s = - c / (2 c'),

which says where one is; the fold itself is then solved for (`mdsens.continuation.fold`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import number, whole
from mdsens.continuation.branch import Branch, BranchEvent, BranchPoint
from mdsens.continuation.control import AbstractControl, control_of
from mdsens.continuation.fold import Fold, solve_fold
from mdsens.continuation.path_terms import Motion, motion_of
from mdsens.continuation.points import Family
from mdsens.errors import InputError, NotConvergedError
from mdsens.observables.observable import Observable, State, measure_all, row_names, shapes_of
from mdsens.potentials.base import Potential
from mdsens.relaxation.equilibrium import Equilibrium, default_skin
from mdsens.relaxation.landscape import Landscape, Vector
from mdsens.relaxation.plan import AutoRelaxer
from mdsens.relaxation.relax import Relaxed, relax, settle
from mdsens.relaxation.walk import Options, RelaxationProblem, Status
from mdsens.sensitivity.problem import View, chosen_observables, view_of
from mdsens.structure import Structure

STEPS_AT_LEAST = 8  # of a whole branch, however straight it is
SMALLEST = 1e-7  # of the whole way: shorter steps get nowhere
NEAR = 0.02  # of the whole way: a fold that is predicted within this is solved for
BEYOND = 1e-3  # of the whole way: how far beyond a fold another minimum is looked for
STILL = 1e-9  # Å: bends of the path below this are rounding
AWAY = 0.05  # Å: a correction may be this long, and half of the predicted move


class BranchProgress(NamedTuple):
    """What somebody who watches sees after each point."""

    s: float
    end: float
    points: int
    lowest: float  # curvature, eV/Å²


def follow(
    potential: Potential,
    structure: Structure | Relaxed,
    along: str | AbstractControl,
    end: float,
    *,
    observables: Sequence[Observable | str] | Observable | str = ("energy",),
    largest_step: float | None = None,
    switch: bool = False,
    max_points: int = 500,
    fmax: float = 1e-10,
    skin: float | None = None,
    progress: Callable[[BranchProgress], None] | None = None,
    **relax_options: Any,
) -> Branch:
    """Follow a minimum while one number is turned, up to a value or to where the minimum is gone.

    Args:
        structure: is relaxed first, unless it is `Relaxed` with this potential.
        along: "pressure", "strain_xx" ... "strain" (isotropic), the flat name of a parameter, or a control.
        end: value of that number to come to; strains count from the structure given.
        observables: measured at every point, with first and second derivatives along the branch.
        largest_step: in the number; by default an eighth of the way.
        switch: go on in the minimum that the structure falls into beyond a fold.
        max_points: of the branch.
        fmax: residual at each point, eV/Å.
        skin: extra reach of the neighbor lists, Å.
        progress: called after each point.
        relax_options: of the first relaxation (`cell`, `pressure`, `stress`, ...).
    Returns:
        `Branch`: points, events (folds with their critical value, bifurcations, contacts, switches).
    Raises:
        InputError: an unknown number, a pressure with a cell that is held, an end that is the start.
        SaddlePointError: the structure is no minimum. NotConvergedError: the branch is lost without a fold
            in sight; `.partial` is the `Branch` up to there. And what `relax` raises.
    """
    control = control_of(along)
    relaxed = structure
    if not (isinstance(structure, Relaxed) and structure.potential is potential):
        start = structure.structure if isinstance(structure, Relaxed) else structure
        relaxed = relax(potential, start, fmax=fmax, **relax_options)
    assert isinstance(relaxed, Relaxed)
    state = relaxed.equilibrium
    state.require("the start of the branch", relaxed)
    begin = control.value(state.landscape)
    end = number("end", end, control.unit)
    if end == begin:
        raise InputError(
            f"end = {end}: that is where the branch begins. Give another value of {control.name}."
        )
    largest = abs(end - begin) / STEPS_AT_LEAST
    if largest_step is not None:
        largest = number("largest_step", largest_step, control.unit, above=0)
    skin = default_skin(potential) if skin is None else number("skin", skin, "Å", at_least=0)
    meter = Meter.of(observables, state)
    settings = Settings(begin, end, largest, fmax, whole("max_points", max_points, at_least=2), switch)
    walk = _Walk(Family(control, state.landscape, skin), meter, settings, state)
    return walk.to_the_end(progress)


class Settings(NamedTuple):
    """How a branch is followed."""

    begin: float
    end: float
    largest: float
    fmax: float
    max_points: int
    switch: bool

    @property
    def length(self) -> float:
        """Of the whole way."""
        return abs(self.end - self.begin)

    @property
    def sign(self) -> float:
        """Direction of the way."""
        return 1.0 if self.end > self.begin else -1.0


@dataclasses.dataclass(frozen=True)
class Meter:
    """Measures observables along a branch."""

    observables: tuple[Observable, ...]
    names: tuple[str, ...]
    units: tuple[str, ...]

    @classmethod
    def of(cls, observables: Any, state: Equilibrium) -> "Meter":
        """The observables, bound to the first state."""
        states = {"structure": state}
        chosen = tuple(o.bound(states) for o in chosen_observables(observables, ("structure",)))
        seen = {"structure": view_of(state, _ghosts(chosen)).state(state.w)}
        rows = row_names(chosen, shapes_of(chosen, state.potential, seen))
        return cls(chosen, tuple(name for name, _ in rows), tuple(unit for _, unit in rows))

    def measure(self, family: Family, state: Equilibrium, s: float, motion: Motion) -> np.ndarray:
        """Values, slopes and bends, (3, observables)."""
        view = view_of(state, _ghosts(self.observables))
        base = family.around(state.landscape.neighbors)
        moves = jnp.asarray(motion.first), jnp.asarray(motion.second)
        return np.asarray(
            _observed(self.observables, view, family.control, base, jnp.asarray(s), state.w, *moves)
        )


def _ghosts(observables: Sequence[Observable]) -> bool:
    return all(observable.ghosts for observable in observables)


@eqx.filter_jit
def _observed(
    observables: tuple[Observable, ...],
    view: View,
    control: AbstractControl,
    base: Landscape,
    s: Float[Array, ""],
    w: Vector,
    first: Vector,
    second: Vector,
) -> Float[Array, "3 observables"]:
    def at(t: Float[Array, ""]) -> Array:
        landscape = control.place(base, s + t)
        structure = landscape.coordinates.structure(w + t * first + t**2 / 2 * second)
        state = State(structure, view.neighbors, view.internal, view.n_real)
        return measure_all(observables, landscape.potential, {"structure": state})

    one, zero = jnp.ones(()), jnp.zeros(())
    slope = lambda t: jax.jvp(at, (t,), (one,))
    (values, slopes), (_, bends) = jax.jvp(slope, (zero,), (one,))
    return jnp.stack([values, slopes, bends])


@eqx.filter_jit
def _contacts(landscape: Landscape, w: Vector) -> Array:
    """Pairs of atoms that interact."""
    structure = landscape.coordinates.structure(w)
    neighbors = landscape.neighbors
    distances = jnp.sqrt(jnp.sum(neighbors.vectors(structure) ** 2, axis=-1))
    touching = distances < landscape.potential.ranges(structure, neighbors)
    return jnp.sum(touching & neighbors.valid)


class _Walk:
    """A branch while it is followed."""

    def __init__(self, family: Family, meter: Meter, settings: Settings, state: Equilibrium):
        self.family, self.meter, self.settings = family, meter, settings
        self.state, self.s = state, settings.begin
        self.points: list[BranchPoint] = []
        self.events: list[BranchEvent] = []
        self.fold: Fold | None = None
        self._arrive(state, settings.begin)

    def branch(self, finished: bool) -> Branch:
        """As far as it was followed."""
        control, meter = self.family.control, self.meter
        points, events = tuple(self.points), tuple(self.events)
        return Branch(
            control.name, control.unit, meter.names, meter.units, points, events, self.fold, finished
        )

    def to_the_end(self, progress: Callable[[BranchProgress], None] | None) -> Branch:
        """Point after point."""
        while True:
            if progress is not None:
                progress(BranchProgress(self.s, self.settings.end, len(self.points), self.points[-1].lowest))
            if self.s == self.settings.end:
                return self.branch(True)
            if len(self.points) >= self.settings.max_points:
                raise NotConvergedError(
                    f"the branch stopped after max_points = {self.settings.max_points} points, at "
                    f"{self.family.control.name} = {self.s:.6g}. Raise max_points; error.partial holds it.",
                    self.branch(False),
                )
            if not self._advance():
                return self.branch(False)

    def _arrive(self, state: Equilibrium, s: float) -> None:
        base = self.family.around(state.landscape.neighbors)
        self.motion = motion_of(self.family.control, base, state, s)
        values, slopes, bends = self.meter.measure(self.family, state, s, self.motion)
        contacts = int(_contacts(state.landscape, state.w)) if state.potential.local else -1
        lowest = float(state.spectrum.lowest)
        point = BranchPoint(s, state.structure, values, slopes, bends, lowest, self._radius(), contacts)
        self._look_for_contacts(point)
        self.points.append(point)
        self.state, self.s = state, s

    def _radius(self) -> float:
        # |w''| ds / 2 <= 0.1 |w'|
        first = float(np.abs(self.motion.first).max(initial=0.0))
        second = float(np.abs(self.motion.second).max(initial=0.0))
        still = second * self.settings.length**2 < STILL
        return np.inf if still else 0.2 * first / second

    def _look_for_contacts(self, point: BranchPoint) -> None:
        if not self.points or point.contacts == self.points[-1].contacts:
            return
        change = point.contacts - self.points[-1].contacts
        text = f"{abs(change)} pairs {'came into' if change > 0 else 'went out of'} reach since {self.s:.6g}"
        self.events.append(BranchEvent("contacts", point.s, text))

    def _fold_ahead(self) -> float:
        """Distance to where the lowest curvature vanishes, as its slope predicts; inf if it does not."""
        slope = self.motion.curvature_slope * self.settings.sign
        return -self.points[-1].lowest / (2 * slope) if slope < 0 else np.inf

    def _advance(self) -> bool:
        """To the next point; False where the branch ends."""
        left = abs(self.settings.end - self.s)
        ahead = self._fold_ahead()
        if ahead < NEAR * self.settings.length and self._ends_in_fold(4.0 * ahead):
            return self._beyond()
        reach = 0.5 * ahead if np.isfinite(ahead) else 0.0
        step = min(self.settings.largest, max(self.points[-1].radius, reach), left)
        while step > SMALLEST * self.settings.length:
            whole_way = step >= left * (1 - 1e-12)
            s = self.settings.end if whole_way else self.s + self.settings.sign * step
            found = self._try(s)
            if found is not None and float(found.spectrum.lowest) > 0:
                self._arrive(found, s)
                return True
            if found is not None:
                return self._crossed(found, s)
            step /= 2
        if self._ends_in_fold(0.05 * self.settings.length):
            return self._beyond()
        raise NotConvergedError(
            f"the branch is lost at {self.family.control.name} = {self.s:.8g}: no state is found beyond, and "
            "no fold. The potential may not be smooth there (a pair that crosses a cutoff); error.partial "
            "holds the branch up to there.",
            self.branch(False),
        )

    def _try(self, s: float) -> Equilibrium | None:
        away = s - self.s
        move = away * self.motion.first + away**2 / 2 * self.motion.second
        w = self.state.w + jnp.asarray(move)
        guess = self.family.state(s, w, self.state.landscape.neighbors)
        found = self.family.corrected(guess, s, self.settings.fmax)
        if found is None:
            return None
        off = float(jnp.max(jnp.abs(found.w - w)))
        return found if off <= AWAY + 0.5 * float(np.abs(move).max(initial=0.0)) else None

    def _ends_in_fold(self, longest: float) -> bool:
        fold = solve_fold(self.family, self.state, self.s, self.settings.fmax, longest)
        if fold is None:
            return False
        ahead = (fold.s - self.s) * self.settings.sign
        beyond_end = (fold.s - self.settings.end) * self.settings.sign
        if ahead < 0 or beyond_end > 0:
            return False
        self.fold = self.fold or fold
        text = (
            f"the minimum meets a saddle point and is gone beyond {self.family.control.name} = {fold.s:.9g}"
        )
        self.events.append(BranchEvent("fold", fold.s, text))
        self._last_fold = fold
        return True

    def _crossed(self, found: Equilibrium, s: float) -> bool:
        """The lowest curvature has changed its sign on the way to s: a fold, or a bifurcation."""
        if self._ends_in_fold(2 * abs(s - self.s)):
            return self._beyond()
        critical = self._zero_curvature(found, s)
        text = f"the minimum goes on as a saddle point beyond {self.family.control.name} = {critical:.9g}"
        self.events.append(BranchEvent("bifurcation", critical, text))
        return False

    def _zero_curvature(self, found: Equilibrium, s: float) -> float:
        # the curvature passes through zero in a straight line at a bifurcation: false position, some rounds
        ends = [(self.s, self.points[-1].lowest), (s, float(found.spectrum.lowest))]
        for _ in range(12):
            (a, high), (b, low) = ends
            middle = a + (b - a) * high / (high - low)
            state = self._try(middle)
            if state is None or abs(b - a) < 1e-9 * self.settings.length:
                break
            lowest = float(state.spectrum.lowest)
            if abs(lowest) < 1e-9 * abs(float(state.spectrum.highest)):
                return middle
            ends[0 if lowest > 0 else 1] = (middle, lowest)
        return middle

    def _beyond(self) -> bool:
        """Go on in another minimum, if asked for."""
        settings, control = self.settings, self.family.control
        s = self._last_fold.s + settings.sign * BEYOND * settings.length
        if not settings.switch or (settings.end - s) * settings.sign <= 0:
            return False
        family = self.family.rebased(self.state)
        neighbors = self.state.landscape.neighbors
        start = family.state(s, jnp.zeros_like(self.state.w), neighbors).landscape
        options = Options(AutoRelaxer(), settings.fmax, 10_000, None, True)
        problem = RelaxationProblem(start.potential, start.coordinates, start.target, options)
        found = settle(problem)
        if found.status is not Status.CONVERGED:
            return False
        move = np.asarray(found.equilibrium.w)[: 3 * self.state.n_atoms].reshape(-1, 3)
        farthest = float(np.linalg.norm(move - move.mean(axis=0), axis=1).max(initial=0.0))
        text = f"it falls into another minimum, {farthest:.2f} Å away, at {control.name} = {s:.6g}"
        self.events.append(BranchEvent("switch", s, text))
        self.family = family
        self._arrive(found.equilibrium, s)
        return True
