"""First derivatives of observables along equilibrium states.

Around a state w* with the equation F(w, theta) = 0,

    B = dF/dtheta,    dW = -H^+ B         how the state moves with each parameter (forward),
    lambda = H^-T (dO/dw)                 what an observable O feels of a force (reverse),
    dO/dtheta = O_theta + O_w dW = O_theta - lambda . B

the first term with the atoms clamped, the second through relaxation. Everything here is compiled once per
size.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.batching import map_rows
from mdsens.checks import instance, nearest
from mdsens.errors import InputError, NonFiniteError
from mdsens.gauge import Gauge
from mdsens.implicit.linear import AbstractLinearSolver
from mdsens.neighbors import Neighbors
from mdsens.observables.named import CONSTANT, named
from mdsens.observables.observable import Observable, State, measure_all, row_names, shapes_of
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import parameter_entries, parameter_values, replace_parameters
from mdsens.relaxation.coordinates import Coordinates
from mdsens.relaxation.equilibrium import Equilibrium, Internal, hessian_times
from mdsens.relaxation.landscape import Landscape, Vector
from mdsens.relaxation.relax import Relaxed

Block = Float[Array, "rows unknowns"]
Theta = Float[Array, "parameters"]
AnyState = Relaxed | Equilibrium


class Selection(NamedTuple):
    """Parameters to differentiate w.r.t.; hashable."""

    names: tuple[str, ...]

    def replaced(self, potential: Potential, theta: Theta) -> Potential:
        """The potential with these parameters replaced."""
        return replace_parameters(potential, {name: theta[k] for k, name in enumerate(self.names)})

    def values(self, potential: Potential) -> np.ndarray:
        """Their values in a potential."""
        known = parameter_values(potential)
        return np.array([known[name] for name in self.names])


class View(NamedTuple):
    """What observables see of a state: coordinates, neighbor list, and how its atoms settle."""

    coordinates: Coordinates
    neighbors: Neighbors
    internal: Internal | None

    def state(self, w: Vector) -> State:
        """The state at w."""
        return State(self.coordinates.structure(w), self.neighbors, self.internal)


class Parts(NamedTuple):
    """dO/dtheta in its two parts, each (numbers, parameters).

    Attributes:
        clamped: with atoms and cells held. relaxation: through their motion.
        rows: solutions of the linear solves of each state. residuals: of those solves.
        moves: dW of each state, (parameters, unknowns); forward mode only.
    """

    clamped: np.ndarray
    relaxation: np.ndarray
    rows: dict[str, Array]
    residuals: dict[str, float]
    moves: dict[str, Array]


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
        potential = next(iter(equilibria.values())).potential
        selection = select(potential, parameters)
        chosen = tuple(o.bound(equilibria) for o in chosen_observables(observables, tuple(equilibria)))
        problem = cls(chosen, selection, potential, equilibria, linear_solver, (), ())
        seen = {key: view.state(problem.origin[key]) for key, view in problem.views.items()}
        rows = row_names(chosen, shapes_of(chosen, potential, seen))
        names, units = tuple(name for name, _ in rows), tuple(unit for _, unit in rows)
        return dataclasses.replace(problem, names=names, units=units)

    @property
    def theta(self) -> Theta:
        """Values of the selected parameters."""
        return jnp.asarray(self.selection.values(self.potential))

    @property
    def origin(self) -> dict[str, Vector]:
        """w of each state."""
        return {key: state.w for key, state in self.states.items()}

    @property
    def views(self) -> dict[str, View]:
        """What observables see of each state."""
        return {key: view_of(state) for key, state in self.states.items()}

    def values(self) -> np.ndarray:
        """All numbers.

        Raises:
            NonFiniteError: one is NaN or infinite; named.
        """
        found = np.asarray(
            observe(self.observables, self.selection, self.potential, self.views, self.theta, self.origin)
        )
        bad = np.flatnonzero(~np.isfinite(found))
        if len(bad):
            raise NonFiniteError(
                f"the observable {self.names[bad[0]]} is {found[bad[0]]} at the relaxed state: it has no "
                "meaning there, or "
                "divides by zero. Leave it out, or mask before you divide."
            )
        return found


def first_order(
    states: AnyState | Mapping[str, AnyState],
    observables: Sequence[Observable | str] | Observable | str,
    parameters: Sequence[str] | None = None,
    *,
    mode: str | None = None,
    linear_solver: AbstractLinearSolver | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Values of observables and their Jacobian w.r.t.

    Parameters, along states that are known: what fits need.

    Reuses the Hessian and factor that the states carry; no error bars, ranges or checks (`sensitivities` has
    them).

    Args:
        states: `Relaxed` or `Equilibrium`, minima or saddles; one (called "structure"), or several by name.
        observables: `Observable` objects, or names (`mdsens.observables.named`).
        parameters: flat names; default all parameters of the potential.
        mode: "forward" (one solve a parameter), "reverse" (one solve a number); default the smaller number.
        linear_solver: by default the factor up to 1200 unknowns, conjugate gradients beyond.
    Returns:
        values (numbers,) and jacobian (numbers, parameters); arrays among the observables are flattened.
    Raises:
        InputError: unknown names, or an observable that has no meaning here. NonFiniteError: a value or a
            derivative that is not finite. SaddlePointError: a state with a mode that has no curvature.
    """
    problem = SensitivityProblem.of(states, observables, parameters, linear_solver)
    for key, state in problem.states.items():
        if state.certificate.is_singular:
            raise state.certificate.error(key)
    parts = differentiate(problem, chosen_mode(problem, mode), problem.origin, None)
    return problem.values(), checked_derivative(problem, parts)


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
    known = [entry.name for entry in parameter_entries(potential)]
    if isinstance(parameters, str):
        raise InputError(f"parameters = '{parameters}': give a list of names, such as ['{parameters}'].")
    names = tuple(known if parameters is None else parameters)
    if not names:
        raise InputError(
            "no parameters to differentiate by: leave parameters out for all, or name some of "
            f"{', '.join(known)}."
        )
    for name in names:
        if name not in known:
            raise InputError(
                f"{type(potential).__name__} has no parameter '{name}'.{nearest(str(name), known, 0.3)} Its "
                "parameters: "
                f"{', '.join(known)}."
            )
        if names.count(name) > 1:
            raise InputError(f"the parameter {name} is named {names.count(name)} times: name each once.")
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
        return named([item], main_state(states))[0]
    return instance("an observable", item, Observable, "mdsens.Observable(names, units, function) makes one.")


