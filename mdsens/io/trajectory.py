"""Structures written to the files that other programs read, through ASE where it keeps all digits.

The name of the file says the format, or `format` does. LAMMPS data are in units metal, with masses; LAMMPS
wants the first cell vector along x and the second in the plane of x and y, so other cells are turned together
with their atoms. Held coordinates stand in extxyz, traj and POSCAR; the other formats have no place for them.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdsens.constraints import held_axes_of
from mdsens.errors import InputError
from mdsens.io.extxyz import write_extxyz
from mdsens.io.files import new_file
from mdsens.io.structures import LAMMPS, format_of, guess_format, known_format
from mdsens.structure import Structure

if TYPE_CHECKING:
    from ase import Atoms


def write_structure(
    path: str | Path,
    structure: Structure,
    *,
    like: "Atoms | None" = None,
    energy: Any = None,
    forces: Any = None,
    stress: Any = None,
    info: Mapping[str, Any] | None = None,
    columns: Mapping[str, Any] | None = None,
    format: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write one structure; the file's name says the format (.extxyz, POSCAR, .cif, .data of LAMMPS, ...).

    Args:
        like: atoms whose tags, charges, info, ... go into the file as well; not their energies, forces,
            stresses and titles, which belong to other positions.
        energy: eV. forces: (atoms, 3), eV/Å. stress: (3, 3), eV/Å³, positive in tension. Stored where the
            format has a place for them, as extxyz does.
        info: further numbers and texts about the structure.
        columns: further arrays (atoms, ...), for extxyz, beside those that the structure has.
        format: name of the format as in ASE, such as "extxyz"; by default the file's name says it.
    Raises:
        OutputExistsError: the file exists, and `overwrite` is False.
        InputError: no format of this name, or one that cannot hold the structure.
    """
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.stress import full_3x3_to_voigt_6_stress

    atoms = structure.to_ase(_without_results(like))
    atoms.info.update(info or {})
    for name, column in (columns or {}).items():
        atoms.set_array(name, np.asarray(column))
    results = {
        "energy": energy,
        "forces": forces,
        "stress": stress if stress is None else full_3x3_to_voigt_6_stress(np.asarray(stress)),
    }
    known = {name: np.asarray(value) for name, value in results.items() if value is not None}
    if "energy" in known:
        known["energy"] = known["energy"].item()
    if known:
        atoms.calc = SinglePointCalculator(atoms, **known)
    _write(path, [atoms], format, overwrite)


def write_trajectory(
    path: str | Path,
    structures: Iterable[Structure],
    *,
    like: "Atoms | None" = None,
    format: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write structures as the frames of one file (.extxyz, .traj, .pdb, ...).

    Args:
        like: atoms whose tags, charges, info, ... go into every frame; not their results.
        format: name of the format as in ASE; by default the file's name says it.
    Raises:
        OutputExistsError, InputError: as `write_structure`.
    """
    carried = _without_results(like)
    _write(path, [structure.to_ase(carried) for structure in structures], format, overwrite)


# what belongs to the positions it was computed for: by name, or by a word inside it
RESULT_NAMES = {"title", "comment", "dipole", "magmom", "magmoms", "fmax", "polarizability", "config_type"}
RESULT_WORDS = ("energy", "energies", "force", "stress", "virial", "enthalpy", "gradient", "hessian")


def is_result(name: str) -> bool:
    """Whether data of this name are results of a calculation, and stale once the atoms have moved."""
    name = name.lower()
    return name in RESULT_NAMES or any(word in name for word in RESULT_WORDS)


def _without_results(like: "Atoms | None") -> "Atoms | None":
    if like is None:
        return None
    kept = like.copy()
    for data in (kept.info, kept.arrays):
        for name in [name for name in data if is_result(str(name))]:
            del data[name]
    return kept


def _format(path: Path, form: str | None) -> str:
    from ase.io.formats import UnknownFileTypeError, ioformats

    try:
        form = known_format(form) if form else format_of(path.name) or guess_format(path, read=False)
    except UnknownFileTypeError:
        form = ""
    if form not in ioformats or not ioformats[form].can_write:
        raise InputError(
            f"no file format that can be written has the name '{path}': use .extxyz, .traj, POSCAR, .cif, "
            ".data (LAMMPS), ..., or say which with format= (--format)."
        )
    return form


def ending_of(form: str) -> str:
    """The ending that files of a format have: vasp, data, extxyz, cif, ...

    Raises:
        InputError: no format of this name, or one that cannot be written.
    """
    from ase.io.formats import ioformats

    _format(Path(), form)
    known = {LAMMPS: "data", "extxyz": "extxyz", "vasp": "vasp"}
    return known.get(form) or next(iter(ioformats[form].extensions), form)


def _write(path: str | Path, frames: "list[Atoms]", form: str | None, overwrite: bool) -> None:
    from ase.io import write

    form = _format(Path(path), form)
    options: dict[str, Any] = {}
    if form == "vasp":
        frames = [_with_flags(atoms) for atoms in frames]
    if form == LAMMPS:
        _check_masses(frames)
        options = {"masses": True, "units": "metal"}
    with new_file(path, overwrite) as unfinished:
        try:
            if form == "extxyz":
                write_extxyz(unfinished, frames)
            else:
                write(unfinished, frames if len(frames) != 1 else frames[0], format=form, **options)
        except OSError:
            raise
        except Exception as error:  # ASE raises whatever its writer met
            raise InputError(
                f"ASE cannot write '{path}' as {form}: {type(error).__name__}: {error}. Try .extxyz."
            ) from error


def _check_masses(frames: "list[Atoms]") -> None:
    for atoms in frames:
        for symbol in sorted(set(atoms.symbols)):
            masses = atoms.get_masses()[atoms.symbols == symbol]
            if np.ptp(masses) > 0:
                raise InputError(
                    f"LAMMPS data have one mass for each atom type, and {symbol} has {masses.min():g} and "
                    f"{masses.max():g} u. Write .extxyz, or give all {symbol} one mass."
                )


def _with_flags(atoms: "Atoms") -> "Atoms":
    """Atoms whose held axes are said as held fractional coordinates, which is what POSCAR has."""
    from ase.constraints import FixAtoms, FixScaled

    fixed = np.asarray(Structure.from_ase(atoms).fixed)
    atoms = atoms.copy()
    whole = np.flatnonzero(fixed.all(1))
    partly = np.flatnonzero(fixed.any(1) & ~fixed.all(1))
    constraints: list[Any] = [FixAtoms(whole)] if len(whole) else []
    scaled = [FixScaled(k, _flags(int(k), fixed[k], atoms)) for k in partly]
    atoms.set_constraint(constraints + scaled)
    return atoms


def _flags(row: int, axes: np.ndarray, atoms: "Atoms") -> np.ndarray:
    for bits in range(1, 7):
        mask = np.array([bool(bits & bit) for bit in (1, 2, 4)])
        held = held_axes_of(mask, atoms.cell.array)
        if held is not None and np.array_equal(held, axes):
            return mask
    held_axes = "".join(np.array(["x", "y", "z"])[axes])
    raise InputError(
        f"atom {row} is held along {held_axes}, and flags of a POSCAR hold it along cell vectors: in this "
        "cell that is not the same. Write .extxyz, hold all of the atom, or turn the cell."
    )
