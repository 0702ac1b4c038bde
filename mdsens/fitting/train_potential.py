"""Training potentials of very many parameters, as networks are, on energies, forces and stresses.

    loss = sum over labels of  weight · mean of ((value - data) / tolerance)²

over the structures of a batch, by the loop that trains everything here (`mdsens.training`): Adam, looks at
data that are never trained on, the best state is kept, a run that goes on ends with the same bits.

Structures go by size into a few groups (`mdsens.ghosts.size_for`), in which they are filled up with ghosts to
the largest; a batch comes from one group, and a step is compiled once for each.

What is trained is the arrays of the potential. The file of a training holds them by name; `load_trained` puts
them back into a potential of the same form.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mdsens.batching import map_pieces
from mdsens.checks import instance
from mdsens.datasets.batches import LabelledBatch, batch_values, make_batches
from mdsens.datasets.dataset import Dataset
from mdsens.datasets.split import DatasetSplit
from mdsens.errors import InputError
from mdsens.fitting.force_matching import LabelTolerances
from mdsens.ghosts import size_for
from mdsens.io.modules import ModuleFormat, open_modules, read_module
from mdsens.potentials.base import Potential, require_potential
from mdsens.potentials.parameters import FieldPath, follow_path, parameter_arrays
from mdsens.precision import require_x64
from mdsens.training import Checkpoint, RowGroups, Schedule, Trained, TrainingProgress
from mdsens.training import train as run_training

PARAMETER_FORMAT = ModuleFormat(
    "mdsens-parameters-1",
    "parameters of a potential",
    "mdsens.fitting.train_potential",
    "mdsens.fitting.load_trained",
    ("mdsens.fitting.train_potential",),
)
LABELS = ("energy_mse", "forces_mse", "stress_mse")
LOOK = 64  # structures of which the held-out loss is taken together


class PotentialParameters(eqx.Module):
    """The arrays of a potential by name: what a training changes."""

    arrays: dict[str, Array]

    @classmethod
    def of(cls, potential: Potential, frozen: tuple[str, ...] = ()) -> "PotentialParameters":
        """Take them out of a potential; those that begin with a name of `frozen` stay behind."""
        arrays = {array.name: array.values for array in parameter_arrays(potential)}
        return cls(
            {name: values for name, values in arrays.items() if not name.startswith(frozen or ("\0",))}
        )

    def put_into(self, potential: Potential) -> Potential:
        """The potential with these arrays.

        Raises:
            InputError: it has none of this name or shape.
        """
        there = {array.name: array for array in parameter_arrays(potential)}
        for name, values in self.arrays.items():
            if name not in there or there[name].values.shape != values.shape:
                raise InputError(
                    f"{type(potential).__name__} has no parameter '{name}' of shape {values.shape}: these "
                    "are parameters of another potential."
                )
            path: FieldPath = there[name].path
            potential = eqx.tree_at(lambda p, path=path: follow_path(p, path), potential, values)
        return potential


class TrainedPotential(NamedTuple):
    """A potential after its training.

    Attributes:
        potential: of the look with the lowest validation loss. last: after the last step.
        history: name of a term to its values at `history["step"]`: "train/force_rmse", "held_out/loss", ...
        best_step: the step that `potential` is of.
    """

    potential: Potential
    last: Potential
    history: dict[str, np.ndarray]
    best_step: int

    def plot(self, path: str | Path | None = None, *, overwrite: bool = False) -> Any:
        """The learning curve; written to `path` if given."""
        return learning_curve(self.history, path, overwrite)


def train_potential(
    potential: Potential,
    data: DatasetSplit,
    *,
    tolerances: LabelTolerances | None = None,
    schedule: Schedule | None = None,
    optimizer: Any = None,
    frozen: tuple[str, ...] = (),
    checkpoint: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[TrainingProgress], None] | None = None,
    stop_after: int | None = None,
) -> TrainedPotential:
    """Train a potential on a data set by an optimizer of optax.

    Args:
        potential: where the training starts.
        data: divided (`mdsens.datasets.split`); the validation part decides which state is the best, and
            when to end if the schedule has a patience. The test part is not looked at.
        tolerances: of the labels; None leaves labels out of the loss.
        schedule: steps, structures in a batch, learning rate, looks, patience. `held_out` is not used.
        optimizer: of optax; by default Adam with clipped gradients.
        frozen: beginnings of names of parameters that stay.
        checkpoint: a file (.h5) written at every look.
        resume: go on from the checkpoint if it is there; ends with the same bits as a run never cut off.
        overwrite: replace a checkpoint of another run.
        progress: called at every look.
        stop_after: end this run after so many steps in all, with a checkpoint (to be resumed).
    Raises:
        InputError: no labels, an empty part, or a checkpoint of a training with other settings.
        NonFiniteError: the loss is not finite; `partial` holds the last good `Trained` parameters, which are
            also in the checkpoint.
        OutputExistsError: the checkpoint exists, and neither `resume` nor `overwrite` is given.
    """
    require_x64()
    require_potential(potential)
    instance("data", data, DatasetSplit, "Divide it first: mdsens.datasets.split(data).")
    schedule = Schedule(batch=1) if schedule is None else schedule
    loss = PotentialLoss(potential, tolerances or LabelTolerances())
    parts = {"train": data.train, "validation": data.validation}
    for name, part in parts.items():
        _check_part(name, part, loss.tolerances)
    groups = make_batches(data.train + data.validation, potential, rule=size_for)
    n = len(data.train)
    model = PotentialParameters.of(potential, frozen)
    kept = None
    if checkpoint is not None:
        settings = _settings(potential, data, loss.tolerances, schedule, frozen)
        kept = Checkpoint(checkpoint, PARAMETER_FORMAT, settings=settings)
    result = run_training(
        model,
        loss,
        _rows_of(groups, lambda entries: entries < n),
        _rows_of(groups, lambda entries: entries >= n),
        schedule=schedule,
        optimizer=optimizer,
        look=loss.look,
        names=_readable,
        checkpoint=kept,
        resume=resume,
        overwrite=overwrite,
        progress=progress,
        stop_after=stop_after,
    )
    return _finished(potential, result)


def load_trained(potential: Potential, path: str | Path) -> Potential:
    """The best state that a training wrote to its checkpoint, in a potential of the same form.

    Raises:
        FileFormatError: no such file, or not one of a training. InputError: of another potential.
    """
    with open_modules(path, PARAMETER_FORMAT) as file:
        model: PotentialParameters = read_module(file, PARAMETER_FORMAT)
    return model.put_into(require_potential(potential))


class PotentialLoss(eqx.Module):
    """The loss of a batch, as `mdsens.training` calls it."""

    potential: Potential
    tolerances: LabelTolerances = eqx.field(static=True)

    def __call__(
        self, model: PotentialParameters, batch: LabelledBatch, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Total and mean squares of the labels, in their units."""
        squares, counts = self.sums(model, batch)
        means = {
            name: jnp.sum(squares[name]) / jnp.maximum(jnp.sum(counts[name]), 1e-300) for name in squares
        }
        return self.total(means), means

    def total(self, means: dict[str, Any]) -> Any:
        """The loss out of mean squares."""
        parts = [
            means[f"{name}_mse"] / t**2 for name, t in self.tolerances._asdict().items() if t is not None
        ]
        return sum(parts)

    def sums(self, model: PotentialParameters, batch: LabelledBatch) -> tuple[dict, dict]:
        """Weighted squares of each structure, and the sums of their weights, by name of the label."""
        found = batch_values(model.put_into(self.potential), batch)
        n = batch.sizes
        of_forces = jnp.sum((found.forces - batch.forces) ** 2, axis=-1) / 3
        squares = {
            "energy_mse": batch.energy_weight * ((found.energy - batch.energy) / n) ** 2,
            "forces_mse": jnp.sum(batch.forces_weight * of_forces, axis=-1),
            "stress_mse": batch.stress_weight * jnp.mean((found.stress - batch.stress) ** 2, axis=-1),
        }
        counts = {
            "energy_mse": batch.energy_weight,
            "forces_mse": jnp.sum(batch.forces_weight, axis=-1),
            "stress_mse": batch.stress_weight,
        }
        return squares, counts

    def look(self, model: PotentialParameters, held_out: RowGroups) -> tuple[float, dict[str, float]]:
        """The loss of all held-out structures, taken in pieces."""
        totals = np.zeros(2 * len(LABELS))
        for batch in held_out.groups:
            totals += self._totals(model, batch)
        means = {}
        for name, square, count in zip(LABELS, totals[::2], totals[1::2], strict=True):
            means[name] = float(square / max(count, 1e-300))
        return float(self.total(means)), means

    def _totals(self, model: PotentialParameters, batch: LabelledBatch) -> np.ndarray:
        """Sums of weighted squares and of weights, label after label."""
        leaves, tree = jax.tree.flatten(batch)

        def piece(*rows: np.ndarray) -> tuple[Array, ...]:
            here = jax.tree.unflatten(tree, [jnp.asarray(row) for row in rows])
            squares, counts = _sums(self, model, here)
            return tuple(part[name] for name in LABELS for part in (squares, counts))

        columns = map_pieces(piece, *(np.asarray(leaf) for leaf in leaves), at_once=LOOK)
        return np.array([column.sum() for column in columns])


