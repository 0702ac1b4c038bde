"""Fit the parameters of a potential to anything with exact derivatives.

Every step solves the linear model of all residuals within the region where it is to be believed
(`mdsens.fitting.step`), and looks at what comes out. A step is taken if the loss falls, at once or after one
more step. It is taken back, with the reason, where the loss rises, where a number is not finite, and where a
relaxed state cannot be followed: a minimum that became another one, lost its curvature, or is gone. The next
step is then shorter.
What is kept of a step is complete: a fit that was killed goes on from its file and ends with the same bits.
"""

import dataclasses
import enum
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mdsens.checks import number, short, whole
from mdsens.errors import InputError, MDSensError, NonFiniteError, NotConvergedError
from mdsens.fitting.result import FitResult
from mdsens.fitting.space import ParameterSpace
from mdsens.fitting.state import FitFile, FitState, StepRecord
from mdsens.fitting.step import box_step, next_radius, off_share
from mdsens.fitting.terms import FitTerm, Memory, PriorTerm, SumValue, evaluate_sum
from mdsens.potentials.base import Potential
from mdsens.precision import require_x64

FLAT = 1e-14  # of the loss: a step that promises less is none
NOISE = 1e-8  # of the loss: a promise below this may drown in rounding
SHORTEST = 1e-7  # radius below which no step is tried
STEEP = 100.0  # times the loss: a step that rises to more is not gone on from
FOLD_SHARE = 0.5  # of the distance to where a minimum disappears that one step may go


class FitStatus(enum.Enum):
    """How a fit ended; the value says it in words."""

    CONVERGED = "converged"
    MAX_STEPS = "stopped after max_steps"
    STUCK = "stopped: no step lowers the loss"
    ENDED = "stopped: the states cannot be followed further"


class FitProgress(NamedTuple):
    """What a callback sees after every step that was tried.

    Attributes:
        step: steps tried. taken: whether it was kept; note: why not.
        loss: sum of squared residuals, of what is kept.
        radius: of the next step, in ln(theta).
        length: largest change of a variable in this step.
        relaxations: all so far. seconds: since this run began.
    """

    step: int
    taken: bool
    note: str
    loss: float
    radius: float
    length: float
    relaxations: int
    seconds: float


def fit(
    start: Potential | ParameterSpace,
    terms: FitTerm | Sequence[FitTerm],
    *,
    max_steps: int = 50,
    radius: float = 0.3,
    tolerance: float = 1e-9,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    throw: bool = True,
    progress: Callable[[FitProgress], None] | None = None,
) -> FitResult:
    """Minimise the sum of squared residuals of some terms.

    Args:
        start: a parameter space, or a potential, of which all parameters are then free. Priors of the space
            are a term by themselves.
        terms: such as `RelaxedTargets`; several add up.
        max_steps: steps tried, those that were taken back included.
        radius: of the first step: largest change of a variable, about that of ln(theta).
        tolerance: the fit has converged when the next step would change no variable by more.
        checkpoint: a file (.h5) written after every step.
        resume: go on from that file if it is there.
        overwrite: replace that file.
        throw: raise when not converged; if False, read `FitResult.status`.
        progress: called with `FitProgress` after every step.
    Returns:
        `FitResult`: the potential, its errors, what was met and what cannot be.
    Raises:
        NotConvergedError: `partial` holds the `FitResult` reached.
        NonFiniteError, or what a term raises: at the start, where there is nothing to step back to.
        InputError: no terms, two of one name, or the file of another fit.
        PrecisionError: float64 is off.
        OutputExistsError: the file is there, and neither `resume` nor `overwrite` is given.
    """
    require_x64()
    space = start if isinstance(start, ParameterSpace) else ParameterSpace.of(start)
    problem = FitProblem.of(space, terms, tolerance)
    max_steps = whole("max_steps", max_steps, at_least=1)
    radius = number("radius", radius, above=0)
    file = None if checkpoint is None else FitFile(checkpoint, problem.settings)
    began = time.perf_counter()
    state = problem.begin(radius, file, resume, overwrite)
    status = problem.status(state)
    while status is None and state.step < max_steps:
        state = problem.advance(state)
        status = problem.status(state)
        if file is not None:
            file.write(state)
        if progress is not None:
            progress(_progress(state, time.perf_counter() - began))
    result = problem.result(state, (status or FitStatus.MAX_STEPS).value)
    if throw and status is not FitStatus.CONVERGED:
        raise _error(result, status or FitStatus.MAX_STEPS, max_steps)
    return result


