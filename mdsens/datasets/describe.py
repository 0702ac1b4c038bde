"""A data set in a few lines: what there is, how large the numbers are, what looks wrong."""

import numpy as np

from mdsens.datasets.dataset import Dataset
from mdsens.datasets.inspection import Duplicate, Outlier
from mdsens.datasets.references import reference_energies
from mdsens.units import GPA


def describe(data: Dataset) -> list[tuple[str, str]]:
    """Rows of a table: what, and its value with the unit."""
    counts = data.counts()
    sizes = sorted({entry.structure.n_atoms for entry in data})
    each = f"{sizes[0]} in each structure" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} in a structure"
    rows = [
        ("structures", f"{counts.structures}"),
        ("atoms", f"{counts.atoms}; {each}"),
        ("elements", ", ".join(data.elements)),
        ("periodic along", ", ".join(sorted({_periodic(entry.structure.pbc) for entry in data}))),
        ("with energy", f"{counts.energies}"),
        ("with forces", f"{counts.forces} ({counts.atoms_with_forces} atoms)"),
        ("with stress", f"{counts.stresses}"),
    ]
    return rows + _groups(data) + _energies(data) + _forces(data) + _pressures(data)


def _periodic(pbc: tuple[bool, bool, bool]) -> str:
    return " ".join(name for name, along in zip("abc", pbc, strict=True) if along) or "nothing"


def _groups(data: Dataset) -> list[tuple[str, str]]:
    names = [entry.group for entry in data]
    if set(names) == {""}:
        return []
    return [("groups", "; ".join(f"{name or 'none'}: {names.count(name)}" for name in data.groups))]


def _energies(data: Dataset) -> list[tuple[str, str]]:
    if not data.counts().energies:
        return []
    per_atom = [e.energy / e.structure.n_atoms for e in data if e.energy is not None]
    found = reference_energies(data)
    text = ", ".join(f"{symbol} {value:.6g}" for symbol, value in found.energies.items())
    undetermined = "" if found.determined else "; compositions do not tell the elements apart"
    return [
        ("energy per atom", f"{min(per_atom):.6g} to {max(per_atom):.6g} eV"),
        ("reference energies", f"{text} eV{undetermined}"),
        ("energy per atom beyond them", f"{found.residual:.4g} eV, root mean square"),
    ]


def _forces(data: Dataset) -> list[tuple[str, str]]:
    parts = [np.linalg.norm(entry.forces, axis=1) for entry in data if entry.forces is not None]
    if not parts:
        return []
    sizes = np.concatenate(parts)
    return [("force", f"{np.sqrt(np.mean(sizes**2)):.4g} eV/Å, root mean square; at most {sizes.max():.4g}")]


def _pressures(data: Dataset) -> list[tuple[str, str]]:
    pressures = [-GPA * np.trace(entry.stress) / 3 for entry in data if entry.stress is not None]
    return [("pressure", f"{min(pressures):.4g} to {max(pressures):.4g} GPa")] if pressures else []


def in_words(found: Duplicate | Outlier, data: Dataset) -> str:
    """One line about something that looks wrong."""
    if isinstance(found, Outlier):
        usual = "should be at least" if found.what == "distance" else "usual is"
        return (
            f"{data[found.row].name}: {found.what} {found.value:.4g} {found.unit}, {usual} {found.usual:.4g}"
        )
    names = f"{data[found.second].name} is {data[found.first].name} again"
    if not found.contradictory:
        return names
    return f"{names}, with an energy per atom that is {found.energy_difference:+.4g} eV off"
