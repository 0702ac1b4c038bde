"""Structures out of the files of other programs: ASE reads them, and what it would lose is caught here.

The name of a file says its format, or `format` does. A site that is occupied in part, or by several elements,
is no atom and is refused. LAMMPS data files are in units metal.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdsens import checks
from mdsens.errors import FileFormatError, InputError
from mdsens.structure import Structure
from mdsens.units import NM

if TYPE_CHECKING:
    from ase import Atoms

LAMMPS = "lammps-data"
# endings whose format ASE does not know, or takes for another one
ENDINGS = {".data": LAMMPS, ".lmp": LAMMPS, ".lammps": LAMMPS, ".lammps-data": LAMMPS}
# LAMMPS users call their files data.NAME; with one of these endings it is data in another format
OTHER_ENDINGS = (
    *(".cif", ".db", ".extxyz", ".gro", ".json", ".pdb", ".traj", ".vasp", ".xsf", ".xyz"),
    *(".bz2", ".gz", ".xz"),
)
WITH_TOPOLOGY = (".pdb", ".h5")  # of these mdtraj reads the atoms as well
MDTRAJ_ENDINGS = (".dcd", ".xtc", ".trr", ".nc", *WITH_TOPOLOGY)
CLOSEST = 1e-3  # atoms nearer than this (Å) are one site that was listed twice
MASS_TOLERANCE = 0.02  # u, from an element's weight; those of LAMMPS files are rounded to two or three digits


def read_structure(
    path: str | Path,
    index: int = -1,
    *,
    format: str | None = None,
    species: Sequence[str] | None = None,
    columns: Sequence[str] = (),
) -> Structure:
    """Read a structure from any file ASE understands (extxyz, POSCAR, cif, LAMMPS data, ...).

    Args:
        index: which frame, where there are several.
        format: name of the format as in ASE, such as "extxyz", "vasp" or "lammps-data"; by default the name
            of the file says it.
        species: of a LAMMPS data file, the element of each atom type; needed where the masses do not tell.
        columns: names of further arrays of the file to take over, `Structure.columns`.
    Raises:
        FileFormatError: no such file, ASE cannot make sense of it, or its sites are no atoms: occupied in
            part, or two at the same place.
        InputError: an unknown format, constraints that hold no single coordinates, or no array of a name.
    """
    atoms = read_atoms(path, index, format=format, species=species)
    return Structure.from_ase(atoms, columns)


def read_atoms(
    path: str | Path,
    index: int = -1,
    *,
    format: str | None = None,
    species: Sequence[str] | None = None,
) -> "Atoms":
    """The ASE `Atoms` behind `read_structure`, for what a `Structure` does not keep (tags, info, ...)."""
    path = checks.existing_file(path, "structure file")
    form = known_format(format) if format is not None else format_of(path.name)
    if species is not None and form != LAMMPS:
        raise InputError(
            f"species = {list(species)}: only LAMMPS data files leave it open, and '{path}' is none."
        )
    try:
        atoms = _read_lammps(path, species) if form == LAMMPS else _read(path, index, form)
    except InputError:
        raise
    except Exception as error:  # ASE raises whatever its parser met
        raise FileFormatError(
            f"cannot read a structure from '{path}': {type(error).__name__}: {error}. "
            "ASE guesses the format from the name: rename the file (.extxyz, POSCAR, .cif, ...) or give "
            "format= (--format) if the guess was wrong."
        ) from error
    if isinstance(atoms, list):
        raise FileFormatError(f"'{path}' gave {len(atoms)} frames: index must be one number.")
    _check_occupancy(path, atoms)
    _check_apart(path, atoms)
    return atoms


def read_trajectory(
    path: str | Path, *, topology: str | Path | None = None, columns: Sequence[str] = ()
) -> list[Structure]:
    """Read all frames of a trajectory: mdtraj reads .dcd .xtc .trr .nc .h5 and .pdb, ASE all others.

    Lengths of mdtraj (nm) become Å, and frames with a box are periodic.

    Args:
        topology: a file that names the atoms, in the order of the frames, such as a PDB; for .dcd .xtc .trr
            .nc, which have no elements.
        columns: names of further arrays of each frame to take over, `Structure.columns`.
    Raises:
        FileFormatError: no such file, one that cannot be read as frames of these atoms, or sites that are
            occupied in part.
        InputError: no array of a name.
    """
    path = checks.existing_file(path, "trajectory")
    if path.suffix.lower() not in MDTRAJ_ENDINGS:
        return _frames_of_ase(path, columns)
    if columns:
        raise InputError(
            f"columns = {list(columns)}: the formats that mdtraj reads have positions and boxes only, as has "
            f"'{path}'. Give the frames as .extxyz."
        )
    trajectory = read_mdtraj(path, topology)
    atoms = list(trajectory.topology.atoms)
    nameless = [atom.index for atom in atoms if atom.element is None or atom.element.number < 1]
    if nameless:
        raise FileFormatError(f"atom {nameless[0]} ({atoms[nameless[0]]}) of the topology has no element.")
    numbers = [atom.element.number for atom in atoms]
    boxes: Any = trajectory.unitcell_vectors
    boxes = [None] * trajectory.n_frames if boxes is None else boxes.astype(float) * NM
    places = trajectory.xyz.astype(float) * NM
    return [Structure.create(x, numbers, box) for x, box in zip(places, boxes, strict=True)]


def read_mdtraj(path: str | Path, topology: str | Path | None = None) -> Any:
    """The `mdtraj.Trajectory` of a file, lengths in nm.

    Raises:
        FileFormatError: as `read_trajectory`.
    """
    path = checks.existing_file(path, "trajectory")
    if topology is not None:
        topology = checks.existing_file(topology, "topology")
    elif path.suffix.lower() not in WITH_TOPOLOGY:
        raise FileFormatError(
            f"'{path}' has positions and no elements: give topology=, a file with the same atoms in the same "
            "order, such as the PDB the simulation began with."
        )
    if path.suffix.lower() in WITH_TOPOLOGY:
        return load_mdtraj(path, None)
    return load_mdtraj(path, str(topology), atoms=f"the atoms of '{topology}'")


def load_mdtraj(path: Path, topology: Any, stride: int = 1, atoms: str = "a molecule") -> Any:
    """`mdtraj.load`, with its errors in words.

    Args:
        path: of the frames.
        topology: a file, a topology of mdtraj, or None if the file has its own.
        stride: read every so many frames.
        atoms: what the frames are of, for messages.
    Raises:
        FileFormatError: mdtraj cannot read it.
    """
    import mdtraj

    options = {} if topology is None else {"top": topology}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on which library reads netCDF
            return mdtraj.load(str(path), stride=stride, **options)
    except Exception as error:  # whatever its many readers meet
        raise FileFormatError(
            f"'{path}' cannot be read as frames of {atoms} by mdtraj: {type(error).__name__}: {error}. Give "
            "a topology with as many atoms as the frames have."
        ) from error


def _frames_of_ase(path: Path, columns: Sequence[str]) -> list[Structure]:
    from ase.io import read

    try:
        form = format_of(path.name) or guess_format(path)
        frames: Any = read(path, index=":", format=form, do_not_split_by_at_sign=True)
    except Exception as error:  # ASE raises whatever its parser met
        raise FileFormatError(
            f"cannot read frames from '{path}': {type(error).__name__}: {error}."
        ) from error
    for atoms in frames:
        _check_occupancy(path, atoms)
    return [Structure.from_ase(atoms, columns) for atoms in frames]


def format_of(name: str) -> str | None:
    """The format that the name of a file states, where ASE does not know it; else None."""
    name = name.lower()
    if name.startswith("data.") and not name.endswith(OTHER_ENDINGS):
        return LAMMPS
    return ENDINGS.get(Path(name).suffix)


def known_format(form: str) -> str:
    """The name of a format of ASE.

    Raises:
        InputError: there is none of this name.
    """
    from ase.io.formats import ioformats

    if form not in ioformats:
        raise InputError(
            f"format = {form!r} is unknown.{checks.nearest(str(form), ioformats)} Some that are known: "
            "extxyz, vasp, cif, lammps-data, xyz, traj, proteindatabank, xsf."
        )
    return form


def _read(path: Path, index: int, form: str | None) -> Any:
    from ase.io import read

    form = form or guess_format(path)
    if path.suffix not in (".gz", ".bz2", ".xz") and path.read_bytes()[:3] == b"\xef\xbb\xbf":
        return _read_without_mark(path, index, form)
    # an @ would be taken for the beginning of an index
    return read(path, index=index, format=form, do_not_split_by_at_sign=True)


def guess_format(path: Path, read: bool = True) -> str:
    """The format that ASE takes a file for: by its name, and by its content if it may be read."""
    from ase.io.formats import UnknownFileTypeError, filetype

    # ASE knows endings in small letters; POSCAR and its like in capitals
    named = path.with_name(path.name.lower()) if path.suffix.isupper() else path
    try:
        return filetype(str(named), read=False)
    except UnknownFileTypeError:
        return filetype(str(path), read=read)


def _read_without_mark(path: Path, index: int, form: str) -> Any:
    # some editors begin a text with a byte order mark, which ASE takes for part of the first word
    import tempfile

    from ase.io import read

    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "clean"
        clean.write_bytes(path.read_bytes()[3:])
        return read(clean, index=index, format=form)


# --- sites that are no atoms


def _check_occupancy(path: Path, atoms: "Atoms") -> None:
    # ASE keeps the first element of each site, and what the site holds in info, by the number of its kind
    occupancy = atoms.info.get("occupancy") or {}
    kinds = atoms.arrays.get("spacegroup_kinds", np.arange(len(atoms)))
    partial = []
    for kind, holds in occupancy.items():
        if len(holds) == 1 and abs(next(iter(holds.values())) - 1) < 1e-6:
            continue
        text = " ".join(f"{symbol} {share:g}" for symbol, share in holds.items())
        # a shared site is listed once for each of its elements, and has atoms once
        rows = np.flatnonzero(np.asarray(kinds) == int(kind))[:1]
        partial += [f"{text} at {_place(atoms, row)}" for row in rows]
    if partial:
        raise FileFormatError(
            f"'{path}' has {len(partial)} sites that are occupied in part or shared: {_first(partial)}. A "
            "structure has whole atoms: choose which are there, and write them without occupancies."
        )


def _place(atoms: "Atoms", row: int) -> str:
    place = atoms.get_scaled_positions(wrap=False)[row]
    return "(" + ", ".join(f"{x:.4f}" for x in place) + ")"


def _first(items: Sequence[str], most: int = 4) -> str:
    return "; ".join(items[:most]) + ("; ..." if len(items) > most else "")


def _check_apart(path: Path, atoms: "Atoms") -> None:
    from ase.neighborlist import neighbor_list

    if np.any(atoms.pbc) and not np.isfinite(atoms.cell.array).all():
        return
    first, second = neighbor_list("ij", atoms, CLOSEST) if len(atoms) > 1 else ((), ())
    found = zip(first, second, strict=True)
    pairs = [(int(i), int(j)) for i, j in found if i < j]
    if pairs:
        i, j = pairs[0]
        raise FileFormatError(
            f"'{path}' has two atoms at the same place, {i} ({atoms.symbols[i]}) and {j} "
            f"({atoms.symbols[j]}), counted from 0, nearer than {CLOSEST:g} Å; {len(pairs)} such pairs. "
            "Remove one of each."
        )


# --- LAMMPS data

# Labels of types stand for numbers in the sections Masses and Atoms; they begin with no digit.
LABELS = "Atom Type Labels"
TITLE = re.compile(r"[A-Z][A-Za-z]+(?:\d\d)?(?: [A-Z][A-Za-z]+)*")
Sections = dict[str, list[list[str]]]  # words of each row


def _read_lammps(path: Path, species: Sequence[str] | None) -> "Atoms":
    from ase.data import atomic_numbers

    text = path.read_text(encoding="utf-8-sig")
    count = re.search(r"^\s*(\d+)\s+atom\s+types", text, re.MULTILINE)
    if count is None:
        raise FileFormatError(
            f"'{path}' is read as LAMMPS data, and has no line '... atom types'. If it is another format, "
            "give format= (--format)."
        )
    kinds = int(count[1])
    sections = lammps_sections(text)
    labels = {int(row[0]): row[1] for row in sections.get(LABELS, ())}
    if 0 < len(sections.get("Masses", ())) < kinds and species is not None:
        raise InputError(
            f"'{path}' has masses for {len(sections['Masses'])} of {kinds} atom types: add the others, or "
            "leave the section Masses out."
        )
    symbols = list(species) if species is not None else _symbols_of(path, sections, labels, kinds)
    if len(symbols) != kinds:
        raise InputError(f"species = {symbols}: '{path}' has {kinds} atom types; name the element of each.")
    for symbol in symbols:
        if symbol not in atomic_numbers:
            raise InputError(f"'{symbol}' is no chemical symbol.{checks.nearest(symbol, atomic_numbers)}")
    numbers = {kind: atomic_numbers[symbol] for kind, symbol in enumerate(symbols, start=1)}
    atoms = _lammps_atoms(path, _with_numbers(text, labels) if labels else None, numbers)
    # only LAMMPS needs these
    for name in ("id", "type", "mol-id", "bonds", "angles", "dihedrals"):
        atoms.arrays.pop(name, None)
    return atoms


def _lammps_atoms(path: Path, text: str | None, numbers: dict[int, int]) -> Any:
    """ASE's atoms of a file, or of a text in its place."""
    import tempfile

    from ase.io import read

    options: dict[str, Any] = {"Z_of_type": numbers, "units": "metal", "do_not_split_by_at_sign": True}
    if text is None:
        return read(path, format=LAMMPS, **options)
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "clean"
        clean.write_text(text, encoding="utf-8")
        return read(clean, format=LAMMPS, **options)


