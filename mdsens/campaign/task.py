"""A task of a campaign: plain data, and the name of its result, which is a hash of them.

A task says what decides about its result, and nothing else: structures, potential, parameters, options, the
kind of computation, its precision and the version of what is written. Where it runs, and what a user calls
it, are no part of the hash: the same task asked for twice is computed once.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mdsens.campaign.canonical import canonical, digest_of
from mdsens.campaign.inputs import InputSet
from mdsens.campaign.kinds import kind_named
from mdsens.campaign.potentials import potential_files
from mdsens.checks import instance, nearest, number
from mdsens.errors import InputError
from mdsens.precision import require_x64
from mdsens.structure import Structure, require_structure

SCHEMA = 1  # of results; another number makes all keys new
PRECISION = "float64"
ARRAYS = ("positions", "cell", "species", "masses", "fixed", "charges")

PlainStructure = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One computation of a campaign, as plain data that any engine can send.

    Attributes:
        structure: one, or several by name ("start" and "end" of a barrier, "bulk" and "defect" of a formation
            energy, the rows of a batch).
        potential: the name of a parameter set, the path of a file, a `Potential` that has a file, or the name
            of a function that builds any other, "module:function".
        params: parameters that differ from the potential's, by flat name.
        options: of the computation: keywords of `mdsens.relax` (solvers by name), `observables`,
            `parameters`, `mode`; of a barrier those of `mdsens.barrier`.
        kind: "relax", "observables", "sensitivity", "barrier", "gaussian"; with "_batch" each structure is a
            row for itself; or a function of yours, "module:function".
        files: further files that the kind reads, by the name it gives them.
        name: what you call it; tags: texts and numbers that go into tables. No part of the key.
    Raises:
        InputError: an unknown kind or option (the nearest is suggested), a value that is no plain data,
            missing structures, potential or options. FileFormatError: no such file. PrecisionError: float64
            is off.
    """

    structure: Any = None
    potential: Any = None
    params: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "relax"
    files: Mapping[str, InputSet] = field(default_factory=dict)
    name: str = ""
    tags: Mapping[str, str | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = functools.partial(object.__setattr__, self)
        put("structure", _plain_structures(self.structure))
        if self.potential is not None:
            put("potential", potential_files(self.potential))
        put("params", _numbers(self.params))
        put("options", dict(self.options))
        put("tags", dict(self.tags))
        _check(self)

    @functools.cached_property
    def key(self) -> str:
        """Name of the result: SHA-256, 64 hexadecimal digits."""
        parts = {
            "schema": SCHEMA,
            "precision": PRECISION,
            "kind": self.kind,
            "structure": self.structure,
            "potential": self.potential and self.potential.digest,
            "params": self.params,
            "options": self.options,
            "files": {name: files.digest for name, files in self.files.items()},
        }
        return digest_of(parts)

    @property
    def label(self) -> str:
        """The name, or the beginning of the key."""
        return self.name or self.key[:12]

    def structures(self) -> dict[str, Structure]:
        """The structures, on the device of this process."""
        return {name: Structure.create(**plain) for name, plain in self.structure.items()}

    def placed(self, out: Path) -> "Task":
        """The same task, with its files in the folder of the campaign, and light to send.

        Raises:
            CampaignError, InputError, WriteError: as `InputSet.place`.
        """
        sets = [*self.files.values(), *([self.potential] if self.potential else [])]
        for files in sets:
            files.place(out)
        light = {name: files.light for name, files in self.files.items()}
        task = replace(self, potential=self.potential and self.potential.light, files=light)
        task.__dict__["key"] = self.key
        return task


def _numbers(params: Mapping[str, float]) -> dict[str, float]:
    return {str(name): number(f"params.{name}", value) for name, value in params.items()}


def _plain_structures(given: Any) -> dict[str, PlainStructure]:
    if given is None:
        return {}
    named = given if isinstance(given, Mapping) else {"structure": given}
    return {str(name): _plain(name, structure) for name, structure in named.items()}


def _plain(name: Any, structure: Any) -> PlainStructure:
    if isinstance(structure, Mapping):  # plain already
        return dict(structure)
    require_x64()  # else its numbers are rounded to seven digits already
    require_structure(structure, f"the structure '{name}'")
    values = {key: getattr(structure, key) for key in ARRAYS}
    arrays = {key: np.asarray(value) for key, value in values.items() if value is not None}
    columns = {key: np.asarray(value) for key, value in structure.columns.items()}
    return {**arrays, "pbc": tuple(structure.pbc), **({"columns": columns} if columns else {})}


def _check(task: Task) -> None:
    kind = kind_named(task.kind)
    canonical(task.options, "options")
    canonical(task.tags, "tags")
    instance("name", task.name, str, "Give a text.")
    if kind is None:
        return
    for name in task.options:
        if name not in kind.options:
            hint, known = nearest(name, kind.options), ", ".join(kind.options)
            raise InputError(f"'{name}' is no option of a task '{task.kind}'.{hint} There are {known}.")
    if kind.needs_potential and task.potential is None:
        raise InputError(f"a task '{task.kind}' needs a potential: a name, a file, or an object.")
    _check_structures(task, kind.structures)
    for name in kind.needs:
        if not task.options.get(name):
            raise InputError(f"a task '{task.kind}' needs the option '{name}': options={{'{name}': ...}}.")


def _check_structures(task: Task, wanted: tuple[str, ...] | None) -> None:
    names = set(task.structure)
    if wanted is None and not names:
        raise InputError(f"a task '{task.kind}' needs a structure, or several by name.")
    if wanted is not None and names != set(wanted):
        takes = " and ".join(wanted) or "nothing: it has none"
        given = ", ".join(sorted(names)) or "none"
        raise InputError(f"a task '{task.kind}' takes structures called {takes}, and {given} were given.")
