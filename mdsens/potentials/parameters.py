"""Parameters of a potential by flat name: "epsilon" for one species, "epsilon[Ni-Cu]" for a pair."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from mdsens.checks import nearest, number
from mdsens.errors import InputError
from mdsens.potentials.base import Potential

# from the potential to an array: attribute names, and keys where parameters are in a dict or a tuple
FieldPath = tuple[str | int, ...]


class Entry(NamedTuple):
    """One number among the parameters of a potential."""

    name: str
    path: FieldPath
    index: tuple[int, ...]  # place in that array
    unit: str
    lower: float
    upper: float
    text: str
    array: str = ""  # the name without the place in an array of the entry: "rho[Cu]" of "rho[Cu][17]"


class ParameterArray(NamedTuple):
    """One parameter array, as the form declares it."""

    name: str
    path: FieldPath
    values: Array
    labels: tuple[str, ...]  # along the first axis; () if there are none
    unit: str
    lower: float
    upper: float
    text: str

    def entry(self, index: tuple[int, ...]) -> Entry:
        """The number at this place: "epsilon", "epsilon[Ni-Cu]", "rho[17]" or "rho[Cu][17]"."""
        places = [str(i) for i in index]
        if self.labels:
            places[0] = self.labels[index[0]]
        marks = [f"[{place}]" for place in places]
        labelled = 1 if self.labels else 0
        whole = "".join([self.name, *marks[:labelled]])
        array = whole if len(marks) > labelled else ""
        name = "".join([self.name, *marks])
        return Entry(name, self.path, index, self.unit, self.lower, self.upper, self.text, array)

    def entries(self) -> Iterator[Entry]:
        """Every number of it."""
        return (self.entry(index) for index in np.ndindex(self.values.shape))


def parameter_arrays(potential: Potential) -> list[ParameterArray]:
    """Every parameter array, in a fixed order: a network has a million numbers in some hundred of them."""
    return list(_declared(potential, (), ()))


def parameter_entries(potential: Potential) -> list[Entry]:
    """Every parameter, one entry a number, in a fixed order."""
    return [entry for array in parameter_arrays(potential) for entry in array.entries()]


def find_entries(potential: Potential, names: Iterable[str]) -> list[Entry]:
    """The entries of these names; only the arrays that they may lie in are spelled out.

    Raises:
        InputError: a name that does not exist; the nearest one is suggested.
    """
    wanted = [str(name) for name in names]
    arrays = parameter_arrays(potential)
    near = [a for a in arrays if any(name.startswith(a.name) for name in wanted)]
    known = {entry.name: entry for array in near for entry in array.entries()}
    for name in wanted:
        if name not in known:
            raise InputError(_unknown(potential, name))
    return [known[name] for name in wanted]


class _WithParts(Protocol):
    """A module with a field of potentials, marked by "parts": `SumPotential`."""

    @property
    def part_names(self) -> tuple[str, ...]: ...


def _declared(module: eqx.Module, path: FieldPath, names: tuple[str, ...]) -> Iterator[ParameterArray]:
    """Every parameter array below a module; `names` are those of the modules on the way to it."""
    for field in dataclasses.fields(module):
        value, here = getattr(module, field.name), (*path, field.name)
        if isinstance(value, eqx.Module):
            yield from _declared(value, here, (*names, field.name))
        elif "parts" in field.metadata:
            part_names = cast("_WithParts", module).part_names
            for k, (part, name) in enumerate(zip(value, part_names, strict=True)):
                yield from _declared(part, (*here, k), (*names, name) if name else names)
        elif "unit" in field.metadata:
            yield from _arrays(module, field, here, names)


def _arrays(
    module: eqx.Module, field: dataclasses.Field, path: FieldPath, names: tuple[str, ...]
) -> Iterator[ParameterArray]:
    value, m = getattr(module, field.name), field.metadata
    bounds = m.get("lower", -np.inf), m.get("upper", np.inf), m.get("text", "")
    if eqx.is_inexact_array(value):
        # a trailing underscore only avoids a Python keyword
        name = ".".join((*names, field.name)).rstrip("_")
        labels = module.labels(field.name) if isinstance(module, Potential) else ()
        yield ParameterArray(name, path, value, labels, m["unit"], *bounds)
        return
    # a dict brings its own names; a static field `units` beside it may give their units
    units = dict(getattr(module, "units", ()))
    for keys, values in _items(value, ()):
        name = ".".join((*names, *(str(key) for key in keys)))
        yield ParameterArray(name, (*path, *keys), values, (), units.get(keys[0], m["unit"]), *bounds)


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
    found = {}
    for array in _declared(potential, (), ()):
        for index, value in np.ndenumerate(np.asarray(array.values)):
            found[array.entry(index).name] = float(value)
    return found


def follow_path(potential: Potential, path: FieldPath) -> Any:
    """What lies in a potential at the end of a path of attribute names and keys (`Entry.path`)."""
    return functools.reduce(_inside, path, potential)


def _inside(node: Any, key: str | int) -> Any:
    if isinstance(key, str) and not isinstance(node, Mapping):
        return getattr(node, key)
    return node[key]


def replace_parameters(potential: Potential, values: Mapping[str, Any]) -> Potential:
    """The same potential with other parameter values.

    Args:
        values: flat name -> number; numbers may be traced, so that one can differentiate w.r.t. them.
    Raises:
        InputError: a name that does not exist (the nearest one is suggested), a value that is no number, or
            one outside its bounds.
    """
    by_array: dict[FieldPath, list[_Change]] = {}
    for entry, (name, value) in zip(find_entries(potential, values), values.items(), strict=True):
        if not isinstance(value, Tracer):
            value = number(f"parameter {name}", value, entry.unit, finite=False)
            _check_bounds(entry, value)
        by_array.setdefault(entry.path, []).append((entry.index, value))
    for path, changes in by_array.items():
        new = _changed(follow_path(potential, path), changes)
        potential = eqx.tree_at(lambda p, path=path: follow_path(p, path), potential, new)
    return potential


def replace_by_vector(potential: Potential, names: Sequence[str], values: Array) -> Potential:
    """The same potential with the parameters named here replaced, array by array: for very many of them.

    Raises:
        InputError: a name that does not exist, or a value outside its bounds, if the values are not traced.
    """
    entries = find_entries(potential, names)
    by_array: dict[FieldPath, list[_Change]] = {}
    for k, entry in enumerate(entries):
        by_array.setdefault(entry.path, []).append((entry.index, k))
    for path, changes in by_array.items():
        array = follow_path(potential, path)
        index, places = _indices(changes), [k for _, k in changes]
        new = values[np.array(places)] if array.ndim else values[places[-1]]
        array = array.at[index].set(new.astype(array.dtype))
        potential = eqx.tree_at(lambda p, path=path: follow_path(p, path), potential, array)
    check_parameters(potential)
    return potential


MANY = 10_000  # numbers above which a message goes by the names of arrays


def _unknown(potential: Potential, name: str) -> str:
    arrays = parameter_arrays(potential)
    few = sum(array.values.size for array in arrays) <= MANY
    known = [array.name for array in arrays]
    if few:
        known = [entry.name for array in arrays for entry in array.entries()]
    turned = [k for k in known if sorted(k) == sorted(name)]  # a label written the other way round
    hint = f" Did you mean '{turned[0]}'?" if turned else nearest(name, known, cutoff=0.3)
    more = f" and {len(known) - 40} more" if len(known) > 40 else ""
    form, listed = type(potential).__name__, ", ".join(known[:40])
    return f"{form} has no parameter '{name}'.{hint} Its parameters: {listed}{more}."


_Change = tuple[tuple[int, ...], Any]  # where in an array, and what is put there


def _indices(changes: list[_Change]) -> tuple[np.ndarray, ...]:
    """Where the changes of an array are, as an index of it; () for a single number."""
    return tuple(np.transpose([index for index, _ in changes]))


def _changed(array: Array, changes: list[_Change]) -> Array:
    if not array.ndim:
        return array.at[()].set(changes[-1][1])
    values = [jnp.asarray(value, array.dtype) for _, value in changes]
    return array.at[_indices(changes)].set(jnp.stack(values))


def check_parameters(potential: Potential) -> None:
    """Raise if a parameter is NaN or outside its bounds. Those that are being differentiated are passed over.

    Raises:
        InputError: names the parameter, its value and its bounds.
    """
    for d in _declared(potential, (), ()):
        if isinstance(d.values, Tracer):
            continue
        values = np.asarray(d.values)
        if not np.all((d.lower < values) & (values < d.upper)):  # also for NaN
            for index, value in np.ndenumerate(values):
                _check_bounds(d.entry(index), float(value))


def _check_bounds(entry: Entry, value: float) -> None:
    if not entry.lower < value < entry.upper:
        bounds = f"({entry.lower:g}, {entry.upper:g})"
        raise InputError(
            f"parameter {entry.name} = {value:g} {entry.unit} lies outside its bounds {bounds}: the "
            "potential has no meaning there. Choose a value inside."
        )
