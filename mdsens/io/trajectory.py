"""Structures written to the files that other programs read, through ASE."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdsens.errors import InputError
from mdsens.io.files import new_file
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
    overwrite: bool = False,
) -> None:
    """Write one structure; the file's name says the format (.extxyz, POSCAR, .cif, .data, ...).

    Args:
        like: atoms whose tags, charges, info, ... go into the file as well.
        energy: eV. forces: (atoms, 3), eV/Å. stress: (3, 3), eV/Å³, positive in tension. Stored where the
            format has a place for them, as extxyz does.
        info: further numbers and texts about the structure.
    Raises:
        OutputExistsError: the file exists, and `overwrite` is False.
        InputError: ASE knows no format of this name, or cannot write it.
    """
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.stress import full_3x3_to_voigt_6_stress

    atoms = structure.to_ase(like)
    atoms.info.update(info or {})
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
    _write(path, atoms, overwrite)


def write_trajectory(
    path: str | Path, structures: Iterable[Structure], *, like: "Atoms | None" = None, overwrite: bool = False
) -> None:
    """Write structures as the frames of one file (.extxyz, .traj, .pdb, ...).

    Args:
        like: atoms whose tags, charges, info, ... go into every frame.
    Raises:
        OutputExistsError, InputError: as `write_structure`.
    """
    _write(path, [structure.to_ase(like) for structure in structures], overwrite)


def _write(path: str | Path, atoms: "Atoms | list[Atoms]", overwrite: bool) -> None:
    from ase.io import write
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    try:
        form = filetype(str(path), read=False)
    except UnknownFileTypeError:
        form = ""
    if form not in ioformats or not ioformats[form].can_write:
        raise InputError(
            f"no file format that can be written has the name '{path}': use .extxyz, .traj, POSCAR, .cif, "
            ".data, ..."
        )
    with new_file(path, overwrite) as unfinished:
        try:
            write(unfinished, atoms, format=form)
        except Exception as error:  # ASE raises whatever its writer met
            raise InputError(
                f"ASE cannot write '{path}' as {form}: {type(error).__name__}: {error}. Try .extxyz."
            ) from error