def main_state(states: tuple[str, ...]) -> str:
    """The state that observables given by name are measured on.

    The only one, "structure", or "bulk" beside a defect.

    Raises:
        InputError: it is not clear which.
    """
    if len(states) == 1:
        return states[0]
    for name in ("structure", "bulk"):
        if name in states:
            return name
    raise InputError(
        "an observable given by name is measured on the state 'structure' or 'bulk', and the states are "
        f"{', '.join(states)}: "
        "name one of them so, or pass the observable itself with its state, such as "
        "mdsens.observables.energy(state='...')."
    )


def view_of(state: Equilibrium) -> View:
    """What observables see of a state."""
    return View(state.landscape.coordinates, state.landscape.neighbors, state.internal)


def chosen_mode(problem: SensitivityProblem, mode: str | None) -> str:
    """The mode asked for; by default the one with fewer solves.

    Raises:
        InputError: an unknown one.
    """
    if mode is None:
        return "forward" if len(problem.selection.names) <= len(problem.names) else "reverse"
    if mode not in ("forward", "reverse"):
        raise InputError(f"mode '{mode}' is unknown: use 'forward', 'reverse' or None.")
    return mode


def checked_derivative(problem: SensitivityProblem, parts: Parts) -> np.ndarray:
    """dO/dtheta.

    Raises:
        NonFiniteError: one is NaN or infinite; observable and parameter are named.
    """
    derivative = parts.clamped + parts.relaxation
    bad = np.argwhere(~np.isfinite(derivative))
    if len(bad):
        i, k = bad[0]
        raise NonFiniteError(
            f"the derivative of {problem.names[i]} by {problem.selection.names[k]} is {derivative[i, k]}: "
            "the observable has "
            "no finite derivative here (a root or a distance of zero, say), or the potential is not smooth "
            "there."
        )
    return derivative


def differentiate(
    problem: SensitivityProblem, mode: str, ws: Mapping[str, Vector], previous: Parts | None
) -> Parts:
    """Both parts of dO/dtheta at points near the states.

    Args:
        previous: parts found at other points nearby; their solves are then corrected once, and not made anew.
    """
    return (_forward if mode == "forward" else _reverse)(problem, ws, previous)


def _forward(problem: SensitivityProblem, ws: Mapping[str, Vector], previous: Parts | None) -> Parts:
    rows, residuals = {}, {}
    for key, state in problem.states.items():
        B = force_change(state.landscape, ws[key], problem.selection, problem.theta)
        rows[key], residuals[key] = _corrected(problem, key, ws[key], -B, previous, False)
    clamped, relaxation = _push(
        problem.observables,
        problem.selection,
        problem.potential,
        problem.views,
        problem.theta,
        dict(ws),
        rows,
    )
    return Parts(np.asarray(clamped).T, np.asarray(relaxation).T, rows, residuals, rows)


def _reverse(problem: SensitivityProblem, ws: Mapping[str, Vector], previous: Parts | None) -> Parts:
    clamped, slopes = _pull(
        problem.observables, problem.selection, problem.potential, problem.views, problem.theta, dict(ws)
    )
    rows, residuals = {}, {}
    relaxation = np.zeros(clamped.shape)
    for key, state in problem.states.items():
        rows[key], residuals[key] = _corrected(problem, key, ws[key], slopes[key], previous, True)
        relaxation -= np.asarray(
            pull_parameters(state.landscape, ws[key], problem.selection, problem.theta, rows[key])
        )
    return Parts(np.asarray(clamped), relaxation, rows, residuals, {})


