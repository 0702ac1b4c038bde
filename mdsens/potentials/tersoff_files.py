"""Tersoff potentials from the files LAMMPS uses: .tersoff, .tersoff.zbl, .tersoff.mod and .tersoff.modc.

A file has an entry for every triple of elements (center, bonded, third). What belongs to a bond i-j is taken
from the entry i j j; what belongs to zeta, from each.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mdsens.errors import FileFormatError
from mdsens.potentials.base import pair_table
from mdsens.potentials.bond_orders import BOND_KINDS, TRIPLE_KINDS, BondOrderPotential, as_pairs
from mdsens.potentials.lammps_files import (
    Triple,
    TripleEntry,
    Wanted,
    built,
    check_complete,
    read_triples,
)
from mdsens.potentials.tersoff import Tersoff
from mdsens.potentials.tersoff_variants import TersoffMod, TersoffZBL

COLUMNS = ("m", "gamma", "lambda3", "c", "d", "costheta0", "n", "beta")
COLUMNS += ("lambda2", "B", "R", "D", "lambda1", "A")
ZBL_COLUMNS = (*COLUMNS, "Z_i", "Z_j", "ZBLcut", "ZBLexpscale")
MOD_COLUMNS = ("m", "alpha", "costheta0", "eta", "beta", "lambda2", "B", "R", "D", "lambda1", "A", "delta")
MOD_COLUMNS += ("c1", "c2", "c3", "c4", "c5")
# The repulsion of a pair is taken from either of its two entries, by the order of atoms.
REPULSION = ("A", "lambda1", "R", "D")
LOOSEST = 1e-4  # relative difference of the two, in files that round them


def read_tersoff(path: str | Path, elements: Wanted = None) -> Tersoff:
    """Tersoff potential from a LAMMPS .tersoff file, for one or several elements.

    The entries i j j and j i i of a pair should have the same A, lambda1, R and D. Some files round them
    differently (SiC_1994.tersoff in the fifth digit); LAMMPS then takes the repulsion of a bond from one of
    the two, by the order of the atoms, and ours is the mean of both.

    Args:
        elements: chemical symbols wanted, in the order wanted; by default all that the file is about. A file
            whose names are no symbols is read by a table: {"Si": "Si(B)"} takes Si(B) of the file for Si.
    Raises:
        FileFormatError: with the line: an entry that is not three elements and fourteen numbers, a repeated
            or missing entry, a repulsion that depends on the order of atoms, a value without meaning.
        InputError: an element that the file does not have.
    Source: LAMMPS documentation, pair_style tersoff.
    """
    return _read(path, elements, COLUMNS, Tersoff)


def read_tersoff_zbl(path: str | Path, elements: Wanted = None) -> TersoffZBL:
    """Tersoff potential with screened repulsion from a LAMMPS .tersoff.zbl file; else as `read_tersoff`.

    Source: LAMMPS documentation, pair_style tersoff/zbl.
    """
    return _read(path, elements, ZBL_COLUMNS, TersoffZBL)


def read_tersoff_mod(path: str | Path, elements: Wanted = None) -> TersoffMod:
    """Modified Tersoff potential from a LAMMPS .tersoff.mod file; else as `read_tersoff`.

    Source: LAMMPS documentation, pair_style tersoff/mod.
    """
    return _read(path, elements, MOD_COLUMNS, TersoffMod)


def read_tersoff_modc(path: str | Path, elements: Wanted = None) -> TersoffMod:
    """Modified Tersoff potential with the constant c0 from a LAMMPS .tersoff.modc file.

    Source: LAMMPS documentation, pair_style tersoff/mod/c.
    """
    return _read(path, elements, (*MOD_COLUMNS, "c0"), TersoffMod)


def _read(path: str | Path, elements: Wanted, columns: Sequence[str], form: type[Any]) -> Any:
    def potential_of(
        entries: Mapping[Triple, TripleEntry], symbols: tuple[str, ...], source: str
    ) -> BondOrderPotential:
        check_complete(entries, symbols)
        _check_repulsion(entries, symbols)
        return _potential(form, entries, symbols, source)

    return read_triples(path, elements, columns, potential_of)


def _check_repulsion(entries: Mapping[Triple, TripleEntry], elements: tuple[str, ...]) -> None:
    for a, b in itertools.combinations(elements, 2):
        one = entries[a, b, b]
        other = entries[b, a, a]
        for column in REPULSION:
            x, y = one.numbers[column], other.numbers[column]
            if not np.isclose(x, y, rtol=LOOSEST, atol=0):
                found = f"{x:g} for {a} {b} {b} and {y:g} for {b} {a} {a}"
                raise FileFormatError(
                    f"lines {one.line} and {other.line}: {column} is {found}. The repulsion of a pair has "
                    f"one {column}; with two, LAMMPS's energy depends on the order of the atoms. Make them "
                    "equal."
                )


class _Values(NamedTuple):
    """The values of a parameter, and what they belong to."""

    kind: str
    values: np.ndarray


def _potential(
    form: type[BondOrderPotential],
    entries: Mapping[Triple, TripleEntry],
    elements: tuple[str, ...],
    source: str,
) -> BondOrderPotential:
    numbers = [entries[t].numbers for t in itertools.product(elements, repeat=3)]
    shape = (len(elements),) * 3
    of_column = lambda column: np.reshape([row[column] for row in numbers], shape)
    table = {column: of_column(column) for column in numbers[0]}
    powers = _powers(table.pop("m"))
    found = {}
    if form is TersoffMod:
        table.setdefault("c0", np.zeros(shape))
    if "Z_i" in table:
        found["Z"] = _Values("species", _charges(table.pop("Z_i"), table.pop("Z_j")))
    found |= {name: _shared(form, name, values) for name, values in table.items()}
    arrays: dict[str, Any] = {name: v.values for name, v in found.items()}
    unusual = lambda name: found[name].kind != form.belongs_to(name, {})
    sharing = {name: v.kind for name, v in found.items() if unusual(name)}
    if len(elements) == 1:
        sharing = {}
        arrays = {name: values[0] for name, values in arrays.items()}
    return built(form, **arrays, elements=elements, m=powers, sharing=as_pairs(sharing), source=source)


def _powers(m: np.ndarray) -> int | tuple[int, ...]:
    whole = [int(value) if value == int(value) else value for value in m.ravel()]
    return whole[0] if len(set(whole)) == 1 else tuple(whole)


def _charges(Z_i: np.ndarray, Z_j: np.ndarray) -> np.ndarray:
    own = np.einsum("iii->i", Z_i)
    first, second = (np.einsum("ijj->ij", Z) for Z in (Z_i, Z_j))
    if np.any(first != own[:, None]) or np.any(second != own):
        raise FileFormatError("Z_i and Z_j must be the charges of the first two elements in every entry.")
    return own


def _shared(form: type[BondOrderPotential], name: str, values: np.ndarray) -> _Values:
    """As few entries as the file has different ones, beginning with what the form declares.

    What belongs to a bond is in the entries i j j only: files put anything into the others.
    """
    n = len(values)
    i, j, k = np.indices(values.shape)
    if name in form.of_zeta:
        kinds, counts = TRIPLE_KINDS, np.ones(values.shape, bool)
    else:
        kinds, counts = BOND_KINDS, j == k
    kinds = kinds[kinds.index(str(form.belongs_to(name, {}))) :]
    places = {"species": i, "pair": pair_table(n)[i, k], "ordered pair": n * i + k}
    places["ordered triple"] = n * n * i + n * j + k
    for kind in kinds:
        entries = np.zeros(places[kind].max() + 1)
        counted = places[kind][counts]
        entries[counted] = values[counts]
        if np.array_equal(entries[counted], values[counts]):
            return _Values(kind, entries)
    raise AssertionError("the last kind has an entry for each value")