def lammps_sections(text: str) -> Sections:
    """Rows of each section of a LAMMPS data file, without comments."""
    sections: Sections = {}
    rows: list[list[str]] = []
    for line in text.splitlines()[1:]:  # the first is a title
        words = line.partition("#")[0].split()
        if TITLE.fullmatch(" ".join(words)):
            rows = sections.setdefault(" ".join(words), [])
        elif words:
            rows.append(words)
    return sections


def _with_numbers(text: str, labels: Mapping[int, str]) -> str:
    """The same data with numbers for the labels of atom types, and without what they are not needed for.

    ASE reads labels in the section Atoms only, and mixes them up where the atoms are not in order.
    """
    numbers = {label: str(kind) for kind, label in labels.items()}
    kept, section = [], ""
    for number, line in enumerate(text.splitlines()):
        words = line.partition("#")[0].split()
        title = " ".join(words)
        if number > 0 and TITLE.fullmatch(title):
            section = title
        elif section == "Masses" and words:
            kind = numbers.get(words[0], words[0])
            line = " ".join([kind, *words[1:]])
        elif section == "Atoms" and words:
            # the type is the second word, or the third after the number of the molecule
            line = " ".join([words[0], *(numbers.get(word, word) for word in words[1:3]), *words[3:]])
        if section in ("", "Masses", "Atoms", "Velocities"):
            kept.append(line)
    return "\n".join(kept) + "\n"


