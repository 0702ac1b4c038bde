"""Files of molecular dynamics as `ForceData`: units, temperature, order of the atoms, what is missing.

Files say which units they have: a number without a unit is not read.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from mdsens.checks import existing_file, number, whole
from mdsens.errors import InputError
from mdsens.flows.data import ForceData
from mdsens.flows.raw_frames import LABELS, WEIGHTS, RawFrames, read_raw
from mdsens.molecules.topology import Molecule
from mdsens.units import BOLTZMANN, KCAL_PER_MOL, KJ_PER_MOL

# in nm, and in eV (kT needs no conversion); the long names are those of mdtraj and OpenMM
LENGTHS = {"nm": 1.0, "angstrom": 0.1, "Å": 0.1, "A": 0.1}
ENERGIES = {"kJ/mol": KJ_PER_MOL, "kcal/mol": KCAL_PER_MOL, "eV": 1.0}
ALIASES = {
    "nanometers": "nm",
    "nanometer": "nm",
    "angstroms": "angstrom",
    "kilojoules_per_mole": "kJ/mol",
    "kilojoules_per_mole/nanometer": "kJ/mol/nm",
    "kilocalories_per_mole": "kcal/mol",
}


def read_force_data(
    path: str | Path,
    *,
    molecule: Molecule | None = None,
    temperature: float | None = None,
    default_temperature: float | None = None,
    length_unit: str | None = None,
    energy_unit: str | None = None,
    stride: int = 1,
    drop_outliers: bool = False,
    notice: Callable[[str], None] | None = None,
) -> ForceData:
    """Read frames with forces.

    Frames that lack forces which others have are left out, and the notice says how many.

    Args:
        path: HDF5 with datasets `positions` (frames, atoms, 3), `forces`, `potential_energy`, `weights` and
            `force_weights` (all but the first may be missing), each with an attribute `unit` ("nm";
            "kJ/mol/nm"; "kJ/mol"; none for weights), as `mdsens flow sample` and `md`, and mdtraj, write it
            too; .xtc, .trr, .dcd, .nc or .pdb, which mdtraj reads; or any trajectory that ASE reads (Å, eV,
            eV/Å; `weight` and `force_weight` in info).
        molecule: whose frames they are (`read_molecule`): elements and order of the atoms are compared, where
            the file has them, and given to files that have none.
        temperature: K, for a file that does not say.
        default_temperature: K, for a file that does not say and a call that does not either.
        length_unit: nm or angstrom, for a file that does not say.
        energy_unit: kJ/mol, kcal/mol, eV or kT, for a file that does not say; forces are this per length
            unit.
        stride: read every so many frames.
        drop_outliers: leave frames with numbers that are not finite out, instead of refusing them.
        notice: called with a sentence on what was left out; by default a warning.
    Raises:
        FileFormatError: no such file, or nothing that is read as frames.
        InputError: units or temperature unknown, a temperature other than the file's, atoms in another order,
            wrong shapes, numbers that are not finite.
    """
    path = existing_file(path)
    whole("stride", stride, at_least=1)
    raw = read_raw(path, stride, None if molecule is None else molecule.species)
    notice = _warn if notice is None else notice
    if molecule is not None:
        _check_species(path, raw, molecule)
    temperature = _temperature(path, raw.temperature, temperature, default_temperature)
    raw = _with_labels(path, raw, notice)
    given = {
        "positions": length_unit,
        "forces": f"{energy_unit}/{length_unit}" if energy_unit and length_unit else None,
        "potential_energy": energy_unit,
    }
    data = _converted(path, raw, given, temperature)
    _check(path, data)
    good = np.ones(data.n_frames, bool)
    for name, array in data._asdict().items():
        if isinstance(array, np.ndarray):
            good &= _finite(path, name, array, drop_outliers)
    if not good.all():
        notice(f"'{path}': {np.sum(~good)} of {len(good)} frames are not finite: they are left out.")
        data = data.rows(good)
    return data


def _converted(path: Path, raw: RawFrames, given: dict[str, str | None], temperature: float) -> ForceData:
    """The arrays of a file in nm and kT."""
    kT = BOLTZMANN * temperature
    converted: dict[str, Any] = {}
    for name in ("positions", *LABELS):
        array = raw.arrays.get(name)
        if array is not None:
            shown = raw.names.get(name, name)
            factor = _factor(path, name, shown, raw.units.get(name) or given[name], kT)
            array = _scaled(array, factor)
        converted[name] = array
    for name in WEIGHTS:
        array = raw.arrays.get(name)
        converted[name] = None if array is None else np.asarray(array, float)
    energies = converted.pop("potential_energy")
    return ForceData(energies=energies, temperature=temperature, **converted)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


def _temperature(path: Path, found: float | None, asked: float | None, default: float | None) -> float:
    """The temperature of the file, or of the call; both must agree."""
    for value in (found, asked):
        if value is not None and not (value > 0 and np.isfinite(value)):
            raise InputError(f"temperature = {value:g} K: must be positive.")
    if found is not None and asked is not None and abs(found - asked) > 1e-6 * found:
        raise InputError(
            f"'{path}' says {found:g} K, and {asked:g} K is asked for: forces in kT would be wrong by their "
            "ratio. Leave out temperature= (--temperature), or correct the file's."
        )
    known = [value for value in (found, asked, default) if value is not None]
    if not known:
        raise InputError(
            f"'{path}' does not say at which temperature it was made: give temperature= (--temperature), in "
            "K."
        )
    return number("temperature", float(known[0]), "K", above=0.0)


def _check_species(path: Path, raw: RawFrames, molecule: Molecule) -> None:
    found, expected = raw.species, molecule.species
    if found is None:
        return
    if len(found) != len(expected):
        raise InputError(
            f"'{path}' has positions of {len(found)} atoms, and the topology has {len(expected)}: leave out "
            "what does not belong to the molecule, or give the topology of these positions."
        )
    other = [i for i in range(len(found)) if found[i] and expected[i] and found[i] != expected[i]]
    if other:
        i = other[0]
        raise InputError(
            f"atom {i} is {_symbol(found[i])} in '{path}', and {_symbol(expected[i])} in the topology: both "
            "must have the same atoms in the same order."
        )


def _symbol(z: int) -> str:
    from ase.data import chemical_symbols

    return chemical_symbols[z]


def _with_labels(path: Path, raw: RawFrames, notice: Callable[[str], None]) -> RawFrames:
    """The frames that have forces, if any has; energies only if all of these have one."""
    arrays, n = dict(raw.arrays), len(raw.arrays["positions"])
    forces = raw.labelled.get("forces", np.ones(n, bool))
    if forces.any() and not forces.all():
        notice(
            f"'{path}': {np.sum(~forces)} of {n} frames have no forces, first frame {np.argmin(forces)}: "
            "they are left out."
        )
        arrays = {name: None if array is None else array[forces] for name, array in arrays.items()}
    else:
        forces = np.ones(n, bool)
    energies = raw.labelled.get("potential_energy", np.ones(n, bool))[forces]
    if energies.any() and not energies.all():
        notice(
            f"'{path}': {np.sum(~energies)} of {len(energies)} frames have no energy: energies are not used."
        )
        arrays["potential_energy"] = None
    return raw._replace(arrays=arrays)


def _scaled(array: np.ndarray, factor: float) -> np.ndarray:
    """In the precision of the array; whole numbers as float64."""
    return np.asarray(array * factor, np.result_type(array.dtype, np.float32))


def _factor(path: Path, name: str, shown: str, unit: str | None, kT: float) -> float:
    """What turns a number of the file into nm and kT."""
    if unit is None:
        raise InputError(
            f"'{path}': the dataset '{shown}' does not say its unit. Set its attribute 'unit' (positions nm, "
            "forces kJ/mol/nm, potential_energy kJ/mol), or give length_unit= and energy_unit= "
            "(--length-unit nm --energy-unit kJ/mol)."
        )
    energy, length = _parts(name, ALIASES.get(unit, unit))
    known_length = 1.0 if length is None else LENGTHS.get(length)
    known_energy = kT if energy is None else {**ENERGIES, "kT": kT}.get(energy)
    if known_length is None or known_energy is None:
        raise InputError(
            f"'{path}': the unit '{unit}' of '{shown}' is not known. Lengths: {', '.join(LENGTHS)}; "
            f"energies: {', '.join(ENERGIES)}, kT; forces: an energy / a length."
        )
    return known_length if energy is None else known_energy / kT / known_length


def _parts(name: str, unit: str) -> tuple[str | None, str | None]:
    """Energy and length that a unit is made of; None where it has none."""
    match name:
        case "positions":
            return None, unit
        case "potential_energy":
            return unit, None
    energy, _, length = unit.rpartition("/")
    return energy, length


def _check(path: Path, data: ForceData) -> None:
    shape = data.positions.shape
    if data.positions.ndim != 3 or shape[2] != 3 or shape[0] < 2:
        raise InputError(
            f"'{path}': positions of shape {shape}; two frames or more of (frames, atoms, 3) are needed."
        )
    expected = {"positions": shape, "forces": shape}
    for name, array in data._asdict().items():
        if isinstance(array, np.ndarray) and array.shape != expected.get(name, shape[:1]):
            raise InputError(
                f"'{path}': {_in_files(name)} of shape {array.shape} do not belong to positions of shape "
                f"{shape}."
            )
    for name in WEIGHTS:
        _check_weights(path, name, getattr(data, name))


def _check_weights(path: Path, name: str, weights: np.ndarray | None) -> None:
    if weights is None:
        return
    if np.any(weights < 0):
        first = int(np.argmax(weights < 0))
        which = "weight" if name == "weights" else "force weight"
        raise InputError(
            f"'{path}': the {which} of frame {first} is {weights[first]:g}: weights are not negative."
        )
    if name == "force_weights" and np.all(weights == 0):
        raise InputError(f"'{path}': all force weights are zero. Leave the dataset out, or the forces.")


def _in_files(name: str) -> str:
    """What files call a field of `ForceData`."""
    return "potential_energy" if name == "energies" else name


def _finite(path: Path, name: str, array: np.ndarray, drop: bool) -> Bool[np.ndarray, " frames"]:
    """Which frames are finite; raises where one is not and none is to be left out."""
    good = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not good.all() and not drop:
        raise InputError(
            f"'{path}': {_in_files(name)} of {np.sum(~good)} frames are not finite, first in frame "
            f"{np.argmin(good)}. Remove these frames, or leave them out (drop_outliers=True, "
            "--drop-outliers)."
        )
    return np.atleast_1d(good)
