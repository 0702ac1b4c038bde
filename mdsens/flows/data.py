"""Molecular dynamics to learn from: positions, forces and energies, in the units of a flow.

Flows of molecules measure length in nm and energy in kT. Files say which units they have: a number without a
unit is not read.
"""

from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float

from mdsens.errors import FileFormatError, InputError
from mdsens.units import BOLTZMANN, KCAL_PER_MOL, KJ_PER_MOL

LENGTHS = {"nm": 1.0, "angstrom": 0.1, "Å": 0.1, "A": 0.1}  # in nm
ENERGIES = {"kJ/mol": KJ_PER_MOL, "kcal/mol": KCAL_PER_MOL, "eV": 1.0}  # in eV; kT needs no conversion
HDF5_ENDINGS = (".h5", ".hdf5")


class ForceData(NamedTuple):
    """Frames of one molecule at one temperature.

    Attributes:
        positions: nm.
        forces: kT/nm, or None.
        energies: kT, or None; up to one constant.
        temperature: K.
    """

    positions: Float[np.ndarray, "frames atoms 3"]
    forces: Float[np.ndarray, "frames atoms 3"] | None
    energies: Float[np.ndarray, " frames"] | None
    temperature: float

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.positions)

    def rows(self, rows: Any) -> Self:
        """Some of the frames."""
        forces, energies = (None if part is None else part[rows] for part in (self.forces, self.energies))
        return type(self)(self.positions[rows], forces, energies, self.temperature)

    def split(self, held_out: float) -> tuple[Self, Self]:
        """Frames to train on, and the last ones, a share `held_out` of all, to test on.

        The last and not any: neighboring frames of a trajectory are alike.
        """
        n = round(self.n_frames * held_out)
        if not 0 < n < self.n_frames:
            raise InputError(
                f"held_out = {held_out:g} of {self.n_frames} frames leaves {n} to test on: neither part may "
                "be empty."
            )
        return self.rows(slice(None, -n)), self.rows(slice(-n, None))


