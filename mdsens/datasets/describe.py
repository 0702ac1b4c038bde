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
    several = f"{sizes[0]} to {sizes[-1]} in a structure"
    each = several if len(sizes) > 1 else f"{sizes[0]} in each structure"
    vectors = sorted({_periodic(entry.structure.pbc) for entry in data})
    rows = [
        ("structures", f"{counts.structures}"),
        ("atoms", f"{counts.atoms}; {each}"),
        ("elements", ", ".join(data.elements)),
        ("periodic along", ", ".join(vectors)),
        ("with energy", f"{counts.energies}"),
        ("with forces", f"{counts.forces} ({counts.atoms_with_forces} atoms)"),
        ("with stress", f"{counts.stresses}"),
    ]
    for further in (_groups, _energies, _forces, _pressures):
        rows += further(data)
    return rows


def _periodic(pbc: tuple[bool, bool, bool]) -> str:
    return " ".join(name for name, along in zip("abc", pbc, strict=True) if along) or "nothing"


def _groups(data: Dataset) -> list[tuple[str, str]]:
    names = [entry.group for entry in data]
    if set(names) == {""}:
        return []
    counted = [f"{name or 'none'}: {names.count(name)}" for name in data.groups]
    return [("groups", "; ".join(counted))]


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
    typical = np.sqrt(np.mean(sizes**2))
    return [("force", f"{typical:.4g} eV/Å, root mean square; at most {sizes.max():.4g}")]


def _pressures(data: Dataset) -> list[tuple[str, str]]:
    stresses = [entry.stress for entry in data if entry.stress is not None]
    if not stresses:
        return []
    pressures = [-GPA * np.trace(stress) / 3 for stress in stresses]
    return [("pressure", f"{min(pressures):.4g} to {max(pressures):.4g} GPa")]


def in_words(found: Duplicate | Outlier, data: Dataset) -> str:
    """One line about something that looks wrong."""
    if isinstance(found, Outlier):
        usual = "should be at least" if found.what == "distance" else "usual is"
        name = data[found.row].name
        return f"{name}: {found.what} {found.value:.4g} {found.unit}, {usual} {found.usual:.4g}"
    names = f"{data[found.second].name} is {data[found.first].name} again"
    if not found.contradictory:
        return names
    return f"{names}, with an energy per atom that is {found.energy_difference:+.4g} eV off"
