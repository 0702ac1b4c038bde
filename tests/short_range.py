"""Small rattled cells for the short-range forms, and the LAMMPS commands for the same potentials.

Their energies, forces and stresses by LAMMPS lie in tests/data/references/short_range.json, for machines
without it; tests/peers compares these with LAMMPS itself.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mdsens as ms

FILE = Path(__file__).parent / "data" / "references" / "short_range.json"


class ShortRangeCase(NamedTuple):
    """A potential, where it is tried, and what LAMMPS calls it; {files} stands for its folder."""

    potential: ms.Potential
    kinds: tuple[str, ...]
    spacing: float
    commands: tuple[str, ...]

    def structure(self) -> ms.Structure:
        """A sheared, rattled zincblende cell of 8 atoms, smaller than the cutoffs."""
        from ase.build import bulk

        rng = np.random.default_rng(7)
        atoms = bulk("GaAs", "zincblende", a=self.spacing, cubic=True)
        positions = atoms.positions + rng.normal(scale=0.03 * self.spacing, size=(8, 3))
        shear = np.eye(3) + np.tril(rng.uniform(-0.05, 0.05, (3, 3)))
        symbols = [self.kinds[k % len(self.kinds)] for k in (0, 0, 1, 0, 1, 1, 0, 1)]
        return ms.Structure.create(positions @ shear, symbols, atoms.cell.array @ shear)

    def plain(self, energy: float, forces: Any, stress: Any) -> dict[str, Any]:
        """Results as they lie in the file."""
        return {
            "energy": energy,
            "forces": np.asarray(forces).tolist(),
            "stress": np.asarray(stress).tolist(),
        }


def by_file(style: str, file: str, names: str) -> tuple[str, str]:
    return f"pair_style {style}", f"pair_coeff * * {{files}}/{file} {names}"


CASES = {
    "tersoff": ShortRangeCase(
        ms.load_potential("sic-tersoff-1989"),
        ("Si", "C"),
        4.3,
        by_file("tersoff", "SiCGe.tersoff", "Si(D) C"),
    ),
    "edip": ShortRangeCase(
        ms.load_potential("si-edip-1998"), ("Si",), 5.3, by_file("edip/multi", "Si.edip", "Si")
    ),
    "vashishta": ShortRangeCase(
        ms.load_potential("sic-vashishta-2007"),
        ("Si", "C"),
        4.3,
        by_file("vashishta", "SiC.vashishta", "Si C"),
    ),
    "zbl": ShortRangeCase(
        ms.ZBL.of(("Si", "C"), 1.2, 2.6),
        ("Si", "C"),
        4.3,
        ("pair_style zbl 1.2 2.6", "pair_coeff 1 1 14 14", "pair_coeff 2 2 6 6"),
    ),
}


def stored() -> dict[str, Any]:
    """Energy (eV), forces (eV/Å) and Voigt stress (eV/Å³) by LAMMPS, of each case."""
    return json.loads(FILE.read_text())["cases"]
