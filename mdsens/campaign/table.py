"""What a campaign has come to: its state, its results one by one, and all numbers as one table.

Everything is read from files; no engine is needed, and the folder may lie anywhere.
"""

import csv
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdsens.batches.results import failures_of, texts
from mdsens.campaign.attempts import running
from mdsens.campaign.folder import CampaignFolder
from mdsens.campaign.receipts import DONE, FAILED, Receipt
from mdsens.campaign.worker import KIND
from mdsens.errors import CampaignError, InputError
from mdsens.io.files import new_file
from mdsens.io.hdf5 import Quantity, read_hdf5, write_hdf5

if TYPE_CHECKING:
    from rich.table import Table

Entry = dict[str, Any]  # a line of a list: key, name, kind, tags, params


# --- state


@dataclass(frozen=True)
class CampaignStatus:
    """How far a campaign is.

    Attributes:
        total: tasks that its folder knows. done, failed: of these.
        running: that processes compute now. seconds: that the results took together.
        failures: name -> why.
        last: of the driver that began last: done, cached, failed, seconds, ended; None: none ran.
    """

    total: int
    done: int
    failed: int
    running: int
    seconds: float
    failures: dict[str, str] = field(default_factory=dict)
    last: Mapping[str, Any] | None = None

    @property
    def left(self) -> int:
        """Tasks that are not finished."""
        return self.total - self.done - self.failed

    @property
    def rate(self) -> float:
        """Tasks a second of the last run; 0 where none was computed."""
        if self.last is None:
            return 0.0
        computed, seconds = self.last["done"], self.last["seconds"]
        return computed / seconds if seconds > 0 else 0.0

    @property
    def remaining(self) -> float:
        """Seconds for what is left, at this rate; inf where there is none."""
        if self.left == 0:
            return 0.0
        return self.left / self.rate if self.rate > 0 else float("inf")

    def table(self, most: int = 20) -> "Table":
        """As a table, with the first reasons of failure."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"{self.total} tasks", title_justify="left", show_header=False)
        for name, text in self._rows():
            table.add_row(name, text)
        for name, reason in list(self.failures.items())[:most]:
            first = reason.strip().splitlines()[0] if reason.strip() else ""
            table.add_row("failed:", Text(f"{name}: {first}"))
        if len(self.failures) > most:
            table.add_row("", f"and {len(self.failures) - most} more")
        return table

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "done", str(self.done)
        if self.last is not None:
            yield "cached in the last run", str(self.last["cached"])
        yield "failed", str(self.failed)
        yield "running", str(self.running)
        yield "left", str(self.left)
        yield "seconds of computation", f"{self.seconds:.1f}"
        if self.rate > 0:
            yield "tasks a second, last run", f"{self.rate:.3g}"
            yield "remaining at this rate", _duration(self.remaining)

    def __rich__(self) -> "Table":
        return self.table()


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def status(out: str | Path) -> CampaignStatus:
    """How far a campaign is; no engine needs to run.

    Raises:
        CampaignError: no folder of a campaign, or of another schema.
    """
    folder = CampaignFolder.there(out)
    total = done = failed = 0
    seconds = 0.0
    failures: dict[str, str] = {}
    for entry, receipt in _entries(folder):
        total += 1
        if receipt is None:
            continue
        done += receipt.status == DONE
        failed += receipt.status == FAILED
        seconds += receipt.seconds
        if receipt.status == FAILED:
            failures[entry["name"] or entry["key"][:12]] = receipt.error
    return CampaignStatus(total, done, failed, running(folder), seconds, failures, folder.last_run())


def _entries(folder: CampaignFolder) -> Iterator[tuple[Entry, Receipt | None]]:
    """Every task with its receipt: those of the lists, then those that were computed without a driver."""
    listed: set[str] = set()
    for entry in folder.listed():
        listed.add(entry["key"][:32])
        yield entry, folder.receipt(entry["key"])
    for receipt in folder.receipts():
        if receipt.key[:32] not in listed:
            about = {"key": receipt.key, "name": receipt.name, "kind": receipt.kind}
            yield {**about, "tags": dict(receipt.tags), "params": {}}, receipt


# --- results


@dataclass(frozen=True)
class CampaignResult:
    """A result with what is known of its task.

    Attributes:
        content: as `mdsens.read_hdf5` gives it: "names", "units", "values", "jacobian", "states", ...
    """

    key: str
    name: str
    kind: str
    tags: dict[str, Any]
    params: dict[str, float]
    receipt: Receipt
    content: dict[str, Any]

    @property
    def label(self) -> str:
        """The name, or the beginning of the key."""
        return self.name or self.key[:12]

    @property
    def values(self) -> dict[str, float]:
        """Numbers that were measured, by name; of a batch `content` has them.

        Raises:
            InputError: a task of this kind measures none.
        """
        if "values" not in self.content:
            raise InputError(f"'{self.label}' is a task '{self.kind}': it has no numbers with names.")
        numbers = np.asarray(self.content["values"]).tolist()
        return dict(zip(texts(self.content["names"]), numbers, strict=True))


def load(out: str | Path) -> Iterator[CampaignResult]:
    """Every result that is there, one after the other, in the order of the lists of tasks.

    Raises:
        CampaignError: no folder of a campaign, or of another schema. FileFormatError: a damaged result.
    """
    folder = CampaignFolder.there(out)
    for entry, receipt in _entries(folder):
        if receipt is not None and receipt.status == DONE:
            yield _result(folder, entry, receipt)


def _result(folder: CampaignFolder, entry: Entry, receipt: Receipt) -> CampaignResult:
    whole = read_hdf5(folder.result(entry["key"]), kind=KIND)
    params = whole["task"].get("params", {})
    values = {name: float(value) for name, value in params.items()}
    about = {name: entry[name] for name in ("key", "name", "kind", "tags")}
    return CampaignResult(**about, params=values, receipt=receipt, content=whole.get("result", {}))


# --- one table of all


@dataclass(frozen=True)
class CampaignTable:
    """Numbers of all tasks, column by column; a row for each task, and of batches for each structure.

    Attributes:
        columns: name -> values; texts, or numbers with NaN where there is none.
        units: name -> unit, of columns that have one.
    """

    columns: dict[str, np.ndarray]
    units: dict[str, str]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str) -> np.ndarray:
        """One of them.

        Raises:
            InputError: no such column.
        """
        if name not in self.columns:
            raise InputError(f"the table has no column '{name}'. There are {', '.join(self.columns)}.")
        return self.columns[name]

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """As .csv, .h5 or .parquet, which the ending says.

        Raises:
            InputError: another ending. CampaignError: .parquet without pyarrow. OutputExistsError.
        """
        path = Path(path)
        writer_of(path)(self, path, overwrite)


def collect(out: str | Path) -> CampaignTable:
    """All numbers of a campaign as one table; failed tasks are rows with their reason.

    Raises:
        CampaignError: no folder of a campaign, or one without a finished task. FileFormatError: a damaged
            result.
    """
    # the results are read twice: once to know rows and columns, once to fill them, so that no more is in
    # memory than the table itself
    kinds: dict[str, type] = {}
    units: dict[str, str] = {}
    count = 0
    for row, of_row in _rows(out):
        count += 1
        units.update(of_row)
        for name, value in row.items():
            text = isinstance(value, str) or kinds.get(name) is str
            kinds[name] = str if text else float
    if not count:
        raise CampaignError(f"'{out}' has no finished task yet: there is nothing to collect.")
    columns = {name: _empty(kinds[name], count) for name in _order(kinds)}
    for k, (row, _) in enumerate(_rows(out)):
        for name, value in row.items():
            columns[name][k] = value
    return CampaignTable(columns, units)


FIRST, LAST = ("task", "system"), ("status", "seconds", "error")


def _order(kinds: Mapping[str, type]) -> list[str]:
    middle = [name for name in kinds if name not in FIRST + LAST]
    ends = [[name for name in part if name in kinds] for part in (FIRST, LAST)]
    return [*ends[0], *middle, *ends[1]]


def _empty(kind: type, count: int) -> np.ndarray:
    return np.full(count, "", object) if kind is str else np.full(count, np.nan)


def _rows(out: str | Path) -> Iterator[tuple[Entry, dict[str, str]]]:
    """Rows with the units of their numbers."""
    folder = CampaignFolder.there(out)
    for entry, receipt in _entries(folder):
        if receipt is None:
            continue
        about = _about(entry, receipt)
        if receipt.status == FAILED:
            yield {**about, "error": receipt.error}, {}
            continue
        content = _result(folder, entry, receipt).content
        for numbers, units in _numbers(content):
            yield {**about, **numbers}, units


def _about(entry: Entry, receipt: Receipt) -> Entry:
    tags = {f"tag {name}": value for name, value in entry["tags"].items()}
    params = {f"set {name}": value for name, value in entry["params"].items()}
    about = {"task": entry["name"] or entry["key"][:12], **tags, **params}
    return {**about, "status": receipt.status, "seconds": receipt.seconds}


def _numbers(content: Mapping[str, Any]) -> Iterator[tuple[Entry, dict[str, str]]]:
    if "systems" in content:
        yield from _batch_rows(content)
    elif "values" in content:
        yield _measured_row(content)
    else:
        yield _plain_row(content), {}


def _measured_row(content: Mapping[str, Any]) -> tuple[Entry, dict[str, str]]:
    names, units = texts(content["names"]), texts(content["units"])
    values = np.asarray(content["values"]).tolist()
    row = dict(zip(names, values, strict=True))
    if "jacobian" in content:
        row |= _slopes(names, texts(content["parameters"]), np.asarray(content["jacobian"]))
    return row, dict(zip(names, units, strict=True))


def _slopes(names: tuple[str, ...], parameters: tuple[str, ...], jacobian: np.ndarray) -> Entry:
    heads = [f"d {name} / d {by}" for name in names for by in parameters]
    return dict(zip(heads, jacobian.reshape(-1).tolist(), strict=True))


def _batch_rows(content: Mapping[str, Any]) -> Iterator[tuple[Entry, dict[str, str]]]:
    outcomes = content["systems"]
    failures = failures_of(outcomes)
    for name in texts(content["order"]):
        kept = outcomes[name]
        if name in failures:
            yield {"system": name, "status": FAILED, "error": failures[name]}, {}
        elif "values" in kept:
            row, units = _measured_row(kept)
            yield {"system": name, **row}, units
        else:
            yield {"system": name, **_plain_row(kept)}, {}


def _plain_row(content: Mapping[str, Any]) -> Entry:
    """Single numbers of any content: energies, steps, losses."""
    row: Entry = {}
    for name, value in content.items():
        plain = value.value if isinstance(value, Quantity) else value
        if isinstance(value, Mapping):
            inside = _plain_row(value)
            row |= {f"{name}.{key}": number for key, number in inside.items()}
        elif isinstance(plain, (int, float, np.number)) or np.shape(plain) == ():
            row[name] = plain if isinstance(plain, str) else _number(plain)
    return row


def _number(value: Any) -> Any:
    array = np.asarray(value)
    return float(array) if array.dtype.kind in "biuf" else str(array)


# --- files


def writer_of(path: Path) -> Callable[[CampaignTable, Path, bool], None]:
    """What writes a table to a file of this name.

    Raises:
        InputError: another ending. CampaignError: .parquet without pyarrow.
    """
    if path.suffix not in WRITERS:
        raise InputError(f"'{path}': a table is written as {', '.join(WRITERS)}.")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise CampaignError(
            "a .parquet table needs pyarrow, which is not installed: pip install pyarrow, or write .csv or "
            ".h5."
        )
    return WRITERS[path.suffix]


def _heads(table: CampaignTable) -> list[str]:
    return [_head(name, table.units.get(name, "")) for name in table.columns]


def _head(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _write_csv(table: CampaignTable, path: Path, overwrite: bool) -> None:
    with new_file(path, overwrite) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_heads(table))
        for k in range(len(table)):
            writer.writerow([_cell(column[k]) for column in table.columns.values()])


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return "" if np.isnan(value) else repr(float(value))


def _write_hdf5(table: CampaignTable, path: Path, overwrite: bool) -> None:
    columns = {}
    for name, values in table.columns.items():
        plain = name.replace("/", "per")  # a slash is a path there
        unit = table.units.get(name, "")
        columns[plain] = Quantity(values, unit) if unit else values
    write_hdf5(path, {"columns": columns}, kind="table of a campaign", overwrite=overwrite)


def _write_parquet(table: CampaignTable, path: Path, overwrite: bool) -> None:
    pyarrow: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    arrays = [pyarrow.array(list(values)) for values in table.columns.values()]
    content = pyarrow.table(arrays, names=_heads(table))
    with new_file(path, overwrite) as unfinished:
        parquet.write_table(content, unfinished)


WRITERS = {".csv": _write_csv, ".h5": _write_hdf5, ".parquet": _write_parquet}
