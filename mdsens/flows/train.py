"""Training: steps of Adam on a loss, watched on frames that are held out, kept in a file, resumed bit for bit.

Which frames a step sees, and what it draws, depend on the seed and the number of the step only. A run that
was cut off and goes on from its checkpoint therefore ends with the same bits as one that was not.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.batching import map_pieces
from mdsens.errors import FileFormatError, InputError, NonFiniteError
from mdsens.flows.data import ForceData
from mdsens.flows.files import open_hdf5, read_arrays, read_module, write_arrays, write_module
from mdsens.flows.flow import Flow
from mdsens.flows.losses import Loss
from mdsens.io.files import check_free, new_file

if TYPE_CHECKING:
    import optax


class Schedule(eqx.Module):
    """How long, how fast, how often.

    The learning rate rises over `warmup` steps and falls along a cosine to `final` of its highest value.

    Attributes:
        steps: of the optimizer.
        batch: frames in a step.
        learning_rate: the highest.
        final: the last learning rate, relative to the highest.
        warmup: steps of the rise.
        clip: the norm beyond which a gradient is shortened.
        evaluate_every: steps between looks at the held-out frames; the checkpoint is written then as well.
        held_out: share of the frames, the last ones, that are never trained on.
        seed: of batches and draws.
    """

    steps: int = eqx.field(static=True, default=20_000)
    batch: int = eqx.field(static=True, default=128)
    learning_rate: float = eqx.field(static=True, default=1e-3)
    final: float = eqx.field(static=True, default=1e-2)
    warmup: int = eqx.field(static=True, default=100)
    clip: float = eqx.field(static=True, default=10.0)
    evaluate_every: int = eqx.field(static=True, default=500)
    held_out: float = eqx.field(static=True, default=0.1)
    seed: int = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        if min(self.steps, self.batch, self.evaluate_every) < 1 or self.warmup < 0:
            raise InputError(
                f"steps = {self.steps}, batch = {self.batch}, evaluate_every = {self.evaluate_every}: must "
                "be 1 or more, "
                f"and warmup = {self.warmup} not negative."
            )
        if not (self.learning_rate > 0 and 0 < self.final <= 1 and self.clip > 0):
            raise InputError(
                f"learning_rate = {self.learning_rate:g} and clip = {self.clip:g} must be positive, final = "
                f"{self.final:g} between 0 and 1."
            )
        if not 0 < self.held_out < 1:
            raise InputError(f"held_out = {self.held_out:g}: a share of the frames, between 0 and 1.")

    @property
    def rate(self) -> Callable[[Any], Any]:
        """Learning rate of each step."""
        import optax

        warmup = min(self.warmup, self.steps // 2)
        return optax.warmup_cosine_decay_schedule(
            self.learning_rate / 10, self.learning_rate, warmup, self.steps, self.final * self.learning_rate
        )

    @property
    def optimizer(self) -> "optax.GradientTransformation":
        """Adam with clipped gradients."""
        import optax

        return optax.chain(optax.clip_by_global_norm(self.clip), optax.adam(self.rate))

    def frames(self, step: int, n_frames: int) -> np.ndarray:
        """Which frames step number `step` sees: each once before any is seen again."""
        at = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs = {
            epoch: np.random.default_rng([self.seed, int(epoch)]).permutation(n_frames)
            for epoch in np.unique(at // n_frames)
        }
        return np.array([epochs[k // n_frames][k % n_frames] for k in at])


class Progress(NamedTuple):
    """Where a training stands after a look at the held-out frames.

    Attributes:
        step: steps done.
        steps: steps in all.
        seconds: spent in this run.
        train: means of the loss terms since the last look, in kT and (kT / length)².
        held_out: the same terms on the held-out frames.
    """

    step: int
    steps: int
    seconds: float
    train: dict[str, float]
    held_out: dict[str, float]


class Trained(NamedTuple):
    """A trained model and how it got there.

    Attributes:
        model: with the last parameters.
        history: name of a term to its values at `history["step"]`; "train/nll", "held_out/force_rmse", ...
    """

    model: Any
    history: dict[str, np.ndarray]


def train(
    model: Any,
    data: ForceData,
    *,
    loss: Loss | None = None,
    schedule: Schedule | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    stop_after: int | None = None,
) -> Trained:
    """Train a flow on frames with forces.

    Args:
        model: a `Flow`, or a `BoltzmannGenerator` with one. Its precision is that of the training: float32 is
            customary (`model.astype(jnp.float32)`) and twice as fast.
        data: positions and forces in the units of the flow (nm and kT/nm for molecules).
        loss: by default negative log-likelihood and force matching.
        schedule: steps, batches, learning rate, how often to look.
        checkpoint: a file to write at every look; a model file, with what is needed to go on.
        resume: go on from the checkpoint if it is there; ends with the same bits as a run that was never cut
            off.
        overwrite: replace a checkpoint of another run.
        progress: called at every look.
        stop_after: end this run after so many steps in all, with a checkpoint (to be resumed).
    Returns:
        `Trained`: model and history.
    Raises:
        InputError: no forces for force matching, too few frames, or a checkpoint of a training with other
        settings.
        NonFiniteError: the loss is not finite; `partial` holds the last good `Trained`, which is also in the
        checkpoint.
        OutputExistsError: the checkpoint exists, and neither `resume` nor `overwrite` is given.
    """
    loss, schedule = Loss() if loss is None else loss, Schedule() if schedule is None else schedule
    frames, held_out = data.split(schedule.held_out)
    _check(loss, schedule, frames)
    path = None if checkpoint is None else Path(checkpoint)
    going_on = resume and path is not None and path.exists()
    if path is not None and not going_on:
        check_free(path, overwrite)
    settings = _settings(model, loss, schedule, data)
    parameters, rest = eqx.partition(model, eqx.is_inexact_array)
    state = schedule.optimizer.init(parameters)
    start, history = 0, dict[str, list[float]]()
    if going_on:
        assert path is not None
        start, parameters, state, history = _read_checkpoint(path, settings, parameters, state)

    dtype = _flow_of(model).dtype
    positions, forces = (jnp.asarray(a, dtype) for a in _with_forces(frames))
    test_positions, test_forces = (np.asarray(a, dtype) for a in _with_forces(held_out))
    good, began, last = (
        Trained(eqx.combine(parameters, rest), _arrays(history)),
        time.perf_counter(),
        stop_after or schedule.steps,
    )
    terms: list[dict[str, Array]] = []
    for step in range(start, min(last, schedule.steps)):
        rows = schedule.frames(step, frames.n_frames)
        parameters, state, now = train_step(
            loss, schedule, rest, parameters, state, positions, forces, rows, jnp.asarray(step)
        )
        terms.append(now)
        done = step + 1
        if done % schedule.evaluate_every and done not in (schedule.steps, last):
            continue
        means = {name: float(np.mean([np.asarray(t[name]) for t in terms])) for name in now}
        terms = []
        model = eqx.combine(parameters, rest)
        looked = held_out_terms(_flow_of(model), test_positions, test_forces, loss.force > 0)
        _check_finite(means, looked, done, good, path)
        row = {"step": done, "learning_rate": float(schedule.rate(step))}
        row |= {f"train/{name}": value for name, value in _readable(means).items()}
        row |= {f"held_out/{name}": value for name, value in _readable(looked).items()}
        for name, value in row.items():
            history.setdefault(name, []).append(value)
        good = Trained(model, _arrays(history))
        if path is not None:
            _write_checkpoint(path, settings, good, done, state)
        if progress is not None:
            progress(
                Progress(
                    done, schedule.steps, time.perf_counter() - began, _readable(means), _readable(looked)
                )
            )
    return good


@eqx.filter_jit
def train_step(
    loss: Loss,
    schedule: Schedule,
    rest: Any,
    parameters: Any,
    state: Any,
    positions: Array,
    forces: Array,
    rows: np.ndarray,
    step: Array,
) -> tuple[Any, Any, dict[str, Array]]:
    """One step of the optimizer on the frames `rows`: parameters, the optimizer's state, and the terms of the loss.

    `parameters` and `rest` are the model, parted by `eqx.partition(model, eqx.is_inexact_array)`.
    """
    key = jax.random.fold_in(jax.random.key(schedule.seed), step)

    def objective(parameters: Any) -> tuple[Array, dict[str, Array]]:
        return loss(_flow_of(eqx.combine(parameters, rest)), positions[rows], forces[rows], key)

    (_, terms), gradient = jax.value_and_grad(objective, has_aux=True)(parameters)
    updates, state = schedule.optimizer.update(gradient, state, parameters)
    return eqx.apply_updates(parameters, updates), state, terms


def held_out_terms(
    flow: Flow,
    positions: Float[np.ndarray, "frames ..."],
    forces: Float[np.ndarray, "frames ..."],
    with_forces: bool = True,
) -> dict[str, float]:
    """Negative log-likelihood and mean squared force error of frames: means over all, taken in pieces."""
    energies, squares = map_pieces(
        lambda x, f: _held_out(flow, jnp.asarray(x), jnp.asarray(f), with_forces), positions, forces
    )
    terms = {"nll": float(np.mean(energies, dtype=float))}
    return terms | {"force_mse": float(np.mean(squares, dtype=float))} if with_forces else terms


@eqx.filter_jit
def _held_out(flow: Flow, positions: Array, forces: Array, with_forces: bool) -> tuple[Array, Array]:
    """Energy of each frame, and its mean squared force error (zero if not asked for)."""
    if not with_forces:
        energies = jax.vmap(flow.energy)(positions)
        return energies, jnp.zeros_like(energies)
    energies, own = jax.vmap(flow.energy_and_forces)(positions)
    return energies, jnp.mean((own - forces) ** 2, axis=tuple(range(1, own.ndim)))


def _flow_of(model: Any) -> Flow:
    return model if isinstance(model, Flow) else model.flow


def _with_forces(data: ForceData) -> tuple[np.ndarray, np.ndarray]:
    return data.positions, np.zeros_like(data.positions) if data.forces is None else data.forces


def _readable(terms: dict[str, float]) -> dict[str, float]:
    """Root mean square instead of mean square."""
    renamed = {"force_mse": "force_rmse"}
    return {
        renamed.get(name, name): float(np.sqrt(value)) if name in renamed else value
        for name, value in terms.items()
    }


def _arrays(history: dict[str, list[float]]) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in history.items()}


def _check(loss: Loss, schedule: Schedule, frames: ForceData) -> None:
    if loss.force > 0 and frames.forces is None:
        raise InputError(
            "force matching needs forces, and the data have none. Read data with forces, or set the loss's "
            "force weight to 0."
        )
    if schedule.batch > frames.n_frames:
        raise InputError(
            f"batch = {schedule.batch} is more than the {frames.n_frames} frames to train on. Lower batch, "
            "or give more frames."
        )


def _check_finite(
    means: dict[str, float], looked: dict[str, float], step: int, good: Trained, path: Path | None
) -> None:
    bad = [f"training {n}" for n, v in means.items() if not np.isfinite(v)] + [
        f"held-out {n}" for n, v in looked.items() if not np.isfinite(v)
    ]
    if not bad:
        return
    last = int(good.history["step"][-1]) if len(good.history.get("step", ())) else 0
    kept = (
        f"'{path}' and in this error's `partial`" if path is not None and last else "this error's `partial`"
    )
    raise NonFiniteError(
        f"training stopped before step {step}: {', '.join(bad)} is not finite. The model of step {last} is "
        f"good, and kept in {kept}. "
        "Lower learning_rate or clip, raise warmup, or look for frames with atoms on top of each other.",
        good,
    )


# --- checkpoints ---------------------------------------------------------------------------------------------------


def _settings(model: Any, loss: Loss, schedule: Schedule, data: ForceData) -> dict[str, Any]:
    """What must be the same when a training goes on."""
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    return {
        "schedule": {name: getattr(schedule, name) for name in Schedule.__annotations__},
        "loss": {name: getattr(loss, name) for name in ("likelihood", "force", "reverse_kl", "n_draws")},
        "model": f"{len(leaves)} arrays, {sum(leaf.size for leaf in leaves)} numbers, {leaves[0].dtype}",
        "data": f"{data.positions.shape}, mean {float(np.mean(data.positions, dtype=float)):.9g}, {data.temperature:g} K",
    }


def _write_checkpoint(path: Path, settings: dict[str, Any], trained: Trained, step: int, state: Any) -> None:
    import h5py

    with new_file(path, overwrite=True) as unfinished, h5py.File(unfinished, "w") as file:
        write_module(file, trained.model)
        file.create_group("notes").attrs.update({"step": step})
        part = file.create_group("training")
        part.attrs["settings"], part.attrs["step"] = json.dumps(settings), step
        write_arrays(part.create_group("optimizer"), jax.tree.leaves(state))
        log = file.create_group("history")
        for name, values in trained.history.items():
            log[name] = values


def _read_checkpoint(
    path: Path, settings: dict[str, Any], parameters: Any, state: Any
) -> tuple[int, Any, Any, dict[str, list[float]]]:
    with open_hdf5(path) as file:
        if "training" not in file:
            raise FileFormatError(
                f"'{path}' is a model without the state of its training: it cannot be resumed. Train into "
                "another file."
            )
        part: Any = file["training"]
        known = json.loads(part.attrs["settings"])
        for name, value in json.loads(json.dumps(settings)).items():
            if known.get(name) != value:
                raise InputError(
                    f"'{path}' is a checkpoint of another training: its {name} is {known.get(name)}, and "
                    f"here {value}."
                )
        kept, _ = eqx.partition(read_module(file), eqx.is_inexact_array)
        if jax.tree.structure(kept) != jax.tree.structure(parameters):
            raise InputError(
                f"'{path}' is a checkpoint of a model with another structure. Train into another file."
            )
        leaves = [jnp.asarray(array) for array in read_arrays(part["optimizer"])]
        state = jax.tree.unflatten(jax.tree.structure(state), leaves)
        return (
            int(part.attrs["step"]),
            kept,
            state,
            {name: list(values) for name, values in _history(file).items()},
        )


def read_history(path: str | Path) -> dict[str, np.ndarray]:
    """Course of the training that wrote a checkpoint: "step", "train/nll", "held_out/force_rmse", ...; empty if there is none.

    Raises:
        FileFormatError: not a model file.
    """
    with open_hdf5(path) as file:
        return _history(file)


def _history(file: Any) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    if "history" in file:
        file["history"].visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None
        )
    return found
