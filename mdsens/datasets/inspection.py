"""What is wrong with a data set: structures that stand twice, labels that disagree, numbers far off.

Two structures are the same if their atoms have the same surroundings. The surroundings of an atom are sums
over its neighbors of smooth functions of distance, apart for each element: they know nothing of the order
of atoms, of shifts, rotations, and of which image of an atom was written down. Digits that a file rounds
off change them little, an atom that is 0.01 Å elsewhere changes them visibly. Two that have the same ones
are compared once more with functions of three times the range: parts of a molecule that is torn apart, 6 or
7 Å from each other, are not the same.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mdsens.datasets.dataset import Dataset, LabelledStructure
from mdsens.datasets.references import reference_energies
from mdsens.neighbors import find_neighbors
from mdsens.structure import Structure

REACH = 5.0  # Å: how far surroundings go
CENTERS = np.linspace(1.0, 4.5, 8)  # Å, of the functions of distance
WIDTH = 0.5  # Å
FARTHER = 3.0  # times all these lengths: what tells apart fragments that are out of each other's reach
MOST_ATOMS = 1000  # up to which is looked farther
SAME = 3e-4  # in the sums, see `_agree`
ENERGIES_AGREE = 1e-3  # eV per atom, of the same structure
FAR = 8.0  # robust standard deviations that are suspicious
SPREAD = 1.4826  # standard deviation over median absolute deviation of a normal distribution
TOO_CLOSE = 0.6  # of the sum of covalent radii


class Duplicate(NamedTuple):
    """Two entries with the same atoms.

    Attributes:
        first, second: places in the data set.
        energy_difference: eV per atom; None if one has no energy.
    """

    first: int
    second: int
    energy_difference: float | None

    @property
    def contradictory(self) -> bool:
        """Whether the labels cannot both be right."""
        return self.energy_difference is not None and abs(self.energy_difference) > ENERGIES_AGREE


class Outlier(NamedTuple):
    """An entry with a number far off.

    Attributes:
        row: place in the data set.
        what: "energy per atom", "force", "stress" or "distance".
        value: of it, in `unit`.
        usual: median over the data, or the limit for distances.
    """

    row: int
    what: str
    value: float
    usual: float
    unit: str


class DatasetReport(NamedTuple):
    """What `inspect` found."""

    duplicates: tuple[Duplicate, ...]
    outliers: tuple[Outlier, ...]


def inspect(data: Dataset) -> DatasetReport:
    """Look for duplicates and outliers; nothing is taken out (`Dataset.without` does that)."""
    return DatasetReport(tuple(find_duplicates(data)), tuple(find_outliers(data)))


# --- duplicates


def find_duplicates(data: Dataset) -> list[Duplicate]:
    """Pairs of entries with the same atoms; of several equal ones each with the first."""
    structures = data.structures
    sums = [surroundings(structure) for structure in structures]
    farther = functools.cache(lambda k: surroundings(structures[k], FARTHER))

    def equal(first: int, second: int) -> bool:
        n = structures[first].n_atoms
        near = _agree(sums[first], sums[second], n)
        return near and (n > MOST_ATOMS or _agree(farther(first), farther(second), n))

    found: list[Duplicate] = []
    firsts: dict[tuple, list[int]] = {}
    for k, entry in enumerate(data):
        alike = firsts.setdefault(_kind(entry.structure), [])
        same = next((first for first in alike if equal(first, k)), None)
        if same is None:
            alike.append(k)
        else:
            found.append(Duplicate(same, k, _difference(data[same], entry)))
    return found


def _agree(one: np.ndarray, other: np.ndarray, n_atoms: int) -> bool:
    # Rounded positions change sums over n atoms at random, by their part 1 / sqrt(n). For five decimals that
    # is 1e-4 of it at most; one atom 0.01 Å elsewhere makes 1e-3 and more, up to some thousands of atoms.
    allowed = SAME * (1 + np.abs(one) / np.sqrt(n_atoms))
    return bool(np.all(np.abs(one - other) < allowed))


def _kind(structure: Structure) -> tuple:
    numbers, counts = np.unique(np.asarray(structure.species), return_counts=True)
    return structure.pbc, tuple(numbers.tolist()), tuple(counts.tolist())


def _difference(one: LabelledStructure, other: LabelledStructure) -> float | None:
    if one.energy is None or other.energy is None:
        return None
    return (other.energy - one.energy) / one.structure.n_atoms


def surroundings(structure: Structure, scale: float = 1.0) -> Float[np.ndarray, "numbers"]:
    """Numbers that are equal for the same atoms, whatever their order, place and orientation.

    Args:
        scale: times the lengths of the functions of distance.
    """
    neighbors = find_neighbors(structure, scale * REACH)
    valid = np.asarray(neighbors.valid)
    i, j, d = (np.asarray(a)[valid] for a in (neighbors.i, neighbors.j, neighbors.vectors(structure)))
    r = np.linalg.norm(d, axis=1)[:, None] / scale
    species = np.asarray(structure.species)
    # smooth at REACH, so that a neighbor there changes nothing
    fading = (1 - (r / REACH) ** 2) ** 2
    bumps = np.exp(-(((r - CENTERS) / WIDTH) ** 2)) * fading
    sums = [_sums(bumps, i, j, species, z) for z in np.unique(species)]
    table = np.concatenate(sums, axis=1)
    # each kind of atoms apart; powers tell apart what has the same sum
    parts = [table[species == z] for z in np.unique(species)]
    powers = [part**power for part in parts for power in (1, 2, 3)]
    return np.concatenate([power.sum(0) for power in powers])


def _sums(bumps: np.ndarray, i: np.ndarray, j: np.ndarray, species: np.ndarray, z: int) -> np.ndarray:
    table = np.zeros((len(species), bumps.shape[1]))
    for here, there in ((i, j), (j, i)):
        chosen = species[there] == z
        np.add.at(table, here[chosen], bumps[chosen])
    return table


# --- outliers


def find_outliers(data: Dataset) -> list[Outlier]:
    """Entries whose energy per atom, largest force or stress is far from the others', and atoms too close."""
    found = [*_far_off(data, "energy per atom", _energies(data), "eV")]
    found += _far_off(data, "force", _largest(data, "forces"), "eV/Å")
    found += _far_off(data, "stress", _largest(data, "stress"), "eV/Å³")
    found += _close_atoms(data)
    return sorted(found, key=lambda outlier: outlier.row)


