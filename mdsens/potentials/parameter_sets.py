"""Parameter sets as data: found by name or read from a file, shown as a table, written back.

Functional forms are classes in mdsens/potentials. The numbers that go into them are files in potentials/, one
a set, each with the source of its numbers.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mdsens.checks import existing_file, nearest
from mdsens.errors import FileFormatError, InputError
from mdsens.io.files import new_file
from mdsens.potentials.angle_files import read_edip, read_vashishta
from mdsens.potentials.base import Potential, require_potential
from mdsens.potentials.eam_files import read_eam_alloy, read_eam_fs, read_eam_funcfl, read_eam_he
from mdsens.potentials.lammps_files import read_sw
from mdsens.potentials.networks import read_yace
from mdsens.potentials.openmm_files import read_openmm_file
from mdsens.potentials.parameters import (
    MANY,
    Entry,
    FieldPath,
    ParameterArray,
    follow_path,
    parameter_arrays,
)
from mdsens.potentials.snap_files import read_snap
from mdsens.potentials.tersoff_files import (
    read_tersoff,
    read_tersoff_mod,
    read_tersoff_modc,
    read_tersoff_zbl,
)
from mdsens.potentials.toml_files import read_toml, toml_content
from mdsens.potentials.toml_write import toml_text
from mdsens.precision import require_x64

if TYPE_CHECKING:
    from rich.table import Table

# Readers by the ending of the file's name; each takes the path and the elements wanted.
READERS: dict[str, Callable[..., Potential]] = {
    ".toml": read_toml,
    ".sw": read_sw,
    ".alloy": read_eam_alloy,
    ".setfl": read_eam_alloy,
    ".fs": read_eam_fs,
    ".he": read_eam_he,
    ".eam": read_eam_funcfl,
    ".funcfl": read_eam_funcfl,
    ".edip": read_edip,
    ".vashishta": read_vashishta,
    ".snapcoeff": read_snap,
    ".tersoff": read_tersoff,
    ".tersoff.zbl": read_tersoff_zbl,
    ".tersoff.mod": read_tersoff_mod,
    ".tersoff.modc": read_tersoff_modc,
    ".xml": read_openmm_file,
    ".yace": read_yace,
}
# whose files may call elements by names that are no symbols
WITH_NAMES = (".sw", ".edip", ".vashishta", ".tersoff", ".tersoff.zbl", ".tersoff.mod", ".tersoff.modc")


class PotentialRecord(NamedTuple):
    """A parameter set that `load_potential` finds by name; no elements: the form does not look at species."""

    name: str
    form: str
    elements: tuple[str, ...]
    source: str
    file: Path


def load_potential(
    name_or_path: str | Path, elements: Sequence[str] | Mapping[str, str] | None = None
) -> Potential:
    """A potential from a parameter set known by name, or from a file.

    Args:
        name_or_path: a name out of `available_potentials()`, or a file: .toml (as `save_potential` writes
            it), and of LAMMPS .sw (Stillinger-Weber), .eam.alloy, .eam.fs, .eam.he and .eam (embedded
            atoms), .tersoff, .tersoff.zbl, .tersoff.mod and .tersoff.modc, .edip, .vashishta, .snapcoeff with
            .snapparam beside it (SNAP), and .yace (cluster expansions, by `from_ace_jax`); of OpenMM .xml
            (a System, see `read_openmm`).
        elements: chemical symbols wanted, in the order wanted; by default all the set has. Of a file that has
            an entry for every three elements, under names that are no symbols: {"Si": "Si(B)"} takes Si(B)
            of the file for Si.
    Raises:
        InputError: unknown name (the nearest is suggested), an element the set does not have, names for a
            file that has symbols only.
        FileFormatError: no such file, or one that is not what its name says.
        PrecisionError: float64 is off, and the parameters would be rounded to seven digits.
    """
    require_x64()
    path = Path(name_or_path)
    endings = ", ".join(READERS)
    for ending, reader in READERS.items():
        if path.name.lower().endswith(ending):
            wanted = elements if ending in WITH_NAMES else _symbols(elements, ending)
            return reader(existing_file(path, "potential file"), wanted)
    if path.is_file() or len(path.parts) > 1:
        raise FileFormatError(
            f"the name of '{path}' does not tell its format: it must end in one of {endings}."
        )
    known = {record.name: record.file for record in available_potentials()}
    if str(name_or_path) not in known:
        raise InputError(
            f"no parameter set is called '{name_or_path}'.{nearest(str(name_or_path), known)} "
            f"There are {', '.join(known)}. A file is found by its path, which must end in one of {endings}."
        )
    return read_toml(known[str(name_or_path)], _symbols(elements, ".toml"))


def _symbols(elements: Sequence[str] | Mapping[str, str] | None, ending: str) -> Sequence[str] | None:
    if isinstance(elements, Mapping):
        raise InputError(
            f"elements = {elements}: a {ending} file knows its elements by their symbols. Give a list of "
            f"these, {list(elements)}; names are for {', '.join(WITH_NAMES)}."
        )
    return elements


def available_potentials() -> list[PotentialRecord]:
    """The parameter sets that come with mdsens, sorted by name.

    Raises:
        FileFormatError: the sets are missing from this installation, or one of them is not TOML.
    """
    return [_record(file, toml_content(file)) for file in sorted(_folder().glob("*.toml"))]


def _record(file: Path, content: Mapping[str, Any]) -> PotentialRecord:
    parts = content.get("parts", [content])  # of a sum each states its own
    elements = tuple(dict.fromkeys(e for part in parts for e in part.get("elements", ())))
    source = "; ".join(dict.fromkeys(part["source"] for part in parts))
    return PotentialRecord(file.stem, content["form"], elements, source, file)


def _folder() -> Path:
    # A wheel carries the folder inside the package; a source checkout has it beside the package.
    package = Path(__file__).parents[1]
    places = (package / "_potentials", package.parent / "potentials")
    for place in places:
        if place.is_dir():
            return place
    raise FileFormatError(
        f"the parameter sets are missing: there is no folder {places[0]} or {places[1]}. Install mdsens "
        "again."
    )


def save_potential(potential: Potential, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a potential to a file, every digit of it, for `load_potential` and for LAMMPS.

    Args:
        path: its ending says the format: .toml for any form of mdsens; and for LAMMPS .sw, .tersoff,
            .tersoff.zbl, .tersoff.mod, .tersoff.modc, .eam.alloy, .eam.fs, .eam.he, or .snapcoeff, which
            writes .snapparam beside it.
    Raises:
        InputError: another ending, one that belongs to another form, or a potential that is more than numbers
            (such as `JaxMDPotential`).
        OutputExistsError: the file exists, and `overwrite` is False.
    """
    path = Path(path)
    for file, text in _texts(potential, path).items():
        with new_file(file, overwrite) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def _texts(potential: Potential, path: Path) -> dict[Path, str]:
    from mdsens.potentials.lammps_write import WRITERS, lammps_texts

    require_potential(potential)
    if path.suffix == ".toml":
        return {path: toml_text(potential)}
    if path.name.lower().endswith(tuple(WRITERS)):
        return lammps_texts(potential, path)
    endings = ", ".join(WRITERS)
    raise InputError(
        f"save_potential writes TOML, or files of LAMMPS, and '{path.name}' does not end in .toml or one of "
        f"{endings}."
    )


