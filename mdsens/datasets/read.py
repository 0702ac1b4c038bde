"""Data sets out of the files of other programs: which number is which label, and what is missing."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mdsens.checks import existing_file, nearest
from mdsens.datasets.conversions import Units, units_of
from mdsens.datasets.dataset import Dataset, LabelledStructure, labelled, tensor_of
from mdsens.datasets.files import GROUP, HDF5, KIND, KNOWN, WEIGHTS, read_own
from mdsens.errors import FileFormatError, InputError
from mdsens.io.hdf5 import open_hdf5
from mdsens.io.structures import MDTRAJ_ENDINGS, format_of, guess_format, read_trajectory
from mdsens.structure import Structure

if TYPE_CHECKING:
    from ase import Atoms

DATABASES = (".db", ".json", ".aselmdb")
USUAL = {"energy": "energy", "forces": "forces", "stress": "stress"}
VIRIALS = ("virial", "virials")


class Request(NamedTuple):
    """How a file is to be understood; `read_dataset` says what each is."""

    names: dict[str, str | None]
    units: Units
    compression: bool
    missing_if_nan: bool
    group: str
    columns: Sequence[str] = ()


def read_dataset(
    path: str | Path,
    *,
    energy: str | None = None,
    forces: str | None = None,
    stress: str | None = None,
    energy_unit: str = "eV",
    length_unit: str = "Å",
    stress_unit: str | None = None,
    positive_in_compression: bool = False,
    nan: str = "refuse",
    topology: str | Path | None = None,
    group: str = "",
    columns: Sequence[str] = (),
    notice: Callable[[str], None] | None = None,
) -> Dataset:
    """Read structures with energies, forces and stresses.

    Labels that some structures lack are left out for these, and the notice says how many.

    Args:
        path: .h5 of `write_dataset` or of a simulation (`Trajectory.to_hdf5`, mdtraj); .extxyz, .traj, ...
            and any other trajectory that ASE reads; .db of ASE; .dcd .xtc .trr .nc .pdb, which mdtraj
            reads and which have no labels (`label` computes them).
        energy, forces, stress: what the file calls them, such as "dft_energy"; by default the results of a
            calculator as ASE stores them, and `virial` for the stress.
        energy_unit: eV, meV, hartree, Ry, kJ/mol or kcal/mol. Forces are this per length.
        length_unit: Å, nm or bohr: of positions, cell and forces.
        stress_unit: eV/Å³, GPa, kbar or bar; by default energy per volume.
        positive_in_compression: the file's stresses have the sign of a pressure, as those of VASP.
        nan: "refuse" labels that are NaN or infinite, or take them for "missing".
        topology: a file that names the atoms, for .dcd .xtc .trr .nc.
        group: name of these data; by default what the frames say in `config_type`.
        columns: names of further arrays to take over into `Structure.columns`; .h5 has its own.
        notice: called with a sentence on what is missing; by default a warning.
    Raises:
        FileFormatError: no such file, or nothing that is read as structures.
        InputError: unknown units, a name that no frame has, labels that are not finite, no structures.
    """
    path = existing_file(path, "data set")
    if nan not in ("refuse", "missing"):
        raise InputError(f"nan = {nan!r}: labels that are not finite are refused ('refuse') or 'missing'.")
    names = {"energy": energy, "forces": forces, "stress": stress}
    units = units_of(energy_unit, length_unit, stress_unit)
    request = Request(names, units, positive_in_compression, nan == "missing", group, columns)
    own = _reads_itself(path)
    if own and (any(names.values()) or units != Units() or positive_in_compression):
        raise InputError(
            f"'{path}' knows its labels and their units itself: leave out names, units and signs of labels."
        )
    entries = tuple(_entries(path, request, topology))
    if not entries:
        raise InputError(f"'{path}' holds no structures.")
    data = Dataset(entries)
    _say_what_is_missing(path, data, notice or _warn)
    return data


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=4)


def _say_what_is_missing(path: Path, data: Dataset, notice: Callable[[str], None]) -> None:
    n = data.counts()
    found = {"energy": n.energies, "forces": n.forces, "stress": n.stresses}
    partly = []
    for name, count in found.items():
        if 0 < count < n.structures:
            partly.append(f"{n.structures - count} of {n.structures} have no {name}")
    if partly:
        notice(f"'{path}': {', '.join(partly)}: these labels count for nothing.")


def _reads_itself(path: Path) -> bool:
    return path.suffix.lower() in HDF5


def _entries(path: Path, request: Request, topology: str | Path | None) -> Iterator[LabelledStructure]:
    ending = path.suffix.lower()
    if ending in HDF5:
        yield from _of_hdf5(path, request)
    elif ending in MDTRAJ_ENDINGS:
        for k, structure in enumerate(read_trajectory(path, topology=topology)):
            yield labelled(structure, group=request.group, origin=f"{path.name}:{k}")
    else:
        frames = _frames(path)
        _check_names(path, frames, request)
        for k, atoms in enumerate(frames):
            yield _of_ase(atoms, request, f"{path.name}:{k}")


# --- HDF5


def _of_hdf5(path: Path, request: Request) -> Iterator[LabelledStructure]:
    with open_hdf5(path) as file:
        kind, exact = file.attrs.get("kind"), "mdsens" in file
    if kind == KIND:
        data, _ = read_own(path)
        yield from (entry._replace(group=request.group or entry.group) for entry in data)
    elif exact:
        yield from _of_simulation(path, request.group)
    else:
        yield from _of_mdtraj(path, request.group)


def _of_simulation(path: Path, group: str) -> Iterator[LabelledStructure]:
    """Records of a simulation of mdsens, one replica after the other."""
    from mdsens.dynamics import Trajectory

    trajectory = Trajectory.from_hdf5(path)
    replicas = trajectory.positions.shape[1] if trajectory.positions.ndim == 4 else 1
    for replica in range(replicas):
        run = trajectory.of_replica(replica)
        for k, structure in enumerate(run.structures()):
            forces = None if run.forces is None else run.forces[k]
            which = f"{replica}:{k}" if replicas > 1 else f"{k}"
            origin = f"{path.name}:{which}"
            yield labelled(structure, run.potential[k], forces, group=group, origin=origin)


def _of_mdtraj(path: Path, group: str) -> Iterator[LabelledStructure]:
    """Frames in the HDF5 layout of mdtraj, or arrays with units, as scripts of OpenMM write."""
    from mdsens.flows.raw_frames import read_raw

    raw = read_raw(path, 1, None)
    if raw.species is None:
        raise FileFormatError(
            f"'{path}' does not say which atoms its positions are of: add a dataset 'species' of atomic "
            "numbers."
        )
    arrays = {name: _in_our_units(path, name, raw) for name in ("positions", "forces", "potential_energy")}
    structures = _with_boxes(path, arrays["positions"], raw.species)
    labels = (arrays["potential_energy"], arrays["forces"])
    for k, structure in enumerate(structures):
        energy, forces = (None if label is None else label[k] for label in labels)
        yield labelled(structure, energy, forces, group=group, origin=f"{path.name}:{k}")


def _with_boxes(path: Path, positions: Any, species: tuple[int, ...]) -> list[Structure]:
    with open_hdf5(path) as file:
        boxed = "cell_lengths" in file and "topology" in file
    return read_trajectory(path) if boxed else [Structure.create(frame, species) for frame in positions]


def _in_our_units(path: Path, name: str, raw: Any) -> np.ndarray | None:
    from mdsens.flows.read_data import ALIASES

    values = raw.arrays.get(name)
    if values is None:
        return None
    unit = raw.units.get(name)
    if unit is None:
        raise InputError(
            f"'{path}': the dataset '{raw.names.get(name, name)}' does not say its unit. Set its attribute "
            "'unit' (nm; kJ/mol/nm; kJ/mol)."
        )
    factors = _factors_of(name, ALIASES.get(str(unit), str(unit)))
    factor = {"positions": factors.length, "forces": factors.force, "potential_energy": factors.energy}[name]
    return np.asarray(values, float) * factor


def _factors_of(name: str, unit: str) -> Units:
    """Of "nm" for positions, "kJ/mol" for energies, "kJ/mol/nm" for forces."""
    if name == "positions":
        return units_of("eV", unit, None)
    if name == "potential_energy":
        return units_of(unit, "Å", None)
    energy, _, length = unit.rpartition("/")
    return units_of(energy, length, None)


# --- ASE


def _frames(path: Path) -> "list[Atoms]":
    if path.suffix.lower() in DATABASES:
        return _rows_of_database(path)
    from ase.io import read

    try:
        form = format_of(path.name) or guess_format(path)
        frames: Any = read(path, index=":", format=form, do_not_split_by_at_sign=True)
    except Exception as error:  # ASE raises whatever its parser met
        raise FileFormatError(
            f"cannot read structures from '{path}': {type(error).__name__}: {error}."
        ) from error
    return list(frames)


def _rows_of_database(path: Path) -> "list[Atoms]":
    from ase.db import connect

    try:
        rows = list(connect(str(path)).select())
    except Exception as error:  # of the many backends
        raise FileFormatError(
            f"cannot read '{path}' as a database of ASE: {type(error).__name__}: {error}."
        ) from error
    return [_atoms_of(row) for row in rows]


def _atoms_of(row: Any) -> "Atoms":
    atoms = row.toatoms()
    atoms.info.update(row.key_value_pairs)
    for name, value in dict(row.data).items():
        atoms.info.setdefault(name, value)
    return atoms


def _check_names(path: Path, frames: "list[Atoms]", request: Request) -> None:
    """Raise if a name that was given is that of nothing in any frame."""
    for label, name in request.names.items():
        if name is None or any(_lookup(atoms, name) is not None for atoms in frames):
            continue
        there = sorted({key for atoms in frames for key in _keys(atoms)})
        hint, listed = nearest(name, there), ", ".join(there) or "no labels at all"
        raise InputError(
            f"'{path}': no structure has its {label} under the name '{name}'.{hint} There are {listed}."
        )


def _keys(atoms: "Atoms") -> set[str]:
    results = {} if atoms.calc is None else atoms.calc.results
    arrays = set(atoms.arrays) - {"numbers", "positions"}
    return {str(key) for key in (*results, *atoms.info, *arrays)}


def _lookup(atoms: "Atoms", name: str) -> Any:
    results = {} if atoms.calc is None else atoms.calc.results
    for place in (results, atoms.info, atoms.arrays):
        if place.get(name) is not None:
            return place[name]
    return None


def _of_ase(atoms: "Atoms", request: Request, origin: str) -> LabelledStructure:
    units, names = request.units, request.names
    given = lambda label: _lookup(atoms, names[label] or USUAL[label])
    finite = lambda label, value, unit: _finite(label, value, unit, request, origin)
    structure = _scaled(atoms, units.length, request.columns)
    known = atoms.arrays.get(KNOWN)
    return labelled(
        structure,
        energy=finite("energy", given("energy"), units.energy),
        forces=finite("forces", given("forces"), units.force),
        stress=finite("stress", _stress_of(atoms, given("stress"), request), 1.0),
        known=None if known is None else np.asarray(known, bool),
        weights=_weights(atoms),
        group=request.group or str(atoms.info.get(GROUP, "")),
        origin=origin,
    )


def _scaled(atoms: "Atoms", length: float, columns: Sequence[str]) -> Structure:
    if length != 1.0:
        atoms = atoms.copy()
        atoms.set_cell(atoms.cell.array * length)
        atoms.positions = atoms.positions * length
    return Structure.from_ase(atoms, columns)


def _stress_of(atoms: "Atoms", given: Any, request: Request) -> np.ndarray | None:
    """eV/Å³, positive in tension."""
    if given is not None:
        sign = -1.0 if request.compression else 1.0
        return sign * request.units.stress * _tensor(given)
    if request.names["stress"] is not None:
        return None
    virial = next((atoms.info[name] for name in VIRIALS if name in atoms.info), None)
    theirs = abs(np.linalg.det(atoms.cell.array))
    volume = theirs * request.units.length**3
    if virial is None or not volume > 0:
        return None
    # a virial is -V times the stress
    return -request.units.energy * _tensor(virial) / volume


def _tensor(value: Any) -> np.ndarray:
    array = np.array(value, float)
    if array.shape == (6,):
        return tensor_of(array)
    return array.reshape(3, 3) if array.size == 9 else array


def _finite(label: str, value: Any, factor: float, request: Request, origin: str) -> np.ndarray | None:
    """The label in our units; None if it is to count as missing.

    Raises:
        InputError: it is no number, or not finite and not to be taken for missing.
    """
    if value is None:
        return None
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError) as error:
        raise InputError(f"the {label} of {origin} is no number: {value!r:.60}.") from error
    if np.isfinite(array).all():
        return array * factor
    if request.missing_if_nan:
        return None
    raise InputError(
        f"the {label} of {origin} is not finite. Correct the file, or take such labels for missing: "
        "nan='missing' (--nan missing)."
    )


def _weights(atoms: "Atoms") -> Any:
    common = atoms.info.get("weight", 1.0)
    return [atoms.info.get(name, common) for name in WEIGHTS]