@dataclasses.dataclass(frozen=True)
class FitProblem:
    """What is fitted; the same from the first step to the last."""

    space: ParameterSpace
    terms: tuple[FitTerm, ...]
    tolerance: float

    @classmethod
    def of(
        cls, space: ParameterSpace, terms: FitTerm | Sequence[FitTerm], tolerance: float = 1e-9
    ) -> "FitProblem":
        """Check what is asked for.

        Raises:
            InputError: no terms, something that is no term, or two of one name.
        """
        given = list(terms) if isinstance(terms, Sequence) else [terms]
        for term in given:
            if not callable(getattr(term, "evaluate", None)) or not hasattr(term, "name"):
                raise InputError(
                    f"a term of a fit is {short(term)}: give RelaxedTargets(...), or an object with a name "
                    "and a method evaluate (mdsens.fitting.FitTerm)."
                )
        if space.priors:
            given.append(PriorTerm(space))
        if not given:
            raise InputError("there is nothing to fit to: give terms, such as RelaxedTargets(...).")
        names = [term.name for term in given]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"two terms have the name '{name}': name them differently.")
        return cls(space, tuple(given), number("tolerance", tolerance, above=0))

    @property
    def settings(self) -> dict[str, object]:
        """What must be the same when a fit goes on."""
        variables = [[str(item) for item in variable] for variable in self.space.variables]
        priors = {name: [float(x) for x in prior] for name, prior in self.space.priors.items()}
        return {"variables": variables, "priors": priors, "terms": [term.name for term in self.terms]}

    def evaluate(self, z: np.ndarray, memories: Mapping[str, Memory]) -> SumValue:
        """All terms at z.

        Raises:
            NonFiniteError: a residual or a derivative is not finite.
        """
        value = evaluate_sum(self.terms, self.space, z, memories)
        for what, array in (("residual", value.residuals), ("derivative of a residual", value.jacobian)):
            bad = np.argwhere(~np.isfinite(array))
            if len(bad):
                row = row_of(value, int(bad[0][0]))
                raise NonFiniteError(f"a {what} of '{row}' is {array[tuple(bad[0])]}.")
        return value

    def begin(self, radius: float, file: FitFile | None, resume: bool, overwrite: bool) -> FitState:
        """The state before the next step: of the file, or the start."""
        if file is not None and file.start(resume, overwrite):
            return file.read()
        z = self.space.start
        value = self.evaluate(z, {})
        state = FitState(z, value, radius, (), value.rows)
        if file is not None:
            file.write(state)
        return state

    def proposal(self, state: FitState) -> np.ndarray:
        """The next step."""
        lower, upper = self.space.bounds
        box = np.minimum(state.radius, FOLD_SHARE * state.value.reach)
        low, high = np.maximum(lower - state.z, -box), np.minimum(upper - state.z, box)
        return box_step(state.value.jacobian, state.value.residuals, np.minimum(low, 0), np.maximum(high, 0))

    def advance(self, state: FitState) -> FitState:
        """Try one step."""
        step = self.proposal(state)
        length = float(np.abs(step).max())
        predicted = state.value.residuals + state.value.jacobian @ step
        try:
            trial = self.evaluate(state.z + step, state.value.memories)
        except MDSensError as error:
            return state.refused(length, length / 4, str(error), lost=True)
        share = off_share(predicted, trial.residuals, state.value.residuals)
        radius = next_radius(state.radius, length, share)
        if trial.loss < state.value.loss:
            return state.taken(state.z + step, trial, length, radius)
        return self._through(state, step, trial, radius)

    def _through(self, state: FitState, step: np.ndarray, trial: SumValue, radius: float) -> FitState:
        """After a step uphill: go on from there once, and keep both if the loss has fallen then.

        A tight target, such as a lattice constant, makes a narrow valley that bends. A long step along it
        leaves it, and the next one comes back to its ground, where short steps would creep.
        """
        length = float(np.abs(step).max())
        note = f"the loss would rise to {trial.loss:.6g}"
        there = state._replace(z=state.z + step, value=trial)
        back = self.proposal(there)
        if there.value.loss <= STEEP * state.value.loss:
            try:
                second = self.evaluate(there.z + back, trial.memories)
            except MDSensError as error:
                note = f"{note}, and beyond: {error}"
            else:
                second = second._replace(relaxations=second.relaxations + trial.relaxations)
                if second.loss < state.value.loss:
                    both = float(np.abs(step + back).max())
                    return state.taken(there.z + back, second, both, state.radius)
                trial = second
        return state.refused(length, min(radius, length / 2), note, relaxations=trial.relaxations)

    def status(self, state: FitState) -> FitStatus | None:
        """How the fit has ended; None while it goes on."""
        step = self.proposal(state)
        loss = state.value.loss
        predicted = state.value.residuals + state.value.jacobian @ step
        promise = loss - float(predicted @ predicted)
        length = float(np.abs(step).max())
        inside = length < 0.99 * state.radius
        last = state.history[-1] if state.history else None
        drowned = last is not None and not last.taken and not last.lost and promise <= NOISE * loss
        if (inside and length <= self.tolerance) or promise <= FLAT * loss or drowned:
            return FitStatus.CONVERGED
        if state.radius > SHORTEST:
            return None
        return FitStatus.ENDED if last is not None and last.lost else FitStatus.STUCK

    def result(self, state: FitState, status: str) -> FitResult:
        """What the fit comes to."""
        return FitResult(
            potential=self.space.at(state.z),
            space=self.space,
            z=state.z,
            status=status,
            residuals=state.value.residuals,
            jacobian=state.value.jacobian,
            rows=state.value.rows,
            before=state.before,
            history=state.history,
        )


def row_of(value: SumValue, k: int) -> str:
    """Name of the row that a residual belongs to."""
    ends = np.cumsum([row.count for row in value.rows])
    return value.rows[int(np.searchsorted(ends, k, side="right"))].name


def _progress(state: FitState, seconds: float) -> FitProgress:
    last: StepRecord = state.history[-1]
    return FitProgress(
        state.step,
        last.taken,
        last.note,
        state.value.loss,
        state.radius,
        last.length,
        sum(record.relaxations for record in state.history),
        seconds,
    )


def _error(result: FitResult, status: FitStatus, max_steps: int) -> NotConvergedError:
    notes = [record.note for record in result.history if record.note]
    why = f" The last step that was taken back: {notes[-1]}" if notes else ""
    advice = {
        FitStatus.MAX_STEPS: f"Raise max_steps (now {max_steps}), or go on from error.partial.potential.",
        FitStatus.STUCK: "The derivatives may not be those of the residuals: look at error.partial.",
        FitStatus.ENDED: "Leave that target out, bound the parameters, or start elsewhere.",
    }[status]
    return NotConvergedError(
        f"the fit {status.value}, after {len(result.history)} steps, with the loss {result.loss:.6g}. "
        f"{advice}{why}",
        result,
    )
