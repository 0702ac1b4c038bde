"""Models in HDF5 files, without pickle: a tree of named classes as text, and their arrays as datasets.

Nothing in a file is executed. Classes are looked up by name among those that the kind of file allows (and
those handed to the reader), so that a file from a stranger can be opened.
"""

import dataclasses
import importlib
import inspect
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mdsens.checks import existing_file
from mdsens.errors import FileFormatError, InputError

if TYPE_CHECKING:
    import h5py


class ModuleFormat(NamedTuple):
    """A kind of model file.

    Attributes:
        name: the attribute "format" of its files.
        holds: what is in them, in a word: "flow".
        writers: who writes them, for messages.
        loader: name of the function that reads them and takes further classes, for messages.
        modules: full names of the Python modules whose equinox classes may appear.
    """

    name: str
    holds: str
    writers: str
    loader: str
    modules: tuple[str, ...] = ()

    def classes(self) -> list[type[eqx.Module]]:
        """All equinox classes of the modules, and the linear layer of equinox."""
        loaded = [importlib.import_module(name) for name in self.modules]
        own = [value for module in loaded for value in vars(module).values() if _is_module_class(value)]
        return [*own, eqx.nn.Linear]


def _is_module_class(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, eqx.Module)


def open_modules(path: str | Path, form: ModuleFormat) -> "h5py.File":
    """A file of this format, opened for reading.

    Raises:
        FileFormatError: no such file, or not one of this format.
    """
    import h5py

    existing_file(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FileFormatError(f"'{path}' is not an HDF5 file, or damaged: {error}.") from error
    found = file.attrs.get("format", "none")
    if found != form.name:
        file.close()
        raise FileFormatError(
            f"'{path}' has format {found}, not {form.name}: it holds no {form.holds}. Models are written by "
            f"{form.writers}."
        )
    return file


def write_module(group: "h5py.Group", module: eqx.Module, form: ModuleFormat) -> None:
    """Write a module into a group.

    Raises:
        InputError: something in the module that cannot be written (a function, a set).
    """
    arrays: list[np.ndarray] = []
    text = json.dumps(_pack(module, arrays, "module", form))
    group.attrs["format"] = form.name
    # not an attribute: those are limited to 64 kB, and the block of a large ring has more
    group["structure"] = np.bytes_(text)
    write_arrays(group.create_group("arrays"), arrays)


def read_module(group: "h5py.Group", form: ModuleFormat, classes: Iterable[type[eqx.Module]] = ()) -> Any:
    """Read a module out of a group.

    Args:
        group: what `write_module` wrote to.
        form: of the file.
        classes: further classes that may appear.
    Raises:
        FileFormatError: damaged, or with a class that is not known.
        InputError: arrays in float64 while JAX computes in float32.
    """
    known = {cls.__name__: cls for cls in (*form.classes(), *classes)}
    try:
        text: Any = group["structure"]
        module = _unpack(json.loads(text[()]), read_arrays(group["arrays"]), known, form)
    except InputError:
        raise
    except (KeyError, ValueError, IndexError, TypeError, OSError) as error:
        raise FileFormatError(
            f"'{group.file.filename}' is damaged: {type(error).__name__} {error}."
        ) from error
    if not isinstance(module, eqx.Module):
        found = type(module).__name__
        raise FileFormatError(f"'{group.file.filename}' holds a {found} and no {form.holds}.")
    return module


def write_arrays(group: "h5py.Group", arrays: Iterable[Any]) -> None:
    """Number the arrays, and write each as a dataset."""
    for k, array in enumerate(arrays):
        group[f"{k:05d}"] = np.asarray(array)


def read_arrays(group: Any) -> list[np.ndarray]:
    """The numbered arrays of a group."""
    return [group[name][()] for name in sorted(group)]


def classes_in(value: Any) -> set[type[eqx.Module]]:
    """The classes of all modules in a tree: what a reader needs to know to get it back."""
    match value:
        case eqx.Module():
            parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
            return {type(value)}.union(*(classes_in(part) for part in parts))
        case tuple() | list():
            return set().union(*(classes_in(part) for part in value))
        case dict():
            return set().union(*(classes_in(part) for part in value.values()))
    return set()


# --- the tree as text -----------------------------------------------------------------------------------


def _pack(value: Any, arrays: list[np.ndarray], where: str, form: ModuleFormat) -> Any:
    """The value as JSON; its arrays go to the end of `arrays`."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case tuple():
            return {"tuple": [_pack(item, arrays, f"{where}[{k}]", form) for k, item in enumerate(value)]}
        case list():
            return {"list": [_pack(item, arrays, f"{where}[{k}]", form) for k, item in enumerate(value)]}
        case dict():
            _check_keys(value, where)
            packed = {key: _pack(item, arrays, f"{where}[{key!r}]", form) for key, item in value.items()}
            return {"dict": packed}
        case np.ndarray() | jax.Array():
            arrays.append(np.asarray(value))
            return {"array": len(arrays) - 1, "numpy": isinstance(value, np.ndarray)}
        case eqx.Module():
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            packed = {name: _pack(item, arrays, f"{where}.{name}", form) for name, item in fields.items()}
            return {"class": type(value).__name__, "fields": packed}
    raise InputError(
        f"{where} is a {type(value).__name__}, which cannot be kept in a file. Make it an equinox.Module "
        f"with fields of arrays, numbers and texts, and name its class to {form.loader}."
    )


def _check_keys(mapping: dict[Any, Any], where: str) -> None:
    other = [key for key in mapping if not isinstance(key, str)]
    if other:
        raise InputError(f"{where} has the key {other[0]!r}, which cannot be kept in a file: only text can.")


def _unpack(tree: Any, arrays: list[np.ndarray], known: dict[str, type], form: ModuleFormat) -> Any:
    match tree:
        case {"tuple": items}:
            return tuple(_unpack(item, arrays, known, form) for item in items)
        case {"list": items}:
            return [_unpack(item, arrays, known, form) for item in items]
        case {"dict": items}:
            return {key: _unpack(item, arrays, known, form) for key, item in items.items()}
        case {"array": k, "numpy": numpy}:
            return arrays[k] if numpy else _on_device(arrays[k])
        case {"class": name, "fields": fields}:
            cls = _known_class(name, fields, known, form)
            return _rebuilt(cls, {key: _unpack(item, arrays, known, form) for key, item in fields.items()})
    return tree


def _known_class(name: str, fields: Any, known: dict[str, type], form: ModuleFormat) -> type:
    if name not in known:
        home = form.loader.rpartition(".")[0]
        raise FileFormatError(
            f"the file needs the class {name}, which {home} does not have: give it to "
            f"{form.loader.rpartition('.')[2]}, or use a newer mdsens."
        )
    expected = sorted(field.name for field in dataclasses.fields(known[name]))
    if sorted(fields) != expected:
        raise FileFormatError(
            f"the file has a {name} with {sorted(fields)}, and that of this version has {expected}: use the "
            "version of mdsens that wrote the file."
        )
    return known[name]


def _rebuilt(cls: type, fields: dict[str, Any]) -> Any:
    """A module with these fields, without running its __init__: it was checked when it was made."""
    module = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(module, name, value)
    return module


def _on_device(array: np.ndarray) -> jax.Array:
    there = jnp.asarray(array)
    if there.dtype != array.dtype:
        raise InputError(
            f"the file holds {array.dtype} numbers and JAX would cut them to {there.dtype}: set "
            "JAX_ENABLE_X64=1."
        )
    return there
