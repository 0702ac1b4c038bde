"""Structures of a plan: files, patterns of files, databases of ASE. What cannot be read is listed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdsens.checks import nearest
from mdsens.errors import FileFormatError, InputError, MDSensError
from mdsens.io.structures import read_structure, read_trajectory
from mdsens.structure import Structure

FROM_FILES = ("files", "tags")
FROM_DATABASE = ("database", "select", "tags")
PAIR = ("start", "end", "name", "tags")

Tags = dict[str, str | float]


@dataclass(frozen=True)
class NamedStructure:
    """Structures of one task, with what tables call them."""

    name: str
    structures: Mapping[str, Structure]
    tags: Mapping[str, str | float]

    @property
    def n_atoms(self) -> int:
        """Of all of them."""
        return sum(one.n_atoms for one in self.structures.values())


@dataclass
class PlannedStructures:
    """What was read, under names that are all different; and what could not be, file by file."""

    structures: list[NamedStructure] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, structures: Mapping[str, Structure], tags: Tags) -> None:
        """One more; a name that is taken gets a number."""
        times = self.names[name] = self.names.get(name, 0) + 1
        unique = name if times == 1 else f"{name}~{times}"
        self.structures.append(NamedStructure(unique, structures, tags))


def read_structures(content: Mapping[str, Any], folder: Path, columns: Sequence[str]) -> PlannedStructures:
    """All structures of a plan.

    Args:
        content: of the plan; its keys `structures` and `pairs` are read. columns: that the potential takes.
    Raises:
        InputError: an unknown key, or a pattern that no file fits.
    """
    found = PlannedStructures()
    for k, table in enumerate(_tables(content, "structures")):
        where = f"structures[{k}]"
        if "database" in table:
            known_keys(table, FROM_DATABASE, where)
            _read_database(found, table, where, folder, columns)
        else:
            known_keys(table, FROM_FILES, where)
            _read_files(found, table, where, folder, columns)
    for k, table in enumerate(_tables(content, "pairs")):
        known_keys(table, PAIR, f"pairs[{k}]")
        _read_pair(found, table, f"pairs[{k}]", folder, columns)
    return found


def _tables(content: Mapping[str, Any], key: str) -> Iterable[Mapping[str, Any]]:
    tables = content.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise InputError(f"{key}: write each as [[{key}]].")
    return tables


def known_keys(table: Any, known: Sequence[str], where: str) -> None:
    """Raise for a key that has no meaning.

    Raises:
        InputError: no table, or a key in it; the nearest is suggested.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"{where} = {table!r}: give a table.")
    for key in table:
        if key not in known:
            path = f"{where}.{key}" if where else key
            raise InputError(f"{path} is unknown.{nearest(key, known)} There are {', '.join(known)}.")


def _read_files(
    found: PlannedStructures, table: Mapping[str, Any], where: str, folder: Path, columns: Sequence[str]
) -> None:
    tags = _tags(table, where)
    for file in _files(table, where, folder):
        try:
            frames = read_trajectory(file, columns=columns)
        except (MDSensError, OSError) as error:
            found.unreadable[str(file)] = str(error)
            continue
        for k, frame in enumerate(frames):
            name = file.stem if len(frames) == 1 else f"{file.stem}-{k}"
            found.add(name, {"structure": frame}, tags)


def _files(table: Mapping[str, Any], where: str, folder: Path) -> list[Path]:
    given = table.get("files")
    patterns = [given] if isinstance(given, str) else given
    if not isinstance(patterns, list) or not patterns:
        raise InputError(
            f"{where}.files = {given!r}: give a file, a pattern such as 'defects/*.cif', or a list."
        )
    files: list[Path] = []
    for pattern in patterns:
        fitting = _fitting(folder, str(pattern))
        if not fitting:
            raise InputError(f"{where}.files: no file fits '{pattern}' in '{folder.absolute()}'.")
        files += fitting
    return files


def _fitting(folder: Path, pattern: str) -> list[Path]:
    plain = folder / pattern
    if not any(mark in pattern for mark in "*?["):
        return [plain]
    if Path(pattern).is_absolute():
        root = Path(pattern).anchor
        return sorted(Path(root).glob(str(Path(pattern).relative_to(root))))
    return sorted(folder.glob(pattern))


def _read_database(
    found: PlannedStructures, table: Mapping[str, Any], where: str, folder: Path, columns: Sequence[str]
) -> None:
    from ase.db import connect

    file = folder / str(table["database"])
    if not file.is_file():
        raise FileFormatError(f"{where}.database: no file '{file}'.")
    tags = _tags(table, where)
    try:
        rows = list(connect(file).select(table.get("select", "")))
    except Exception as error:  # whatever the database's own library raises
        raise FileFormatError(f"{where}.database: '{file}' cannot be read: {error}.") from error
    if not rows:
        raise InputError(f"{where}.select = '{table.get('select', '')}': no row of '{file}' fits.")
    for row in rows:
        name = f"{file.stem}-{row.id}"
        try:
            structure = Structure.from_ase(row.toatoms(), columns)
        except MDSensError as error:
            found.unreadable[f"{file}, row {row.id}"] = str(error)
            continue
        found.add(name, {"structure": structure}, {**_plain(row.key_value_pairs), **tags})


def _plain(pairs: Mapping[str, Any]) -> Tags:
    return {str(key): value if _is_tag(value) else str(value) for key, value in pairs.items()}


def _is_tag(value: Any) -> bool:
    return isinstance(value, (str, int, float))


def _read_pair(
    found: PlannedStructures, table: Mapping[str, Any], where: str, folder: Path, columns: Sequence[str]
) -> None:
    for key in ("start", "end"):
        if not isinstance(table.get(key), str):
            raise InputError(f"{where}.{key} is missing: name a file.")
    structures = {}
    for key in ("start", "end"):
        file = folder / table[key]
        try:
            structures[key] = read_structure(file, columns=columns)
        except (MDSensError, OSError) as error:
            found.unreadable[str(file)] = str(error)
            return
    stems = [Path(table[key]).stem for key in ("start", "end")]
    name = str(table.get("name") or "-".join(stems))
    found.add(name, structures, _tags(table, where))


def _tags(table: Mapping[str, Any], where: str) -> Tags:
    tags = table.get("tags", {})
    plain = isinstance(tags, Mapping) and all(map(_is_tag, tags.values()))
    if not plain:
        raise InputError(f"{where}.tags = {tags!r}: give a table of texts and numbers.")
    return dict(tags)
