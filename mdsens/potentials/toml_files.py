"""The TOML format of parameter sets: reading it with every check (`toml_write` writes it).

form = "StillingerWeber"            # a class of mdsens, or any Potential that has been imported
elements = ["Si"]
source = "Stillinger, Weber, Phys. Rev. B 31, 5262 (1985), doi:10.1103/PhysRevB.31.5262"
cutoff = 8.5                        # whatever else the form takes: cutoff (Å), cut, mixing, ...
cut = "force-shifted"               # or { kind = "smooth", onset = 0.9 }

[parameters]
epsilon = 2.1683                    # a number: one species, or the same value for every entry of several
[parameters.sigma]                  # several species: a value for each label
"Ni-Ni" = 2.28
[parameters.rho]                    # parameters with axes of their own: an array for each label
"Ni" = [0.0, 0.1, 0.3]

A sum of potentials has parts, each of them written as above, and weights. A part that acts among some of the
elements only (`mapped`) says which: for each element of a structure the one that it stands for, "" for none,
and the pairs that interact if not all do.

form = "SumPotential"
[[parts]]
weight = 1.0
species = { Si = "Si", C = "" }
pairs = [["Si", "Si"]]
form = "Morse"
...
"""

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdsens.checks import nearest
from mdsens.errors import FileFormatError, InputError
from mdsens.potentials.base import Potential
from mdsens.potentials.cutoffs import CUTS, AbstractCut
from mdsens.potentials.forms import SUM, is_required, known_forms, parameters_of, settings_of
from mdsens.potentials.mapped import mapped
from mdsens.potentials.parameters import check_parameters
from mdsens.potentials.sums import SumPotential

MAPPING = ("species", "pairs")  # what a part of a sum says that acts among some elements only


def read_toml(path: str | Path, elements: Sequence[str] | None = None) -> Potential:
    """A potential from a TOML file.

    Args:
        elements: chemical symbols wanted, in the order wanted; by default all that the file has.
    Raises:
        FileFormatError: not TOML, an unknown form, setting, parameter or label, a missing or impossible
        value.
        InputError: an element that the file does not have.
    """
    path = Path(path)
    content = toml_content(path)
    try:
        return _build(content, elements)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error


def toml_content(path: Path) -> dict[str, Any]:
    """The raw content of a TOML file.

    Raises:
        FileFormatError: the file is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path}: not a TOML file: {error}.") from error


def _build(content: Mapping[str, Any], elements: Sequence[str] | None) -> Potential:
    if content.get("form") == SUM:
        return _sum(content, elements)
    form = _form(content)
    settings = _given_settings(form, content)
    table = _parameter_table(form, content)
    listed = settings.pop("elements", ())
    wanted = wanted_elements(elements, listed)
    values = {}
    for key, field in parameters_of(form).items():
        if key in table:
            values[field.name] = _entries(form, settings, field, key, table[key], listed, wanted)
    try:
        potential = form(**values, **settings, elements=wanted)
        check_parameters(potential)
    except InputError as error:
        raise FileFormatError(str(error)) from error
    return potential


def _sum(content: Mapping[str, Any], elements: Sequence[str] | None) -> Potential:
    if unknown := [key for key in content if key not in ("form", "parts")]:
        raise FileFormatError(f"{SUM} has no setting '{unknown[0]}'; it has [[parts]].")
    records = content.get("parts")
    if not isinstance(records, list) or not records or not all(isinstance(r, dict) for r in records):
        raise FileFormatError(f"{SUM} needs [[parts]], each a potential.")
    parts, weights = [], []
    for k, record in enumerate(records):
        weight = record.get("weight", 1.0)
        if not _is_number(weight):
            raise FileFormatError(f"part {k}: weight = {weight!r} is not a number.")
        try:
            parts.append(_part(record, elements))
        except (FileFormatError, InputError) as error:
            raise FileFormatError(f"part {k}: {error}") from error
        weights.append(float(weight))
    try:
        return SumPotential(tuple(parts), tuple(weights))
    except InputError as error:
        raise FileFormatError(str(error)) from error


def _part(record: Mapping[str, Any], elements: Sequence[str] | None) -> Potential:
    of_sum = ("weight", *MAPPING)
    rest = {key: value for key, value in record.items() if key not in of_sum}
    if not any(key in record for key in MAPPING):
        # a part that does not look at species has nothing to choose from
        return _build(rest, elements if rest.get("elements") else None)
    species, pairs = (record.get(key) for key in MAPPING)
    if not isinstance(species, dict | None) or not all(isinstance(v, str) for v in (species or {}).values()):
        raise FileFormatError(f'species = {species!r}: give a table such as {{ Si = "Si", C = "" }}.')
    if not isinstance(pairs, list | None) or not all(_is_pair(pair) for pair in pairs or ()):
        raise FileFormatError(f'pairs = {pairs!r}: give a list of pairs, such as [["Si", "C"]].')
    targets = {symbol: target or None for symbol, target in species.items()} if species else None
    return mapped(_build(rest, None), targets, pairs=pairs)


def _is_pair(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(isinstance(symbol, str) for symbol in value)


def _form(content: Mapping[str, Any]) -> type[Potential]:
    forms, name = known_forms(), content.get("form")
    if name not in forms:
        known = [*forms, SUM]
        raise FileFormatError(
            f"form = {name!r} is unknown.{nearest(str(name), known)} Forms: {', '.join(known)}."
        )
    return forms[name]


def _given_settings(form: type[Potential], content: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the static fields that the file states."""
    settings = settings_of(form)
    for key in content:
        if key not in {"form", "parameters", *settings}:
            hint = nearest(key, settings)
            raise FileFormatError(
                f"{form.__name__} has no setting '{key}'.{hint} Settings: {', '.join(settings)}."
            )
    for key, field in settings.items():
        if key not in content and key != "elements" and is_required(field):
            raise FileFormatError(f"the setting '{key}' of {form.__name__} is missing.")
    given = {key: field for key, field in settings.items() if key in content}
    return {field.name: _setting(key, content[key]) for key, field in given.items()}


