"""Energies of single atoms, by least squares: what remains is what a potential without them can learn.

    E_s  =  sum_z n_sz e_z  +  rest

A program counts its energies from a zero of its own, such as that of isolated pseudo-atoms. Potentials
count theirs from atoms far apart, or from another zero. The e_z that make the rest smallest take the
difference up.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mdsens.checks import nearest, number
from mdsens.datasets.dataset import Dataset
from mdsens.errors import InputError


class ReferenceEnergies(NamedTuple):
    """What an atom of each element costs.

    Attributes:
        energies: by chemical symbol, eV.
        residual: root mean square of the energy per atom that is left, eV.
        determined: False where compositions do not tell the elements apart, as in data of one compound:
            then the energies are the smallest that fit.
    """

    energies: dict[str, float]
    residual: float
    determined: bool


def reference_energies(data: Dataset) -> ReferenceEnergies:
    """Reference energies of the elements, by least squares on the energies per atom.

    Raises:
        InputError: no structure has an energy.
    """
    rows = [k for k, entry in enumerate(data) if entry.energy is not None]
    if not rows:
        raise InputError(
            "no structure has an energy: there are no reference energies. Give data with energies, or leave "
            "the references out."
        )
    counts = data.compositions()[rows]
    sizes = counts.sum(1)
    energies = np.array([data[k].energy for k in rows], float)
    shares, per_atom = counts / sizes[:, None], energies / sizes
    solution, _, rank, _ = np.linalg.lstsq(shares, per_atom, rcond=1e-10)
    left = per_atom - counts @ solution / sizes
    by_symbol = dict(zip(data.elements, solution.tolist(), strict=True))
    residual = float(np.sqrt(np.mean(left**2)))
    return ReferenceEnergies(by_symbol, residual, int(rank) == len(data.elements))


def subtract_references(data: Dataset, references: Mapping[str, float] | ReferenceEnergies) -> Dataset:
    """The same data, with energies counted from atoms with these energies (eV).

    Raises:
        InputError: an element without a reference.
    """
    table = references.energies if isinstance(references, ReferenceEnergies) else dict(references)
    for symbol in data.elements:
        if symbol not in table:
            hint, given = nearest(symbol, table), ", ".join(table) or "none"
            raise InputError(f"there is no reference energy for {symbol}.{hint} Given are {given}.")
    values = [number(f"reference energy of {s}", table[s], "eV") for s in data.elements]
    shifts = data.compositions() @ np.array(values)
    moved = []
    for entry, shift in zip(data, shifts.tolist(), strict=True):
        energy = None if entry.energy is None else entry.energy - shift
        moved.append(entry._replace(energy=energy))
    return Dataset(tuple(moved))
