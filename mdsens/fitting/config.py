"""A fit as a configuration file (TOML).

potential = "si-stillinger-weber-1985"       # a name or a file: the form, and where the fit starts
free = ["epsilon", "sigma", "lambda"]        # names or patterns; default all
frozen = ["q"]
ties = [["gamma*"]]                          # each drives its parameters by one variable
scale = { costheta0 = "linear" }             # or one text for all

[set]                                        # other values to start from
lambda = 25.0

[bounds]
epsilon = [1.0, 3.0]

[priors]                                     # mean and width
sigma = [2.0951, 0.05]

[structures.bulk]
file = "si.extxyz"                           # relative to the folder of this file
cell = "isotropic"                           # none, isotropic, full, or six of true and false
pressure = 0.0                               # GPa

[structures.saddle]
file = "saddle.extxyz"                       # near a saddle point, such as `mdsens barrier` finds
saddle = true                                # climbed to; a "barrier" is from [structures.initial]

[[targets]]
observable = "C11"
value = 165.8                                # in the unit of the observable
tolerance = 2.0
on = "bulk"

[data]                                       # labels to match as well: see mdsens.fitting.data_config
file = "forces.extxyz"

[fit]
max_steps = 50
radius = 0.3
tolerance = 1e-9
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mdsens.checks import existing_file
from mdsens.datasets.dataset import Dataset
from mdsens.errors import FileFormatError, InputError
from mdsens.fitting.data_config import check_keys, configured_data
from mdsens.fitting.space import ParameterSpace
from mdsens.fitting.targets import RelaxedTargets, Target, TargetStructure
from mdsens.fitting.terms import FitTerm
from mdsens.io.structures import read_structure
from mdsens.potentials.base import Potential
from mdsens.potentials.parameter_sets import load_potential
from mdsens.potentials.parameters import replace_parameters
from mdsens.relaxation.coordinates import strain_basis
from mdsens.units import GPA

NUMBER = (float, int)
KEYS: dict[str, tuple[type, ...]] = {
    "potential": (str,),
    "free": (str, list),
    "frozen": (str, list),
    "ties": (list,),
    "scale": (str, dict),
    "set": (dict,),
    "bounds": (dict,),
    "priors": (dict,),
    "structures": (dict,),
    "targets": (list,),
    "data": (dict,),
    "fit": (dict,),
}
STRUCTURE: dict[str, tuple[type, ...]] = {
    "file": (str,),
    "cell": (str, list),
    "pressure": NUMBER,
    "fmax": NUMBER,
    "saddle": (bool,),
}
TARGET: dict[str, tuple[type, ...]] = {
    "observable": (str,),
    "value": NUMBER,
    "tolerance": NUMBER,
    "on": (str,),
    "bulk": (str,),
}
FIT: dict[str, tuple[type, ...]] = {"max_steps": (int,), "radius": NUMBER, "tolerance": NUMBER}


class FitConfig(NamedTuple):
    """What a configuration file comes to.

    Attributes:
        space: what is free. terms: what is made small. options: of `fit`.
        test: data that the fit does not see; may be empty.
    """

    space: ParameterSpace
    terms: list[FitTerm]
    options: dict[str, Any]
    test: Dataset


def read_fit_config(path: str | Path, notice: Callable[[str], None] | None = None) -> FitConfig:
    """The fit that a configuration file describes; see the module.

    Args:
        notice: called with a sentence on labels of data that are missing; by default a warning.
    Raises:
        FileFormatError: no such file, or not TOML; a structure or data that cannot be read.
        InputError: with the path of the key: unknown, of another kind, missing, or without meaning.
    """
    path = existing_file(path, "configuration file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"'{path}' is not TOML: {error}.") from error
    return fit_config(content, path.parent, notice)


def fit_config(
    content: Mapping[str, Any], folder: str | Path = ".", notice: Callable[[str], None] | None = None
) -> FitConfig:
    """The same of content that has been read; paths are relative to a folder."""
    folder = Path(folder)
    check_keys(content, KEYS, "")
    options = content.get("fit", {})
    check_keys(options, FIT, "fit")
    space = _space(content, folder)
    terms: list[FitTerm] = []
    if "targets" in content or "structures" in content:
        terms.append(_targets(content, folder))
    test = Dataset(())
    if "data" in content:
        matched = configured_data(content["data"], "data", folder, notice)
        terms.append(matched.term)
        test = matched.test
    if not terms:
        raise InputError("there is nothing to fit to: add [[targets]] with [structures], or [data].")
    return FitConfig(space, terms, options, test)


def _space(content: Mapping[str, Any], folder: Path) -> ParameterSpace:
    _require(content, "potential", "")
    start = _potential(content["potential"], folder)
    with _at("set"):
        start = replace_parameters(start, content.get("set", {}))
    names = ("free", "frozen", "ties", "scale", "bounds", "priors")
    # messages of the space begin with the name of the key
    return ParameterSpace.of(start, **{name: content[name] for name in names if name in content})


def _potential(name: str, folder: Path) -> Potential:
    beside = folder / name
    return load_potential(beside if beside.is_file() else name)


def _targets(content: Mapping[str, Any], folder: Path) -> RelaxedTargets:
    for key in ("structures", "targets"):
        _require(content, key, "")
    structures = {
        name: _structure(table, f"structures.{name}", folder) for name, table in content["structures"].items()
    }
    targets = [_target(table, f"targets[{k}]") for k, table in enumerate(content["targets"])]
    with _at("targets"):
        return RelaxedTargets(structures, targets)


def _structure(table: Any, where: str, folder: Path) -> TargetStructure:
    _require_table(table, where)
    check_keys(table, STRUCTURE, where)
    _require(table, "file", where)
    structure = read_structure(folder / table["file"])
    cell = None if table.get("cell", "none") == "none" else table["cell"]
    with _at(f"{where}.cell"):
        strain_basis(cell, structure)
    more = {"fmax": float(table["fmax"])} if "fmax" in table else {}
    pressure, saddle = float(table.get("pressure", 0.0)) / GPA, bool(table.get("saddle", False))
    return TargetStructure(structure, cell, pressure, saddle=saddle, **more)


def _target(table: Any, where: str) -> Target:
    _require_table(table, where)
    check_keys(table, TARGET, where)
    for key in ("observable", "value"):
        _require(table, key, where)
    return Target(**table)


def _require_table(table: Any, where: str) -> None:
    if not isinstance(table, Mapping):
        raise InputError(f"{where} = {table!r}: give a table.")


def _require(table: Mapping[str, Any], key: str, where: str) -> None:
    if key not in table:
        path = f"{where}.{key}" if where else key
        raise InputError(f"{path} is missing.")


@contextmanager
def _at(where: str) -> Iterator[None]:
    """Put the path of the key before a message."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
