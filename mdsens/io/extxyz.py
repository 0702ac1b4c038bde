"""Extended XYZ with all digits: ASE reads it, and the forces at what was read are those that were written.

ASE's own writer keeps eight decimals of every column: with a stiffness of 10 eV/Å² the forces of a relaxed
state come back as 1e-7 eV/Å.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from mdsens.structure import Structure

if TYPE_CHECKING:
    from ase import Atoms


WRITTEN_FIRST = ("numbers", "positions")


def write_extxyz(path: Path, frames: "list[Atoms]") -> None:
    """Write frames with their arrays, info, held coordinates and the results of their calculator."""
    from ase.io.formats import open_with_compression

    compressed = path.suffix in (".gz", ".bz2", ".xz")
    file: Any = open_with_compression(str(path), "wt") if compressed else path.open("w", encoding="utf-8")
    with file:
        for atoms in frames:
            _write_frame(file, atoms)


def _write_frame(file: TextIO, atoms: "Atoms") -> None:
    from ase.io.extxyz import output_column_format, save_calc_results
    from ase.stress import voigt_6_to_full_3x3_stress

    moving = _free_coordinates(atoms)
    calculator = atoms.calc
    atoms = atoms.copy()
    save_calc_results(atoms, calculator, calc_prefix="")
    stress: Any = atoms.info.get("stress")
    if stress is not None and np.shape(stress) == (6,):
        atoms.info["stress"] = voigt_6_to_full_3x3_stress(stress)
    arrays: dict[str, Any] = {"symbols": np.array(atoms.symbols), "positions": atoms.positions}
    if moving is not None:
        arrays["move_mask"] = moving
    others = {name: array for name, array in atoms.arrays.items() if name not in WRITTEN_FIRST}
    arrays.update(others)
    comment, _, _, line = output_column_format(atoms, list(arrays), arrays, True)
    # 17 significant digits are a float64
    line = line.replace("%16.8f", "%25.17g")
    columns = [np.reshape(array, (len(atoms), -1)) for array in arrays.values()]
    file.write(f"{len(atoms)}\n{comment}\n")
    for row in range(len(atoms)):
        file.write(line % tuple(value for column in columns for value in column[row]))


def _free_coordinates(atoms: "Atoms") -> np.ndarray | None:
    if not atoms.constraints:
        return None
    free = ~np.asarray(Structure.from_ase(atoms).fixed)
    return free[:, 0] if np.all(free == free[:, :1]) else free
