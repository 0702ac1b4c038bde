"""What a potential is: a pytree whose floating array leaves are its parameters.

A form declares each parameter as a field, `epsilon: Array = parameter("eV", lower=0.0)`, with the unit and the bounds
within which the form makes sense. Units, bounds, element names and the source are static: they never meet JAX.
Parameters get flat names for tables and files: "epsilon" for one species, "epsilon[Ni-Cu]" for a pair of several.

Functional forms are classes here in mdsens/potentials; parameter sets, which are data, are the files of potentials/.
"""

import dataclasses
import difflib
import itertools
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.structure import Structure


def parameter(unit: str, *, lower: float = -np.inf, upper: float = np.inf, per: str = "pair", text: str = "") -> Any:
    """Declare a parameter of a potential.

    Args:
        unit: "eV", "Å", ... or "1".
        lower, upper: open interval outside which the form has no meaning.
        per: what an entry belongs to when there are several species: "species", "pair" (unordered),
            "ordered pair" (center first) or "triple" (center, then an unordered pair).
        text: one line for tables.
    """
    return eqx.field(converter=_as_floats, metadata={"unit": unit, "lower": lower, "upper": upper, "per": per, "text": text})


def _as_floats(value: Any) -> Array:
    # A parameter given as an integer (q = 0) is a number like any other: kept as one, JAX would not differentiate it.
    return jnp.asarray(value, float)


class Potential(eqx.Module):
    """Base of all potentials.

    Attributes:
        elements: chemical symbols the parameters are for, in their order.
        source: where the parameter values come from.
    """

    elements: eqx.AbstractVar[tuple[str, ...]]
    source: eqx.AbstractVar[str]

    @property
    @abstractmethod
    def cutoff(self) -> Float[Array, ""]:
        """Largest distance at which two atoms interact, Å; may depend on the parameters. Inf: no cutoff."""

    @abstractmethod
    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        """Potential energy, eV."""

    def ranges(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "pairs"] | Float[Array, ""]:
        """Distance below which two atoms interact, Å: the cutoff, or one a pair where species differ in size.

        An atom farther than this from all others is a rattler, and has no derivative.
        """
        return self.cutoff

    def site_energies(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms"]:
        """Energy of each atom, eV; they sum to `energy`. Forms without a natural share do not have it."""
        raise InputError(f"{type(self).__name__} has no per-atom energies: the form does not share its energy among atoms.")

    def check_structure(self, structure: Structure) -> None:
        """Raise if this form cannot describe this structure: for forms with limits of their own.

        Raises:
            InputError: says what the structure has that the form cannot deal with.
        """

    def check_shapes(self) -> None:
        """Raise unless every parameter has one entry for each of its labels: for `__check_init__`.

        Raises:
            InputError: names the parameter and the order in which its values are expected.
        """
        for name in self.parameter_fields():
            labels = self.labels(name)
            shape = jnp.shape(getattr(self, name))
            if shape != ((len(labels),) if labels else ()):
                raise InputError(
                    f"{name} has shape {shape}; species {', '.join(self.elements)} need "
                    + (f"{len(labels)} values, in the order {', '.join(labels)}." if labels else "a single number.")
                )

    def types(self, structure: Structure) -> Int[Array, "atoms"]:
        """Index into `elements` for each atom."""
        return jnp.asarray(_type_table(self.elements))[structure.species]

    @classmethod
    def parameter_fields(cls) -> tuple[str, ...]:
        """Names of the fields that are parameters, as declared."""
        return tuple(f.name for f in dataclasses.fields(cls) if "unit" in f.metadata)

    def labels(self, field: str) -> tuple[str, ...]:
        """Names of the entries of one parameter array, e.g. ("Ni-Ni", "Ni-Cu", "Cu-Cu"); () for a single number."""
        per = {f.name: f for f in dataclasses.fields(self)}[field].metadata["per"]
        return () if len(self.elements) == 1 else entry_labels(self.elements, per)


def entry_labels(elements: tuple[str, ...], per: str) -> tuple[str, ...]:
    """Order in which a parameter array lists its entries."""
    pairs = list(itertools.combinations_with_replacement(elements, 2))
    match per:
        case "species":
            return elements
        case "pair":
            return tuple(f"{a}-{b}" for a, b in pairs)
        case "ordered pair":
            return tuple(f"{a}-{b}" for a in elements for b in elements)
        case "triple":
            return tuple(f"{c}-{a}-{b}" for c in elements for a, b in pairs)
    raise ValueError(per)


def pair_table(n_species: int) -> np.ndarray:
    """(species, species) index of each unordered pair, in the order of `entry_labels`."""
    table = np.zeros((n_species, n_species), np.int32)
    for k, (a, b) in enumerate(itertools.combinations_with_replacement(range(n_species), 2)):
        table[a, b] = table[b, a] = k
    return table


def _type_table(elements: tuple[str, ...]) -> np.ndarray:
    from ase.data import atomic_numbers

    table = np.zeros(119, np.int32)
    for k, symbol in enumerate(elements):
        table[atomic_numbers[symbol]] = k
    return table


def check_elements(potential: Potential, structure: Structure) -> None:
    """Raise unless the potential has parameters for every atom, and can describe the structure otherwise.

    Raises:
        InputError: names the elements that have none and those that have.
    """
    potential.check_structure(structure)
    if not potential.elements:
        return  # the form does not look at species
    if unknown := sorted(set(structure.symbols) - set(potential.elements)):
        raise InputError(
            f"{type(potential).__name__} has no parameters for {', '.join(unknown)}; it knows {', '.join(potential.elements)}. "
            "Use another parameter set (`mdsens potentials` lists them) or change the species of the structure."
        )


# --- parameters by name ------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One number among the parameters of a potential."""

    name: str
    path: tuple[str | int, ...]  # from the potential to the array: attribute names, and keys where parameters are in a dict
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
    return [d.entry(k, index) for d in _declared(potential, ()) for k, index in enumerate(np.ndindex(d.values.shape))]


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
                name = ".".join(str(key) for key in here).rstrip("_")  # a trailing underscore only avoids a Python keyword
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
            f"parameter {entry.name} = {value:g} {entry.unit} lies outside its bounds ({entry.lower:g}, {entry.upper:g}): "
            "the potential has no meaning there. Choose a value inside."
        )