@eqx.filter_jit
def _sums(loss: PotentialLoss, model: PotentialParameters, batch: LabelledBatch) -> tuple[dict, dict]:
    return loss.sums(model, batch)


def _rows_of(groups: list[LabelledBatch], chosen: Callable[[np.ndarray], np.ndarray]) -> RowGroups:
    """The rows of each group whose entries are chosen; groups without any are left out."""
    parts = []
    for group in groups:
        rows = np.flatnonzero(chosen(np.asarray(group.entry)))
        if len(rows):
            parts.append(jax.tree.map(lambda leaf, rows=rows: leaf[rows], group))
    return RowGroups(tuple(parts))


def _finished(potential: Potential, result: Trained) -> TrainedPotential:
    best, last = result.model.put_into(potential), result.last.put_into(potential)
    return TrainedPotential(best, last, result.history, result.best_step)


def _readable(terms: dict[str, float]) -> dict[str, float]:
    """Root mean square instead of mean square."""
    return {name.replace("_mse", "_rmse"): float(np.sqrt(value)) for name, value in terms.items()}


def _check_part(name: str, part: Dataset, tolerances: LabelTolerances) -> None:
    if not len(part):
        raise InputError(
            f"the {name} part of the data is empty: divide with a larger share (split(data, validation=0.1))."
        )
    counts = part.counts()
    found = {"energy": counts.energies, "forces": counts.forces, "stress": counts.stresses}
    if not any(found[label] for label, t in tolerances._asdict().items() if t is not None):
        raise InputError(f"the {name} part of the data has no labels that the loss looks at.")


