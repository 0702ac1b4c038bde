"""A campaign as a file (TOML): structures x parameter sets, and what is computed of each.

kind = "sensitivity"                  # relax, observables, sensitivity, barrier, fit or flow
potential = "si-tersoff-1988-t3"      # a name, a file beside this one, or "module:function" that builds one
observables = ["energy", "volume"]
parameters = ["A", "B"]               # to differentiate by; default all
batch = 32                            # structures in a task, for tasks that are short; default one

[options]                             # of the computation
cell = "isotropic"                    # none, isotropic, full, or six of true and false
pressure = 0.0                        # GPa
fmax = 1e-8
solver = "auto"

[[structures]]
files = ["defects/*.cif", "bulk.extxyz"]        # each frame is a structure
tags = { family = "defects" }
[[structures]]
database = "all.db"                   # of ASE; its keys and values become tags
select = "natoms<100"

[fit]                                 # kind = "fit": as for `mdsens fit`; each fold is a task
config = "fit.toml"
folds = 5
seed = 0

[flow]                                # kind = "flow": as for `mdsens flow train`; each seed is a task
data = "frames.h5"
topology = "molecule.pdb"
seeds = [0, 1, 2]
steps = 1000

[[pairs]]                             # of barriers, instead of structures
start = "a.extxyz"
end = "b.extxyz"
tags = { hop = "first" }

[set]                                 # parameters that differ in all tasks
lambda = 21.0
[[sets]]                              # a list of parameter sets; `name` is what tables call it
name = "stiff"
epsilon = 2.3
[grid]                                # or each with each
epsilon = [2.0, 2.2]
sigma = [2.0, 2.1]
[samples]                             # or draws
covariance = "covariance.csv"         # or samples = "draws.csv": names in the first line
draws = 200
seed = 0

Paths are relative to the folder of the file.
"""

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mdsens.campaign.folder import chunks
from mdsens.campaign.inputs import InputSet
from mdsens.campaign.kinds import FLOW, kind_named
from mdsens.campaign.potentials import potential_files, potential_named
from mdsens.campaign.structures import NamedStructure, PlannedStructures, known_keys, read_structures
from mdsens.campaign.task import Task
from mdsens.checks import existing_file, whole
from mdsens.errors import FileFormatError, InputError
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import find_entries, replace_parameters
from mdsens.units import GPA

KEYS = (
    *("kind", "potential", "observables", "parameters", "batch", "options"),
    *("structures", "pairs", "set", "sets", "grid", "samples", "fit", "flow"),
)
FIT_KEYS = ("config", "folds", "seed")
FLOW_KEYS = ("data", "topology", "seeds", *FLOW)
SAMPLES = ("covariance", "samples", "draws", "seed")
BATCHED = ("relax", "observables", "sensitivity")


@dataclass(frozen=True)
class ParameterSet:
    """Parameters of a task, and what tables call them.

    Attributes:
        name: "" for the only one. values: by flat name. tags: for tables.
    """

    name: str
    values: Mapping[str, float]
    tags: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class CampaignPlan:
    """Tasks that are made while they are handed out: every row of structures with every parameter set.

    Attributes:
        kind, potential, options: of each task.
        rows: structures of a task, with its name and tags.
        sets: parameters.
        unreadable: file -> why; the others go on.
    """

    kind: str
    potential: InputSet | None
    options: Mapping[str, Any]
    rows: Sequence[NamedStructure]
    sets: Sequence[ParameterSet]
    unreadable: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.rows) * len(self.sets)

    def __iter__(self) -> Iterator[Task]:
        # those of one shape follow each other: they share what is compiled
        for row in self.rows:
            for one in self.sets:
                yield self._task(row, one)

    def _task(self, row: NamedStructure, one: ParameterSet) -> Task:
        name = "/".join(part for part in (row.name, one.name) if part)
        tags = {**row.tags, **one.tags}
        options = {"name": name, "tags": tags, "kind": self.kind, "params": one.values}
        return Task(row.structures, self.potential, options=self.options, **options)


@dataclass(frozen=True)
class ListedTasks:
    """Tasks that are there from the start; none of their files was left out."""

    tasks: Sequence[Task]
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)


