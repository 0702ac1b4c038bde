"""Data sets as files: what other programs wrote is read, and mdsens has a layout of its own.

HDF5, kind "dataset": atoms of all structures one after the other, those of structure k from offsets[k] to
offsets[k + 1]; numbers of structures in arrays with one row each. Where a label is missing, its mask is
False and its number zero.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from mdsens.datasets.dataset import Dataset, LabelledStructure, LabelWeights
from mdsens.errors import FileFormatError, InputError
from mdsens.io.files import check_free, new_file
from mdsens.io.hdf5 import Quantity, read_hdf5, write_hdf5
from mdsens.structure import Structure

if TYPE_CHECKING:
    from ase import Atoms

KIND = "dataset"
HDF5 = (".h5", ".hdf5")
# names in info and arrays of extxyz files that mdsens writes
GROUP, KNOWN = "config_type", "forces_known"
WEIGHTS = ("energy_weight", "forces_weight", "stress_weight")


def write_dataset(
    path: str | Path, data: Dataset, *, more: Mapping[str, Any] | None = None, overwrite: bool = False
) -> None:
    """Write a data set: .h5 keeps everything to the last bit, .extxyz is for other programs.

    Args:
        more: further content of an HDF5 file, as for `write_hdf5`.
    Raises:
        InputError: another ending, or no structures.
        OutputExistsError: the file exists, and `overwrite` is False.
        WriteError: the disk is full, or nothing may be written there; what stood there stays.
    """
    path = Path(path)
    if not len(data):
        raise InputError(f"'{path}': the data set is empty. Nothing was written.")
    check_free(path, overwrite)
    if path.suffix.lower() in HDF5:
        write_hdf5(path, {**_content(data), **(more or {})}, kind=KIND, overwrite=overwrite)
    elif path.name.lower().removesuffix(".gz").endswith((".extxyz", ".xyz")):
        _write_extxyz(path, data, overwrite)
    else:
        raise InputError(f"'{path}': a data set is written as .h5, which keeps everything, or .extxyz.")


# --- HDF5


def _content(data: Dataset) -> dict[str, Any]:
    sizes = [entry.structure.n_atoms for entry in data]
    return {
        "offsets": np.concatenate([[0], np.cumsum(sizes)]),
        "positions": Quantity(_atoms(data, lambda s: s.positions), "Å", "atoms, xyz"),
        "species": Quantity(_atoms(data, lambda s: s.species), "1", "atoms; atomic numbers"),
        "masses": Quantity(_atoms(data, lambda s: s.masses), "u", "atoms"),
        "fixed": _atoms(data, lambda s: s.fixed),
        "cell": Quantity(_rows(data, lambda e: e.structure.cell), "Å", "structures, vectors, xyz"),
        "pbc": _rows(data, lambda e: e.structure.pbc),
        **_charges(data),
        **_columns(data),
        **_labels(data),
        "weights": Quantity(_rows(data, lambda e: e.weights), "1", "structures, (energy, forces, stress)"),
        "group": [entry.group for entry in data],
        "origin": [entry.origin for entry in data],
    }


def _labels(data: Dataset) -> dict[str, Any]:
    no_forces = lambda entry: np.zeros((entry.structure.n_atoms, 3))
    forces = [no_forces(e) if e.forces is None else e.forces for e in data]
    known = [_mask(entry) for entry in data]
    energies = [0.0 if e.energy is None else e.energy for e in data]
    no_stress = np.zeros((3, 3))
    stresses = [no_stress if e.stress is None else e.stress for e in data]
    return {
        "energy": Quantity(energies, "eV", "structures"),
        "has_energy": _rows(data, lambda e: e.energy is not None),
        "forces": Quantity(np.concatenate(forces), "eV/Å", "atoms, xyz"),
        "has_forces": np.concatenate(known),
        "stress": Quantity(stresses, "eV/Å³", "structures, xyz, xyz; positive in tension"),
        "has_stress": _rows(data, lambda e: e.stress is not None),
    }


def _charges(data: Dataset) -> dict[str, Any]:
    charges = [entry.structure.charges for entry in data]
    if all(charge is None for charge in charges):
        return {}
    none = [np.zeros(entry.structure.n_atoms) for entry in data]
    filled = [zeros if q is None else q for q, zeros in zip(charges, none, strict=True)]
    there = [charge is not None for charge in charges]
    return {"charges": Quantity(np.concatenate(filled), "e", "atoms"), "has_charges": there}


# Which structures have a column stands beside it; those that have not get zeros in its place.
def _columns(data: Dataset) -> dict[str, Any]:
    names = sorted({name for entry in data for name in entry.structure.columns})
    found = {name: _column(data, name) for name in names}
    return {"columns": found} if found else {}


def _column(data: Dataset, name: str) -> dict[str, Any]:
    columns = [entry.structure.columns.get(name) for entry in data]
    first = next(column for column in columns if column is not None)
    zeros = [np.zeros((entry.structure.n_atoms, *first.shape[1:])) for entry in data]
    filled = [none if column is None else column for none, column in zip(zeros, columns, strict=True)]
    return {"values": np.concatenate(filled), "there": [column is not None for column in columns]}


def _mask(entry: LabelledStructure) -> np.ndarray:
    if entry.forces is None:
        return np.zeros(entry.structure.n_atoms, bool)
    return np.ones(entry.structure.n_atoms, bool) if entry.known is None else entry.known


def _atoms(data: Dataset, of: Callable[[Structure], Any]) -> np.ndarray:
    return np.concatenate([np.asarray(of(entry.structure)) for entry in data])


def _rows(data: Dataset, of: Callable[[LabelledStructure], Any]) -> np.ndarray:
    return np.array([np.asarray(of(entry)) for entry in data])


def read_own(path: Path) -> tuple[Dataset, dict[str, Any]]:
    """A data set in the layout of mdsens, and what else is in the file.

    Raises:
        FileFormatError: damaged, or another layout.
    """
    content = read_hdf5(path, kind=KIND)
    needed = ("offsets", "positions", "species", "masses", "fixed", "cell", "pbc", "energy", "has_energy")
    needed += ("forces", "has_forces", "stress", "has_stress", "weights", "group", "origin")
    if missing := [name for name in needed if name not in content]:
        raise FileFormatError(f"'{path}' has no '{missing[0]}', which every data set has: write it anew.")
    optional = [name for name in ("charges", "has_charges", "columns") if name in content]
    values = {name: _plain(content.pop(name)) for name in (*needed, *optional)}
    count = len(values["offsets"]) - 1
    return Dataset(tuple(_entry(values, k) for k in range(count))), content


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Quantity) else value


def _entry(values: Mapping[str, Any], k: int) -> LabelledStructure:
    start, end = values["offsets"][k : k + 2].tolist()
    atoms = slice(start, end)
    charged = "charges" in values and bool(values["has_charges"][k])
    x, y, z = (bool(along) for along in values["pbc"][k])
    structure = Structure(
        positions=jnp.asarray(values["positions"][atoms]),
        cell=jnp.asarray(values["cell"][k]),
        species=jnp.asarray(values["species"][atoms]),
        masses=jnp.asarray(values["masses"][atoms]),
        fixed=jnp.asarray(values["fixed"][atoms]),
        pbc=(x, y, z),
        charges=jnp.asarray(values["charges"][atoms]) if charged else None,
        columns={
            name: jnp.asarray(column["values"][atoms])
            for name, column in values.get("columns", {}).items()
            if column["there"][k]
        },
    )
    known = values["has_forces"][atoms]
    return LabelledStructure(
        structure=structure,
        energy=float(values["energy"][k]) if values["has_energy"][k] else None,
        forces=values["forces"][atoms] if known.any() else None,
        stress=values["stress"][k] if values["has_stress"][k] else None,
        known=None if known.all() or not known.any() else known,
        weights=LabelWeights(*(float(w) for w in values["weights"][k])),
        group=str(values["group"][k]),
        origin=str(values["origin"][k]),
    )


# --- extxyz


def _write_extxyz(path: Path, data: Dataset, overwrite: bool) -> None:
    from mdsens.io.extxyz import write_extxyz

    frames = [_to_ase(entry) for entry in data]
    with new_file(path, overwrite) as unfinished:
        write_extxyz(unfinished, frames)


def _to_ase(entry: LabelledStructure) -> "Atoms":
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = entry.structure.to_ase()
    results = {"energy": entry.energy, "forces": entry.forces, "stress": _voigt(entry.stress)}
    there = {name: value for name, value in results.items() if value is not None}
    if there:
        atoms.calc = SinglePointCalculator(atoms, **there)
    if entry.known is not None:
        atoms.set_array(KNOWN, entry.known)
    if entry.group:
        atoms.info[GROUP] = entry.group
    if entry.weights != LabelWeights():
        atoms.info.update(zip(WEIGHTS, entry.weights, strict=True))
    return atoms


def _voigt(stress: np.ndarray | None) -> np.ndarray | None:
    from mdsens.strain import VOIGT

    return None if stress is None else np.array([stress[a, b] for a, b in VOIGT])
