"""The potential of a task: a parameter set, a file, or an object, all of them kept as files.

A form that has a file of its own is written as TOML with every digit; any other, such as a network, is
pickled, and known by its class and its numbers.
"""

import functools
import pickle
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mdsens.arrays import fingerprint
from mdsens.campaign.inputs import InputFile, InputSet
from mdsens.checks import existing_file
from mdsens.errors import CampaignError, InputError
from mdsens.potentials.base import Potential, require_potential
from mdsens.potentials.parameter_sets import available_potentials, load_potential
from mdsens.potentials.snap_files import COEFFICIENTS, SETTINGS
from mdsens.potentials.sums import SumPotential
from mdsens.potentials.toml_write import toml_text
from mdsens.quantities import concrete

PICKLED = "potential.pickle"


def potential_files(potential: Any) -> InputSet:
    """The files of a potential.

    Args:
        potential: the name of a parameter set, the path of a file, a `Potential`, or an `InputSet`.
    Raises:
        InputError: none of these; an unknown name (the nearest is suggested); a form defined in the script
            itself, where no worker finds it. FileFormatError: no such file.
    """
    match potential:
        case InputSet():
            return potential
        case str() | Path():
            return _files(tuple(_looked_at(path) for path in _with_companions(_path(potential))))
    return _made(require_potential(potential))


def _path(name: str | Path) -> Path:
    known = _known()
    if str(name) in known:
        return known[str(name)]
    if not Path(name).is_file():
        load_potential(name)  # raises, and names what is alike
    return existing_file(name, "potential file").resolve()


@functools.cache
def _known() -> dict[str, Path]:
    return {record.name: record.file for record in available_potentials()}


def _with_companions(path: Path) -> list[Path]:
    if path.name.lower().endswith(COEFFICIENTS):
        return [path, existing_file(path.with_suffix(SETTINGS), "settings file")]
    return [path]


def _looked_at(path: Path) -> tuple[str, int, int]:
    """What tells whether a file has changed: a million tasks do not read it a million times."""
    looked = path.stat()
    return str(path), looked.st_mtime_ns, looked.st_size


@functools.lru_cache(64)
def _files(files: tuple[tuple[str, int, int], ...]) -> InputSet:
    return InputSet.of([InputFile.read(path) for path, _, _ in files])


_objects: dict[int, tuple[Potential, InputSet]] = {}  # of this process: tasks share their potentials


def _made(potential: Potential) -> InputSet:
    kept = _objects.get(id(potential))
    if kept is None or kept[0] is not potential:
        _objects.clear()
        kept = _objects[id(potential)] = potential, InputSet((_file_of(concrete(potential)),))
    return kept[1]


def _file_of(potential: Potential) -> InputFile:
    if not _is_ours(potential):  # a file names the form, and a worker would not know where it is defined
        return _pickled(potential)
    try:
        text = toml_text(potential)
    except InputError:
        return _pickled(potential)
    return InputFile.made("potential.toml", text.encode())


def _is_ours(potential: Potential) -> bool:
    parts = potential.parts if isinstance(potential, SumPotential) else ()
    ours = type(potential).__module__.startswith("mdsens.")
    return ours and all(_is_ours(part) for part in parts)


def _pickled(potential: Potential) -> InputFile:
    form = type(potential)
    if form.__module__ == "__main__":
        raise InputError(
            f"the potential {form.__name__} is defined in the script that runs, where no worker finds it: "
            "put its class into a file of its own, and import it."
        )
    leaves, tree = jax.tree.flatten(potential)
    digest = fingerprint([np.asarray(leaf) for leaf in leaves], form.__qualname__, str(tree))
    try:
        return InputFile.made(PICKLED, pickle.dumps(potential), digest)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InputError(
            f"the potential {form.__name__} can be sent to no worker: {error}. Write it to a file "
            "(mdsens.save_potential), or build it of plain numbers and functions of importable modules."
        ) from error


@functools.lru_cache(8)
def _loaded(path: Path, digest: str) -> Potential:
    if path.name != PICKLED:
        return load_potential(path)
    try:
        return pickle.loads(path.read_bytes())
    except (ImportError, AttributeError) as error:
        raise CampaignError(
            f"this worker cannot build the potential: {error}. Install the package that defines it on all "
            "workers, in one version."
        ) from error


def load_placed(files: InputSet, out: Path) -> Potential:
    """The potential of a task, out of the campaign's folder; built once in each process.

    Raises:
        CampaignError: its class is not installed here. And what `InputSet.place` and `load_potential` raise.
    """
    return _loaded(files.place(out), files.digest)
