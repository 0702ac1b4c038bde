"""The file of a training: the best model so far, and all that is needed to go on with the same bits.

The model stands where any reader of model files finds it. Beside it the group "training" holds the parameters
of the last step and the state of the optimizer, and the group "history" what every look saw.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mdsens.errors import FileFormatError, InputError
from mdsens.io.files import check_free, new_hdf5
from mdsens.io.modules import (
    ModuleFormat,
    classes_in,
    open_modules,
    read_arrays,
    read_module,
    write_arrays,
    write_module,
)

MODEL_FORMAT = ModuleFormat("mdsens-model-1", "model", "mdsens.training", "mdsens.io.modules.read_module")

History = dict[str, list[float]]


class TrainingState(NamedTuple):
    """Where a training stands between two steps.

    Attributes:
        step: steps done.
        parameters: after the last step.
        optimizer: its state.
        best: parameters at the look with the lowest held-out loss.
        best_step: the step of that look.
        history: what the looks saw.
    """

    step: int
    parameters: Any
    optimizer: Any
    best: Any
    best_step: int
    history: History


class Checkpoint:
    """Where a training is kept while it runs, and what must be the same when it goes on.

    Args:
        path: a file, written anew at every look.
        form: kind of file.
        settings: name to text or numbers: everything that decides how the training goes. A file with other
            settings is refused.
        content: names of groups to their attributes (numbers and texts) and datasets (arrays), kept in the
            file for its readers.
    """

    def __init__(
        self,
        path: str | Path,
        form: ModuleFormat = MODEL_FORMAT,
        *,
        settings: Mapping[str, Any] | None = None,
        content: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        self.path, self.form = Path(path), form
        self.settings = json.loads(json.dumps(dict(settings or {})))  # as it comes back from the file
        self.content = dict(content or {})

    def start(self, resume: bool, overwrite: bool) -> bool:
        """Whether there is something to go on from.

        Raises:
            OutputExistsError: a file stands here, and neither `resume` nor `overwrite` is given.
        """
        if resume and self.path.exists():
            return True
        check_free(self.path, overwrite)
        return False

    def write(self, model: Any, state: TrainingState) -> None:
        """Keep a state; `model` has the best parameters."""
        with new_hdf5(self.path, overwrite=True) as file:
            write_module(file, model, self.form)
            file.create_group("notes").attrs.update({"step": state.best_step})
            part = file.create_group("training")
            part.attrs["settings"] = json.dumps(self.settings)
            part.attrs["step"] = state.step
            write_arrays(part.create_group("optimizer"), jax.tree.leaves(state.optimizer))
            write_arrays(part.create_group("parameters"), jax.tree.leaves(state.parameters))
            log = file.create_group("history")
            for name, values in state.history.items():
                log[name] = np.array(values)
            for name, values in self.content.items():
                _write_content(file.create_group(name), values)

    def read(self, model: Any, parameters: Any, optimizer: Any) -> TrainingState:
        """The state to go on from.

        Args:
            model: as the training began; its classes and structure are those of the file.
            parameters: of the model, and
            optimizer: state, for their structures.
        Raises:
            FileFormatError: no file of this kind, or a model without the state of a training.
            InputError: other settings, or a model of another structure.
        """
        with open_modules(self.path, self.form) as file:
            if "training" not in file:
                raise FileFormatError(
                    f"'{self.path}' is a model without the state of its training: it cannot be resumed. "
                    "Train into another file."
                )
            part: Any = file["training"]
            self._check_settings(json.loads(part.attrs["settings"]))
            best, _ = eqx.partition(read_module(file, self.form, classes_in(model)), eqx.is_inexact_array)
            if jax.tree.structure(best) != jax.tree.structure(parameters):
                raise InputError(
                    f"'{self.path}' is a checkpoint of a model with another structure. Train into another "
                    "file."
                )
            last = _restored(part["parameters"], parameters) if "parameters" in part else best
            kept = _restored(part["optimizer"], optimizer)
            history = {name: list(values) for name, values in _history(file).items()}
            notes: Any = file["notes"].attrs
            step, best_step = int(part.attrs["step"]), int(notes["step"])
            return TrainingState(step, last, kept, best, best_step, history)

    def _check_settings(self, known: Mapping[str, Any]) -> None:
        for name, value in self.settings.items():
            if known.get(name) != value:
                raise InputError(
                    f"'{self.path}' is a checkpoint of another training: its {name} is {known.get(name)}, "
                    f"and here {value}."
                )


def read_history(path: str | Path, form: ModuleFormat = MODEL_FORMAT) -> dict[str, np.ndarray]:
    """Course of the training that wrote a checkpoint; empty if there is none.

    Raises:
        FileFormatError: not a model file.
    """
    with open_modules(path, form) as file:
        return _history(file)


def _history(file: Any) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    def keep(name: str, item: Any) -> None:
        if hasattr(item, "shape"):
            found[name] = item[()]

    if "history" in file:
        file["history"].visititems(keep)
    return found


def _restored(group: Any, like: Any) -> Any:
    leaves = [jnp.asarray(array) for array in read_arrays(group)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _write_content(group: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            group[name] = value
        else:
            group.attrs[name] = value
