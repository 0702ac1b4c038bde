"""Parameters of a potential by flat name: "epsilon" for one species, "epsilon[Ni-Cu]" for a pair of several."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from mdsens.errors import InputError
from mdsens.potentials.base import Potential

# ------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One number among the parameters of a potential."""

    name: str
    path: tuple[
        str | int, ...
    ]  # from the potential to the array: attribute names, and keys where parameters are in a dict
    index: tuple[int, ...]  # place in that array
    unit: str
    lower: float
    upper: float
    text: str


class _Declared(NamedTuple):
    """One parameter array, as the form declares it."""

    name: str
    path: tuple[str | int, ...]
    values: Array
    labels: tuple[str, ...]
    unit: str
    lower: float
    upper: float
    text: str

    def entry(self, k: int, index: tuple[int, ...]) -> Entry:
        label = self.labels[k] if self.labels else "][".join(str(i) for i in index)
        name = f"{self.name}[{label}]" if label else self.name
        return Entry(name, self.path, index, self.unit, self.lower, self.upper, self.text)


def parameter_entries(potential: Potential) -> list[Entry]:
    """Every parameter, one entry a number, in a fixed order."""
    return [
        d.entry(k, index)
        for d in _declared(potential, ())
        for k, index in enumerate(np.ndindex(d.values.shape))
    ]


def _declared(module: eqx.Module, path: tuple[str | int, ...]) -> Iterator[_Declared]:
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        here = (*path, field.name)
        if isinstance(value, eqx.Module):
            yield from _declared(value, here)
        elif "unit" in field.metadata:
            m = field.metadata
            bounds = m.get("lower", -np.inf), m.get("upper", np.inf), m.get("text", "")
            if eqx.is_inexact_array(value):
                name = ".".join(str(key) for key in here).rstrip(
                    "_"
                )  # a trailing underscore only avoids a Python keyword
                labels = module.labels(field.name) if isinstance(module, Potential) else ()
                yield _Declared(name, here, value, labels, m["unit"], *bounds)
            else:  # a dict brings its own names; a static field `units` beside it may give their units
                units = dict(getattr(module, "units", ()))
                for keys, values in _items(value, ()):
                    name = ".".join(str(key) for key in (*path, *keys))
                    yield _Declared(name, (*here, *keys), values, (), units.get(keys[0], m["unit"]), *bounds)


def _items(tree: Any, keys: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Array]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _items(value, (*keys, key))
    elif isinstance(tree, list | tuple):
        for k, value in enumerate(tree):
            yield from _items(value, (*keys, k))
    elif eqx.is_inexact_array(tree) and keys:
        yield keys, tree


def parameter_values(potential: Potential) -> dict[str, float]:
    """Parameter values by flat name."""
    return {
        d.entry(k, index).name: float(value)
        for d in _declared(potential, ())
        for k, (index, value) in enumerate(np.ndenumerate(np.asarray(d.values)))
    }


def follow_path(potential: Potential, path: tuple[str | int, ...]) -> Any:
    """What lies in a potential at the end of a path of attribute names and keys (`Entry.path`)."""
    node: Any = potential
    for key in path:
        node = getattr(node, key) if isinstance(key, str) and not isinstance(node, Mapping) else node[key]
    return node


def replace_parameters(potential: Potential, values: Mapping[str, Any]) -> Potential:
    """The same potential with other parameter values.

    Args:
        values: flat name -> number; numbers may be traced, so that one can differentiate w.r.t. them.
    Raises:
        InputError: a name that does not exist (the nearest one is suggested), or a value outside its bounds.
    """
    known = {e.name: e for e in parameter_entries(potential)}
    for name, value in values.items():
        if name not in known:
            turned = [k for k in known if sorted(k) == sorted(name)]  # a label written the other way round
            close = turned or difflib.get_close_matches(name, known, n=1, cutoff=0.3)
            raise InputError(
                f"{type(potential).__name__} has no parameter '{name}'."
                + (f" Did you mean '{close[0]}'?" if close else "")
                + f" Its parameters: {', '.join(known)}."
            )
        entry = known[name]
        if not isinstance(value, Tracer):
            _check_bounds(entry, float(value))
        old = follow_path(potential, entry.path)
        new = old.at[entry.index].set(value)
        potential = eqx.tree_at(lambda p, path=entry.path: follow_path(p, path), potential, new)
    return potential


def check_parameters(potential: Potential) -> None:
    """Raise if a parameter is NaN or outside its bounds.

    Raises:
        InputError: names the parameter, its value and its bounds.
    """
    for d in _declared(potential, ()):
        values = np.asarray(d.values)
        if not np.all((d.lower < values) & (values < d.upper)):  # also for NaN
            for k, (index, value) in enumerate(np.ndenumerate(values)):
                _check_bounds(d.entry(k, index), float(value))


def _check_bounds(entry: Entry, value: float) -> None:
    if not entry.lower < value < entry.upper:
        raise InputError(
            f"parameter {entry.name} = {value:g} {entry.unit} lies outside its bounds ({entry.lower:g}, "
            f"{entry.upper:g}): "
            "the potential has no meaning there. Choose a value inside."
        )
