"""Frames as files hold them: which arrays a file has, in which units, of which atoms, at which temperature.

Three kinds of files: HDF5 (of OpenMM scripts, of mdtraj, and those that mdsens writes itself), trajectories
without elements (.xtc, .dcd, ...), which mdtraj reads with a topology, and whatever ASE reads.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from mdsens.errors import FileFormatError, InputError
from mdsens.io.frames import mdtraj_topology
from mdsens.io.structures import load_mdtraj

HDF5_ENDINGS = (".h5", ".hdf5")
MDTRAJ_ENDINGS = (".xtc", ".trr", ".dcd", ".nc", ".ncdf", ".netcdf", ".binpos", ".mdcrd", ".pdb")
# names of datasets in HDF5, the usual one first: of mdsens, of mdtraj (camel case), of other programs
DATASETS = {
    "positions": ("positions", "coordinates"),
    "forces": ("forces",),
    "potential_energy": ("potential_energy", "potential", "potentialEnergy", "energies", "energy"),
    "weights": ("weights",),
    "force_weights": ("force_weights",),
    "log_weights": ("log_weights",),
}
KELVIN = ("K", "kelvin", "kelvins")
LABELS = ("forces", "potential_energy")
WEIGHTS = ("weights", "force_weights")


class RawFrames(NamedTuple):
    """What a file holds.

    Attributes:
        arrays: "positions", "forces", "potential_energy", "weights", "force_weights": as in the file, or
            None.
        units: of the arrays that say theirs.
        names: what the file calls the arrays.
        temperature: K, or None.
        species: atomic numbers, or None.
        labelled: for a label that only some frames have, which ones.
    """

    arrays: dict[str, Any]
    units: dict[str, str]
    names: dict[str, str]
    temperature: float | None = None
    species: tuple[int, ...] | None = None
    labelled: dict[str, Bool[np.ndarray, " frames"]] = {}  # noqa: RUF012 (never changed)


def read_raw(path: Path, stride: int, species: Sequence[int] | None) -> RawFrames:
    """Read a file by its ending.

    Args:
        path: of the file.
        stride: read every so many frames.
        species: atomic numbers, for files that have none.
    Raises:
        FileFormatError: it cannot be read as frames.
        InputError: frames of different molecules, or no species for a file that has none.
    """
    ending = path.suffix.lower()
    if ending in HDF5_ENDINGS:
        return _read_hdf5(path, stride)
    if ending in MDTRAJ_ENDINGS:
        return _read_mdtraj(path, stride, species)
    return _read_ase(path, stride)


# --- HDF5 -----------------------------------------------------------------------------------------------


def _read_hdf5(path: Path, stride: int) -> RawFrames:
    import h5py

    try:
        with h5py.File(path, "r") as opened:
            # a trajectory of mdsens: this group has to the last bit what its root has in float32
            exact: Any = opened.get("mdsens")
            file: Any = exact if isinstance(exact, h5py.Group) and "positions" in exact else opened
            names = _present(path, file)
            arrays = {name: file[inside][::stride] for name, inside in names.items()}  # pyright: ignore
            units = {name: _unit_of(file[inside]) for name, inside in names.items()}
            temperature, species = _temperature_of(path, file), _species_of(file)
    except OSError as error:
        raise FileFormatError(f"'{path}' is not an HDF5 file, or damaged: {error}.") from error
    if "log_weights" in arrays and "weights" not in arrays:
        arrays["weights"] = _from_logarithms(path, np.asarray(arrays["log_weights"]))
    arrays = {name: arrays.get(name) for name in ("positions", *LABELS, *WEIGHTS)}
    return RawFrames(
        _without_replicas(arrays),
        {name: unit for name, unit in units.items() if unit},
        names,
        temperature,
        species,
    )


def _present(path: Path, file: Any) -> dict[str, str]:
    found = {}
    for name, spellings in DATASETS.items():
        there = [spelling for spelling in spellings if spelling in file]
        if there:
            found[name] = there[0]
    if "positions" not in found:
        raise FileFormatError(
            f"'{path}' has no dataset 'positions' but {sorted(file)}: frames are (frames, atoms, 3), with a "
            "unit."
        )
    return found


def _unit_of(item: Any) -> str:
    for key in ("unit", "units"):
        if key in item.attrs:
            text = item.attrs[key]
            return text.decode() if isinstance(text, bytes) else str(text)
    return ""


def _temperature_of(path: Path, file: Any) -> float | None:
    """Of an attribute, or a dataset that is one number. That of mdtraj follows the velocities: none."""
    found: Any = file.attrs.get("temperature")
    unit = str(file.attrs.get("temperature_unit", "K"))
    if found is None and "temperature" in file:
        values = np.asarray(file["temperature"][()])
        if values.size == 0 or values.dtype.kind not in "iuf" or np.ptp(values) > 0:
            return None
        found = values.flat[0]
        unit = _unit_of(file["temperature"]) or "K"
    if found is not None and unit not in KELVIN:
        raise InputError(f"'{path}': its temperature is in '{unit}': give it in K.")
    try:
        return None if found is None else float(found)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"'{path}': its temperature {found!r} is no number. Set the attribute 'temperature' to kelvins."
        ) from error


def _species_of(file: Any) -> tuple[int, ...] | None:
    if "species" in file and file["species"].dtype.kind in "iu":
        return tuple(int(z) for z in file["species"][()])
    if "coordinates" in file and "topology" in file:  # of mdtraj
        from ase.data import atomic_numbers

        tree = json.loads(np.asarray(file["topology"][()]).flat[0])
        residues = [residue for chain in tree["chains"] for residue in chain["residues"]]
        atoms = sorted((atom for residue in residues for atom in residue["atoms"]), key=lambda a: a["index"])
        return tuple(atomic_numbers.get(atom["element"], 0) for atom in atoms)
    return None


def _from_logarithms(path: Path, logarithms: np.ndarray) -> np.ndarray:
    if np.isnan(logarithms).any() or not np.isfinite(logarithms.max()):
        raise InputError(f"'{path}': log_weights are NaN, or none of them is finite.")
    return np.exp(logarithms - logarithms.max())


def _without_replicas(arrays: dict[str, Any]) -> dict[str, Any]:
    """Records of several replicas side by side become frames, those of one time together."""
    positions = arrays["positions"]
    if positions.ndim != 4:
        return arrays
    lead = positions.shape[:2]
    return {
        name: array.reshape(-1, *array.shape[2:]) if array is not None and array.shape[:2] == lead else array
        for name, array in arrays.items()
    }


# --- trajectories without elements ----------------------------------------------------------------------


def _read_mdtraj(path: Path, stride: int, species: Sequence[int] | None) -> RawFrames:
    own = path.suffix.lower() == ".pdb"
    if species is None and not own:
        raise InputError(
            f"'{path}' holds positions and does not say of which atoms: give molecule= (--topology FILE.pdb)."
        )
    # as much of a topology as a reader of positions asks for: how many atoms, of which elements
    topology = None if own else mdtraj_topology(species or ())
    trajectory = load_mdtraj(path, topology, stride, atoms=f"{len(species or ())} atoms")
    atoms = list(trajectory.topology.atoms)
    numbers = tuple(0 if atom.element is None else int(atom.element.number) for atom in atoms)
    arrays = {"positions": np.asarray(trajectory.xyz)}
    return RawFrames(arrays, {"positions": "nm"}, {}, None, numbers if own else None)


# --- ASE ------------------------------------------------------------------------------------------------


def _read_ase(path: Path, stride: int) -> RawFrames:
    import ase.io

    try:
        frames: Any = ase.io.read(path, index=f"::{stride}")
    except Exception as error:  # ASE raises what its many readers raise
        raise FileFormatError(
            f"'{path}' cannot be read as a trajectory by ASE: {type(error).__name__} {error}."
        ) from error
    sizes = {len(atoms) for atoms in frames}
    if len(sizes) > 1:
        raise InputError(f"'{path}' has frames of {sorted(sizes)} atoms: all must be of one molecule.")
    _check_order(path, frames, stride)
    arrays: dict[str, Any] = {"positions": np.array([atoms.positions for atoms in frames])}
    labelled = {}
    for name, key in (("forces", "forces"), ("potential_energy", "energy")):
        values = [(atoms.calc.results if atoms.calc is not None else {}).get(key) for atoms in frames]
        arrays[name], labelled[name] = _with_gaps(values)
    arrays["weights"] = _common(frames, lambda info: info.get("weight"))
    arrays["force_weights"] = _common(frames, lambda info: info.get("force_weight"))
    temperatures = _common(frames, lambda info: info.get("temperature"))
    same = temperatures is not None and np.ptp(temperatures) == 0
    units = {"positions": "Å", "forces": "eV/Å", "potential_energy": "eV"}
    temperature = float(temperatures[0]) if temperatures is not None and same else None
    species = tuple(int(z) for z in frames[0].numbers)
    return RawFrames(arrays, units, {}, temperature, species, labelled)


def _check_order(path: Path, frames: Any, stride: int) -> None:
    first = frames[0]
    for k, atoms in enumerate(frames):
        other = np.flatnonzero(atoms.numbers != first.numbers)
        if len(other):
            i = other[0]
            raise InputError(
                f"'{path}': atom {i} is {first.symbols[i]} in frame 0 and {atoms.symbols[i]} in frame "
                f"{k * stride}. All frames must have the same atoms in the same order: sort them alike."
            )


def _with_gaps(values: list[Any]) -> tuple[np.ndarray | None, Bool[np.ndarray, " frames"]]:
    """Labels as one array, NaN in the frames that have none; None if no frame has."""
    there = np.array([value is not None for value in values])
    if not there.any():
        return None, there
    shape = np.shape(values[int(np.argmax(there))])
    return np.array([np.full(shape, np.nan) if value is None else value for value in values]), there


def _common(frames: Any, value_of: Callable[[Any], Any]) -> np.ndarray | None:
    """A number of each frame, if all have it."""
    values = [value_of(atoms.info) for atoms in frames]
    return None if any(value is None for value in values) else np.array(values, float)
