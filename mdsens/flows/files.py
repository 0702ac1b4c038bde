"""Flows in HDF5 files, without pickle; which frames the flow in a file was trained on.

Classes are looked up by name among those of `mdsens.flows` and those handed to `load`, so that a file from a
stranger can be opened.
"""

from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from mdsens.io.files import new_hdf5
from mdsens.io.modules import ModuleFormat, open_modules, read_module, write_module

MODULES = (
    "boltzmann",
    "coupling",
    "flow",
    "internal_coordinates",
    "layers",
    "molecule",
    "reference_block",
    "splines",
    "transforms",
)
FLOW_FORMAT = ModuleFormat(
    "mdsens-flow-1",
    "flow",
    "`mdsens flow train` and mdsens.flows.save",
    "mdsens.flows.load",
    tuple(f"mdsens.flows.{name}" for name in MODULES),
)


class TrainingRecord(NamedTuple):
    """What the file of a trained flow knows about its data.

    Attributes:
        source: the file that the frames were read from, as it was named then.
        n_frames: frames in all.
        held_out: which of them no part of the model has seen.
        trained_on: the signature of each of the others (`ForceData.signatures`).
    """

    source: str
    n_frames: int
    held_out: Int[np.ndarray, " held_out"]
    trained_on: Float[np.ndarray, "frames numbers"]


def save(path: str | Path, module: eqx.Module, *, overwrite: bool = False, **notes: Any) -> None:
    """Write a flow, a generator, or any module made of classes of `mdsens.flows`.

    Args:
        path: a new .h5 file; readable by any HDF5 reader (arrays in the group "arrays").
        module: what to keep.
        overwrite: replace the file if it exists.
        notes: numbers and texts to keep beside it, as attributes of the group "notes".
    Raises:
        OutputExistsError: the file exists, and `overwrite` is False.
        InputError: something in the module that cannot be written (a function, a class of another package).
    """
    with new_hdf5(path, overwrite) as file:
        write_module(file, module, FLOW_FORMAT)
        file.create_group("notes").attrs.update(notes)


def load(path: str | Path, *classes: type[eqx.Module]) -> Any:
    """Read what `save` wrote.

    Args:
        path: the file.
        classes: further classes that may appear in it.
    Raises:
        FileFormatError: no such file, not a file of this format, damaged, or with a class that is not known.
        InputError: arrays in float64 while JAX computes in float32.
    """
    with open_modules(path, FLOW_FORMAT) as file:
        return read_module(file, FLOW_FORMAT, classes)


def read_notes(path: str | Path) -> dict[str, Any]:
    """What `save` was told to keep beside a model.

    Raises:
        FileFormatError: not a model file.
    """
    with open_modules(path, FLOW_FORMAT) as file:
        return dict(file["notes"].attrs) if "notes" in file else {}


def read_record(path: str | Path) -> TrainingRecord | None:
    """Which frames a flow was trained on; None if its file does not say.

    Raises:
        FileFormatError: not a model file.
    """
    with open_modules(path, FLOW_FORMAT) as file:
        if "data" not in file:
            return None
        part: Any = file["data"]
        source, n_frames = str(part.attrs["source"]), int(part.attrs["n_frames"])
        return TrainingRecord(source, n_frames, part["held_out"][()], part["trained_on"][()])
