"""Units: eV, Å, u, eV/Å³ inside; these factors turn them into what people print.

Flows, mdtraj and OpenMM have nm, and energies in kT or kJ/mol: the functions below are the only border that
numbers cross between those units and eV and Å.

Source: CODATA 2018 (the values ASE and LAMMPS `units metal` use to all digits that matter here).
"""

import math
from typing import Any

GPA = 160.2176634  # GPa per eV/Å³
J_PER_M2 = 16.02176634  # J/m² per eV/Å²
BOLTZMANN = 8.617333262e-5  # eV / K
PLANCK = 4.135667696e-3  # eV / THz
HBAR = 1e3 * PLANCK / (2 * math.pi)  # eV fs
KJ_PER_MOL = 1 / 96.48533212331  # eV
KCAL_PER_MOL = 4.184 * KJ_PER_MOL  # eV
COULOMB = 14.3996454784936  # e² / (4 pi epsilon_0) in eV Å
ACCELERATION = 9.648533215665e-3  # Å/fs² per eV/Å/u; and u Å²/fs² per eV
THZ = 1e3 * math.sqrt(ACCELERATION) / (2 * math.pi)  # sqrt(eV / Å² / u) / (2 pi) in THz
NM = 10.0  # Å
PS = 1000.0  # fs


def to_nm(length: Any) -> Any:
    """Å to nm."""
    return length / NM


def from_nm(length: Any) -> Any:
    """Nm to Å."""
    return length * NM


def to_kT(energy: Any, temperature: float) -> Any:
    """Energy in eV to kT of a temperature in K."""
    return energy / (BOLTZMANN * temperature)


def from_kT(energy: Any, temperature: float) -> Any:
    """Energy in kT of a temperature in K to eV."""
    return energy * (BOLTZMANN * temperature)


def to_kT_per_nm(force: Any, temperature: float) -> Any:
    """Force in eV/Å to kT/nm of a temperature in K."""
    return force * (NM / (BOLTZMANN * temperature))


def from_kT_per_nm(force: Any, temperature: float) -> Any:
    """Force in kT/nm of a temperature in K to eV/Å."""
    return force * (BOLTZMANN * temperature / NM)


def to_kJ_per_mol(energy: Any) -> Any:
    """Energy in eV to kJ/mol."""
    return energy / KJ_PER_MOL