def read_plan(path: str | Path) -> CampaignPlan | ListedTasks:
    """The campaign that a file describes; see the module.

    Raises:
        FileFormatError: no such file, or not TOML; no structure at all could be read.
        InputError: with the path of the key: unknown (the nearest is suggested), of another kind, missing.
    """
    path = existing_file(path, "plan")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"'{path}' is not TOML: {error}.") from error
    return plan_of(content, path.parent)


def plan_of(content: Mapping[str, Any], folder: str | Path = ".") -> CampaignPlan | ListedTasks:
    """The same, of a table that has been read; paths are relative to a folder."""
    folder = Path(folder)
    known_keys(content, KEYS, "")
    kind, potential = _text(content, "kind", "relax"), _text(content, "potential", "")
    kind_named(kind)
    if kind in LEARNING:
        return LEARNING[kind](content, folder)
    if not potential:
        raise InputError("potential is missing: give the name of a parameter set, or a file beside the plan.")
    form = potential_named(_beside(folder, potential))
    sets = parameter_sets(content, form, folder)
    found = read_structures(content, folder, form.columns)
    if not found.structures:
        _raise_nothing(found)
    options = _options(content)
    size = content.get("batch")
    rows: Sequence[NamedStructure] = found.structures
    if size is not None:
        kind, rows = _batched(kind, rows, whole("batch", size, at_least=1))
    files = potential_files(_beside(folder, potential))
    plan = CampaignPlan(kind, files, options, rows, sets, found.unreadable)
    next(iter(plan))  # an option that does not exist is said at once
    return plan


def _text(content: Mapping[str, Any], key: str, default: str) -> str:
    value = content.get(key, default)
    if not isinstance(value, str):
        raise InputError(f"{key} = {value!r}: give a text.")
    return value


def _beside(folder: Path, name: str) -> str | Path:
    return folder / name if (folder / name).is_file() else name


def _raise_nothing(found: PlannedStructures) -> None:
    first = list(found.unreadable.items())[:5]
    reasons = [f"'{file}': {why}" for file, why in first]
    hint = "; ".join(reasons) or "Add [[structures]] with files, or [[pairs]]."
    raise FileFormatError(f"the plan has no structure that can be read. {hint}")


def _options(content: Mapping[str, Any]) -> dict[str, Any]:
    """Options of each task; the pressure in GPa becomes eV/Å³."""
    options = dict(content.get("options", {}))
    if options.get("cell") == "none":
        options["cell"] = None
    if "pressure" in options:
        options["pressure"] = float(options["pressure"]) / GPA
    for key in ("observables", "parameters"):
        if key in content:
            options[key] = _texts(content[key], key)
    return options


def _texts(value: Any, key: str) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise InputError(f"{key} = {value!r}: give a list of names.")
    return items


def _batched(kind: str, structures: Sequence[NamedStructure], size: int) -> tuple[str, list[NamedStructure]]:
    """Buckets of structures of similar size, each a task."""
    if kind not in BATCHED:
        raise InputError(f"batch = {size}: tasks '{kind}' are not batched; {', '.join(BATCHED)} are.")
    order = sorted(structures, key=lambda one: one.n_atoms)
    rows = []
    for k, chunk in enumerate(chunks(order, size)):
        members = {one.name: one.structures["structure"] for one in chunk}
        rows.append(NamedStructure(f"batch-{k}", members, {}))
    return f"{kind}_batch", rows


# --- fits and flows


def _fits(content: Mapping[str, Any], folder: Path) -> ListedTasks:
    from mdsens.campaign.learning import fit_tasks

    table = _only(content, "fit", FIT_KEYS)
    if "config" not in table:
        raise InputError("fit.config is missing: name the configuration file of the fit.")
    folds, seed = table.get("folds", 1), table.get("seed", 0)
    return ListedTasks(fit_tasks(folder / table["config"], folds, seed=seed))


def _flows(content: Mapping[str, Any], folder: Path) -> ListedTasks:
    from mdsens.campaign.learning import flow_task

    table = dict(_only(content, "flow", FLOW_KEYS))
    for key in ("data", "topology"):
        if key not in table:
            raise InputError(f"flow.{key} is missing: name a file.")
    data, topology = folder / table.pop("data"), folder / table.pop("topology")
    seeds = table.pop("seeds", [table.pop("seed", 0)])
    if not isinstance(seeds, list) or not seeds:
        raise InputError(f"flow.seeds = {seeds!r}: give a list of whole numbers.")
    named = lambda seed: {"name": f"{data.stem}-{seed}", "tags": {"seed": seed}, "seed": seed}
    return ListedTasks([flow_task(data, topology, **named(seed), **table) for seed in seeds])


