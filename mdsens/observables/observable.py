"""What an observable is: names, units, and a function of the potential and of the states it is measured on.

States go by name: a crystal alone is "structure"; a defect report has "defect" and "bulk". The function is
traced by JAX and differentiated along the relaxation; what must be looked at in plain numbers first, such as
the symmetry of a crystal, is looked at once by `bind`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mdsens.errors import InputError
from mdsens.ghosts import list_without_ghosts, without_ghosts
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.relaxation.equilibrium import Equilibrium, Internal
from mdsens.structure import Structure


class State(eqx.Module):
    """A state as observables see it. Unpacks as a pair: `structure, neighbors = states["structure"]`.

    Attributes:
        structure: atoms and cell, traced.
        neighbors: a list that is complete around it.
        internal: how the atoms settle in a strained cell, from the Hessian known at the state; None where it
            is not.
        n_real: number of atoms without ghosts, where it is known before compiling; None: there may be some.
    """

    structure: Structure
    neighbors: Neighbors
    internal: Internal | None = None
    n_real: int | None = eqx.field(static=True, default=None)

    @property
    def without_ghosts(self) -> "State":
        """The state of the real atoms alone."""
        n = self.structure.n_atoms if self.n_real is None else self.n_real
        structure = without_ghosts(self.structure, n)
        neighbors = list_without_ghosts(self.neighbors, n)
        internal = None if self.internal is None else self.internal.first(n)
        return State(structure, neighbors, internal)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.structure, self.neighbors))


States = Mapping[str, State]


@dataclasses.dataclass(frozen=True)
class Observable:
    """Something measurable, or several things that are computed together.

    To be sent to another process it must be picklable: then `function` and `bind` are functions of a module,
    or dataclasses with `__call__`.

    Attributes:
        names: one for each number or array.
        units: likewise.
        function: (potential, states) -> a number or an array for each name. Traceable by jit.
        states: names of the states it looks at; () if it does not say.
        bind: called once with the relaxed states in plain numbers, before anything is differentiated. Raises
            where the observable has no meaning, and returns it with what it learned.
        ghosts: the function may be given states with ghosts (`mdsens.ghosts`): structures of different sizes
            then share what is compiled. It must count atoms by `Structure.count`. By default it is given the
            real atoms alone.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    function: Callable[[Potential, States], Sequence[Array]]
    states: tuple[str, ...] = ()
    bind: "Callable[[Mapping[str, Equilibrium]], Observable] | None" = None
    ghosts: bool = False

    def __post_init__(self) -> None:
        for name in ("names", "units", "states"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise InputError(f"{name} = '{value}' of an observable: give a tuple, such as ('{value}',).")
            object.__setattr__(self, name, tuple(value))
        if not self.names or len(self.names) != len(self.units):
            raise InputError(
                f"an observable has the names {self.names} and the units {self.units}: give one unit for "
                "each name."
            )

    def measure(self, potential: Potential, states: States) -> list[Array]:
        """The numbers and arrays, one for each name.

        Raises:
            InputError: the function looks for a state that is not there, or returns more or fewer than the
                names, or something that is not made of floating numbers.
        """
        if not self.ghosts:
            states = {name: state.without_ghosts for name, state in states.items()}
        try:
            results = self.function(potential, states)
        except KeyError as error:
            if error.args and error.args[0] not in states:
                raise InputError(self._missing(str(error.args[0]), states)) from error
            raise
        if not isinstance(results, tuple | list):
            raise InputError(
                f"the observable {self.title} returns {type(results).__name__}: return a tuple with "
                f"{len(self.names)} numbers or arrays, one for each name."
            )
        if len(results) != len(self.names):
            raise InputError(
                f"the observable {self.title} returns {len(results)} numbers for {len(self.names)} names: "
                "one for each."
            )
        return [self._floating(name, value) for name, value in zip(self.names, results, strict=True)]

    def bound(self, states: "Mapping[str, Equilibrium]") -> "Observable":
        """The observable with what it learned of the states.

        Raises:
            InputError: a state it needs is not there, or it has no meaning there.
        """
        for name in self.states:
            if name not in states:
                raise InputError(self._missing(name, states))
        return self if self.bind is None else self.bind(states)

    @property
    def title(self) -> str:
        """Names in one text."""
        return ", ".join(self.names)

    def _floating(self, name: str, value: Any) -> Array:
        try:
            array = jnp.asarray(value)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the observable {name} is {type(value).__name__}: return a number or an array."
            ) from error
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise InputError(
                f"the observable {name} is of type {array.dtype}: only floating numbers have derivatives."
            )
        return array

    def _missing(self, name: str, states: Mapping[str, Any]) -> str:
        return (
            f"the observable {self.title} is measured on the state '{name}', and there is none of this name. "
            f"States: {', '.join(states)}. Name them as the observable does, or give it the state to look at "
            "(state='...')."
        )


def row_names(
    observables: Sequence[Observable], shapes: Sequence[Sequence[tuple[int, ...]]]
) -> list[tuple[str, str]]:
    """Name and unit of every number, arrays spelled out: "distance" or "positions[3][0]"."""
    rows = []
    for observable, each in zip(observables, shapes, strict=True):
        for name, unit, shape in zip(observable.names, observable.units, each, strict=True):
            rows += [(name + "".join(f"[{k}]" for k in index), unit) for index in np.ndindex(*shape)]
    return rows


def shapes_of(
    observables: Sequence[Observable], potential: Potential, states: States
) -> list[list[tuple[int, ...]]]:
    """Shape of every result, without computing it; checks what each observable returns.

    Each is looked at once for arrays of one shape: that takes as long as a step of a relaxation.

    Raises:
        InputError: as `Observable.measure`.
    """
    leaves, form = jax.tree.flatten((potential, dict(states)))
    described = tuple(_description(leaf) for leaf in leaves)
    try:
        hash((tuple(observables), form, described))
    except TypeError:  # an observable of a user's own, or a setting of a potential, that has no hash
        look = _shapes.__wrapped__
    else:
        look = _shapes
    return [list(look(observable, form, described)) for observable in observables]


def _description(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if eqx.is_array(leaf) else leaf


@functools.lru_cache(maxsize=512)
def _shapes(observable: Observable, form: Any, described: tuple[Any, ...]) -> tuple[tuple[int, ...], ...]:
    potential, states = jax.tree.unflatten(form, described)
    found = eqx.filter_eval_shape(observable.measure, potential, states)
    return tuple(array.shape for array in found)


def measure_all(observables: Sequence[Observable], potential: Potential, states: States) -> Array:
    """All numbers of all observables in one vector, in the order of `row_names`."""
    results = [jnp.ravel(value) for o in observables for value in o.measure(potential, states)]
    return jnp.concatenate(results) if results else jnp.zeros(0)
