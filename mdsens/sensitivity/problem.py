"""What is differentiated, by what, around which states: checked, with names and units of every number."""

import collections
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import instance
from mdsens.errors import InputError, NonFiniteError, NotConvergedError
from mdsens.implicit.linear import AbstractLinearSolver
from mdsens.neighbors import Neighbors
from mdsens.observables.barriers import passage_by_name
from mdsens.observables.named import CONSTANT, named
from mdsens.observables.observable import Observable, State, measure_all, row_names, shapes_of
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import (
    find_entries,
    follow_path,
    parameter_arrays,
    parameter_entries,
    replace_by_vector,
)
from mdsens.relaxation.coordinates import Coordinates
from mdsens.relaxation.equilibrium import Equilibrium, Internal
from mdsens.relaxation.landscape import Vector
from mdsens.relaxation.relax import Relaxed

Theta = Float[Array, "parameters"]
AnyState = Relaxed | Equilibrium


class Selection(NamedTuple):
    """Parameters to differentiate w.r.t.; hashable."""

    names: tuple[str, ...]

    def replaced(self, potential: Potential, theta: Theta) -> Potential:
        """The potential with these parameters replaced."""
        return replace_by_vector(potential, self.names, theta)

    def values(self, potential: Potential) -> np.ndarray:
        """Their values in a potential."""
        entries = find_entries(potential, self.names)
        paths = {entry.path for entry in entries}
        arrays = {path: np.asarray(follow_path(potential, path)) for path in paths}
        return np.array([arrays[e.path][e.index] for e in entries])


class View(NamedTuple):
    """What observables see of a state: coordinates, neighbor list, and how its atoms settle.

    The number of atoms without ghosts is there if some observable takes no ghosts: it then compiles anew.
    """

    coordinates: Coordinates
    neighbors: Neighbors
    internal: Internal | None
    n_real: int | None

    def state(self, w: Vector) -> State:
        """The state at w."""
        return State(self.coordinates.structure(w), self.neighbors, self.internal, self.n_real)


@dataclasses.dataclass(frozen=True)
class SensitivityProblem:
    """What is differentiated, by what, around which states.

    Attributes:
        names, units: of each number, arrays spelled out.
        shapes: of the result of each observable.
    """

    observables: tuple[Observable, ...]
    selection: Selection
    potential: Potential
    states: dict[str, Equilibrium]
    linear_solver: AbstractLinearSolver | None
    names: tuple[str, ...]
    units: tuple[str, ...]

    @classmethod
    def of(
        cls,
        states: AnyState | Mapping[str, AnyState],
        observables: Any,
        parameters: Sequence[str] | None,
        linear_solver: AbstractLinearSolver | None = None,
    ) -> "SensitivityProblem":
        """Check what is asked for, and look once at every observable.

        Raises:
            InputError: no states, observables or parameters; unknown or doubled names; states of different
                potentials; an observable that has no meaning on its states, or returns something else than it
                says.
        """
        equilibria = equilibria_of(states)
        selection = select(next(iter(equilibria.values())).potential, parameters)
        return cls.around(equilibria, observables, selection, linear_solver)

    @classmethod
    def around(
        cls,
        equilibria: dict[str, Equilibrium],
        observables: Any,
        selection: Any,
        linear_solver: AbstractLinearSolver | None = None,
    ) -> "SensitivityProblem":
        """The same for parameters that are chosen.

        Args:
            selection: `Selection`, or whatever has its methods `values` and `replaced` and can be hashed.
        """
        potential = next(iter(equilibria.values())).potential
        chosen = tuple(o.bound(equilibria) for o in chosen_observables(observables, tuple(equilibria)))
        problem = cls(chosen, selection, potential, equilibria, linear_solver, (), ())
        seen = {key: view.state(problem.origin[key]) for key, view in problem.views.items()}
        rows = row_names(chosen, shapes_of(chosen, potential, seen))
        names = tuple(name for name, _ in rows)
        units = tuple(unit for _, unit in rows)
        return dataclasses.replace(problem, names=names, units=units)

    @functools.cached_property
    def theta(self) -> Theta:
        """Values of the selected parameters."""
        return jnp.asarray(self.selection.values(self.potential))

    @functools.cached_property
    def origin(self) -> dict[str, Vector]:
        """w of each state."""
        return {key: state.w for key, state in self.states.items()}

    @functools.cached_property
    def views(self) -> dict[str, View]:
        """What observables see of each state."""
        ghosts = all(observable.ghosts for observable in self.observables)
        return {key: view_of(state, ghosts) for key, state in self.states.items()}

    def values(self, ws: Mapping[str, Vector] | None = None) -> np.ndarray:
        """All numbers.

        Args:
            ws: where, near the states; by default at them.
        Raises:
            NonFiniteError: one is NaN or infinite; named.
            NotConvergedError: of a linear solve, where an observable solves for how atoms settle.
        """
        what = self.observables, self.selection, self.potential
        where = self.origin if ws is None else dict(ws)
        with solves_of(self):
            found = np.asarray(observe(*what, self.views, self.theta, where))
        bad = np.flatnonzero(~np.isfinite(found))
        if len(bad):
            raise NonFiniteError(
                f"the observable {self.names[bad[0]]} is {found[bad[0]]} at the relaxed state: it has no "
                "meaning there, or divides by zero. Leave it out, or mask before you divide."
            )
        return found


