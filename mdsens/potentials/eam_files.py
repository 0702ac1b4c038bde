"""Embedded-atom potentials from the files LAMMPS uses.

They are setfl (.eam.alloy), its variants of Finnis and Sinclair (.eam.fs) and for negative densities
(.eam.he), and funcfl (.eam). All of them hold tables of F(rho), rho(r) and a pair function, with equally
spaced knots from zero on (F of .eam.he from a negative density on); numbers are in LAMMPS' `metal` units (eV,
Å). A table may be broken into lines anywhere, but begins on a new one.

A funcfl file holds one element, and Z(r) in place of the pair energy: an effective charge, in atomic units,

    r phi_ab(r) = 27.2 · 0.529 Z_a(r) Z_b(r),

with 27.2 eV for a hartree and 0.529 Å for a bohr, as LAMMPS rounds them.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mdsens.errors import FileFormatError, InputError
from mdsens.potentials.base import entry_labels
from mdsens.potentials.eam import EAM
from mdsens.potentials.lammps_files import built, citation, reading
from mdsens.potentials.tables import FEWEST_KNOTS
from mdsens.potentials.toml_files import wanted_elements

HARTREE_BOHR = 27.2 * 0.529  # eV Å
COMMENTS = 3  # lines at the top of setfl
ROUNDED = 1e-6  # a first density this part of the last is zero
END = 1e-6  # a cutoff may lie this part behind one spacing after the last knot: files are rounded


# --- lines and numbers


class _Line(NamedTuple):
    number: int
    words: list[str]

    def numbers(self, what: str) -> list[float]:
        return [self._number(k, what) for k in range(len(self.words))]

    def _number(self, k: int, what: str) -> float:
        word = self.words[k]
        try:
            value = float(word.replace("D", "e").replace("d", "e"))
        except ValueError as error:
            raise FileFormatError(
                f"line {self.number}, column {k + 1}: '{word}' stands where a number of {what} belongs."
            ) from error
        if not np.isfinite(value):
            raise FileFormatError(f"line {self.number}, column {k + 1}: {what} is {word}; it must be finite.")
        return value


class _Lines:
    """The lines of a file one after the other; empty ones and what follows a # are passed over."""

    def __init__(self, lines: Sequence[str], start: int) -> None:
        self._rest = self._filled(lines, start)

    @staticmethod
    def _filled(lines: Sequence[str], start: int) -> Iterator[_Line]:
        for number, text in enumerate(lines[start:], start + 1):
            if words := text.partition("#")[0].split():
                yield _Line(number, words)

    def next(self, what: str) -> _Line:
        line = next(self._rest, None)
        if line is None:
            raise FileFormatError(f"the file ends where {what} should stand: it is cut short.")
        return line

    def table(self, n: int, what: str) -> np.ndarray:
        """The next n numbers, which end with a line."""
        values: list[float] = []
        while len(values) < n:
            line = self.next(f"{what} (value {len(values) + 1} of {n})")
            values += line.numbers(what)
            surplus = len(values) - n
            if surplus > 0:
                raise FileFormatError(
                    f"line {line.number}, column {len(line.words) - surplus + 1}: {what} has {n} values, "
                    f"and {surplus} more stand on this line. A table begins on a new line."
                )
        return np.array(values)

    def end(self) -> None:
        line = next(self._rest, None)
        if line is not None:
            raise FileFormatError(
                f"line {line.number}: the tables are complete, but the file goes on with "
                f"'{' '.join(line.words)[:40]}'. Do the numbers of knots on top agree with the tables?"
            )


# --- what all three formats have


class _Grid(NamedTuple):
    """Numbers and spacings of the knots, the cutoff in Å, and the density of the first knot of F."""

    nrho: int
    drho: float
    nr: int
    dr: float
    cutoff: float
    first_density: float = 0.0


GRID = ("Nrho", "drho", "Nr", "dr", "cutoff")
LAST_DENSITY = "rhomax"  # the last knot of F, which only .eam.he states


