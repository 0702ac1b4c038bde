"""Vashishta's potentials and EDIP from the files LAMMPS uses: .vashishta and .edip.

A file has an entry for every triple of elements, center first. What belongs to a pair i-j is taken from the
entries i j j and j i i, which must agree; what belongs to an angle j-i-k from i j k and i k j, which must
agree, too: with two values, LAMMPS's energy depends on the order of the atoms.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdsens.errors import FileFormatError
from mdsens.potentials.base import Potential
from mdsens.potentials.edip import EDIP
from mdsens.potentials.lammps_files import (
    Triple,
    TripleEntry,
    Wanted,
    built,
    check_complete,
    read_triples,
)
from mdsens.potentials.vashishta import Vashishta

Entries = Mapping[Triple, TripleEntry]

VASHISHTA_COLUMNS = ("H", "eta", "Z_i", "Z_j", "lambda1", "D", "lambda4", "W", "rc")
VASHISHTA_COLUMNS += ("B", "gamma", "r0", "C", "costheta0")
EDIP_COLUMNS = ("A", "B", "cutoffA", "cutoffC", "alpha", "beta", "eta", "gamma", "lambda", "mu", "rho")
EDIP_COLUMNS += ("sigma", "Q0", "u1", "u2", "u3", "u4")


def read_vashishta(path: str | Path, elements: Wanted = None) -> Vashishta:
    """Vashishta potential from a LAMMPS .vashishta file, for one or several elements.

    Args:
        elements: chemical symbols wanted, in the order wanted; by default all that the file is about. A file
            whose names are no symbols is read by a table: {"Si": "Si1"} takes Si1 of the file for Si.
    Raises:
        FileFormatError: with the line: an entry that is not three elements and fourteen numbers, a repeated
            or missing entry, numbers that make the energy depend on the order of atoms, charges of pairs
            that are no products of charges of elements, a value without meaning.
        InputError: an element that the file does not have.
    Source: LAMMPS documentation, pair_style vashishta.
    """
    return _read(path, elements, VASHISHTA_COLUMNS, Vashishta)


def read_edip(path: str | Path, elements: Wanted = None) -> EDIP:
    """EDIP potential from a LAMMPS .edip file, for one or several elements; else as `read_vashishta`.

    Source: LAMMPS documentation, pair_style edip/multi.
    """
    return _read(path, elements, EDIP_COLUMNS, EDIP)


def _read(path: str | Path, elements: Wanted, columns: Sequence[str], form: type[Potential]) -> Any:
    def potential_of(entries: Entries, symbols: tuple[str, ...], source: str) -> Potential:
        check_complete(entries, symbols)
        return _potential(form, entries, symbols, source)

    return read_triples(path, elements, columns, potential_of)


def _potential(form: type[Any], entries: Entries, elements: tuple[str, ...], source: str) -> Potential:
    arrays: dict[str, Any] = {}
    pairs = list(itertools.combinations_with_replacement(elements, 2))
    for field in form.parameter_fields():
        column = field.rstrip("_")
        if form.belongs_to(field, {}) == "species":
            arrays[field] = _charges(entries, elements)
        elif form.belongs_to(field, {}) == "pair":
            either_way = [((a, b, b), (b, a, a)) for a, b in pairs]
            arrays[field] = [_agreed(entries, column, *both) for both in either_way]
        else:
            either_way = [((c, a, b), (c, b, a)) for c in elements for a, b in pairs]
            arrays[field] = [_agreed(entries, column, *both) for both in either_way]
    if len(elements) == 1:
        arrays = {name: values[0] for name, values in arrays.items()}
    return built(form, **arrays, elements=elements, source=source)


def _agreed(entries: Entries, column: str, one: Triple, other: Triple) -> float:
    """The number of two entries."""
    first = entries[one]
    second = entries[other]
    x, y = first.numbers[column], second.numbers[column]
    if not np.isclose(x, y, rtol=1e-12, atol=0):
        found = f"{x:g} for {' '.join(one)} and {y:g} for {' '.join(other)}"
        raise FileFormatError(
            f"lines {first.line} and {second.line}: {column} is {found}. There is one {column} for both; "
            "with two, LAMMPS's energy depends on the order of the atoms. Make them equal."
        )
    return x


def _charges(entries: Entries, elements: tuple[str, ...]) -> np.ndarray:
    """Charge of each element. Files may turn the signs of both charges of a pair: products count."""
    ordered = itertools.product(elements, repeat=2)
    product = np.array([_product(entries[a, b, b]) for a, b in ordered])
    product = product.reshape(len(elements), len(elements))
    # the first sign as the file has it, the others by their pairs with the first
    first = elements[0]
    second = elements[min(1, len(elements) - 1)]
    sign = np.sign(entries[first, second, second].numbers["Z_i"])
    signs = sign * np.sign(product[0])
    signs[0] = sign
    charges = np.sqrt(np.maximum(np.diag(product), 0.0)) * signs
    if not np.allclose(np.outer(charges, charges), product, rtol=1e-12, atol=1e-12):
        would_be = (f"{e} {z:g}" for e, z in zip(elements, charges, strict=True))
        raise FileFormatError(
            "Z_i Z_j of the pairs are no products of one charge for each element. By the pairs of an element "
            f"with itself and with {first} the charges would be {', '.join(would_be)}. Correct Z_i and Z_j."
        )
    return charges


def _product(entry: TripleEntry) -> float:
    return entry.numbers["Z_i"] * entry.numbers["Z_j"]