# --- a table to look at
# ------------------------------------------------------------------------------------------


class ParameterRow(NamedTuple):
    """One number: `bounds` is the open interval in which the form has a meaning."""

    name: str
    value: float
    unit: str
    bounds: tuple[float, float]
    description: str
    source: str
    array: str = ""  # what the name is without the place in an array: "rho[Cu]" of "rho[Cu][17]"


class ParameterTable(NamedTuple):
    """The parameters of a potential; `print` and rich show it as a table."""

    form: str
    elements: tuple[str, ...]
    rows: tuple[ParameterRow, ...]

    @property
    def title(self) -> str:
        return f"{self.form} ({', '.join(self.elements)})" if self.elements else self.form

    def __str__(self) -> str:
        cells = [HEADER, *(_cells(row) for row in self._shown())]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = []
        for line in cells:
            padded = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
            padded[1] = line[1].rjust(widths[1])
            lines.append("  ".join(padded).rstrip())
        header, *rows = lines
        rule = "-" * max(map(len, lines))
        return "\n".join([self.title, header, rule, *rows, *self._sources()])

    def __rich__(self) -> "Table":
        from rich.table import Table

        table = Table(title=self.title, caption="\n".join(self._sources()) or None)
        for k, name in enumerate(HEADER):
            table.add_column(name, justify="right" if k == 1 else "left", no_wrap=k < 2)
        for row in self._shown():
            # names hold brackets, rich's own mark
            table.add_row(*(text.replace("[", r"\[") for text in _cells(row)))
        return table

    def _shown(self) -> list["ParameterRow"]:
        # a long array, such as the knots of a spline, by its two ends and the count of what lies between
        shown = []
        for _, group in itertools.groupby(self.rows, key=lambda row: row.array or row.name):
            rows = list(group)
            if len(rows) > LONG:
                first, *between, last = rows
                rows = [first, _left_out(first, len(between)), last]
            shown += rows
        return shown

    def _sources(self) -> list[str]:
        return [f"source: {source}" for source in dict.fromkeys(row.source for row in self.rows) if source]


