"""Files appear whole or not at all, and never in the place of another one unless asked for."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mdsens.errors import OutputExistsError


def check_free(path: str | Path, overwrite: bool = False) -> None:
    """Raise if something stands at `path`: before the work whose result goes there.

    Raises:
        OutputExistsError: it exists, and `overwrite` is False (a folder is never overwritten).
    """
    path = Path(path)
    if path.is_dir():
        raise OutputExistsError(f"'{path}' is a folder: name a file.")
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"'{path}' exists. Choose another name, remove it, or pass overwrite=True (--overwrite)."
        )


@contextmanager
def new_file(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A file to write to, which becomes `path` when the block ends without an error.

    Until then it stands beside `path` under another name with the same ending, so that a reader never sees
    half a file and a crash leaves the old one.

    Raises:
        OutputExistsError: `path` exists, and `overwrite` is False.
    """
    path = Path(path)
    check_free(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield unfinished
        check_free(path, overwrite)  # another process may have been faster
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