def _corrected(
    problem: SensitivityProblem, key: str, w: Vector, right: Block, previous: Parts | None, transposed: bool
):
    """Rows with H rows = right; the previous solution, corrected once, at a point nearby.

    And the residual before.
    """
    state = problem.states[key]
    solve = lambda rows: state.solve(rows, transposed=transposed, linear_solver=problem.linear_solver)
    if previous is None:
        return solve(right), float("nan")
    rows = previous.rows[key]
    off, residual = _remainder(
        state.gauge, right, jnp.asarray(_product(state, w, np.asarray(rows), transposed))
    )
    return rows + solve(off), float(residual)


def _product(state: Equilibrium, w: Vector, rows: np.ndarray, transposed: bool) -> np.ndarray:
    product = hessian_times(state.landscape, w, rows)
    strains = state.landscape.n_strains
    if transposed and not state.symmetric:
        if not state.landscape.coordinates.conservative:
            return np.asarray(_transposed_rows(state.landscape, w, jnp.asarray(rows)))
        # under a target stress with shear the strain block alone is not symmetric: rows H e_k of unit strains
        # show by how much
        block = hessian_times(state.landscape, w, np.eye(len(w))[-strains:])[:, -strains:]
        product[:, -strains:] += rows[:, -strains:] @ (block.T - block)
    return product


# --- compiled once for each size ------------------------------------------------------------------


@eqx.filter_jit
def force_change(landscape: Landscape, w: Vector, selection: Selection, theta: Theta) -> Block:
    """B = dF/dtheta at w, one row a parameter."""
    forces = lambda theta: _with_parameters(landscape, selection, theta).gradient(w)
    # the rows of the result, not those of the argument, decide how many fit at once: carry them along
    still = jnp.zeros((theta.size, w.size))
    return map_rows(lambda e, zero: zero + jax.jvp(forces, (theta,), (e,))[1], jnp.eye(theta.size), still)


@eqx.filter_jit
def pull_parameters(
    landscape: Landscape, w: Vector, selection: Selection, theta: Theta, adjoints: Block
) -> Float[Array, "rows parameters"]:
    """adjoints . B, without forming B: for many parameters and few observables."""

    def replaced(landscape: Landscape, theta: Theta) -> Landscape:
        return _with_parameters(landscape, selection, theta)

    return map_rows(lambda row: landscape.pull(w, row, theta, replaced), adjoints)


def _with_parameters(landscape: Landscape, selection: Selection, theta: Theta) -> Landscape:
    return dataclasses.replace(landscape, potential=selection.replaced(landscape.potential, theta))


@eqx.filter_jit
def _transposed_rows(landscape: Landscape, w: Vector, rows: Block) -> Block:
    pull = jax.vjp(landscape.gradient, w)[1]
    return map_rows(lambda row: pull(row)[0], rows)


@eqx.filter_jit
def _remainder(gauge: Gauge, right: Block, product: Block) -> tuple[Block, Float[Array, ""]]:
    """What a block of solves leaves undone, and its norm relative to the largest right-hand side."""
    right, off = jax.vmap(gauge.project)(right), jax.vmap(gauge.project)(right - product)
    size = jnp.max(jnp.linalg.norm(right, axis=1))
    return off, jnp.max(jnp.linalg.norm(off, axis=1)) / jnp.where(size > 0, size, 1.0)


@eqx.filter_jit
def cartesian(coordinates: Coordinates, w: Vector, rows: Block) -> Float[Array, "rows atoms 3"]:
    """Moves dW as motions of the atoms, Å per unit, strain included."""
    positions = lambda w: coordinates.structure(w).positions
    return jax.vmap(lambda row: jax.jvp(positions, (w,), (row,))[1])(rows)


def _measured(observables, selection: Selection, potential: Potential, views: Mapping[str, View], theta, ws):
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
    return _measured(observables, selection, potential, views, theta, ws)


@eqx.filter_jit
def _push(observables, selection: Selection, potential, views, theta, ws, moves: Mapping[str, Block]):
    """Clamped part and relaxation part of dO/dtheta, each (parameters, numbers): one product a direction."""
    function = lambda theta, ws: _measured(observables, selection, potential, views, theta, ws)
    still = jax.tree.map(jnp.zeros_like, moves)
    directions = jnp.concatenate([jnp.eye(theta.size), jnp.zeros((theta.size, theta.size))])
    motions = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), still, dict(moves))
    pushed = map_rows(lambda dt, dws: jax.jvp(function, (theta, ws), (dt, dws))[1], directions, motions)
    return pushed[: theta.size], pushed[theta.size :]


@eqx.filter_jit
def _pull(observables, selection: Selection, potential, views, theta, ws):
    """O_theta (numbers, parameters) and O_w of each state (numbers, unknowns), in reverse mode."""
    function = lambda theta, ws: _measured(observables, selection, potential, views, theta, ws)
    values, pull = jax.vjp(function, theta, ws)
    return jax.vmap(pull)(jnp.eye(values.size))