def _grid(line: _Line, names: Sequence[str] = GRID, left_out: int = 0) -> _Grid:
    if len(line.words) != len(names):
        raise FileFormatError(
            f"line {line.number}: {len(line.words)} columns; it must be {len(names)}: {' '.join(names)}."
        )
    values = line.numbers("the grid")
    for k, name in enumerate(GRID):
        given = f"line {line.number}, column {k + 1}: {name} = {line.words[k]}"
        counts = name in ("Nrho", "Nr")
        if counts and (values[k] != int(values[k]) or values[k] < FEWEST_KNOTS):
            raise FileFormatError(f"{given}; it must be a whole number, {FEWEST_KNOTS} or more.")
        if not counts and values[k] <= 0:
            raise FileFormatError(f"{given}; it must be positive.")
    first = _first_density(line, values) if LAST_DENSITY in names else 0.0
    nrho, drho, nr, dr, cutoff = values[: len(GRID)]
    intervals = int(nr) - left_out
    end = intervals * dr
    if cutoff > end * (1 + END):
        raise FileFormatError(
            f"line {line.number}, column 5: the cutoff {cutoff:g} Å lies behind the end of the tables, "
            f"{end:g} Å = {intervals} · {dr:g} Å. Lower it, or give longer tables."
        )
    return _Grid(int(nrho), drho, int(nr), dr, cutoff, first)


def _first_density(line: _Line, values: Sequence[float]) -> float:
    # the spacing is rounded to some seven digits, and so is the span that it makes
    nrho, drho, *_, last = values
    first = last - (nrho - 1) * drho
    if abs(first) < ROUNDED * abs(last):
        return 0.0
    if first > 0:
        raise FileFormatError(
            f"line {line.number}, column 6: the densities of F run from {first:g} to {last:g}; atoms far "
            "from others have the density 0, which must be among them."
        )
    return first


def _source(lines: Sequence[str], path: str | Path) -> str:
    cited = citation(lines)
    return cited if cited and cited != "Unknown" else f"LAMMPS file {Path(path).name}"


def _is_symbol(word: str) -> bool:
    from ase.data import atomic_numbers

    return word in atomic_numbers


# --- setfl, and Finnis-Sinclair's variant of it


class _Tables(NamedTuple):
    """The content of a setfl file: by element, by element or (felt by, of), by pair."""

    elements: tuple[str, ...]
    grid: _Grid
    F: dict[str, np.ndarray]
    rho: dict[str, np.ndarray]
    rphi: dict[str, np.ndarray]


def read_eam_alloy(path: str | Path, elements: Sequence[str] | None = None) -> EAM:
    """Embedded-atom potential from a setfl file (LAMMPS pair_style eam/alloy).

    Args:
        elements: chemical symbols wanted, in the order wanted; by default all that the file has.
    Raises:
        FileFormatError: with line and column: another number of columns, something that is no number, a
            spacing that is not positive, a cutoff behind the tables, a file that is too short or too long.
        InputError: an element that the file does not have.
    Source: LAMMPS documentation, pair_style eam.
    """
    return _read_setfl(path, elements, finnis_sinclair=False)


def read_eam_fs(path: str | Path, elements: Sequence[str] | None = None) -> EAM:
    """The same from a Finnis-Sinclair file (LAMMPS pair_style eam/fs): densities for ordered pairs."""
    return _read_setfl(path, elements, finnis_sinclair=True)


def read_eam_he(path: str | Path, elements: Sequence[str] | None = None) -> EAM:
    """The same as `read_eam_fs` from a file whose densities may be negative (LAMMPS pair_style eam/he).

    Its header ends with the last density, and F runs up to there from the density that its spacing says.
    """
    return _read_setfl(path, elements, finnis_sinclair=True, header=(*GRID, LAST_DENSITY))


def _read_setfl(
    path: str | Path,
    elements: Sequence[str] | None,
    *,
    finnis_sinclair: bool,
    header: Sequence[str] = GRID,
) -> EAM:
    def read(lines: list[str]) -> EAM:
        tables = _setfl_tables(lines, finnis_sinclair, header)
        wanted = wanted_elements(elements, tables.elements)
        return _potential(tables, wanted, finnis_sinclair, _source(lines, path))

    return reading(path, read)


