"""Potentials from the files LAMMPS uses, given the same energy as LAMMPS gives them.

Numbers are taken in LAMMPS's `metal` units (eV, Å), which are those of mdsens. A `#` starts a comment; an
entry may run over several lines.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mdsens.checks import existing_file
from mdsens.errors import FileFormatError, InputError
from mdsens.potentials.parameters import check_parameters
from mdsens.potentials.stillinger_weber import StillingerWeber

SW_COLUMNS = ("epsilon", "sigma", "a", "lambda", "gamma", "costheta0", "A", "B", "p", "q", "tol")
TWO_BODY = ("epsilon", "sigma", "a", "A", "B", "p", "q")
# A pair whose numbers in the file are zero does not interact. It gets a reach of 0.001 Å, which no two atoms
# come to.
ABSENT = {"epsilon": 1.0, "sigma": 1.0, "a": 1e-3, "A": 1.0, "B": 1.0, "p": 4.0, "q": 0.0}
Triple = tuple[str, ...]  # element symbols: center, then the two ends
Wanted = Sequence[str] | Mapping[str, str] | None  # see `renamed_entries`


class TripleEntry(NamedTuple):
    """One entry of a file: numbers by column, and the line on which it starts."""

    numbers: dict[str, float]
    line: int


def read_sw(path: str | Path, elements: Wanted = None) -> StillingerWeber:
    """Stillinger-Weber potential from a LAMMPS .sw file, for one or several elements.

    The column tol is left out: it only lets LAMMPS skip the last, negligible part of the interaction.

    The angle j-i-k has two entries, i j k and i k j, whose lambda epsilon should agree and in files of
    several elements agree as well as they were rounded: in CdTeZnSeHgS0.sw of LAMMPS to 8e-7 of their value
    (Cd S Te). LAMMPS takes the entry of the neighbor that its list has first, which changes with the order of
    the atoms and with where they lie in its boxes. So no energy that knows no order of atoms can equal it to
    more digits.
    Here the angle has the mean of both, within 4e-7 of either.

    Args:
        elements: chemical symbols wanted, in the order wanted; by default all that the file is about. A file
            whose names are no symbols is read by a table: {"Si": "Si1"} takes Si1 of the file for Si.
    Raises:
        FileFormatError: with the line: an entry that is not three elements and eleven numbers, a repeated or
            missing entry, numbers that make the energy depend on the order of atoms, a value without meaning.
        InputError: an element that the file does not have.
    Source: LAMMPS documentation, pair_style sw.
    """
    return read_triples(path, elements, SW_COLUMNS, _stillinger_weber)


def reading(path: str | Path, read: Callable[[list[str]], Any]) -> Any:
    """What `read` makes of the lines of a file in units metal; its errors name the file."""
    path = existing_file(path, "potential file")
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    try:
        check_units(lines)
        return read(lines)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error


def read_triples(
    path: str | Path, elements: Wanted, columns: Sequence[str], potential_of: Callable[..., Any]
) -> Any:
    """The potential of a file with an entry for every triple of elements.

    Args:
        elements: see `renamed_entries`. columns: of an entry, behind its three elements.
        potential_of: (entries by chemical symbols, symbols wanted, source) -> the potential.
    """

    def read(lines: list[str]) -> Any:
        entries, symbols = renamed_entries(triple_entries(lines, columns), elements)
        return potential_of(entries, symbols, citation(lines) or f"LAMMPS file {Path(path).name}")

    return reading(path, read)


def built(form: Callable[..., Any], **fields: Any) -> Any:
    """The potential of what stands in a file: what is wrong with its values is wrong with the file."""
    try:
        potential = form(**fields)
        check_parameters(potential)
    except InputError as error:
        raise FileFormatError(str(error)) from error
    return potential


def check_units(lines: Sequence[str]) -> None:
    """Raise if the first line of a file names other units than `metal`."""
    words = lines[0].replace("UNITS:", " UNITS: ").split() if lines else []
    if "UNITS:" in words[:-1] and (units := words[words.index("UNITS:") + 1]) != "metal":
        raise FileFormatError(
            f"line 1: the file is in LAMMPS units '{units}'; only 'metal' (eV, Å) can be read. Convert the "
            "energies."
        )


def citation(lines: Sequence[str]) -> str:
    """The source that the first line of a file names; "" if there is none."""
    return lines[0].partition("CITATION:")[2].strip() if lines else ""


def triple_entries(lines: Sequence[str], columns: Sequence[str]) -> dict[Triple, TripleEntry]:
    """The entries of a file that has one for each triple of elements: three names, then the columns.

    Raises:
        FileFormatError: with the line: an entry of another length or cut short, a word where a number
            belongs, a repeated entry, none at all.
    """
    size = 3 + len(columns)
    entries: dict[Triple, TripleEntry] = {}
    words: list[str] = []
    start = 0
    for number, text in enumerate(lines, 1):
        new = text.partition("#")[0].split()
        start = start if words else number
        words += new
        if not new or len(words) < size:
            continue
        if len(words) > size:
            raise FileFormatError(
                f"line {start}: an entry of {len(words)} words; it must be three elements, then "
                f"{' '.join(columns)}."
            )
        triple = tuple(words[:3])
        if triple in entries:
            first = entries[triple].line
            raise FileFormatError(
                f"line {start}: a second entry for {' '.join(triple)}; the first is on line {first}. Remove "
                "one."
            )
        entries[triple] = TripleEntry(_numbers(words, columns, start), start)
        words = []
    if words:
        raise FileFormatError(
            f"line {start}: the last entry has {len(words)} words of {size}: the file is cut short."
        )
    if not entries:
        raise FileFormatError("there are no entries.")
    return entries


def _numbers(words: Sequence[str], columns: Sequence[str], line: int) -> dict[str, float]:
    numbers = {}
    for column, word in zip(columns, words[3:], strict=True):
        try:
            numbers[column] = float(word.replace("d", "e").replace("D", "e"))
        except ValueError as error:
            raise FileFormatError(
                f"line {line}: '{word}' stands where the number {column} belongs: an entry is three "
                f"elements, then {' '.join(columns)}."
            ) from error
    return numbers


def chosen_elements(entries: Iterable[Triple], elements: Sequence[str] | None) -> tuple[str, ...]:
    """The elements wanted, out of those the file has; all of these if None.

    Raises:
        InputError: an element that the file does not have, or named twice.
        FileFormatError: a name in the file that is no chemical symbol.
    """
    from ase.data import atomic_numbers

    there = tuple(dict.fromkeys(triple[0] for triple in entries))
    if elements is not None:
        if missing := [e for e in elements if e not in there]:
            raise InputError(
                f"the file has nothing for {', '.join(missing)}; it is about {', '.join(there)}."
            )
        if not elements or len(set(elements)) < len(elements):
            raise InputError(
                f"elements = {list(elements)}: name each wanted element once, out of {', '.join(there)}."
            )
    chosen = there if elements is None else tuple(elements)
    if strange := [e for e in chosen if e not in atomic_numbers]:
        raise FileFormatError(
            f"'{strange[0]}' is no chemical symbol: write one in its place, in a copy of the file. A model "
            "particle may borrow any."
        )
    return chosen


def check_complete(entries: Iterable[Triple], elements: Sequence[str]) -> None:
    """Raise if a triple of the elements has no entry."""
    there = set(entries)
    needed = list(itertools.product(elements, repeat=3))
    if missing := [" ".join(t) for t in needed if t not in there]:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise FileFormatError(
            f"no entry for {missing[0]}{more}: {', '.join(elements)} need all {len(needed)}. Add them, or "
            "choose fewer elements."
        )


def renamed_entries(
    entries: Mapping[Triple, TripleEntry], elements: Wanted
) -> tuple[dict[Triple, TripleEntry], tuple[str, ...]]:
    """Entries by chemical symbols, and the symbols wanted.

    Args:
        elements: symbols; or, where the file has names that are none, such as several sets for one element,
            the name in the file by symbol: {"Si": "Si(B)"}.
    Raises:
        InputError, FileFormatError: as `chosen_elements`.
    """
    if not isinstance(elements, Mapping):
        return dict(entries), chosen_elements(entries, elements)
    there = tuple(dict.fromkeys(triple[0] for triple in entries))
    if missing := [name for name in elements.values() if name not in there]:
        raise InputError(f"the file has nothing called {', '.join(missing)}; it has {', '.join(there)}.")
    symbols = {name: symbol for symbol, name in elements.items()}
    named = {}
    for triple, entry in entries.items():
        if set(triple) <= set(symbols):
            a, b, c = (symbols[name] for name in triple)
            named[a, b, c] = entry
    return named, chosen_elements(named, tuple(elements))


def _stillinger_weber(
    entries: dict[Triple, TripleEntry], elements: tuple[str, ...], source: str
) -> StillingerWeber:
    check_complete(entries, elements)
    # LAMMPS takes all that belongs to the pair i-j from the entry i-j-j, and from i-j-k only costheta0 and
    # lambda epsilon.
    pairs = list(itertools.combinations_with_replacement(elements, 2))
    ordered = list(itertools.product(elements, repeat=2))
    triples = [(center, a, b) for center in elements for a, b in pairs]
    # (center, end) of every angle that costs energy
    bent = set()
    for center, *ends in itertools.product(elements, repeat=3):
        if _product(entries, (center, *ends)) != 0:
            bent |= {(center, end) for end in ends}
    bends = lambda a, b: (a, b) in bent or (b, a) in bent
    two_body = {}
    for a, b in pairs:
        two_body[a, b] = two_body[b, a] = _two_body(entries, a, b, bent=bends(a, b))
    strengths, angles = [], []
    for i, j, k in triples:
        one, other = two_body[i, j], two_body[i, k]
        within_reach = one is not ABSENT and other is not ABSENT
        product, angle = _three_body(entries, i, j, k) if within_reach else (0.0, 0.0)
        # ours is lambda sqrt(eps_ij eps_ik)
        scale = np.sqrt(one["epsilon"] * other["epsilon"])
        strengths.append(product / scale)
        angles.append(angle)
    # where no angle counts, files put any gamma, zero too
    counts = lambda i, j: (i, j) in bent and two_body[i, j] is not ABSENT
    gamma = [entries[i, j, j].numbers["gamma"] if counts(i, j) else 1.0 for i, j in ordered]
    arrays: dict[str, Any] = {"lambda_": strengths, "gamma": gamma, "costheta0": angles}
    for column in TWO_BODY:
        arrays[column] = [two_body[pair][column] for pair in pairs]
    if len(elements) == 1:
        arrays = {name: values[0] for name, values in arrays.items()}
    return built(StillingerWeber, **arrays, elements=elements, source=source)


def _two_body(entries: dict[Triple, TripleEntry], a: str, b: str, *, bent: bool) -> dict[str, float]:
    one = entries[a, b, b]
    other = entries[b, a, a]
    for column in TWO_BODY:
        x, y = one.numbers[column], other.numbers[column]
        if not np.isclose(x, y, rtol=1e-12, atol=0):
            found = f"{x:g} for {a} {b} {b} and {y:g} for {b} {a} {a}"
            raise FileFormatError(
                f"lines {one.line} and {other.line}: {column} is {found}. A pair has one two-body part; with "
                "two, LAMMPS's energy depends on the order of the atoms. Make them equal."
            )
    if one.numbers["sigma"] * one.numbers["a"] == 0:
        return ABSENT
    if one.numbers["epsilon"] == 0 and bent:
        raise FileFormatError(
            f"line {one.line}: epsilon = 0 for {a} {b} {b}, but angles with this pair cost energy, and their "
            "strength is counted in its epsilon. Give it an epsilon, and A = 1e-12 to be without a two-body "
            "part."
        )
    if one.numbers["epsilon"] == 0:
        return ABSENT
    return one.numbers


def _three_body(entries: dict[Triple, TripleEntry], i: str, j: str, k: str) -> tuple[float, float]:
    """Product lambda epsilon (eV) and costheta0 of a triple with the center i."""
    one = entries[i, j, k]
    other = entries[i, k, j]
    strengths = _product(entries, (i, j, k)), _product(entries, (i, k, j))
    angles = one.numbers["costheta0"], other.numbers["costheta0"]
    if strengths == (0.0, 0.0):
        return 0.0, angles[0]
    # Files round lambda and epsilon to about seven digits, so the two products agree no better.
    for what, (x, y) in (("lambda epsilon", strengths), ("costheta0", angles)):
        if not np.isclose(x, y, rtol=1e-5, atol=1e-12):
            found = f"{x:g} for {i} {j} {k} and {y:g} for {i} {k} {j}"
            raise FileFormatError(
                f"lines {one.line} and {other.line}: {what} is {found}. The angle {j}-{i}-{k} has one value; "
                "with two, LAMMPS's energy depends on the order of the atoms. Make them equal."
            )
    return sum(strengths) / 2, sum(angles) / 2


def _product(entries: dict[Triple, TripleEntry], triple: Triple) -> float:
    numbers = entries[triple].numbers
    return numbers["lambda"] * numbers["epsilon"]