def _symbols_of(path: Path, sections: Sections, labels: Mapping[int, str], kinds: int) -> list[str]:
    """The element of each type: of its label if that is a symbol, else of its mass."""
    from ase.data import atomic_numbers

    kind_of = {label: kind for kind, label in labels.items()}
    rows = [row for row in sections.get("Masses", ()) if len(row) > 1]
    masses = {kind_of[row[0]] if row[0] in kind_of else int(row[0]): float(row[1]) for row in rows}
    symbols = []
    for kind in range(1, kinds + 1):
        label = labels.get(kind, "")
        fits = _elements_of_mass(masses[kind]) if kind in masses else []
        if label in atomic_numbers and label != "X":
            if len(fits) == 1 and fits != [label]:
                raise InputError(
                    f"'{path}': atom type {kind} is labelled {label} and has the mass of {fits[0]}, "
                    f"{masses[kind]:g} u. {_SPECIES_REMEDY}"
                )
            symbols.append(label)
        else:
            symbols.append(_symbol_of_mass(path, kind, masses, fits))
    return symbols


_SPECIES_REMEDY = "Give species= (--species Ar,Kr), one element for each atom type."


def _elements_of_mass(mass: float) -> list[str]:
    from ase.data import atomic_masses, chemical_symbols

    off = np.abs(atomic_masses[1:] - mass)
    # 1 u is the mass of reduced units more often than that of hydrogen
    near = off < np.minimum(MASS_TOLERANCE, 0.005 * atomic_masses[1:])
    return [chemical_symbols[1 + k] for k in np.flatnonzero(near)]


def _symbol_of_mass(path: Path, kind: int, masses: Mapping[int, float], fits: Sequence[str]) -> str:
    if kind not in masses:
        raise InputError(
            f"'{path}' has no mass for atom type {kind}, so its element is unknown. {_SPECIES_REMEDY}"
        )
    if len(fits) != 1:
        which = f"fits {' and '.join(fits)}" if fits else "is that of no element"
        raise InputError(
            f"'{path}': the mass {masses[kind]:g} u of atom type {kind} {which}. {_SPECIES_REMEDY}"
        )
    return fits[0]
