"""Flows in HDF5 files, without pickle; what the file of a trained flow knows about its training.

Classes are looked up by name among those of `mdsens.flows` and those handed to `load`, so that a file from a
stranger can be opened.
"""

from pathlib import Path
from typing import Any

import equinox as eqx

from mdsens.io.files import new_file
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
    import h5py

    with new_file(path, overwrite) as unfinished, h5py.File(unfinished, "w") as file:
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
