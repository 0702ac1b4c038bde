"""The folder of a campaign: all that has to outlive a process is a file here.

    campaign.json            which schema this is
    inputs/3f0c9a.../        potentials and data sets, by their content
    lists/8a61....jsonl      which tasks there are: key, name, tags, parameters; one a line
    tasks/5e/5e0b....h5      a result, named by the key of its task
    tasks/5e/5e0b....json    its receipt, also of a task that failed
    tasks/5e/5e0b....attempt who computes it, and how many began: gone when it is finished
    unfinished/5e0b.../      what a task writes while it runs
    runs/....json            when drivers ran, and how far they came

Files appear whole or not at all, and hold no path that leads outside: the folder may be moved. A million
tasks make 8 000 files in each of the 256 folders of tasks.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mdsens import __version__
from mdsens.campaign.canonical import digest_of
from mdsens.campaign.receipts import DONE, Receipt
from mdsens.errors import CampaignError, MDSensError, WriteError

FORMAT = "mdsens-campaign-1"
MARK = "campaign.json"


class CampaignFolder:
    """Names and small files of a campaign. `CampaignFolder.made` and `.there` give one."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def made(cls, path: str | Path) -> "CampaignFolder":
        """The folder, made if it is not there.

        Raises:
            CampaignError: it holds something else, or results of another schema. WriteError.
        """
        folder = cls(Path(path))
        if folder._others():
            raise CampaignError(
                f"'{path}' holds other files, and no campaign: name another folder, which may not exist yet."
            )
        if not folder._mark.is_file():
            folder.write(folder._mark, json.dumps({"format": FORMAT, "mdsens": __version__}))
        return cls.there(path)

    @classmethod
    def there(cls, path: str | Path) -> "CampaignFolder":
        """A folder that is there.

        Raises:
            CampaignError: there is none, it is no campaign, or of another schema.
        """
        folder = cls(Path(path))
        if not folder._mark.is_file():
            raise CampaignError(
                f"'{path}' is no folder of a campaign: it has no {MARK}. The path is relative to "
                f"{Path.cwd()}."
            )
        found = _json(folder._mark) or {}
        if found.get("format") != FORMAT:
            there, version = found.get("format"), found.get("mdsens")
            raise CampaignError(
                f"'{path}' holds the format '{there}' (written by mdsens {version}), and this is mdsens "
                f"{__version__} with '{FORMAT}': choose another folder, or read it with the version that "
                "wrote it."
            )
        return folder

    @property
    def _mark(self) -> Path:
        return self.path / MARK

    def _others(self) -> bool:
        """Whether something lies here that is no campaign."""
        if not self.path.exists() or self._mark.is_file():
            return False
        if not self.path.is_dir():
            return True
        there = [file.name for file in self.path.iterdir()]
        # another driver may be writing the mark at this moment
        return any(not name.endswith(MARK) for name in there) and not self._mark.is_file()

    # --- where things are

    def result_name(self, key: str) -> str:
        """Path of a result, from the folder."""
        return f"tasks/{key[:2]}/{key}.h5"

    def result(self, key: str) -> Path:
        """File of a result."""
        return self.path / self.result_name(key)

    def receipt_file(self, key: str) -> Path:
        """File of a receipt."""
        return self.result(key).with_suffix(".json")

    def attempt_file(self, key: str) -> Path:
        """File that is there while a task runs."""
        return self.result(key).with_suffix(".attempt")

    def scratch(self, key: str) -> Path:
        """Folder of a task while it runs."""
        return self.path / "unfinished" / key

    # --- receipts

    def receipt(self, key: str) -> Receipt | None:
        """Of a finished task; None: it is not finished, or its result has gone."""
        content = _json(self.receipt_file(key))
        if content is None:
            return None
        found = Receipt.from_dict(content)
        lost = found.status == DONE and not self.result(key).is_file()
        return None if lost else found

    def finish(self, receipt: Receipt) -> None:
        """Keep a receipt: from now on the task is finished.

        Raises:
            WriteError: the disk is full.
        """
        self.write(self.receipt_file(receipt.key), receipt.to_json())

    def forget(self, key: str) -> None:
        """Let a task begin anew: no receipt, no attempts."""
        for file in (self.receipt_file(key), self.attempt_file(key)):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.scratch(key), ignore_errors=True)

    def receipts(self) -> Iterator[Receipt]:
        """All of them."""
        for file in sorted(self.path.glob("tasks/??/*.json")):
            content = _json(file)
            if content is not None:
                yield Receipt.from_dict(content)

    # --- which tasks there are

    def keep_list(self, lines: list[dict[str, Any]]) -> None:
        """Keep a list of tasks; the same list twice is one file."""
        if lines:
            name = digest_of([line["key"] + line["name"] for line in lines])[:32]
            file = self.path / "lists" / f"{name}.jsonl"
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            if not file.is_file():
                self.write(file, text)

    def listed(self) -> Iterator[dict[str, Any]]:
        """Every task of every list once: a key with a name."""
        seen: set[tuple[str, str]] = set()
        for file in sorted(self.path.glob("lists/*.jsonl"), key=_age):
            for line in file.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                mark = entry["key"][:32], entry["name"]
                if mark not in seen:
                    seen.add(mark)
                    yield entry

    # --- runs

    def keep_run(self, name: str, content: dict[str, Any]) -> None:
        """Keep how far a driver has come."""
        self.write(self.path / "runs" / f"{name}.json", json.dumps(content))

    def last_run(self) -> dict[str, Any] | None:
        """Of the driver that began last."""
        runs = [content for file in self.path.glob("runs/*.json") if (content := _json(file))]
        return max(runs, key=lambda run: run["began"], default=None)

    # --- files that appear whole

    def write(self, path: Path, text: str) -> None:
        """A small text file.

        Raises:
            WriteError: the disk is full, or nothing may be written there.
        """
        # not `new_file`, which looks through the folder for what dead processes left: there may be thousands
        with whole(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write, which becomes `path` at the end; what stood there is replaced.

    Raises:
        WriteError: the disk is full, or nothing may be written there.
    """
    unfinished = path.with_name(f".{uuid.uuid4().hex[:12]}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        if isinstance(error, MDSensError):
            raise
        raise cannot_write(path, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> WriteError:
    """The error of a full disk, or of a folder of somebody else."""
    return WriteError(
        f"'{path}' cannot be written: {error}. Make room on the disk, or choose a folder that you may write "
        "to. What is finished stays, and the same campaign goes on from there."
    )


def _json(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, NotADirectoryError):
        return None


def _age(file: Path) -> tuple[float, str]:
    return file.stat().st_mtime, file.name


def chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Items in lists of this size; the last may be shorter."""
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
