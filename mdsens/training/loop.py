"""The loop: any loss, any model, any optimizer of optax; the best model on held-out rows is what comes out.

A step sees rows and draws random numbers that depend on the seed and the number of the step only. A run that
was cut off and goes on from its checkpoint therefore ends with the same bits as one that was not.

At every look the loss is taken on rows that are never trained on. It falls at first; where it rises while the
training loss still falls, the model learns its rows by heart. The model of the lowest held-out loss is kept.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mdsens.checks import instance
from mdsens.errors import InputError, NonFiniteError
from mdsens.training.checkpoint import Checkpoint, History, TrainingState
from mdsens.training.schedule import Schedule

if TYPE_CHECKING:
    import optax

# loss(model, rows, key) -> (what to make small, its terms by name)
LossFunction = Callable[[Any, Any, PRNGKeyArray], tuple[Float[Array, ""], dict[str, Float[Array, ""]]]]
# look(model, held-out rows) -> (the loss there, its terms by name), on the host
LookFunction = Callable[[Any, Any], tuple[float, dict[str, float]]]


class RowGroups(NamedTuple):
    """Rows of several shapes: groups of rows, each a pytree of arrays with a common leading axis.

    A step sees rows of one group, and is compiled once for each.
    """

    groups: tuple[Any, ...]


class TrainingProgress(NamedTuple):
    """Where a training stands after a look at the held-out rows.

    Attributes:
        step: steps done.
        steps: steps in all.
        seconds: spent in this run.
        train: means of the loss terms since the last look.
        held_out: the same terms on the held-out rows.
        loss: the whole loss on the held-out rows.
        best_step: the look with the lowest loss so far.
        best_loss: that loss.
    """

    step: int
    steps: int
    seconds: float
    train: dict[str, float]
    held_out: dict[str, float]
    loss: float
    best_step: int
    best_loss: float


class Trained(NamedTuple):
    """A trained model and how it got there.

    Attributes:
        model: that of the look with the lowest held-out loss.
        history: name of a term to its values at `history["step"]`: "train/nll", "held_out/nll", ...
        last: the model after the last step.
        best_step: the step that `model` is of.
    """

    model: Any
    history: dict[str, np.ndarray]
    last: Any
    best_step: int


def train(
    model: Any,
    loss: LossFunction,
    data: Any,
    held_out: Any,
    *,
    schedule: Schedule | None = None,
    optimizer: "optax.GradientTransformation | None" = None,
    look: LookFunction | None = None,
    names: Callable[[dict[str, float]], dict[str, float]] = dict,
    checkpoint: Checkpoint | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[TrainingProgress], None] | None = None,
    each_step: Callable[[int], None] | None = None,
    stop_after: int | None = None,
) -> Trained:
    """Make a loss small over the parameters of a model: all its arrays of real numbers.

    Args:
        model: any pytree; an `equinox.Module` where there is a checkpoint.
        loss: loss(model, rows, key) -> (total, terms by name). An `equinox.Module` may hold arrays; a
            function is compiled once as it is.
        data: pytree of arrays with one common leading axis, of which `loss` gets some rows; or several of
            them (`RowGroups`).
        held_out: the same for rows that are never trained on; for `RowGroups` give `look` as well.
        schedule: steps, batches, how often to look, and the learning rate of the default optimizer.
        optimizer: of optax; by default Adam with clipped gradients (`Schedule.optimizer`).
        look: look(model, held_out) -> (total, terms), on the host; by default the loss of all held-out rows
            at once. Give one where they are too many for that.
        names: what becomes of a mapping of terms before it is shown (a root of a mean square, say).
        checkpoint: a file to write at every look.
        resume: go on from the checkpoint if it is there; ends with the same bits as a run never cut off.
        overwrite: replace a checkpoint of another run.
        progress: called at every look.
        each_step: called with the number of steps done, when they are done.
        stop_after: end this run after so many steps in all, with a checkpoint (to be resumed).
    Returns:
        `Trained`: the best model on the held-out rows, the last one, and the history.
    Raises:
        InputError: fewer rows than a batch, or a checkpoint of a training with other settings.
        NonFiniteError: the loss is not finite; `partial` holds the last good `Trained`.
        OutputExistsError: the checkpoint exists, and neither `resume` nor `overwrite` is given.
    """
    schedule = Schedule() if schedule is None else schedule
    run = _Run(model, loss, data, held_out, schedule, optimizer, look, names, checkpoint)
    state = good = run.begin(resume, overwrite)
    last = min(schedule.steps, stop_after or schedule.steps)
    began = time.perf_counter()
    terms: list[dict[str, Array]] = []
    while state.step < last and not run.exhausted(state.history):
        state, now = run.advance(state)
        terms.append(now)
        if each_step is not None:
            _wait_for(terms[:-1])  # one step behind: the next one is being prepared while this one runs
            each_step(state.step)
        if not schedule.is_look(state.step) and state.step != last:
            continue
        state, seen = run.look_at(state, good, terms, time.perf_counter() - began)
        good, terms = state, []
        if progress is not None:
            progress(seen)
    return run.trained(state)


@eqx.filter_jit
def train_step(
    loss: LossFunction,
    optimizer: "optax.GradientTransformation",
    rest: Any,
    parameters: Any,
    state: Any,
    data: Any,
    rows: Any,
    seed: int,
    step: Array,
) -> tuple[Any, Any, dict[str, Array]]:
    """One step of the optimizer on some rows: parameters, the optimizer's state, and the terms of the loss.

    `parameters` and `rest` are the model, parted by `eqx.partition(model, eqx.is_inexact_array)`.
    """
    key = jax.random.fold_in(jax.random.key(seed), step)
    some = jax.tree.map(lambda array: array[rows], data)

    def objective(parameters: Any) -> tuple[Array, dict[str, Array]]:
        return loss(eqx.combine(parameters, rest), some, key)

    (_, terms), gradient = jax.value_and_grad(objective, has_aux=True)(parameters)
    updates, state = optimizer.update(gradient, state, parameters)
    return eqx.apply_updates(parameters, updates), state, terms


class _Run:
    """One call of `train`: what stays the same from step to step."""

    def __init__(
        self,
        model: Any,
        loss: LossFunction,
        data: Any,
        held_out: Any,
        schedule: Schedule,
        optimizer: Any,
        look: LookFunction | None,
        names: Callable[[dict[str, float]], dict[str, float]],
        checkpoint: Checkpoint | None,
    ):
        self.model, self.loss, self.schedule, self.names = model, loss, schedule, names
        self.rate = schedule.rate if optimizer is None else None
        self.optimizer = schedule.optimizer if optimizer is None else optimizer
        self.look = whole_loss(loss) if look is None else look
        self.checkpoint = checkpoint
        if checkpoint is not None:
            instance("model", model, eqx.Module, "Only modules can be kept in a checkpoint.")
        groups = data.groups if isinstance(data, RowGroups) else (data,)
        self.lengths = tuple(_common_length(group) for group in groups)
        for group in held_out.groups if isinstance(held_out, RowGroups) else (held_out,):
            _common_length(group)
        n_rows = sum(self.lengths)
        if schedule.batch > n_rows:
            raise InputError(
                f"batch = {schedule.batch} is more than the {n_rows} frames to train on. Lower batch, "
                "or give more frames."
            )
        self.groups, self.held_out = jax.tree.map(jnp.asarray, groups), held_out
        self.parameters, self.rest = eqx.partition(model, eqx.is_inexact_array)

    def begin(self, resume: bool, overwrite: bool) -> TrainingState:
        """The state before the first step of this run."""
        going_on = self.checkpoint is not None and self.checkpoint.start(resume, overwrite)
        state = self.optimizer.init(self.parameters)
        if going_on:
            assert self.checkpoint is not None
            return self.checkpoint.read(self.model, self.parameters, state)
        return TrainingState(0, self.parameters, state, self.parameters, 0, {})

    def advance(self, state: TrainingState) -> tuple[TrainingState, dict[str, Array]]:
        """One step further."""
        group, rows = self.schedule.group_rows(state.step, self.lengths)
        step = jnp.asarray(state.step)
        parameters, optimizer, terms = train_step(
            self.loss,
            self.optimizer,
            self.rest,
            state.parameters,
            state.optimizer,
            self.groups[group],
            rows,
            self.schedule.seed,
            step,
        )
        return state._replace(step=state.step + 1, parameters=parameters, optimizer=optimizer), terms

    def look_at(
        self, state: TrainingState, good: TrainingState, terms: list[dict[str, Array]], seconds: float
    ) -> tuple[TrainingState, TrainingProgress]:
        """Take the held-out loss, write it down, keep the model if it is the best, write the checkpoint.

        Raises:
            NonFiniteError: a term is not finite; `partial` is the result at the last look, `good`.
        """
        means = {name: float(np.mean([np.asarray(t[name]) for t in terms])) for name in terms[-1]}
        loss, looked = self.look(eqx.combine(state.parameters, self.rest), self.held_out)
        self._check_finite(means, looked, loss, state.step, good)
        means, looked = self.names(means), self.names(looked)
        history = _longer(state.history, self._row(state.step, means, looked, loss))
        best = self.best_look(history)
        best_step, best_loss = int(history["step"][best]), history["held_out/loss"][best]
        state = state._replace(history=history, best_step=best_step)
        if best_step == state.step:
            state = state._replace(best=state.parameters)
        if self.checkpoint is not None:
            self.checkpoint.write(eqx.combine(state.best, self.rest), state)
        steps = self.schedule.steps
        return state, TrainingProgress(state.step, steps, seconds, means, looked, loss, best_step, best_loss)

    def exhausted(self, history: History) -> bool:
        """Whether the held-out loss has not fallen for as many looks as patience allows."""
        if self.schedule.patience is None or not history:
            return False
        since = history["step"][self.best_look(history) + 1 :]
        return sum(self.schedule.is_look(int(step)) for step in since) >= self.schedule.patience

    def best_look(self, history: History) -> int:
        """Which look had the lowest held-out loss, the first of several.

        The look at the end of a run that was cut off does not count if there are others: a run that was never
        cut off has none there, and both must end alike.
        """
        steps, losses = history["step"], history["held_out/loss"]
        counted = [k for k, step in enumerate(steps) if self.schedule.is_look(int(step))]
        return min(counted, key=lambda k: losses[k]) if counted else len(steps) - 1

    def trained(self, state: TrainingState) -> Trained:
        """The result as it stands."""
        history = {name: np.array(values) for name, values in state.history.items()}
        states = (state.best, state.parameters)
        best, last = (eqx.combine(part, self.rest) for part in states)
        return Trained(best, history, last, state.best_step)

    def _row(
        self, step: int, means: dict[str, float], looked: dict[str, float], loss: float
    ) -> dict[str, float]:
        row: dict[str, float] = {"step": step}
        if self.rate is not None:
            row["learning_rate"] = float(self.rate(step - 1))
        row |= {f"train/{name}": value for name, value in means.items()}
        row |= {f"held_out/{name}": value for name, value in looked.items()}
        return row | {"held_out/loss": loss}

    def _check_finite(
        self,
        means: dict[str, float],
        looked: dict[str, float],
        loss: float,
        step: int,
        last_look: TrainingState,
    ) -> None:
        bad = [f"training {name}" for name, value in means.items() if not np.isfinite(value)]
        bad += [f"held-out {name}" for name, value in looked.items() if not np.isfinite(value)]
        bad += [] if np.isfinite(loss) or bad else ["held-out loss"]
        if not bad:
            return
        good = self.trained(last_look)  # the steps since then may hold the trouble already
        kept = "this error's `partial`"
        if self.checkpoint is not None and good.best_step:
            kept = f"'{self.checkpoint.path}' and in this error's `partial`"
        raise NonFiniteError(
            f"training stopped before step {step}: {', '.join(bad)} is not finite. The model of step "
            f"{good.best_step} is good, and kept in {kept}. Lower learning_rate or clip, raise warmup, or "
            "look for frames with atoms on top of each other.",
            good,
        )


def whole_loss(loss: LossFunction) -> LookFunction:
    """The loss of all rows at once, always with the same random numbers."""

    def look(model: Any, rows: Any) -> tuple[float, dict[str, float]]:
        total, terms = _evaluate(loss, model, jax.tree.map(jnp.asarray, rows))
        return float(total), {name: float(term) for name, term in terms.items()}

    return look


@eqx.filter_jit
def _evaluate(loss: LossFunction, model: Any, rows: Any) -> tuple[Array, dict[str, Array]]:
    return loss(model, rows, jax.random.key(0))


def _wait_for(terms: list[dict[str, Array]]) -> None:
    if terms:
        jax.block_until_ready(terms[-1])


def _longer(history: History, row: dict[str, float]) -> History:
    return {name: [*history.get(name, ()), value] for name, value in row.items()}


def _common_length(data: Any) -> int:
    """Rows of a pytree of arrays."""
    lengths = {len(leaf) for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or not min(lengths):
        raise InputError(f"arrays of {sorted(lengths)} rows: give arrays with one common, positive length.")
    return lengths.pop()
