"""The potential of a task: a parameter set, a file, or an object, all of them kept as files.

A form that has a file of its own is written as TOML with every digit. Any other, such as a network, is named
by a function that builds it, `module:function`. What is kept is that name, and a hash of the class and the
numbers that came out, which each worker compares with its own: no file of the folder is executed.
"""

import functools
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mdsens.arrays import fingerprint
from mdsens.campaign.functions import imported, names_function
from mdsens.campaign.inputs import InputFile, InputSet
from mdsens.checks import existing_file
from mdsens.errors import CampaignError, InputError
from mdsens.potentials.base import Potential, require_potential
from mdsens.potentials.parameter_sets import available_potentials, load_potential
from mdsens.potentials.snap_files import COEFFICIENTS, SETTINGS
from mdsens.potentials.sums import SumPotential
from mdsens.potentials.toml_write import toml_text
from mdsens.quantities import concrete

BUILT = "potential.json"  # names the function that builds it


def potential_files(potential: Any) -> InputSet:
    """The files of a potential.

    Args:
        potential: the name of a parameter set, the path of a file, a `Potential` that has a file, the name of
            a function that builds one (`module:function`), or an `InputSet`.
    Raises:
        InputError: none of these; an unknown name (the nearest is suggested); a form that has no file, or a
            function that cannot be imported. FileFormatError: no such file.
    """
    match potential:
        case InputSet():
            return potential
        case str() if names_function(potential):
            return _built(potential)
        case str() | Path():
            return _files(tuple(_looked_at(path) for path in _with_companions(_path(potential))))
    return _made(require_potential(potential))


def potential_named(name: str | Path) -> Potential:
    """The potential of a parameter set, a file, or a function that builds one.

    Raises:
        InputError, FileFormatError: as `potential_files`.
    """
    built = isinstance(name, str) and names_function(name)
    return _build(str(name)) if built else load_potential(name)


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
    name = type(potential).__name__
    remedy = (
        f"the potential {name} is written to no file that a worker could read. Name a function that builds "
        "it, in a module that workers import: potential='my_module:my_function'."
    )
    if not _is_ours(potential):  # a file names the form, and a worker would not know where it is defined
        raise InputError(remedy)
    try:
        text = toml_text(potential)
    except InputError as error:
        raise InputError(remedy) from error
    return InputFile.made("potential.toml", text.encode())


def _is_ours(potential: Potential) -> bool:
    parts = potential.parts if isinstance(potential, SumPotential) else ()
    ours = type(potential).__module__.startswith("mdsens.")
    return ours and all(_is_ours(part) for part in parts)


# --- potentials that a function builds


@functools.lru_cache(8)
def _built(name: str) -> InputSet:
    digest = _digest(_build(name))
    content = json.dumps({"function": name, "digest": digest})
    return InputSet((InputFile.made(BUILT, content.encode(), digest),))


def _build(name: str) -> Potential:
    return concrete(require_potential(imported(name)()))


def _digest(potential: Potential) -> str:
    """A hash of class, settings and numbers, the same in each process."""
    leaves, tree = jax.tree.flatten(potential)
    # functions among the settings show the address where they lie
    settings = re.sub(r" at 0x[0-9a-f]+", "", str(tree))
    return fingerprint([np.asarray(leaf) for leaf in leaves], type(potential).__qualname__, settings)


@functools.lru_cache(8)
def _loaded(path: Path, digest: str) -> Potential:
    if path.name != BUILT:
        return load_potential(path)
    kept = json.loads(path.read_text(encoding="utf-8"))
    potential = _build(kept["function"])
    if _digest(potential) != kept["digest"]:
        raise CampaignError(
            f"'{kept['function']}' builds another potential on this worker than where the campaign was "
            "started: other weights, or another version of a package. Make them the same on all machines."
        )
    return potential


def load_placed(files: InputSet, out: Path) -> Potential:
    """The potential of a task, out of the campaign's folder; built once in each process.

    Raises:
        CampaignError: its function builds another one here. And what `InputSet.place` and `load_potential`
        raise.
    """
    return _loaded(files.place(out), files.digest)
