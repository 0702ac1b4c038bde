"""Training a flow on frames with forces: what `mdsens.training` needs to know about flows.

The loss of a batch is that of `Loss`; the look at the held-out frames takes the same terms over all of them,
in pieces. The file of the training is a model file that knows which frames it was trained on.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mdsens.batching import map_pieces
from mdsens.errors import InputError
from mdsens.flows.data import DataSplit, ForceData
from mdsens.flows.files import FLOW_FORMAT
from mdsens.flows.flow import Flow
from mdsens.flows.losses import Loss
from mdsens.training import checkpoint as checkpoints
from mdsens.training import loop
from mdsens.training.checkpoint import Checkpoint
from mdsens.training.loop import Trained, TrainingProgress
from mdsens.training.schedule import Schedule

__all__ = ["Schedule", "Trained", "TrainingProgress", "held_out_terms", "read_history", "train"]


def train(
    model: Any,
    data: ForceData | DataSplit,
    *,
    loss: Loss | None = None,
    schedule: Schedule | None = None,
    optimizer: Any = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[TrainingProgress], None] | None = None,
    each_step: Callable[[int], None] | None = None,
    stop_after: int | None = None,
) -> Trained:
    """Train a flow on frames with forces.

    Args:
        model: a `Flow`, or a `BoltzmannGenerator` with one. Its precision is that of the training: float32 is
            customary (`model.astype(jnp.float32)`) and twice as fast.
        data: positions and forces in the units of the flow (nm and kT/nm for molecules), divided (as
            `prepare` does) or not: then the last frames are held out, a share `schedule.held_out`.
        loss: by default negative log-likelihood and force matching.
        schedule: steps, batches, learning rate, how often to look, when to give up.
        optimizer: of optax; by default Adam with clipped gradients and the schedule's learning rate.
        checkpoint: a file to write at every look; a model file, with what is needed to go on.
        resume: go on from the checkpoint if it is there; ends with the same bits as a run never cut off.
        overwrite: replace a checkpoint of another run.
        progress: called at every look.
        each_step: called with the number of steps done.
        stop_after: end this run after so many steps in all, with a checkpoint (to be resumed).
    Returns:
        `Trained`: the model with the lowest held-out loss, the last one, and the history.
    Raises:
        InputError: no forces for force matching, too few frames, or a checkpoint of a training with other
            settings.
        NonFiniteError: the loss is not finite; `partial` holds the last good `Trained`, which is also in the
            checkpoint.
        OutputExistsError: the checkpoint exists, and neither `resume` nor `overwrite` is given.
    """
    loss, schedule = Loss() if loss is None else loss, Schedule() if schedule is None else schedule
    split = data if isinstance(data, DataSplit) else data.divide(schedule.held_out)
    _check_forces(loss, split.training)
    dtype = _flow_of(model).dtype
    kept = None
    if checkpoint is not None:
        settings = _settings(model, loss, schedule, split)
        kept = Checkpoint(checkpoint, FLOW_FORMAT, settings=settings, content={"data": split.record()})
    return loop.train(
        model,
        FlowLoss(loss),
        _rows(split.training, dtype),
        _rows(split.held_out, dtype),
        schedule=schedule,
        optimizer=optimizer,
        look=_Look(loss),
        names=_readable,
        checkpoint=kept,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
        each_step=each_step,
        stop_after=stop_after,
    )


def read_history(path: str | Path) -> dict[str, np.ndarray]:
    """Course of the training that wrote a model file: "step", "train/nll", ...; empty if it is not known.

    Raises:
        FileFormatError: not a model file.
    """
    return checkpoints.read_history(path, FLOW_FORMAT)


class FlowLoss(eqx.Module):
    """The loss of a flow, or of a model that has one, as `mdsens.training` calls it."""

    loss: Loss

    def __call__(self, model: Any, rows: dict[str, Any], key: PRNGKeyArray) -> tuple[Array, dict[str, Array]]:
        """Total and terms for a batch with "positions", "forces", "weights", "force_weights"."""
        weights = rows["weights"], rows["force_weights"]
        return self.loss(_flow_of(model), rows["positions"], rows["forces"], key, *weights)


class _Look(eqx.Module):
    """The loss over all held-out frames."""

    loss: Loss

    def __call__(self, model: Any, rows: dict[str, Any]) -> tuple[float, dict[str, float]]:
        weights = rows["weights"], rows["force_weights"]
        terms = held_out_terms(
            _flow_of(model), rows["positions"], rows["forces"], self.loss.force > 0, *weights
        )
        return float(self.loss.total(terms)), terms


def held_out_terms(
    flow: Flow,
    positions: Float[np.ndarray, "frames ..."],
    forces: Float[np.ndarray, "frames ..."],
    with_forces: bool = True,
    weights: Float[np.ndarray, " frames"] | None = None,
    force_weights: Float[np.ndarray, " frames"] | None = None,
) -> dict[str, float]:
    """Negative log-likelihood and mean squared force error of frames: means over all, taken in pieces.

    Args:
        flow: to judge.
        positions, forces: of the frames.
        with_forces: whether forces are looked at.
        weights: of the frames in the likelihood, with mean 1; by default all count alike.
        force_weights: likewise, in the force error.
    """
    energies, squares = map_pieces(
        lambda x, f: _held_out(flow, jnp.asarray(x), jnp.asarray(f), with_forces), positions, forces
    )
    terms = {"nll": _mean(energies, weights)}
    if with_forces:
        terms["force_mse"] = _mean(squares, force_weights)
    return terms


def _mean(values: np.ndarray, weights: np.ndarray | None) -> float:
    weighted = values if weights is None else values * weights
    return float(np.mean(weighted, dtype=float))


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


def _rows(data: ForceData, dtype: np.dtype) -> dict[str, Any]:
    """Arrays of the frames in the precision of the flow; weights with mean 1."""
    forces = np.zeros_like(data.positions) if data.forces is None else data.forces
    rows = {
        "positions": data.positions,
        "forces": forces,
        "weights": _of_mean_one(data.weights),
        "force_weights": _of_mean_one(data.force_weights),
    }
    return {name: None if array is None else np.asarray(array, dtype) for name, array in rows.items()}


def _of_mean_one(weights: np.ndarray | None) -> np.ndarray | None:
    return None if weights is None or not weights.any() else weights / weights.mean()


def _readable(terms: dict[str, float]) -> dict[str, float]:
    """Root mean square instead of mean square."""
    shown = {}
    for name, value in terms.items():
        if name == "force_mse":
            shown["force_rmse"] = float(np.sqrt(value))
        else:
            shown[name] = value
    return shown


def _check_forces(loss: Loss, frames: ForceData) -> None:
    if loss.force > 0 and frames.forces is None:
        raise InputError(
            "force matching needs forces, and the data have none. Read data with forces, compute them with a "
            "force field (labelled_by, --force-field), or set the loss's force weight to 0 (--force-weight "
            "0)."
        )
    if loss.force > 0 and frames.force_weights is not None and not np.any(frames.force_weights > 0):
        raise InputError(
            "all frames to train on have weight 0 in the force error. Give some of them a positive "
            "force_weights, or set the loss's force weight to 0 (--force-weight 0)."
        )
    if loss.likelihood > 0 and frames.weights is not None and not np.any(frames.weights > 0):
        raise InputError(
            "all frames to train on have weight 0 in the likelihood: they come from enhanced sampling. Add "
            "frames of equilibrium, or set the loss's likelihood weight to 0."
        )


def _settings(model: Any, loss: Loss, schedule: Schedule, split: DataSplit) -> dict[str, Any]:
    """What must be the same when a training goes on. Patience may change: it decides when to end."""
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    steps = [name for name in Schedule.__annotations__ if name not in ("patience", "held_out")]
    return {
        "schedule": {name: getattr(schedule, name) for name in steps},
        "loss": {name: getattr(loss, name) for name in ("likelihood", "force", "reverse_kl", "n_draws")},
        "model": f"{len(leaves)} arrays, {sum(leaf.size for leaf in leaves)} numbers, {leaves[0].dtype}",
        "data": {name: part.fingerprint() for name, part in split.parts().items()},
    }