def _energies(data: Dataset) -> dict[int, float]:
    """Energies per atom without those of the elements."""
    rows = [k for k, entry in enumerate(data) if entry.energy is not None]
    if not rows:
        return {}
    table = reference_energies(data).energies
    counts = data.compositions()
    shifts = counts @ np.array([table[symbol] for symbol in data.elements])
    beyond = lambda k: float(data[k].energy or 0.0) - shifts[k]
    return {k: beyond(k) / counts[k].sum() for k in rows}


def _largest(data: Dataset, label: str) -> dict[int, float]:
    values = {k: getattr(entry, label) for k, entry in enumerate(data)}
    longest = lambda array: float(np.linalg.norm(array, axis=-1).max())
    return {k: longest(array) for k, array in values.items() if array is not None}


def _far_off(data: Dataset, what: str, values: dict[int, float], unit: str) -> Iterator[Outlier]:
    if len(values) < 5:
        return
    numbers = np.array(list(values.values()))
    median = float(np.median(numbers))
    spread = SPREAD * float(np.median(np.abs(numbers - median)))
    for k, value in values.items():
        if abs(value - median) > FAR * max(spread, 1e-9 * abs(median), 1e-12):
            yield Outlier(k, what, value, median, unit)


def _close_atoms(data: Dataset) -> Iterator[Outlier]:
    from ase.data import covalent_radii

    for k, structure in enumerate(data.structures):
        radii = covalent_radii[np.asarray(structure.species)]
        neighbors = find_neighbors(structure, max(2 * TOO_CLOSE * float(radii.max()), 0.1))
        valid = np.asarray(neighbors.valid)
        if not valid.any():
            continue
        r = np.linalg.norm(np.asarray(neighbors.vectors(structure)), axis=1)[valid]
        i, j = np.asarray(neighbors.i)[valid], np.asarray(neighbors.j)[valid]
        limit = TOO_CLOSE * (radii[i] + radii[j])
        worst = int(np.argmin(r / limit))
        if r[worst] < limit[worst]:
            yield Outlier(k, "distance", float(r[worst]), float(limit[worst]), "Å")
