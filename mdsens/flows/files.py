"""Flows in HDF5 files, without pickle: a tree of named classes as text, and their arrays as datasets.

Nothing in a file is executed. Classes are looked up by name among those of `mdsens.flows` (and those handed
to `load`), so that a file from a stranger can be opened.
"""

import dataclasses
import importlib
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mdsens.errors import FileFormatError, InputError
from mdsens.io.files import new_file

if TYPE_CHECKING:
    import h5py

FORMAT = "mdsens-flow-1"
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


def save(path: str | Path, module: eqx.Module, *, overwrite: bool = False, **notes: Any) -> None:
    """Write a flow, a generator, or any module made of classes of `mdsens.flows`.

    Args:
        path: a new .h5 file; readable by any HDF5 reader (arrays in the group "arrays").
        module: what to keep.
        notes: numbers and texts to keep beside it, as attributes of the group "notes".
    Raises:
        OutputExistsError: the file exists, and `overwrite` is False.
        InputError: something in the module that cannot be written (a function, a class of another package).
    """
    import h5py

    with new_file(path, overwrite) as unfinished, h5py.File(unfinished, "w") as file:
        write_module(file, module)
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
    with open_hdf5(path) as file:
        return read_module(file, *classes)


def open_hdf5(path: str | Path) -> "h5py.File":
    """A file of this format, opened for reading.

    Raises:
        FileFormatError: no such file, or not one of this format.
    """
    import h5py

    if not Path(path).is_file():
        raise FileFormatError(f"no file '{path}'. The path is relative to {Path.cwd()}.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FileFormatError(f"'{path}' is not an HDF5 file, or damaged: {error}.") from error
    if file.attrs.get("format") != FORMAT:
        found = file.attrs.get("format", "none")
        file.close()
        raise FileFormatError(
            f"'{path}' has format {found}, not {FORMAT}: it holds no flow. Models are written by `mdsens "
            "flow train` and mdsens.flows.save."
        )
    return file


def write_module(group: "h5py.Group", module: eqx.Module) -> None:
    """Write a module into a group."""
    arrays: list[np.ndarray] = []
    text = json.dumps(_pack(module, arrays, "module"))
    group.attrs["format"] = FORMAT
    group["structure"] = np.bytes_(
        text
    )  # not an attribute: those are limited to 64 kB, and the block of a large ring has more
    write_arrays(group.create_group("arrays"), arrays)


def read_module(group: "h5py.Group", *classes: type[eqx.Module]) -> Any:
    """Read a module out of a group."""
    known = {cls.__name__: cls for cls in (*_classes(), *classes)}
    try:
        text: Any = group["structure"]
        module = _unpack(json.loads(text[()]), read_arrays(group["arrays"]), known)
    except InputError:
        raise
    except (KeyError, ValueError, IndexError, TypeError, OSError) as error:
        raise FileFormatError(
            f"'{group.file.filename}' is damaged: {type(error).__name__} {error}."
        ) from error
    if not isinstance(module, eqx.Module):
        raise FileFormatError(f"'{group.file.filename}' holds a {type(module).__name__} and no flow.")
    return module


def write_arrays(group: "h5py.Group", arrays: list[Any]) -> None:
    """Number the arrays, and write each as a dataset."""
    for k, array in enumerate(arrays):
        group[f"{k:05d}"] = np.asarray(array)


def read_arrays(group: Any) -> list[np.ndarray]:
    """The numbered arrays of a group."""
    return [group[name][()] for name in sorted(group)]


def _classes() -> list[type[eqx.Module]]:
    modules = [importlib.import_module(f"mdsens.flows.{name}") for name in MODULES]
    own = [
        cls
        for module in modules
        for cls in vars(module).values()
        if inspect.isclass(cls) and issubclass(cls, eqx.Module)
    ]
    return [*own, eqx.nn.Linear]


def _pack(value: Any, arrays: list[np.ndarray], where: str) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case tuple():
            return {"tuple": [_pack(item, arrays, f"{where}[{k}]") for k, item in enumerate(value)]}
        case list():
            return {"list": [_pack(item, arrays, f"{where}[{k}]") for k, item in enumerate(value)]}
        case dict():
            if other := [key for key in value if not isinstance(key, str)]:
                raise InputError(
                    f"{where} has the key {other[0]!r}, which cannot be kept in a file: only text can."
                )
            return {"dict": {key: _pack(item, arrays, f"{where}[{key!r}]") for key, item in value.items()}}
        case np.ndarray() | jax.Array():
            arrays.append(np.asarray(value))
            return {"array": len(arrays) - 1, "numpy": isinstance(value, np.ndarray)}
        case eqx.Module():
            fields = {
                f.name: _pack(getattr(value, f.name), arrays, f"{where}.{f.name}")
                for f in dataclasses.fields(value)
            }
            return {"class": type(value).__name__, "fields": fields}
    raise InputError(
        f"{where} is a {type(value).__name__}, which cannot be kept in a file. Make it an equinox.Module "
        "with fields of arrays, numbers "
        "and texts, and name its class to mdsens.flows.load."
    )


def _unpack(tree: Any, arrays: list[np.ndarray], known: dict[str, type]) -> Any:
    match tree:
        case {"tuple": items}:
            return tuple(_unpack(item, arrays, known) for item in items)
        case {"list": items}:
            return [_unpack(item, arrays, known) for item in items]
        case {"dict": items}:
            return {key: _unpack(item, arrays, known) for key, item in items.items()}
        case {"array": k, "numpy": numpy}:
            return arrays[k] if numpy else _on_device(arrays[k])
        case {"class": name, "fields": fields}:
            if name not in known:
                raise FileFormatError(
                    f"the file needs the class {name}, which mdsens.flows does not have: give it to load, or "
                    "use a newer mdsens."
                )
            expected = sorted(field.name for field in dataclasses.fields(known[name]))
            if sorted(fields) != expected:
                raise FileFormatError(
                    f"the file has a {name} with {sorted(fields)}, and that of this version has {expected}: "
                    "use the version of mdsens that "
                    "wrote the file."
                )
            module = object.__new__(known[name])
            for field, item in fields.items():
                object.__setattr__(module, field, _unpack(item, arrays, known))
            return module
    return tree


def _on_device(array: np.ndarray) -> jax.Array:
    there = jnp.asarray(array)
    if there.dtype != array.dtype:
        raise InputError(
            f"the file holds {array.dtype} numbers and JAX would cut them to {there.dtype}: set "
            "JAX_ENABLE_X64=1."
        )
    return there