LEARNING = {"fit": _fits, "flow": _flows}


def _only(content: Mapping[str, Any], key: str, known: Sequence[str]) -> Mapping[str, Any]:
    """The table of a kind that has no structures."""
    more = [name for name in content if name not in ("kind", key)]
    if more:
        raise InputError(f"{more[0]} has no meaning for kind = '{key}': all of it stands in [{key}].")
    table = content.get(key, {})
    known_keys(table, known, key)
    return table


# --- parameter sets


def parameter_sets(content: Mapping[str, Any], form: Potential, folder: Path) -> list[ParameterSet]:
    """Every set of parameters of a plan; at least one, which may change nothing.

    Raises:
        InputError: a parameter that the potential does not have, or a value out of its bounds.
    """
    ways = [key for key in ("sets", "grid", "samples") if key in content]
    if len(ways) > 1:
        raise InputError(f"{' and '.join(ways)} are given: choose one way to make parameter sets.")
    common = _numbers(content.get("set", {}), "set")
    made = {"sets": _listed, "grid": _grid, "samples": _samples}
    sets = [ParameterSet("", {})]
    for way in ways:
        sets = made[way](content[way], form, folder)
    found = [ParameterSet(one.name, {**common, **one.values}, one.tags) for one in sets]
    _check_values(form, found)
    return found


def _check_values(form: Potential, sets: Sequence[ParameterSet]) -> None:
    """Raise for the first value that the potential does not take; there may be very many sets."""
    names = {name: None for one in sets for name in one.values}
    entries = dict(zip(names, find_entries(form, names), strict=True))
    for one in sets:
        for name, value in one.values.items():
            entry = entries[name]
            if not entry.lower < value < entry.upper:
                replace_parameters(form, one.values)  # raises, and says which


def _numbers(table: Any, where: str) -> dict[str, float]:
    if not isinstance(table, Mapping):
        raise InputError(f"{where} = {table!r}: give a table of numbers.")
    for name, value in table.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"{where}.{name} = {value!r}: give a number.")
    return {name: float(value) for name, value in table.items()}


def _listed(tables: Any, form: Potential, folder: Path) -> list[ParameterSet]:
    if not isinstance(tables, list):
        raise InputError("sets: write each as [[sets]].")
    sets = []
    for k, table in enumerate(tables):
        values = {name: value for name, value in table.items() if name != "name"}
        name = str(table.get("name", k))
        sets.append(ParameterSet(name, _numbers(values, f"sets[{k}]"), {"set": name}))
    return sets


def _grid(table: Any, form: Potential, folder: Path) -> list[ParameterSet]:
    axes = {}
    for name, values in dict(table).items():
        if not isinstance(values, list) or not values:
            raise InputError(f"grid.{name} = {values!r}: give a list of numbers.")
        axes[name] = list(_numbers(dict(enumerate(values)), f"grid.{name}").values())
    points = itertools.product(*axes.values())
    found = [dict(zip(axes, point, strict=True)) for point in points]
    return [ParameterSet(str(k), values) for k, values in enumerate(found)]


def _samples(table: Any, form: Potential, folder: Path) -> list[ParameterSet]:
    from mdsens.uncertainty.files import read_covariance, read_samples

    known_keys(table, SAMPLES, "samples")
    given = [key for key in ("covariance", "samples") if key in table]
    if len(given) != 1:
        raise InputError("samples: give either covariance or samples, a file with names in its first line.")
    read = read_covariance if given[0] == "covariance" else read_samples
    distribution = read(form, folder / table[given[0]])
    draws, seed = whole("samples.draws", table.get("draws", 100), at_least=1), table.get("seed", 0)
    rows = distribution.draw(draws, whole("samples.seed", seed))
    return [_drawn(k, distribution.names, row) for k, row in enumerate(rows)]


def _drawn(k: int, names: Sequence[str], row: np.ndarray) -> ParameterSet:
    return ParameterSet(f"{k:04d}", dict(zip(names, row.tolist(), strict=True)), {"draw": k})
