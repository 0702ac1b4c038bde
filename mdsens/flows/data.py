"""Molecular dynamics to learn from: positions, forces and energies, in the units of a flow.

Flows of molecules measure length in nm and energy in kT. Files say which units they have: a number without a
unit is not read.
"""

import hashlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdsens.batching import map_pieces
from mdsens.checks import existing_file, number, whole
from mdsens.errors import InputError
from mdsens.flows.raw_frames import LABELS, RawFrames, read_raw
from mdsens.io.hdf5 import Quantity, write_hdf5
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


class ForceData(NamedTuple):
    """Frames of one molecule at one temperature.

    Attributes:
        positions: nm.
        forces: kT/nm, or None.
        energies: kT, or None; up to one constant.
        temperature: K.
        weights: of each frame in averages over the equilibrium, as the likelihood is one: 0 for a frame of
            enhanced sampling, which teaches forces only; None if all count alike.
    """

    positions: Float[np.ndarray, "frames atoms 3"]
    forces: Float[np.ndarray, "frames atoms 3"] | None
    energies: Float[np.ndarray, " frames"] | None
    temperature: float
    weights: Float[np.ndarray, " frames"] | None = None

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.positions)

    def rows(self, rows: Any) -> Self:
        """Some of the frames."""
        parts = (self.forces, self.energies, self.weights)
        forces, energies, weights = (None if part is None else part[rows] for part in parts)
        return type(self)(self.positions[rows], forces, energies, self.temperature, weights)

    def split(self, held_out: float) -> tuple[Self, Self]:
        """Frames to train on, and the last ones, a share `held_out` of all, to test on.

        The last and not any: neighboring frames of a trajectory are alike. Of frames with weight zero, which
        are of another simulation, the last ones as well.

        Raises:
            InputError: a part would be empty.
        """
        last = self._last(held_out)
        return self.rows(np.setdiff1d(np.arange(self.n_frames), last)), self.rows(last)

    def divide(self, held_out: float, source: str = "") -> "DataSplit":
        """The same division, with which frame went where.

        Args:
            held_out: share of the frames.
            source: where the frames are from, to be kept in the file of a model.
        """
        training, test = self.split(held_out)
        return DataSplit(training, test, self._last(held_out), source)

    def join(self, other: Self) -> Self:
        """These frames and frames of enhanced sampling, from which forces are learned and no frequencies.

        The other frames get weight zero, whatever they had.

        Raises:
            InputError: another number of atoms or temperature, or forces on one side only.
        """
        if other.positions.shape[1] != self.positions.shape[1]:
            raise InputError(
                f"frames of {self.positions.shape[1]} and of {other.positions.shape[1]} atoms are not of one "
                "molecule."
            )
        if abs(other.temperature - self.temperature) > 1e-6 * self.temperature:
            raise InputError(
                f"frames at {self.temperature:g} K and at {other.temperature:g} K do not belong together: "
                "energies are in kT."
            )
        if (self.forces is None) != (other.forces is None):
            raise InputError("only one of the two sets of frames has forces.")
        own = np.ones(self.n_frames) if self.weights is None else self.weights
        return type(self)(
            np.concatenate([self.positions, other.positions]),
            _joined(self.forces, other.forces),
            None,  # equal up to a constant in each set, not in both
            self.temperature,
            np.concatenate([own, np.zeros(other.n_frames)]),
        )

    def labelled_by(self, energy: Callable[[Array], Array]) -> Self:
        """The same frames with the energies and forces of an energy function.

        Args:
            energy: reduced energy u(x) in kT of one frame in nm, differentiable once
                (`mdsens.calculators.reduced`).
        """
        positions = np.asarray(self.positions, float)
        energies, gradients = map_pieces(lambda x: _energies_and_gradients(energy, x), positions)
        return self._replace(energies=energies, forces=-gradients)

    def signatures(self) -> Float[np.ndarray, "frames numbers"]:
        """Some distances between atoms of each frame, nm: they know it again, turned or rounded."""
        return signatures(self.positions)

    def fingerprint(self) -> str:
        """A text that differs where frames, forces, weights or temperature differ."""
        known = hashlib.blake2b(digest_size=12)
        for part in (self.positions, self.forces, self.weights):
            known.update(b"-" if part is None else np.ascontiguousarray(part).tobytes())
        frames, atoms = self.positions.shape[0], self.positions.shape[1:]
        return f"{frames} frames {atoms}, {self.temperature:g} K, {known.hexdigest()}"

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write HDF5 that `read_force_data` reads: positions (nm), forces, energies (kJ/mol), weights.

        Raises:
            OutputExistsError: the file exists, and `overwrite` is False.
        """
        kT = BOLTZMANN * self.temperature / KJ_PER_MOL
        content = {
            "positions": Quantity(self.positions, "nm", "frames, atoms, xyz"),
            "forces": _quantity(self.forces, kT, "kJ/mol/nm", "frames, atoms, xyz"),
            "potential_energy": _quantity(self.energies, kT, "kJ/mol", "frames"),
            "weights": _quantity(self.weights, 1.0, "1", "frames"),
            "temperature": Quantity(self.temperature, "K"),
        }
        write_hdf5(path, content, overwrite=overwrite)

    def _last(self, held_out: float) -> Int[np.ndarray, " held_out"]:
        """Rows of the frames that are held out."""
        if self.weights is None:
            return _tail(np.arange(self.n_frames), held_out)
        sampled = np.flatnonzero(self.weights > 0)
        enhanced = np.flatnonzero(self.weights <= 0)
        parts = [_tail(part, held_out) for part in (sampled, enhanced) if len(part)]
        return np.sort(np.concatenate(parts))


class DataSplit(NamedTuple):
    """Frames to train on, and frames that no part of a model has seen.

    Attributes:
        training: the first ones.
        held_out: the last ones.
        rows: which rows of all frames are held out.
        source: where the frames are from.
    """

    training: ForceData
    held_out: ForceData
    rows: Int[np.ndarray, " held_out"]
    source: str = ""

    def parts(self) -> Mapping[str, ForceData]:
        """Both parts by name."""
        return {"training": self.training, "held_out": self.held_out}

    def record(self) -> dict[str, Any]:
        """What the file of a model keeps: source, which rows were held out, the signatures of the others."""
        return {
            "source": self.source,
            "n_frames": self.training.n_frames + self.held_out.n_frames,
            "temperature": self.training.temperature,
            "fingerprint": self.training.fingerprint(),
            "held_out": self.rows,
            "trained_on": self.training.signatures(),
        }


# Rounding to 0.001 nm (.xtc) moves a distance by 0.001 sqrt(2 / 12) = 0.0004 nm, heat by 0.0025 and more.
SIGNATURE, SAME = 16, 7e-4  # distances in a signature; nm: root mean square difference of the same frame


def signatures(positions: Float[np.ndarray, "frames ..."]) -> Float[np.ndarray, "frames numbers"]:
    """Distances of up to 16 pairs of atoms, always the same pairs; of frames without atoms the numbers."""
    if positions.ndim != 3 or positions.shape[1] < 2:
        return np.asarray(positions.reshape(len(positions), -1)[:, :SIGNATURE], np.float32)
    i, j = np.triu_indices(positions.shape[1], 1)
    some = np.sort(np.random.default_rng(0).permutation(len(i))[:SIGNATURE])
    ends = np.asarray(positions, float)
    return np.linalg.norm(ends[:, i[some]] - ends[:, j[some]], axis=-1).astype(np.float32)


def known_again(
    frames: Float[np.ndarray, "frames numbers"], known: Float[np.ndarray, "others others_numbers"]
) -> Bool[np.ndarray, " frames"]:
    """Which frames are among the known ones, by their signatures."""
    from scipy.spatial import KDTree

    if frames.shape[1] != known.shape[1]:
        return np.zeros(len(frames), bool)
    distance, _ = KDTree(known).query(frames, distance_upper_bound=SAME * np.sqrt(known.shape[1]))
    return np.isfinite(distance)


@eqx.filter_jit
def _energies_and_gradients(energy: Callable[[Array], Array], frames: Array) -> tuple[Array, Array]:
    return jax.vmap(jax.value_and_grad(energy))(jnp.asarray(frames))


def _joined(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return None if one is None or other is None else np.concatenate([one, other])


def _quantity(array: np.ndarray | None, factor: float, unit: str, axes: str) -> Quantity | None:
    return None if array is None else Quantity(array * factor, unit, axes)


def _tail(rows: Int[np.ndarray, " rows"], share: float) -> Int[np.ndarray, " tail"]:
    n = round(len(rows) * share)
    if not 0 < n < len(rows):
        raise InputError(
            f"held_out = {share:g} of {len(rows)} frames leaves {n} to test on: neither part may be empty."
        )
    return rows[-n:]


# --- reading --------------------------------------------------------------------------------------------


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
        path: HDF5 with datasets `positions` (frames, atoms, 3), `forces`, `potential_energy` and `weights`
            (all but the first may be missing), each with an attribute `unit` ("nm"; "kJ/mol/nm"; "kJ/mol"),
            as `mdsens flow sample` and `md`, and mdtraj, write it too; .xtc, .trr, .dcd, .nc or .pdb, which
            mdtraj reads; or any trajectory that ASE reads (Å, eV, eV/Å).
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
    kT = BOLTZMANN * temperature
    converted: dict[str, Any] = {"weights": raw.arrays.get("weights")}
    for name in ("positions", *LABELS):
        array = raw.arrays.get(name)
        if array is not None:
            shown = raw.names.get(name, name)
            factor = _factor(path, name, shown, raw.units.get(name) or given[name], kT)
            array = _scaled(array, factor)
        converted[name] = array
    data = ForceData(
        converted["positions"],
        converted["forces"],
        converted["potential_energy"],
        temperature,
        None if converted["weights"] is None else np.asarray(converted["weights"], float),
    )
    _check(path, data)
    good = np.ones(data.n_frames, bool)
    for name, array in data._asdict().items():
        if isinstance(array, np.ndarray):
            good &= _finite(path, name, array, drop_outliers)
    if not good.all():
        notice(f"'{path}': {np.sum(~good)} of {len(good)} frames are not finite: they are left out.")
        data = data.rows(good)
    return data


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
    expected = {
        "positions": (data.positions, shape),
        "forces": (data.forces, shape),
        "potential_energy": (data.energies, shape[:1]),
        "weights": (data.weights, shape[:1]),
    }
    for name, (array, fitting) in expected.items():
        if array is not None and array.shape != fitting:
            raise InputError(
                f"'{path}': {name} of shape {array.shape} do not belong to positions of shape {shape}."
            )
    if data.weights is not None and np.any(data.weights < 0):
        first = int(np.argmax(data.weights < 0))
        raise InputError(
            f"'{path}': the weight of frame {first} is {data.weights[first]:g}: weights are not negative."
        )


def _finite(path: Path, name: str, array: np.ndarray, drop: bool) -> Bool[np.ndarray, " frames"]:
    """Which frames are finite; raises where one is not and none is to be left out."""
    good = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not good.all() and not drop:
        shown = "potential_energy" if name == "energies" else name
        raise InputError(
            f"'{path}': {shown} of {np.sum(~good)} frames are not finite, first in frame {np.argmin(good)}. "
            "Remove these frames, or leave them out (drop_outliers=True, --drop-outliers)."
        )
    return np.atleast_1d(good)