def _setfl_tables(lines: list[str], finnis_sinclair: bool, header: Sequence[str]) -> _Tables:
    rest = _Lines(lines, COMMENTS)
    there = _setfl_elements(rest.next("the list of elements"))
    grid = _grid(rest.next(" ".join(header)), header)
    F, rho, rphi = {}, {}, {}
    for center in there:
        _check_element_line(rest.next(f"atomic number and mass of {center}"), center)
        F[center] = rest.table(grid.nrho, f"F of {center}")
        # the density that this element has where there is an atom of the other
        for felt_by in there if finnis_sinclair else ("",):
            name = f"{felt_by}-{center}" if felt_by else center
            who = f"{center} at {felt_by}" if felt_by else center
            rho[name] = rest.table(grid.nr, f"rho of {who}")
    for a in range(len(there)):
        for b in range(a + 1):
            name = f"{there[b]}-{there[a]}"
            rphi[name] = rest.table(grid.nr, f"r phi of {name}")
    rest.end()
    return _Tables(there, grid, F, rho, rphi)


def _setfl_elements(line: _Line) -> tuple[str, ...]:
    count, *names = line.words
    if not count.isdigit() or int(count) != len(names) or not names:
        raise FileFormatError(
            f"line {line.number}: '{' '.join(line.words)[:60]}' is not a number of elements and as many "
            "names."
        )
    for k, name in enumerate(names):
        if not _is_symbol(name):
            raise FileFormatError(
                f"line {line.number}, column {k + 2}: '{name}' is no chemical symbol: write one in its "
                "place, in a copy of the file. A model particle may borrow any."
            )
        if name in names[:k]:
            raise FileFormatError(f"line {line.number}, column {k + 2}: the element {name} stands twice.")
    return tuple(names)


def _check_element_line(line: _Line, element: str) -> None:
    if len(line.words) < 2:
        raise FileFormatError(
            f"line {line.number}: {len(line.words)} columns; for {element} it must be: atomic number, mass, "
            "lattice constant, lattice type. Does the table before it have as many values as line 5 says?"
        )
    _Line(line.number, line.words[:2]).numbers(f"atomic number and mass of {element}")


def _potential(tables: _Tables, wanted: tuple[str, ...], finnis_sinclair: bool, source: str) -> EAM:
    either_way = dict(tables.rphi)
    for pair, values in tables.rphi.items():
        a, b = pair.split("-")
        either_way[f"{b}-{a}"] = values
    density = "ordered pair" if finnis_sinclair else "species"
    arrays: dict[str, Any] = {}
    arrays["F"] = _stacked(tables.F, entry_labels(wanted, "species"))
    arrays["rho"] = _stacked(tables.rho, entry_labels(wanted, density))
    arrays["rphi"] = _stacked(either_way, entry_labels(wanted, "pair"))
    settings: Any = {"elements": wanted, "finnis_sinclair": finnis_sinclair, "source": source}
    g = tables.grid
    settings |= {"drho": g.drho, "dr": g.dr, "cutoff_radius": g.cutoff, "first_density": g.first_density}
    return built(EAM, **arrays, **settings)


def _stacked(tables: dict[str, np.ndarray], labels: Iterable[str]) -> np.ndarray:
    rows = [tables[label] for label in labels]
    return np.stack(rows) if len(rows) > 1 else rows[0]


# --- funcfl


class _Funcfl(NamedTuple):
    """The content of a funcfl file."""

    element: str
    grid: _Grid
    F: np.ndarray
    Z: np.ndarray
    rho: np.ndarray
    source: str


def read_eam_funcfl(path: str | Path, elements: Sequence[str] | None = None) -> EAM:
    """Embedded-atom potential of one element from a funcfl file (LAMMPS pair_style eam).

    LAMMPS leaves out the last knot of these files, and so do we.

    Raises:
        FileFormatError: with line and column, see `read_eam_alloy`.
        InputError: another element is wanted.
    """
    potential = mix_funcfl(path)
    wanted_elements(elements, potential.elements)
    return potential