def _parameter_table(form: type[Potential], content: Mapping[str, Any]) -> Mapping[str, Any]:
    """What stands under [parameters]: known names, none lacking."""
    table, parameters = content.get("parameters", {}), parameters_of(form)
    known = ", ".join(parameters)
    if not isinstance(table, dict):
        raise FileFormatError(f"[parameters] must be a table with {known}.")
    for key in table:
        if key not in parameters:
            raise FileFormatError(
                f"{form.__name__} has no parameter '{key}'.{nearest(key, parameters)} Its parameters: "
                f"{known}."
            )
    for key, field in parameters.items():
        if key not in table and is_required(field):
            m = field.metadata
            raise FileFormatError(f"[parameters] lacks '{key}' ({m['text']}, in units of {m['unit']}).")
    return table


def _entries(
    form: type[Potential],
    settings: Mapping[str, Any],
    field: Any,
    key: str,
    value: Any,
    listed: tuple[str, ...],
    wanted: tuple[str, ...],
) -> np.ndarray:
    """Values of one parameter for the elements wanted, out of those that the file lists."""
    per, axes = form.belongs_to(field.name, settings), form.axes(field.name)
    labels = form.labels_for(field.name, listed, settings)
    if not labels:
        if isinstance(value, dict):
            what = f"an array ({', '.join(axes)})" if axes else "one number"
            raise FileFormatError(f"parameter {key} is a table; it takes {what}.")
        return _array(key, value, axes)
    if len(wanted) != 1:  # several species, or none: labels are types of bonds
        return _numbers(key, value, per, labels, form.labels_for(field.name, wanted, settings), axes)
    # one species out of several: its own entry, such as "Ni-Ni"
    own = "-".join(wanted * len(labels[0].split("-")))
    return _numbers(key, value, per, labels, (own,), axes)[0]


def wanted_elements(elements: Sequence[str] | None, listed: tuple[str, ...]) -> tuple[str, ...]:
    """The elements wanted, out of those that are listed; all of these if None.

    Raises:
        InputError: names those that are not listed, or named twice.
    """
    if elements is None:
        return listed
    if missing := [e for e in elements if e not in listed]:
        there = ", ".join(listed) or "one kind of atom, whatever its element"
        raise InputError(f"this parameter set has nothing for {', '.join(missing)}; it has {there}.")
    if not elements or len(set(elements)) < len(elements):
        raise InputError(
            f"elements = {list(elements)}: name each wanted element once, out of {', '.join(listed)}."
        )
    return tuple(elements)


