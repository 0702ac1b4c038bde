"""Files appear whole or not at all, and never in the place of another one unless asked for."""

import os
import platform
import re
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mdsens.errors import MDSensError, OutputExistsError, WriteError

if TYPE_CHECKING:
    import h5py


def check_free(path: str | Path, overwrite: bool = False) -> None:
    """Raise if something stands at `path`: before the work whose result goes there.

    Raises:
        OutputExistsError: it exists, and `overwrite` is False. Folders, devices, pipes, sockets and links
            to nothing are never overwritten.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputExistsError(f"'{path}' is a folder: name a file.")
    if path.is_symlink() and not path.exists():
        raise OutputExistsError(f"'{path}' is a link to nothing: remove it, or choose another name.")
    if path.exists() and not path.is_file():
        raise OutputExistsError(f"'{path}' is a device, pipe or socket: only regular files are written.")
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"'{path}' exists. Choose another name, remove it, or pass overwrite=True (--overwrite)."
        )


@contextmanager
def new_file(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A file to write to, which becomes `path` when the block ends without an error.

    Until then it stands beside `path` under another name with the same ending, so that a reader never sees
    half a file and a crash leaves the old one. What a killed process left beside it is removed. A link stays
    a link: the file it points to is the one that is replaced.

    Raises:
        OutputExistsError: `path` exists, and `overwrite` is False.
        WriteError: the disk is full, or nothing may be written there. What stood at `path` stays as it was.
    """
    path = Path(path)
    check_free(path, overwrite)
    if path.is_symlink():
        path = path.resolve()
    with errors_in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        mark = f".{_machine()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        unfinished = path.with_name(f"{mark}-{path.name}")
        try:
            yield unfinished
            check_free(path, overwrite)  # another process may have been faster
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def new_hdf5(path: str | Path, overwrite: bool = False) -> Iterator["h5py.File"]:
    """A new HDF5 file to fill, which appears at `path` when the block ends without an error: as `new_file`.

    It is filled in memory and written at once: where the disk is full, HDF5 itself may take the process down.
    """
    import h5py

    with new_file(path, overwrite) as unfinished:
        with h5py.File(unfinished.name, "w", driver="core", backing_store=False) as file:
            yield file
            file.flush()
            content = file.id.get_file_image()
        unfinished.write_bytes(content)


@contextmanager
def errors_in_words(path: Path) -> Iterator[None]:
    """Errors of the system while `path` is written or removed say what to do.

    Raises:
        WriteError: the disk is full, or nothing may be written there.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, MDSensError):
            raise
        before = "what stood there stays as it was" if path.exists() else "nothing was left there"
        raise WriteError(
            f"'{path}' cannot be written, and {before}: {error}. Make room on the disk, or choose a folder "
            "that you may write to."
        ) from error


# An unfinished file carries the machine and the process that writes it: .machine.process.random-name


def _machine() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _remove_stale(path: Path) -> None:
    """Remove unfinished files for `path` whose process on this machine is dead."""
    pattern = re.compile(rf"\.{_machine()}\.(\d+)\.[0-9a-f]{{8}}-{re.escape(path.name)}")
    for other in path.parent.iterdir():
        match = pattern.fullmatch(other.name)
        if match and not is_alive(int(match[1])):
            other.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Whether a process of this machine runs; on Windows always."""
    if os.name != "posix":
        return True  # elsewhere the signal 0 would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # of another user
    return True
