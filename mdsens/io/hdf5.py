"""Results in HDF5: nested dictionaries of arrays with their units, which any reader of HDF5 understands.

A dictionary becomes a group, an array a dataset with an attribute `unit` (and `axes`, if stated), a
`Structure` a group of its arrays. The root says in `kind` what is in the file ("relaxed", "trajectory", ...).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.checks import existing_file
from mdsens.errors import FileFormatError, InputError
from mdsens.io.files import new_hdf5
from mdsens.structure import Structure

if TYPE_CHECKING:
    import h5py

FORMAT = "mdsens-1"
# every array of a Structure but its columns, which are a group of their own; a test holds that
STRUCTURE_UNITS = {
    "positions": "Å",
    "cell": "Å",
    "species": "1",
    "masses": "u",
    "fixed": "1",
    "charges": "e",
}
OPTIONAL = {"charges"}  # arrays that not every structure has
COLUMNS = "columns"


class Quantity(NamedTuple):
    """Numbers with their unit, and what their axes are ("parameters, atoms, xyz")."""

    value: Any
    unit: str
    axes: str = ""


class RelaxedState(Protocol):
    """What is written of a relaxed state; `mdsens.relaxation.relax.Relaxed` has it."""

    @property
    def structure(self) -> Structure: ...

    @property
    def energy(self) -> Float[Array, ""]: ...

    @property
    def forces(self) -> Float[Array, "atoms 3"]: ...

    @property
    def stress(self) -> Float[Array, "3 3"]: ...

    @property
    def steps(self) -> Int[Array, ""]: ...

    @property
    def status(self) -> Any: ...


def write_relaxed(
    path: str | Path,
    relaxed: RelaxedState,
    *,
    parameters: Mapping[str, float] | None = None,
    overwrite: bool = False,
    **more: Any,
) -> None:
    """Write a relaxed state: structure, energy, forces, stress, how it was reached.

    Args:
        parameters: flat names and values of the potential's parameters.
        more: further content, as for `write_hdf5`.
    Raises:
        OutputExistsError: the file exists, and `overwrite` is False.
    """
    content = {
        "structure": relaxed.structure,
        "energy": Quantity(relaxed.energy, "eV"),
        "forces": Quantity(relaxed.forces, "eV/Å", "atoms, xyz"),
        "stress": Quantity(relaxed.stress, "eV/Å³", "xyz, xyz; positive in tension"),
        "steps": relaxed.steps,
        "status": getattr(relaxed.status, "value", relaxed.status),
        **({"parameters": dict(parameters)} if parameters is not None else {}),
        **more,
    }
    write_hdf5(path, content, kind="relaxed", overwrite=overwrite)


class RelaxedRecord(NamedTuple):
    """A relaxed state as a file holds it: numbers, without the potential that they belong to.

    Attributes:
        structure: where atoms and cell came to rest.
        energy: eV.
        forces: eV/Å.
        stress: eV/Å³, positive in tension.
        steps: taken by the relaxer.
        status: how it ended, as a text: "converged", "not converged", ...
        parameters: flat names and values of the potential's parameters; empty if they were not written.
        more: what else the file holds: the start, settings, the course of the relaxation, ...
    """

    structure: Structure
    energy: float
    forces: Float[np.ndarray, "atoms 3"]
    stress: Float[np.ndarray, "3 3"]
    steps: int
    status: str
    parameters: dict[str, float]
    more: dict[str, Any]


def read_relaxed(path: str | Path) -> RelaxedRecord:
    """Read what `write_relaxed` wrote, `mdsens relax` as well.

    To go on with it, build the potential (`load_potential`), set its parameters to those of the record with
    `replace_parameters`, and relax the record's structure: it is at rest already.

    Raises:
        FileFormatError: no such file, not HDF5, or no relaxed state.
    """
    content = read_hdf5(path, kind="relaxed")
    names = ("structure", "energy", "forces", "stress", "steps", "status")
    if missing := [name for name in names if name not in content]:
        raise FileFormatError(f"'{path}' has no {missing[0]}, which every relaxed state has: write it anew.")
    values = {name: content.pop(name) for name in names}
    plain = {name: value.value if isinstance(value, Quantity) else value for name, value in values.items()}
    plain |= {"energy": float(plain["energy"]), "steps": int(plain["steps"])}
    parameters = {name: float(value) for name, value in content.pop("parameters", {}).items()}
    return RelaxedRecord(**plain, parameters=parameters, more=content)


def write_hdf5(
    path: str | Path, content: Mapping[str, Any], *, kind: str | None = None, overwrite: bool = False
) -> None:
    """Write nested content to a new file, all of it or nothing.

    Args:
        content: names to mappings, structures, `Quantity`, arrays, numbers, texts, lists of texts. None is
            left out.
        kind: what is in the file, for readers that expect something; an attribute of the root.
    Raises:
        OutputExistsError: the file exists, and `overwrite` is False.
        InputError: a value that is none of these, or a name that HDF5 would read as a path.
    """
    with new_hdf5(path, overwrite) as file:
        file.attrs["format"] = FORMAT
        if kind is not None:
            file.attrs["kind"] = kind
        _write(file, content)


def _write(group: "h5py.Group", content: Mapping[str, Any]) -> None:
    for name, value in content.items():
        if not name or "/" in name or name == ".":
            raise InputError(
                f"'{name}' cannot name content of '{group.name}': names are not empty and have no slash."
            )
        match value:
            case None:
                pass
            case Mapping():
                _write(group.create_group(name), value)
            case Structure():
                part = group.create_group(name)
                part.attrs["pbc"] = value.pbc
                there = {k: unit for k, unit in STRUCTURE_UNITS.items() if getattr(value, k) is not None}
                arrays = {key: Quantity(getattr(value, key), unit) for key, unit in there.items()}
                _write(part, {**arrays, COLUMNS: value.columns or None})
            case Quantity():
                _write(group, {name: value.value})
                for key in ("unit", "axes"):
                    if text := getattr(value, key):
                        group[name].attrs[key] = text
            case _:
                array = np.asarray(value)
                if array.dtype.kind == "U":
                    array = array.astype(object)  # HDF5 knows texts of any length, and no fixed-width Unicode
                elif array.dtype == object and all(isinstance(text, str) for text in array.flat):
                    pass  # texts that were read
                elif array.dtype.kind not in "biuf":
                    raise InputError(
                        f"'{group.name}{name}' is of type {type(value).__name__}: write numbers, texts, or "
                        "mappings of them."
                    )
                group[name] = array


def read_hdf5(path: str | Path, *, kind: str | None = None) -> dict[str, Any]:
    """Read what `write_hdf5` wrote (or any HDF5 file of groups and arrays): dictionaries, structures, arrays.

    Datasets with a unit come back as `Quantity`.

    Args:
        kind: what the file must hold ("relaxed", ...); by default anything.
    Raises:
        FileFormatError: no such file, not HDF5, or of another kind.
    """
    with open_hdf5(path) as file:
        written = file.attrs.get("kind")
        if kind is not None and written != kind:
            what = f"holds '{written}'" if written else "does not say what it holds"
            raise FileFormatError(f"'{path}' {what}, and '{kind}' is needed.")
        return _read(file)


def open_hdf5(path: str | Path) -> "h5py.File":
    """An HDF5 file, opened for reading.

    Raises:
        FileFormatError: no such file, not HDF5, or cut short.
    """
    import h5py

    path = existing_file(path)
    if not h5py.is_hdf5(path):
        raise FileFormatError(f"'{path}' is no HDF5 file.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise FileFormatError(f"'{path}' is a damaged HDF5 file, as of a copy cut short: {error}.") from error


def _read(group: "h5py.Group") -> Any:
    import h5py

    content: dict[str, Any] = {}
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            content[name] = _read(item)
        else:
            value = item.asstr()[()] if h5py.check_string_dtype(item.dtype) else item[()]
            unit, axes = item.attrs.get("unit"), item.attrs.get("axes", "")
            content[name] = value if unit is None else Quantity(value, unit, axes)
    if set(content) - {COLUMNS} | OPTIONAL == set(STRUCTURE_UNITS) and "pbc" in group.attrs:
        columns = content.pop(COLUMNS, None)
        arrays = {name: quantity.value for name, quantity in content.items()}
        return Structure.create(**arrays, pbc=group.attrs["pbc"], columns=columns)
    return content