def _setting(key: str, value: Any) -> Any:
    match key:
        case "elements":
            return _elements(value)
        case "cutoff":
            if not _is_number(value):
                raise FileFormatError(f"cutoff = {value!r}: give a number in Å, or inf.")
            return float(value)
        case "cut":
            return _cut(value)
    return tuple(value) if isinstance(value, list) else value


def _elements(value: Any) -> tuple[str, ...]:
    from ase.data import atomic_numbers

    if not isinstance(value, list) or not all(isinstance(e, str) for e in value):
        raise FileFormatError(f'elements = {value!r}: give a list of chemical symbols, such as ["Ni", "Cu"].')
    if wrong := [e for e in value if e not in atomic_numbers]:
        raise FileFormatError(
            f"elements: '{wrong[0]}' is no chemical symbol. Model particles borrow the symbol of any element."
        )
    if len(set(value)) < len(value):
        raise FileFormatError(f"elements = {value} names one twice.")
    return tuple(value)


def _cut(value: Any) -> AbstractCut:
    record = dict(value) if isinstance(value, dict) else {"kind": value}
    kind = record.pop("kind", None)
    if kind not in CUTS:
        raise FileFormatError(
            f"cut = {kind!r} is unknown.{nearest(str(kind), CUTS)} Use one of {', '.join(CUTS)}."
        )
    known = [f.name for f in dataclasses.fields(CUTS[kind])]
    if unknown := [key for key in record if key not in known]:
        raise FileFormatError(
            f"cut '{kind}' has no setting '{unknown[0]}'; it has {', '.join(known) or 'none'}."
        )
    try:
        return type(CUTS[kind])(**record)
    except InputError as error:
        raise FileFormatError(str(error)) from error


def _numbers(
    key: str,
    value: Any,
    per: str | None,
    labels: tuple[str, ...],
    wanted: tuple[str, ...],
    axes: tuple[str, ...],
) -> np.ndarray:
    """Values in the order of the labels wanted; `labels` are all those the file may name."""
    if isinstance(value, list) if axes else _is_number(value):
        return np.stack([_array(key, value, axes)] * len(wanted))  # the same for all
    if not isinstance(value, dict):
        kind = f"array ({', '.join(axes)})" if axes else "number"
        written = "[...]" if axes else "..."
        raise FileFormatError(
            f"parameter {key} = {value!r}: give one {kind} for all, or a table [parameters.{key}] with "
            f'"{labels[0]}" = {written}'
        )
    known = {_canonical(label, per): label for label in labels}
    found: dict[tuple[str, ...], np.ndarray] = {}
    for label, entry in value.items():
        name = _canonical(label, per)
        if name not in known:
            hint = nearest(label, labels)
            raise FileFormatError(
                f"parameter {key} has no entry '{label}'.{hint} Its entries: {', '.join(labels)}."
            )
        if name in found:
            raise FileFormatError(
                f"parameter {key} has two values for '{label}': '{known[name]}' is the same entry."
            )
        if not axes and not _is_number(entry):
            raise FileFormatError(f"parameter {key}, entry '{label}': {entry!r} is not a number.")
        found[name] = _array(f"{key}, entry '{label}'", entry, axes)
    if missing := [label for label in wanted if _canonical(label, per) not in found]:
        raise FileFormatError(f"parameter {key} lacks a value for {', '.join(missing)}.")
    values = [found[_canonical(label, per)] for label in wanted]
    if len({v.shape for v in values}) > 1:
        each = zip(wanted, values, strict=True)
        shapes = ", ".join(f"{label} {v.shape}" for label, v in each)
        raise FileFormatError(f"parameter {key}: all entries must have one shape; they have {shapes}.")
    return np.stack(values)


def _array(key: str, value: Any, axes: tuple[str, ...]) -> np.ndarray:
    form = f"an array ({', '.join(axes)})" if axes else "one number"
    try:
        array = np.asarray(value)
    except ValueError:  # ragged
        array = np.asarray("")
    if array.dtype.kind not in "iuf" or (axes and array.ndim != len(axes)):
        raise FileFormatError(f"parameter {key} = {value!r}: give {form}.")
    return array.astype(float)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _canonical(label: str, per: str | None) -> tuple[str, ...]:
    # An unordered pair may be written either way round, and so may the two ends of a triple.
    parts = label.split("-")
    match per:
        case "pair":
            return tuple(sorted(parts))
        case "triple":
            return (parts[0], *sorted(parts[1:]))
    return tuple(parts)
