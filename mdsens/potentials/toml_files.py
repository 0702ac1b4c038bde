"""The TOML format of parameter sets: reading it with every check, and writing it.

form = "StillingerWeber"            # a class of mdsens, or any Potential that has been imported
elements = ["Si"]
source = "Stillinger, Weber, Phys. Rev. B 31, 5262 (1985), doi:10.1103/PhysRevB.31.5262"
cutoff = 8.5                        # whatever else the form takes: cutoff (Å), cut, mixing, ...
cut = "force-shifted"               # or { kind = "smooth", onset = 0.9 }

[parameters]
epsilon = 2.1683                    # a number: one species, or the same value for every entry of several
[parameters.sigma]                  # several species: a value for each label
"Ni-Ni" = 2.28
"""

import dataclasses
import difflib
import inspect
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdsens.errors import FileFormatError, InputError
from mdsens.potentials import pair, stillinger_weber  # noqa: F401  # the forms a file may name
from mdsens.potentials.base import Potential
from mdsens.potentials.cutoffs import CUTS, AbstractCut
from mdsens.potentials.parameters import check_parameters


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
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path}: not a TOML file: {error}.") from error


def nearest(word: str, known: Iterable[str]) -> str:
    """The sentence "Did you mean ...?" if something known is spelled alike, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f" Did you mean '{close[0]}'?" if close else ""


def _forms() -> dict[str, type[Potential]]:
    # every form there is, also those of a user's own module, once it is imported
    def below(cls: type[Potential]) -> Iterable[type[Potential]]:
        for child in cls.__subclasses__():
            yield child
            yield from below(child)

    forms = [cls for cls in below(Potential) if not inspect.isabstract(cls) and cls.parameter_fields()]
    return {
        cls.__name__: cls for cls in sorted(forms, key=lambda cls: cls.__module__.startswith("mdsens."))
    }  # ours win


def _key(field: str) -> str:
    return "cutoff" if field == "cutoff_radius" else field.rstrip("_")


def _settings(form: type[Potential]) -> dict[str, Any]:
    """What a form takes besides its parameters: key in the file -> dataclass field."""
    return {_key(f.name): f for f in dataclasses.fields(form) if "unit" not in f.metadata and f.init}


def _parameters(form: type[Potential]) -> dict[str, Any]:
    return {_key(f.name): f for f in dataclasses.fields(form) if "unit" in f.metadata}


def _required(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


# --- reading -----------------------------------------------------------------------------------------------------


def _build(content: Mapping[str, Any], elements: Sequence[str] | None) -> Potential:
    forms, name = _forms(), content.get("form")
    if name not in forms:
        raise FileFormatError(
            f"form = {name!r} is unknown.{nearest(str(name), forms)} Forms: {', '.join(forms)}."
        )
    form, settings, parameters = forms[name], _settings(forms[name]), _parameters(forms[name])
    if unknown := [key for key in content if key not in {"form", "parameters", *settings}]:
        raise FileFormatError(
            f"{name} has no setting '{unknown[0]}'.{nearest(unknown[0], settings)} Settings: "
            f"{', '.join(settings)}."
        )
    if lacking := [
        key
        for key, field in settings.items()
        if key not in content and key != "elements" and _required(field)
    ]:
        raise FileFormatError(f"the setting '{lacking[0]}' of {name} is missing.")
    given = {settings[key].name: _setting(key, content[key]) for key in settings if key in content}

    table = content.get("parameters", {})
    if not isinstance(table, dict):
        raise FileFormatError(f"[parameters] must be a table with {', '.join(parameters)}.")
    if unknown := [key for key in table if key not in parameters]:
        known = ", ".join(parameters)
        raise FileFormatError(
            f"{name} has no parameter '{unknown[0]}'.{nearest(unknown[0], parameters)} Its parameters: "
            f"{known}."
        )
    if lacking := [key for key, field in parameters.items() if key not in table and _required(field)]:
        m = parameters[lacking[0]].metadata
        raise FileFormatError(f"[parameters] lacks '{lacking[0]}' ({m['text']}, in units of {m['unit']}).")

    listed = given.pop("elements", ())
    wanted = _wanted(elements, listed)
    values = {}
    for key, value in table.items():
        field = parameters[key]
        labels = _labels(form, given, listed, field.name)
        shown = _labels(form, given, wanted, field.name)
        if len(wanted) == 1 and labels:  # one species out of several: its own entry, such as "Ni-Ni"
            shown = ("-".join(wanted * len(labels[0].split("-"))),)
        numbers = _numbers(key, value, field.metadata["per"], labels, shown)
        values[field.name] = numbers[0] if len(wanted) == 1 and labels else numbers
    try:
        potential = form(**values, **given, elements=wanted)
        check_parameters(potential)
    except InputError as error:
        raise FileFormatError(str(error)) from error
    return potential


def _wanted(elements: Sequence[str] | None, listed: tuple[str, ...]) -> tuple[str, ...]:
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


def _labels(
    form: type[Potential], given: Mapping[str, Any], elements: tuple[str, ...], field: str
) -> tuple[str, ...]:
    # Labels depend on the settings alone: a potential that has no numbers yet can tell them.
    blank = object.__new__(form)
    defaults = {f.name: f.default for f in dataclasses.fields(form) if f.default is not dataclasses.MISSING}
    for name, value in {**defaults, **given, "elements": elements}.items():
        object.__setattr__(blank, name, value)
    return blank.labels(field)


def _numbers(key: str, value: Any, per: str, labels: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """Values in the order of the labels wanted; `labels` are all those the file may name."""
    if not labels:
        if isinstance(value, dict):
            raise FileFormatError(f"parameter {key} is a table; it takes one number.")
        return _array(key, value)
    if _is_number(value):
        return np.full(len(wanted), float(value))
    if not isinstance(value, dict):
        raise FileFormatError(
            f"parameter {key} = {value!r}: give one number for all, or a table [parameters.{key}] with "
            f'"{labels[0]}" = ...'
        )
    known = {_canonical(label, per): label for label in labels}
    numbers = {}
    for label, number in value.items():
        name = _canonical(label, per)
        if name not in known:
            raise FileFormatError(
                f"parameter {key} has no entry '{label}'.{nearest(label, labels)} Its entries: "
                f"{', '.join(labels)}."
            )
        if name in numbers:
            raise FileFormatError(
                f"parameter {key} has two values for '{label}': '{known[name]}' is the same entry."
            )
        if not _is_number(number):
            raise FileFormatError(f"parameter {key}, entry '{label}': {number!r} is not a number.")
        numbers[name] = float(number)
    if missing := [label for label in wanted if _canonical(label, per) not in numbers]:
        raise FileFormatError(f"parameter {key} lacks a value for {', '.join(missing)}.")
    return np.array([numbers[_canonical(label, per)] for label in wanted])


def _array(key: str, value: Any) -> np.ndarray:
    try:
        if isinstance(value, str | bool):
            raise TypeError("not a number")
        return np.asarray(value, float)
    except (ValueError, TypeError) as error:
        raise FileFormatError(f"parameter {key} = {value!r}: {error}. Give one number.") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _canonical(label: str, per: str) -> tuple[str, ...]:
    # An unordered pair may be written either way round, and so may the two ends of a triple.
    parts = label.split("-")
    match per:
        case "pair":
            return tuple(sorted(parts))
        case "triple":
            return (parts[0], *sorted(parts[1:]))
    return tuple(parts)


# --- writing -----------------------------------------------------------------------------------------------------


def toml_text(potential: Potential) -> str:
    """A potential in the TOML format, with every digit.

    Raises:
        InputError: the potential holds functions or other parts that a file of numbers cannot.
    """
    form = type(potential)
    lines = [f"form = {_written(form.__name__)}"]
    lines += [
        f"{key} = {_written(value)}"
        for key, f in _settings(form).items()
        if (value := getattr(potential, f.name)) is not None
    ]
    lines += ["", "[parameters]"]
    tables = []
    for key, f in _parameters(form).items():
        values, labels = np.asarray(getattr(potential, f.name)), potential.labels(f.name)
        if labels and np.any(values != values[0]):
            entries = zip(labels, values.tolist(), strict=True)
            tables += [
                "",
                f"[parameters.{key}]",
                *(f"{_written(label)} = {_written(value)}" for label, value in entries),
            ]
        else:
            lines.append(f"{key} = {_written(values[0].item() if labels else values.tolist())}")
    return "\n".join(lines + tables) + "\n"


def _written(value: Any) -> str:
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False)  # TOML's basic strings have JSON's escapes
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)  # the shortest text that reads back as the same number
        case list() | tuple():
            return "[" + ", ".join(_written(v) for v in value) + "]"
        case AbstractCut():
            kind = next(kind for kind, cut in CUTS.items() if type(cut) is type(value))
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            if not fields:
                return _written(kind)
            return (
                "{ "
                + ", ".join(f"{name} = {_written(v)}" for name, v in {"kind": kind, **fields}.items())
                + " }"
            )
    raise InputError(
        f"a {type(value).__name__} cannot be written to a TOML file: build this potential in Python instead."
    )
