"""SNAP potentials from the files LAMMPS uses: coefficients (.snapcoeff) and settings (.snapparam).

After comments, a .snapcoeff file has a line with the number of elements and of coefficients; then for each
element a line with its symbol, radius and weight, and a line for each coefficient. A .snapparam file has a
line for each setting: its name and its value. Numbers are in LAMMPS' `metal` units (eV, Å).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mdsens.checks import existing_file, nearest
from mdsens.errors import FileFormatError, InputError
from mdsens.potentials.lammps_files import citation, reading
from mdsens.potentials.parameters import check_parameters
from mdsens.potentials.snap import SNAP
from mdsens.potentials.toml_files import wanted_elements

COEFFICIENTS, SETTINGS = ".snapcoeff", ".snapparam"


class _Line(NamedTuple):
    number: int
    words: list[str]

    def real(self, k: int, what: str) -> float:
        """The number in column k, from 0 on."""
        try:
            value = float(self.words[k].replace("D", "e").replace("d", "e"))
        except ValueError as error:
            raise self.error(k, f"'{self.words[k]}' stands where {what} belongs.") from error
        if not np.isfinite(value):
            raise self.error(k, f"{what} is {self.words[k]}; it must be finite.")
        return value

    def whole(self, k: int, what: str) -> int:
        value = self.real(k, what)
        if value != int(value) or value < 0:
            raise self.error(k, f"{what} is {self.words[k]}; it must be a whole number.")
        return int(value)

    def columns(self, names: Sequence[str]) -> None:
        if len(self.words) != len(names):
            raise FileFormatError(
                f"line {self.number}: {len(self.words)} columns; it must be {len(names)}: {', '.join(names)}."
            )

    def error(self, k: int, message: str) -> FileFormatError:
        return FileFormatError(f"line {self.number}, column {k + 1}: {message}")


class _Element(NamedTuple):
    radius: float
    weight: float
    beta: list[float]


def read_snap(
    path: str | Path, elements: Sequence[str] | None = None, *, settings: str | Path | None = None
) -> SNAP:
    """SNAP potential from a .snapcoeff and a .snapparam file (LAMMPS pair_style snap).

    Many of these potentials are the smaller part of a sum, whose larger part is `ZBL`: the .snap file that
    comes with them, or their paper, says which. Add it: `ZBL.of(["W"], 4.0, 4.8) + read_snap(...)`.

    Args:
        path: the .snapcoeff file.
        elements: chemical symbols wanted, in the order wanted; by default all that the file has.
        settings: the .snapparam file; by default the one of the same name beside it.
    Raises:
        FileFormatError: with line and column: another number of columns or coefficients, something that is
            no number, an unknown setting, one that is not supported. Without: no settings file.
        InputError: an element that the file does not have; with chemflag, others than all in their order.
    Source: LAMMPS documentation, pair_style snap.
    """
    path = existing_file(path, "potential file")
    given = reading(_settings_file(path) if settings is None else settings, _settings)
    there = reading(path, lambda lines: _elements(_filled(lines)))
    source = reading(path, lambda lines: _source(lines, path))
    wanted = wanted_elements(elements, tuple(there))
    if given.get("chem") and wanted != tuple(there):
        raise InputError(
            f"elements = {list(wanted)}: with chemflag the components belong to all triples of elements, and "
            f"these must be those of the file in its order: {', '.join(there)}."
        )
    chosen = [there[e] for e in wanted]
    beta = jnp.asarray([e.beta for e in chosen])
    given["beta"] = beta if len(wanted) > 1 else beta[0]
    given["radii"] = tuple(e.radius for e in chosen)
    given["weights"] = tuple(e.weight for e in chosen)
    try:
        potential = SNAP(elements=wanted, source=source, **given)
        check_parameters(potential)
    except InputError as error:
        raise FileFormatError(f"{path}: {error}") from error
    return potential


def _settings_file(path: Path) -> Path:
    """The settings that stand beside the coefficients."""
    beside = path.with_name(path.name[: -len(COEFFICIENTS)] + SETTINGS)
    if path.name.lower().endswith(COEFFICIENTS) and beside.is_file():
        return beside
    raise FileFormatError(
        f"{path}: the file of its settings, '{beside.name}', is not beside it. Name it: "
        f"mdsens.read_snap('{path.name}', settings='....snapparam')."
    )


def _source(lines: Sequence[str], path: Path) -> str:
    cited = (citation([line]) for line in lines[:5] if line.startswith("#"))
    return next(filter(None, cited), f"LAMMPS file {path.name}")


def _filled(lines: Sequence[str]) -> list[_Line]:
    """Lines with something other than a comment on them."""
    found = []
    for number, text in enumerate(lines, 1):
        content, _, _ = text.partition("#")
        if words := content.split():
            found.append(_Line(number, words))
    return found


# --- coefficients


def _elements(lines: list[_Line]) -> dict[str, _Element]:
    if not lines:
        raise FileFormatError("the file is empty.")
    head = lines[0]
    head.columns(("number of elements", "coefficients of each"))
    count = head.whole(0, "the number of elements")
    size = head.whole(1, "the number of coefficients")
    needed, following = count * (size + 1), len(lines) - 1
    if needed != following or not count or not size:
        raise FileFormatError(
            f"line {head.number}: {count} elements with {size} coefficients each take {needed} lines, and "
            f"{following} follow."
        )
    found: dict[str, _Element] = {}
    for k in range(count):
        start = 1 + k * (size + 1)
        symbol, element = _element(lines[start : start + size + 1], size)
        if symbol in found:
            raise lines[start].error(0, f"the element {symbol} stands twice.")
        found[symbol] = element
    return found


def _element(lines: list[_Line], size: int) -> tuple[str, _Element]:
    from ase.data import atomic_numbers

    head, *rest = lines
    head.columns(("element", "radius", "weight"))
    symbol = head.words[0]
    if symbol not in atomic_numbers:
        raise head.error(0, f"'{symbol}' is no chemical symbol; the {size} lines before it are coefficients.")
    beta = []
    for k, line in enumerate(rest):
        line.columns((f"coefficient {k} of {symbol}",))
        beta.append(line.real(0, f"coefficient {k} of {symbol}"))
    return symbol, _Element(head.real(1, "the radius"), head.real(2, "the weight"), beta)


# --- settings

NUMBERS = {"rcutfac": "rcutfac", "rfac0": "rfac0", "rmin0": "rmin0"}
FLAGS = {
    "switchflag": "switch",
    "bzeroflag": "bzero",
    "bnormflag": "bnorm",
    "quadraticflag": "quadratic",
    "chemflag": "chem",
    "wselfallflag": "wselfall",
}
IGNORED = ("chunksize", "parallelthresh")  # how LAMMPS divides its work
NEEDED = ("rcutfac", "twojmax")


def _settings(lines: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in _filled(lines):
        line.columns(("name of a setting", "value"))
        name = line.words[0]
        if name in NUMBERS:
            found[NUMBERS[name]] = line.real(1, name)
        elif name in FLAGS:
            found[FLAGS[name]] = _flag(line)
        elif name == "twojmax":
            found[name] = line.whole(1, name)
        elif name == "switchinnerflag":
            _refuse_inner(line)
        elif name not in IGNORED:
            known = [*NEEDED[1:], *NUMBERS, *FLAGS]
            raise line.error(0, f"unknown setting '{name}'.{nearest(name, known)} Known: {', '.join(known)}.")
    if missing := [name for name in NEEDED if name not in found]:
        raise FileFormatError(f"the setting {missing[0]} is missing: a line '{missing[0]} value'.")
    return found


def _flag(line: _Line) -> bool:
    if line.words[1] not in ("0", "1"):
        raise line.error(1, f"{line.words[0]} is {line.words[1]}; it must be 0 or 1.")
    return line.words[1] == "1"


def _refuse_inner(line: _Line) -> None:
    if _flag(line):
        raise line.error(0, "switchinnerflag 1 (neighbors that are switched off nearby) is not supported.")
