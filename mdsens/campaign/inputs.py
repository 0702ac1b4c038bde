"""Files that a task needs, known by their content: potentials, data sets.

Each is copied once into the folder of the campaign, under a hash of what is in it. A task is then complete
without the place where the file lay, the folder may move, and a file that changes makes other tasks.

    out/inputs/3f0c9a.../si.sw
"""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mdsens.campaign.canonical import digest_of
from mdsens.checks import existing_file
from mdsens.errors import CampaignError, InputError
from mdsens.io.files import new_file

INPUTS = "inputs"


@dataclass(frozen=True)
class InputFile:
    """A file by its content.

    Attributes:
        name: without folders. digest: of the content.
        path: where it was found; nothing but its content counts.
        content: of what lies in no file.
    """

    name: str
    digest: str
    path: str = ""
    content: bytes | None = None

    @classmethod
    def read(cls, path: str | Path) -> "InputFile":
        """Of a file.

        Raises:
            FileFormatError: there is none.
        """
        found = existing_file(path).resolve()
        with found.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(found.name, digest, str(found))

    @classmethod
    def made(cls, name: str, content: bytes, digest: str = "") -> "InputFile":
        """Of content that lies in no file."""
        return cls(name, digest or hashlib.sha256(content).hexdigest(), content=content)

    def bytes(self) -> bytes:
        """The content.

        Raises:
            CampaignError: the file is not there. InputError: it holds something else by now.
        """
        if self.content is not None:
            return self.content
        if not self.path or not Path(self.path).is_file():
            raise CampaignError(
                f"the input file '{self.name}' is neither in the folder of the campaign nor at "
                f"'{self.path}' on this machine: start the campaign again where the file is."
            )
        content = Path(self.path).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise InputError(
                f"'{self.path}' has changed since its tasks were made: make them anew, or put the old file "
                "back."
            )
        return content


@dataclass(frozen=True)
class InputSet:
    """Files that belong together: the first is the one that is read, and it finds the others beside it."""

    files: tuple[InputFile, ...]

    @classmethod
    def of(cls, files: Sequence[InputFile]) -> "InputSet":
        """Of files with different names.

        Raises:
            InputError: two of one name.
        """
        names = [file.name for file in files]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise InputError(f"two input files of a task are called '{doubled.pop()}': rename one.")
        return cls(tuple(files))

    @functools.cached_property
    def digest(self) -> str:
        """A hash of names and contents."""
        return digest_of([[file.name, file.digest] for file in self.files])

    def place(self, out: Path) -> Path:
        """The first file, in the campaign's folder; those that are not there yet are written.

        Raises:
            CampaignError, InputError: as `InputFile.bytes`. WriteError: the disk is full.
        """
        folder = out / INPUTS / self.digest[:32]
        for file in self.files:
            path = folder / file.name
            if not path.is_file():
                content = file.bytes()
                with new_file(path, overwrite=True) as unfinished:
                    unfinished.write_bytes(content)
        return folder / self.files[0].name

    @property
    def light(self) -> "InputSet":
        """Without contents: what is sent to workers once the files are in the folder."""
        return InputSet(tuple(replace(file, content=None) for file in self.files))