LONG = 8  # numbers of an array above which only its ends are shown
HEADER = ("parameter", "value", "unit", "bounds", "description")


def _cells(row: ParameterRow) -> tuple[str, ...]:
    value = "" if math.isnan(row.value) else f"{row.value:.10g}"
    return row.name, value, row.unit, _bounds(*row.bounds), row.description


def _bounds(lower: float, upper: float) -> str:
    match math.isinf(lower), math.isinf(upper):
        case True, True:
            return "any"
        case False, True:
            return f"> {lower:g}"
        case True, False:
            return f"< {upper:g}"
    return f"{lower:g} to {upper:g}"


def parameter_table(potential: Potential) -> ParameterTable:
    """Names, values, units, bounds and sources of all parameters; print it to look at it.

    Of an array of more than 10 000 numbers, as the weights of a network, the two ends stand for all.
    """
    rows = tuple(row for array in parameter_arrays(potential) for row in _array_rows(potential, array))
    return ParameterTable(type(potential).__name__, tuple(potential.elements), rows)


def _array_rows(potential: Potential, array: ParameterArray) -> list[ParameterRow]:
    values = np.asarray(array.values)
    row_at = lambda place: _row(potential, array.entry(place), float(values[place]))
    if values.size <= MANY:
        return [row_at(place) for place in np.ndindex(values.shape)]
    # weights of a network: the two ends, and how many lie between
    first = row_at((0,) * values.ndim)
    last = row_at(tuple(n - 1 for n in values.shape))
    return [first, _left_out(first, values.size - 2), last]


def _left_out(row: ParameterRow, count: int) -> ParameterRow:
    return row._replace(name=f"  ... {count} more", value=math.nan)


def _row(potential: Potential, entry: Entry, value: float) -> ParameterRow:
    source = _source(potential, entry.path)
    bounds = entry.lower, entry.upper
    return ParameterRow(entry.name, value, entry.unit, bounds, entry.text, source, entry.array)


def _source(potential: Potential, path: FieldPath) -> str:
    # the source stated nearest to the parameter: potentials may be made of potentials
    modules = [follow_path(potential, path[:k]) for k in range(len(path))]
    return next((source for m in reversed(modules) if (source := getattr(m, "source", ""))), "")