@contextlib.contextmanager
def solves_of(problem: SensitivityProblem) -> Iterator[None]:
    """Around what solves at the states of a problem: compiled code cannot raise an error of ours.

    Raises:
        NotConvergedError: a linear solve did not converge; the state with the softest mode is named.
    """
    try:
        yield
    except eqx.EquinoxRuntimeError as error:
        softness = {key: state.certificate.condition for key, state in problem.states.items()}
        key = max(softness, key=lambda name: abs(softness[name]))
        certificate = problem.states[key].certificate
        raise NotConvergedError(
            "a linear solve of the derivatives did not converge. The softest mode, of the state "
            f"'{key}', has the curvature {certificate.lowest_curvature:.3g} eV/Å², and the stiffest "
            f"{certificate.highest_curvature:.3g} eV/Å². Relax further, pass linear_solver=Dense() for up to "
            "about 2000 atoms, or one with more max_steps.",
            certificate,
        ) from error


def equilibria_of(states: AnyState | Mapping[str, AnyState]) -> dict[str, Equilibrium]:
    """States by name.

    Raises:
        InputError: none, or something that is no state.
    """
    by_name = dict(states) if isinstance(states, Mapping) else {"structure": states}
    if not by_name:
        raise InputError(
            'no states are given: pass one relaxed state, or several by name, {"defect": ..., "bulk": ...}.'
        )
    hint = "mdsens.relax(potential, structure) gives one."
    return {key: state_of(value, key, hint) for key, value in by_name.items()}


def state_of(value: Any, name: str, hint: str) -> Equilibrium:
    """The equilibrium that a state carries, or is."""
    if isinstance(value, Equilibrium):
        return value
    return instance(f"the state '{name}'", value, Relaxed, hint).equilibrium


def select(potential: Potential, parameters: Sequence[str] | None) -> Selection:
    """The parameters asked for, by default all.

    Raises:
        InputError: none, unknown or doubled names.
    """
    if isinstance(parameters, str):
        raise InputError(f"parameters = '{parameters}': give a list of names, such as ['{parameters}'].")
    everything = [entry.name for entry in parameter_entries(potential)] if parameters is None else []
    names = tuple(everything if parameters is None else parameters)
    if not names:
        arrays = [array.name for array in parameter_arrays(potential)]
        raise InputError(
            "no parameters to differentiate by: leave parameters out for all, or name some of "
            f"{', '.join(arrays)}."
        )
    find_entries(potential, names)
    for name, times in collections.Counter(names).items():
        if times > 1:
            raise InputError(f"the parameter {name} is named {times} times: name each once.")
    return Selection(names)


def chosen_observables(observables: Any, states: tuple[str, ...]) -> list[Observable]:
    """Observable objects, names among them resolved.

    Raises:
        InputError: none, or something that is neither an observable nor the name of one.
    """
    items = [observables] if isinstance(observables, str | Observable) else list(observables)
    if not items:
        raise InputError('no observables are given: name some, such as ["energy", "volume"].')
    # elastic constants that follow each other are computed together
    chosen: list[Observable] = []
    for constants, run in itertools.groupby(items, key=_is_constant):
        if constants:
            chosen += named([str(name) for name in run], main_state(states))
        else:
            chosen += [_observable(item, states) for item in run]
    return chosen


def _is_constant(item: Any) -> bool:
    return isinstance(item, str) and CONSTANT.fullmatch(item) is not None


def _observable(item: Any, states: tuple[str, ...]) -> Observable:
    if isinstance(item, str):
        return passage_by_name(item) or named([item], main_state(states))[0]
    return instance("an observable", item, Observable, "mdsens.Observable(names, units, function) makes one.")


def main_state(states: tuple[str, ...]) -> str:
    """The state that observables given by name are measured on.

    The only one, "structure", "bulk" beside a defect, or "initial" of a passage.

    Raises:
        InputError: it is not clear which.
    """
    if len(states) == 1:
        return states[0]
    for name in ("structure", "bulk", "initial"):
        if name in states:
            return name
    raise InputError(
        "an observable given by name is measured on the state 'structure' or 'bulk', and the states are "
        f"{', '.join(states)}: name one of them so, or pass the observable itself with its state, such as "
        "mdsens.observables.energy(state='...')."
    )


def view_of(state: Equilibrium, ghosts: bool) -> View:
    """What observables see of a state; `ghosts`: they all take its ghosts."""
    n = None if ghosts else state.n_atoms
    return View(state.landscape.coordinates, state.landscape.neighbors, state.internal, n)


def measured(observables, selection: Selection, potential: Potential, views: Mapping[str, View], theta, ws):
    """Values of all observables at theta and w; not compiled."""
    states = {key: view.state(ws[key]) for key, view in views.items()}
    return measure_all(observables, selection.replaced(potential, theta), states)


@eqx.filter_jit
def observe(
    observables: tuple[Observable, ...],
    selection: Selection,
    potential: Potential,
    views: Mapping[str, View],
    theta: Theta,
    ws: Mapping[str, Vector],
) -> Float[Array, "numbers"]:
    """Values of all observables."""
    return measured(observables, selection, potential, views, theta, ws)