def read_force_data(
    path: str | Path,
    *,
    temperature: float | None = None,
    default_temperature: float | None = None,
    length_unit: str | None = None,
    energy_unit: str | None = None,
    stride: int = 1,
) -> ForceData:
    """Read frames with forces.

    Args:
        path: HDF5 with datasets `positions` (frames, atoms, 3), `forces` and `potential_energy` (the last two
            may be missing), each with an attribute `unit` ("nm"; "kJ/mol/nm"; "kJ/mol"); or any trajectory
            that ASE reads (Å, eV, eV/Å).
        temperature: K, whatever the file says; by default its attribute `temperature`.
        default_temperature: K, for a file that does not say.
        length_unit: nm or angstrom, for a file that does not say.
        energy_unit: kJ/mol, kcal/mol, eV or kT, for a file that does not say; forces are this per length
            unit.
        stride: read every so many frames.
    Raises:
        FileFormatError: no such file, or nothing that is read as frames.
        InputError: units or temperature unknown, wrong shapes, numbers that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileFormatError(f"no file '{path}'. The path is relative to {Path.cwd()}.")
    if stride < 1:
        raise InputError(f"stride = {stride}: must be 1 or more.")
    if path.suffix in HDF5_ENDINGS:
        arrays, units, found = _read_hdf5(path, stride)
    else:
        arrays, units, found = _read_ase(path, stride)
    temperature = next(
        (known for known in (temperature, found, default_temperature) if known is not None), None
    )
    if temperature is None:
        raise InputError(
            f"'{path}' does not say at which temperature it was made: give temperature= (--temperature), in "
            "K."
        )
    if not temperature > 0:
        raise InputError(f"temperature = {temperature:g} K: must be positive.")
    given = {
        "positions": length_unit,
        "forces": f"{energy_unit}/{length_unit}" if energy_unit and length_unit else None,
        "potential_energy": energy_unit,
    }
    kT = BOLTZMANN * temperature
    converted: dict[str, Any] = {
        name: None
        if array is None
        else _scaled(array, _factor(path, name, units.get(name) or given[name], kT))
        for name, array in arrays.items()
    }
    data = ForceData(
        converted["positions"], converted["forces"], converted["potential_energy"], float(temperature)
    )
    _check(path, data)
    return data


def _read_hdf5(path: Path, stride: int) -> tuple[dict[str, Any], dict[str, str], float | None]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "positions" not in file:
                raise FileFormatError(
                    f"'{path}' has no dataset 'positions' but {sorted(file)}: frames are (frames, atoms, 3), "
                    "with a unit."
                )
            arrays, units = {}, {}
            for name in ("positions", "forces", "potential_energy"):
                dataset: Any = file.get(name)
                arrays[name] = None if dataset is None else dataset[::stride]
                if dataset is not None and "unit" in dataset.attrs:
                    unit = dataset.attrs["unit"]
                    units[name] = unit.decode() if isinstance(unit, bytes) else str(unit)
            found: Any = file.attrs.get("temperature")
    except OSError as error:
        raise FileFormatError(f"'{path}' is not an HDF5 file, or damaged: {error}.") from error
    try:
        return arrays, units, None if found is None else float(found)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"'{path}': its temperature {found!r} is no number. Set the attribute 'temperature' to kelvins."
        ) from error


def _read_ase(path: Path, stride: int) -> tuple[dict[str, Any], dict[str, str], float | None]:
    import ase.io

    try:
        frames: Any = ase.io.read(path, index=f"::{stride}")
    except Exception as error:  # ASE raises what its many readers raise
        raise FileFormatError(
            f"'{path}' cannot be read as a trajectory by ASE: {type(error).__name__} {error}."
        ) from error
    if len(sizes := {len(atoms) for atoms in frames}) > 1:
        raise InputError(f"'{path}' has frames of {sorted(sizes)} atoms: all must be of one molecule.")
    results = [atoms.calc.results if atoms.calc is not None else {} for atoms in frames]
    arrays = {
        "positions": np.array([atoms.positions for atoms in frames]),
        "forces": None,
        "potential_energy": None,
    }
    for name, key in (("forces", "forces"), ("potential_energy", "energy")):
        if all(key in result for result in results):
            arrays[name] = np.array([result[key] for result in results])
    return arrays, {"positions": "Å", "forces": "eV/Å", "potential_energy": "eV"}, None


def _scaled(array: np.ndarray, factor: float) -> np.ndarray:
    """In the precision of the array; whole numbers as float64."""
    return np.asarray(array * factor, np.result_type(array.dtype, np.float32))


def _factor(path: Path, name: str, unit: str | None, kT: float) -> float:
    """What turns a number of the file into nm and kT."""
    if unit is None:
        raise InputError(
            f"'{path}': the dataset '{name}' does not say its unit. Set its attribute 'unit' (positions nm, "
            "forces kJ/mol/nm, "
            "potential_energy kJ/mol), or give length_unit= and energy_unit= (--length-unit nm --energy-unit "
            "kJ/mol)."
        )
    energy, slash, length = (
        unit.rpartition("/")
        if name == "forces"
        else (unit, "", "")
        if name != "positions"
        else ("", "", unit)
    )
    known_length = LENGTHS.get(length) if name != "potential_energy" else 1.0
    known_energy = {**ENERGIES, "kT": kT}.get(energy) if name != "positions" else kT
    if known_length is None or known_energy is None or (name == "forces" and not slash):
        raise InputError(
            f"'{path}': the unit '{unit}' of '{name}' is not known. Lengths: {', '.join(LENGTHS)}; energies: "
            f"{', '.join(ENERGIES)}, kT; "
            "forces: an energy / a length."
        )
    return known_length if name == "positions" else known_energy / kT / known_length


def _check(path: Path, data: ForceData) -> None:
    shape = data.positions.shape
    if data.positions.ndim != 3 or shape[2] != 3 or shape[0] < 2:
        raise InputError(
            f"'{path}': positions of shape {shape}; two frames or more of (frames, atoms, 3) are needed."
        )
    for name, array, expected in (
        ("forces", data.forces, shape),
        ("potential_energy", data.energies, shape[:1]),
    ):
        if array is not None and array.shape != expected:
            raise InputError(
                f"'{path}': {name} of shape {array.shape} do not belong to positions of shape {shape}."
            )
    for name, array in (
        ("positions", data.positions),
        ("forces", data.forces),
        ("potential_energy", data.energies),
    ):
        if array is not None and not np.isfinite(array).all():
            bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(1))
            raise InputError(
                f"'{path}': {name} of {len(bad)} frames are not finite, first in frame {bad[0]}. Remove "
                "these frames."
            )