def mix_funcfl(*paths: str | Path) -> EAM:
    """Embedded-atom potential of several elements, each from a funcfl file of its own.

    Two elements interact by the product of their effective charges (Foiles, Baskes, Daw, Phys. Rev. B 33,
    7983 (1986)). Files with different grids are brought onto the coarsest of them by cubics through four
    knots, and the largest cutoff is that of all, as LAMMPS has it.

    Raises:
        FileFormatError: with line and column, see `read_eam_alloy`.
        InputError: no file, or two of one element.
    """
    files = [_read_funcfl(path) for path in paths]
    elements = tuple(f.element for f in files)
    if not files or len(set(elements)) < len(elements):
        raise InputError(
            f"mix_funcfl needs one file for each element, and these are for: {', '.join(elements) or 'none'}."
        )
    grid = _common_grid([f.grid for f in files])
    F, rho, Z, rphi = {}, {}, {}, {}
    for f in files:
        F[f.element] = _resampled(f.F, f.grid.drho, grid.nrho, grid.drho)
        rho[f.element] = _resampled(f.rho, f.grid.dr, grid.nr, grid.dr)
        Z[f.element] = _resampled(f.Z, f.grid.dr, grid.nr, grid.dr)
    for label in entry_labels(elements, "pair"):
        a, b = label.split("-")
        rphi[label] = HARTREE_BOHR * Z[a] * Z[b]
    source = "; ".join(dict.fromkeys(f.source for f in files))
    return _potential(_Tables(elements, grid, F, rho, rphi), elements, False, source)


def _read_funcfl(path: str | Path) -> _Funcfl:
    return reading(path, lambda lines: _funcfl(lines, _source(lines, path)))


def _funcfl(lines: list[str], source: str) -> _Funcfl:
    rest = _Lines(lines, 1)
    element = _funcfl_element(rest.next("atomic number and mass"))
    grid = _grid(rest.next(" ".join(GRID)), left_out=1)
    F = rest.table(grid.nrho, f"F of {element}")
    Z = rest.table(grid.nr, f"Z of {element}")
    rho = rest.table(grid.nr, f"rho of {element}")
    rest.end()
    return _Funcfl(element, grid, F, Z, rho, source)


def _funcfl_element(line: _Line) -> str:
    from ase.data import chemical_symbols

    first = line.words[0]
    if len(line.words) < 2 or not first.isdigit() or not 0 < int(first) < len(chemical_symbols):
        raise FileFormatError(
            f"line {line.number}: '{' '.join(line.words)[:60]}' must be: atomic number, mass, "
            "lattice constant, lattice type."
        )
    return chemical_symbols[int(first)]


def _common_grid(grids: Sequence[_Grid]) -> _Grid:
    dr = max(g.dr for g in grids)
    drho = max(g.drho for g in grids)
    longest = max((g.nr - 1) * g.dr for g in grids)
    densest = max((g.nrho - 1) * g.drho for g in grids)
    cutoff = max(g.cutoff for g in grids)
    nrho = int(densest / drho + 0.5)
    nr = int(longest / dr + 0.5)
    return _Grid(nrho, drho, nr, dr, cutoff)


def _resampled(values: np.ndarray, spacing: float, n: int, new_spacing: float) -> np.ndarray:
    """Values on another grid, by the cubic through the four knots around; at most two spacings beyond."""
    x = np.arange(n) * new_spacing / spacing
    k = np.clip(x.astype(int), 1, len(values) - 3)
    t = np.minimum(x - k, 2.0)
    before, here = values[k - 1], values[k]
    after, last = values[k + 1], values[k + 2]
    far = last * (t + 1) - before * (t - 2)
    outer = t * (t - 1) * far / 6
    close = here * (t - 1) - after * t
    inner = (t + 1) * (t - 2) * close / 2
    return outer + inner
