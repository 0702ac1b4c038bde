"""Who computes a task, and how often a process died of it.

A process that begins a task leaves a file, and removes it when the task is finished:

    {"attempts": 2, "host": "node7", "pid": 4711, "began": 1790000000.0}

Its time of change is renewed while the process lives. A second process that finds it leaves the task alone,
or, if the first is dead, takes it over and counts one more. A task that has killed so many processes as are
allowed is not begun again: on a cluster such a task would kill every worker, one after the other.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mdsens.campaign.folder import CampaignFolder, cannot_write
from mdsens.io.files import is_alive

BEAT = 15.0  # s between signs of life
SILENT = 120.0  # s without one after which a process of another machine counts as dead
STUCK = 1800.0  # s without one after which a process of this machine does: its number may be another's by now


class Claimed(Exception):
    """Another process computes the task."""


class Exhausted(Exception):
    """The task has been begun too often; the argument says how often."""


@contextmanager
def claim(folder: CampaignFolder, key: str, most: int) -> Iterator[int]:
    """Begin a task, which is then nobody else's; gives the number of this attempt.

    The attempt is forgotten when the block ends, with an error or without: what it counts are deaths.

    Raises:
        Claimed: another process that lives has it. Exhausted: `most` processes began it, and died.
    """
    file = folder.attempt_file(key)
    before = _take_over(file)
    if before >= most:
        raise Exhausted(before)
    if not _write_new(file, before + 1):
        raise Claimed
    over = threading.Event()
    beat = threading.Thread(target=_signs_of_life, args=(file, over), daemon=True)
    beat.start()
    try:
        yield before + 1
    finally:
        over.set()
        file.unlink(missing_ok=True)


def running(folder: CampaignFolder) -> int:
    """Tasks that processes compute which live."""
    found = [(file, _read(file)) for file in folder.path.glob("tasks/??/*.attempt")]
    return sum(1 for file, content in found if content is not None and _lives(file, content))


def forgive(folder: CampaignFolder, key: str) -> None:
    """Do not count the attempt that is under way: its process was ended on purpose."""
    file = folder.attempt_file(key)
    content = _read(file)
    if content is not None:
        file.unlink(missing_ok=True)
        earlier = int(content.get("attempts", 1)) - 1
        if earlier > 0:
            _write_dead(file, earlier)


def _write_dead(file: Path, attempts: int) -> None:
    file.write_text(json.dumps({"attempts": attempts, "host": "", "pid": 0}))
    os.utime(file, (0, 0))  # silent since long


def _take_over(file: Path) -> int:
    """How many attempts died; their file is out of the way.

    Raises:
        Claimed: the last of them lives.
    """
    content = _read(file)
    if content is None:
        return 0
    if _lives(file, content):
        raise Claimed
    aside = file.with_name(f".{uuid.uuid4().hex[:12]}-{file.name}")
    try:
        os.rename(file, aside)  # of two that try, one succeeds
    except FileNotFoundError:
        raise Claimed from None
    aside.unlink(missing_ok=True)
    return int(content.get("attempts", 1))


def _lives(file: Path, content: dict[str, Any]) -> bool:
    try:
        silent = time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return True  # finished just now
    if content.get("host") == socket.gethostname():
        return is_alive(int(content.get("pid", 0))) and silent < STUCK
    return silent < SILENT


def _write_new(file: Path, attempts: int) -> bool:
    """Leave the file, unless one is there."""
    who = {"host": socket.gethostname(), "pid": os.getpid(), "began": time.time()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x") as new:
            json.dump({"attempts": attempts, **who}, new)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        file.unlink(missing_ok=True)
        raise cannot_write(file, error) from error


def _signs_of_life(file: Path, over: threading.Event) -> None:
    while not over.wait(BEAT):
        try:
            os.utime(file)
        except OSError:
            return


def _read(file: Path) -> dict[str, Any] | None:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}  # written just now
