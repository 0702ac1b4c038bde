"""Units of labels in the files of other programs, and what turns them into eV, Å and eV/Å³."""

from typing import NamedTuple

from mdsens.checks import nearest
from mdsens.errors import InputError
from mdsens.units import GPA, KCAL_PER_MOL, KJ_PER_MOL, NM

BOHR = 0.529177210903  # Å, CODATA 2018
HARTREE = 27.211386245988  # eV, CODATA 2018
LENGTHS = {"Å": 1.0, "A": 1.0, "angstrom": 1.0, "nm": NM, "bohr": BOHR}
ENERGIES = {
    "eV": 1.0,
    "meV": 1e-3,
    "hartree": HARTREE,
    "Ha": HARTREE,
    "Ry": HARTREE / 2,
    "kJ/mol": KJ_PER_MOL,
    "kcal/mol": KCAL_PER_MOL,
}
PRESSURES = {"eV/Å³": 1.0, "eV/A^3": 1.0, "GPa": 1 / GPA, "kbar": 0.1 / GPA, "bar": 1e-4 / GPA}


class Units(NamedTuple):
    """What a number of a file is multiplied with."""

    length: float = 1.0
    energy: float = 1.0
    stress: float = 1.0

    @property
    def force(self) -> float:
        """To eV/Å."""
        return self.energy / self.length


def units_of(energy_unit: str, length_unit: str, stress_unit: str | None) -> Units:
    """The factors of units by name; stresses are in energy per volume unless told.

    Raises:
        InputError: a unit that is not known; the nearest is suggested.
    """
    energy = _known("energy_unit", energy_unit, ENERGIES)
    length = _known("length_unit", length_unit, LENGTHS)
    if stress_unit is None:
        return Units(length, energy, energy / length**3)
    return Units(length, energy, _known("stress_unit", stress_unit, PRESSURES))


def _known(name: str, unit: str, table: dict[str, float]) -> float:
    if unit not in table:
        known = ", ".join(table)
        raise InputError(f"{name} = {unit!r} is not known.{nearest(str(unit), table)} There are {known}.")
    return table[unit]
