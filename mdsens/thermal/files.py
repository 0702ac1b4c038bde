"""Ensembles as files: HDF5 in mdtraj's convention, and beside it everything to the last bit.

At the root stand positions, cells and energies as `mdtraj.load` reads them (nm, kJ/mol, float32). The group
`ensemble` has the same in Å and eV, with weights, the state, and the values of the potential's parameters.
The form of the potential is not written: whoever reads the file brings one.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from mdsens.checks import existing_file, nearest
from mdsens.errors import FileFormatError, InputError
from mdsens.io.files import new_hdf5
from mdsens.io.frames import mark_convention, put_quantity
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import parameter_values, replace_by_vector
from mdsens.quantities import energy
from mdsens.structure import Structure
from mdsens.units import PS, to_kJ_per_mol, to_nm

FORMAT = "mdsens-ensemble-1"
GROUP = "ensemble"
SETTINGS = "sampling"  # attribute of the group
SAME = 1e-8  # of the size of an energy: a larger difference is another potential

Ensemble = Any  # `mdsens.thermal.ensemble.Ensemble`, which stands on this file

ARRAYS = {"energies": "eV", "log_weights": "1"}
NUMBERS = {"temperature": "K", "pressure": "eV/Å³", "replicas": "1", "interval": "fs", "seed": "1"}
OF_STRUCTURE = {"species": "1", "masses": "u", "fixed": "1", "charges": "e"}


def write(
    ensemble: Ensemble, path: str | Path, overwrite: bool, settings: Mapping[str, Any] | None = None
) -> None:
    """Both parts of the file.

    Args:
        settings: numbers and texts that decided how the frames were sampled.
    """
    with new_hdf5(path, overwrite) as file:
        _write_convention(file, ensemble)
        group = file.create_group(GROUP)
        _write_exact(group, ensemble)
        if settings is not None:
            group.attrs[SETTINGS] = _as_text(settings)


def check_settings(path: str | Path, settings: Mapping[str, Any]) -> None:
    """Raise where a file holds what was sampled with other settings.

    Files that do not say with which (made by earlier versions) are asked for the numbers that they hold.

    Raises:
        InputError: says which setting differs.
        FileFormatError: as of `read`.
    """
    known = _known_settings(path)
    asked = json.loads(_as_text(settings))  # as it comes back from the file
    for name, value in asked.items():
        if name in known and known[name] != value:
            raise InputError(
                f"'{path}' holds another sampling: its {name} is {known[name]}, and here {value}. Read it "
                "with what it was made with, sample anew with overwrite=True (--overwrite) and without "
                "resume, or name another output."
            )


def _as_text(settings: Mapping[str, Any]) -> str:
    # numbers of NumPy and JAX as those of Python
    plain = lambda value: value.item() if hasattr(value, "item") else str(value)
    return json.dumps(dict(settings), default=plain)


def _known_settings(path: str | Path) -> Mapping[str, Any]:
    with _group_of(path) as group:
        text: Any = group.attrs.get(SETTINGS)
        numbers = _numbers(group)
    if text is not None:
        return json.loads(text)
    return {name: numbers[name] for name in ("temperature", "pressure", "replicas", "seed")}


def _write_convention(file: Any, ensemble: Ensemble) -> None:
    frames = ensemble.frames
    n, structure = len(frames), frames.structure
    mark_convention(file, [int(z) for z in np.asarray(structure.species)])
    file.attrs["temperature"] = ensemble.temperature
    times = np.arange(n) // max(1, ensemble.replicas)
    put_quantity(file, "coordinates", to_nm(frames.positions), "nanometers")
    put_quantity(file, "time", times * ensemble.interval / PS, "picoseconds")
    put_quantity(file, "potentialEnergy", to_kJ_per_mol(ensemble.energies), "kilojoules_per_mole")
    if all(structure.pbc):
        from ase.geometry.cell import cell_to_cellpar

        cells = np.broadcast_to(frames.cells, (n, 3, 3))
        parameters = np.array([cell_to_cellpar(cell) for cell in cells])
        put_quantity(file, "cell_lengths", to_nm(parameters[:, :3]), "nanometers")
        put_quantity(file, "cell_angles", parameters[:, 3:], "degrees")


def _write_exact(group: Any, ensemble: Ensemble) -> None:
    frames, structure = ensemble.frames, ensemble.frames.structure
    group.attrs["format"] = FORMAT
    _put(group, "positions", frames.positions, "Å")
    group["positions"].attrs["axes"] = "frames, atoms, xyz"
    _put(group, "cells", frames.cells, "Å")
    for name, unit in {**ARRAYS, **NUMBERS}.items():
        _put(group, name, getattr(ensemble, name), unit)
    atoms = group.create_group("structure")
    atoms.attrs["pbc"] = structure.pbc
    for name, unit in OF_STRUCTURE.items():
        _put(atoms, name, getattr(structure, name), unit)
    columns = atoms.create_group("columns")
    for name, values in structure.columns.items():
        columns[name] = np.asarray(values)
    parameters = group.create_group("parameters")
    parameters["names"] = np.array(list(ensemble.parameters), object) if ensemble.parameters else []
    parameters["values"] = np.array(list(ensemble.parameters.values()), float)


def _put(group: Any, name: str, value: Any, unit: str) -> None:
    if value is not None:
        group[name] = np.asarray(value)
        group[name].attrs["unit"] = unit


def read(path: str | Path) -> dict[str, Any]:
    """What an `Ensemble` is made of, but for the potential: the values of its parameters by name.

    Raises:
        FileFormatError: no such file, not HDF5, or not written by `Ensemble.to_hdf5`.
    """
    with _group_of(path) as group:
        arrays = {name: group[name][()] for name in ARRAYS}
        names = _texts(group["parameters/names"])
        values = group["parameters/values"][()].tolist()
        return {
            **_numbers(group),
            **arrays,
            "frames": _read_frames(group),
            "parameters": dict(zip(names, values, strict=True)),
        }


@contextmanager
def _group_of(path: str | Path) -> Iterator[Any]:
    import h5py

    path = existing_file(path, "ensemble")
    if not h5py.is_hdf5(path):
        raise FileFormatError(f"'{path}' is no HDF5 file.")
    with h5py.File(path, "r") as file:
        group: Any = file.get(GROUP)
        if group is None or group.attrs.get("format") != FORMAT:
            raise FileFormatError(
                f"'{path}' holds no ensemble but {sorted(file)}: Ensemble.to_hdf5 writes one. For frames of "
                "another program use Ensemble.of_frames."
            )
        yield group


def _numbers(group: Any) -> dict[str, Any]:
    return {name: group[name][()].item() if name in group else None for name in NUMBERS}


def _texts(dataset: Any) -> list[str]:
    return [str(text) for text in dataset.asstr()[()]] if len(dataset) else []


def _read_frames(group: Any) -> dict[str, Any]:
    atoms = group["structure"]
    positions, cells = group["positions"][()], group["cells"][()]
    known = {name: atoms[name][()] for name in OF_STRUCTURE if name in atoms}
    columns = {name: values[()] for name, values in atoms["columns"].items()}
    cell = cells if cells.ndim == 2 else cells[0]
    structure = Structure.create(positions[0], cell=cell, pbc=atoms.attrs["pbc"], columns=columns, **known)
    # `create` may fill in what a cell lacks
    exact = structure.at(jnp.asarray(positions[0]), jnp.asarray(cell))
    return {"structure": exact, "positions": positions, "cells": cells}


def same_form(path: str | Path, potential: Potential, found: Mapping[str, float]) -> Potential:
    """The potential with the parameters of a file.

    Raises:
        InputError: it has parameters of other names.
    """
    known = parameter_values(potential)
    for name in [*found, *known]:
        if name not in known or name not in found:
            where = f"{type(potential).__name__} has" if name in found else f"'{path}' has"
            alike = nearest(name, known if name in found else found)
            raise InputError(
                f"{where} no parameter '{name}', so the frames are of another potential.{alike} Give a "
                "potential of the form that was sampled."
            )
    return replace_by_vector(potential, list(found), jnp.asarray(list(found.values())))


def check_energy(path: str | Path, ensemble: Ensemble) -> None:
    """Raise where the potential gives the first frame another energy than the file.

    Raises:
        InputError
    """
    there = float(energy(ensemble.potential, ensemble.frames.at(0)))
    written = float(ensemble.energies[0])
    if abs(there - written) > SAME * max(1.0, abs(written)):
        raise InputError(
            f"the first frame of '{path}' has the energy {written:.8g} eV, and the potential says "
            f"{there:.8g} eV: it is another one (another form, cutoff, or way of cutting off). Give the "
            "potential that was sampled."
        )