def _settings(
    potential: Potential,
    data: DatasetSplit,
    tolerances: LabelTolerances,
    schedule: Schedule,
    frozen: tuple[str, ...],
) -> dict[str, Any]:
    """What must be the same when a training goes on. Patience may change: it decides when to end."""
    arrays = parameter_arrays(potential)
    steps = [name for name in Schedule.__annotations__ if name not in ("patience", "held_out")]
    return {
        "potential": f"{type(potential).__name__}, {sum(a.values.size for a in arrays)} numbers",
        "frozen": list(frozen),
        "tolerances": tolerances._asdict(),
        "schedule": {name: getattr(schedule, name) for name in steps},
        "data": {name: text for name, text in data.fingerprints().items() if name != "test"},
    }


def learning_curve(history: dict[str, np.ndarray], path: str | Path | None, overwrite: bool) -> Any:
    """Errors of the labels on both parts of the data against steps."""
    from matplotlib.figure import Figure

    from mdsens.io.files import new_file

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    units = {"energy_rmse": "eV per atom", "forces_rmse": "eV/Å", "stress_rmse": "eV/Å³"}
    for k, (name, unit) in enumerate(units.items()):
        for part, style in (("train", "-"), ("held_out", "--")):
            values = history.get(f"{part}/{name}", np.zeros(0))
            if np.any(values > 0):
                text = f"{name.replace('_rmse', '')}, {part.replace('_', '-')} ({unit})"
                axes.plot(history["step"], values, style, color=f"C{k}", label=text)
    axes.set(xlabel="step", ylabel="root mean square error", yscale="log")
    axes.legend(fontsize=8)
    if path is not None:
        with new_file(path, overwrite) as unfinished:
            figure.savefig(unfinished)
    return figure
