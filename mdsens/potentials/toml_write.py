"""Writing a potential in the TOML format of parameter sets, with every digit (see `toml_files`)."""

import dataclasses
import json
from typing import Any

import numpy as np

from mdsens.errors import InputError
from mdsens.potentials.base import Potential
from mdsens.potentials.cutoffs import CUTS, AbstractCut
from mdsens.potentials.forms import SUM, known_forms, parameters_of, settings_of
from mdsens.potentials.indices import Indices
from mdsens.potentials.mapped import MappedPotential
from mdsens.potentials.sums import SumPotential


def toml_text(potential: Potential) -> str:
    """A potential in the TOML format, with every digit.

    Raises:
        InputError: the potential holds functions or other parts that a file of numbers cannot.
    """
    if isinstance(potential, MappedPotential):
        potential = SumPotential((potential,))
    if not isinstance(potential, SumPotential):
        return "\n".join(_lines(potential, "")) + "\n"
    lines = [f"form = {_written(SUM)}"]
    for part, weight in zip(potential.parts, potential.weights, strict=True):
        lines += ["", "[[parts]]", f"weight = {_written(weight)}"]
        if isinstance(part, MappedPotential):
            lines += _mapping_lines(part)
        lines += _lines(part.part if isinstance(part, MappedPotential) else part, "parts.")
    return "\n".join(lines) + "\n"


def _mapping_lines(potential: MappedPotential) -> list[str]:
    targets = [f"{symbol} = {_written(target or '')}" for symbol, target in potential.assignment]
    lines = [f"species = {{ {', '.join(targets)} }}"]
    if potential.pairs is not None:
        lines.append(f"pairs = {_written(potential.pairs)}")
    return lines


def _lines(potential: Potential, prefix: str) -> list[str]:
    form = type(potential)
    if known_forms().get(form.__name__) is not form:
        raise InputError(
            f"a {form.__name__} cannot be written to a TOML file: build this potential in Python instead."
        )
    lines = [f"form = {_written(form.__name__)}"]
    for key, f in settings_of(form).items():
        if (value := getattr(potential, f.name)) is not None:
            lines.append(f"{key} = {_written(value)}")
    lines += ["", f"[{prefix}parameters]"]
    tables = []
    for key, f in parameters_of(form).items():
        if getattr(potential, f.name) is None:
            continue
        values = np.asarray(getattr(potential, f.name))
        labels = potential.labels(f.name)
        if labels and np.any(values != values[0]):
            entries = zip(labels, values.tolist(), strict=True)
            tables += ["", f"[{prefix}parameters.{key}]"]
            tables += [f"{_written(label)} = {_written(value)}" for label, value in entries]
        else:
            same = values[0] if labels else values
            lines.append(f"{key} = {_written(same.tolist())}")
    return lines + tables


def _written(value: Any) -> str:
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False)  # TOML's basic strings have JSON's escapes
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)  # the shortest text that reads back as the same number
        case Indices():
            return _written(value.array.tolist())
        case list() | tuple():
            return "[" + ", ".join(_written(v) for v in value) + "]"
        case AbstractCut():
            return _written_cut(value)
    raise InputError(
        f"a {type(value).__name__} cannot be written to a TOML file: build this potential in Python instead."
    )


def _written_cut(cut: AbstractCut) -> str:
    kind = next(kind for kind, known in CUTS.items() if type(known) is type(cut))
    fields = {f.name: getattr(cut, f.name) for f in dataclasses.fields(cut)}
    if not fields:
        return _written(kind)
    settings = [f"{name} = {_written(value)}" for name, value in fields.items()]
    return "{ " + ", ".join([f"kind = {_written(kind)}", *settings]) + " }"
