"""What is finished of a batch, on disk: one file for each system, until one file holds them all.

    relaxed.h5.unfinished/
        3f0c...-silicon-17.h5    a system that is done, named by a hash of all that decides about it

Each file appears whole or not at all. A batch that was cut off finds them, and does the others. A system
whose structure, potential or settings have changed has another hash, and is done anew.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mdsens.arrays import fingerprint
from mdsens.errors import FileFormatError
from mdsens.io.files import check_free
from mdsens.io.hdf5 import read_hdf5, write_hdf5

ENDING = ".unfinished"
KIND = "one of a batch"


class Finished:
    """The folder beside the output of a batch.

    Args:
        output: the file that all will be in.
        overwrite: begin anew, and replace `output` at the end.
    Raises:
        OutputExistsError: the output exists, and `overwrite` is False.
    """

    def __init__(self, output: str | Path, overwrite: bool = False):
        self.output = Path(output)
        self.folder = self.output.with_name(self.output.name + ENDING)
        self.overwrite = overwrite
        check_free(self.output, overwrite)
        if overwrite:
            shutil.rmtree(self.folder, ignore_errors=True)

    def get(self, name: str, key: str) -> dict[str, Any] | None:
        """What was kept of a system; None: nothing, or a damaged file."""
        try:
            return read_hdf5(self._path(name, key), kind=KIND)
        except FileFormatError:
            return None

    def put(self, name: str, key: str, content: Mapping[str, Any]) -> None:
        """Keep a system."""
        write_hdf5(self._path(name, key), content, kind=KIND, overwrite=True)

    def gather(self, kind: str, content: Mapping[str, Any]) -> None:
        """All in one file; the folder has served its purpose."""
        write_hdf5(self.output, content, kind=kind, overwrite=self.overwrite)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str, key: str) -> Path:
        plain = re.sub(r"[^\w.-]+", "_", name)[:60]
        return self.folder / f"{key[:24]}-{plain}.h5"


def key_of(*parts: Any) -> str:
    """A hash of trees of arrays and of texts, the same in every process."""
    leaves, tree = jax.tree.flatten(parts)
    texts = [leaf for leaf in leaves if isinstance(leaf, str)]
    numbers = [leaf for leaf in leaves if not isinstance(leaf, str)]
    return fingerprint(numbers, str(tree), *texts)
