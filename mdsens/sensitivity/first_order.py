"""First derivatives of observables along equilibrium states.

Around a state w* with the equation F(w, theta) = 0,

    B = dF/dtheta,    dW = -H^+ B         how the state moves with each parameter (forward),
    lambda = H^-T (dO/dw)                 what an observable O feels of a force (reverse),
    dO/dtheta = O_theta + O_w dW = O_theta - lambda . B

the first term with the atoms clamped, the second through relaxation. Everything here is compiled once per
size.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.batching import map_rows
from mdsens.errors import InputError, NonFiniteError
from mdsens.gauge import Gauge
from mdsens.implicit.linear import AbstractLinearSolver
from mdsens.observables.observable import Observable
from mdsens.relaxation.coordinates import Coordinates
from mdsens.relaxation.equilibrium import Equilibrium, hessian_times
from mdsens.relaxation.landscape import Landscape, Vector
from mdsens.sensitivity.problem import AnyState, Selection, SensitivityProblem, Theta, measured, solves_of

Block = Float[Array, "rows unknowns"]


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
    jacobian = jacobian_of(problem, mode)
    return problem.values(), jacobian


def jacobian_of(
    problem: SensitivityProblem, mode: str | None = None
) -> Float[np.ndarray, "numbers parameters"]:
    """dO/dtheta of a problem, at its states; `first_order` says how, and what it raises."""
    for key, state in problem.states.items():
        if state.is_singular:
            raise state.certificate.error(key)
    parts = differentiate(problem, chosen_mode(problem, mode), problem.origin, None)
    return checked_derivative(problem, parts)


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
            "the observable has no finite derivative here (a root or a distance of zero, say), or the "
            "potential is not smooth there."
        )
    return derivative


def differentiate(
    problem: SensitivityProblem, mode: str, ws: Mapping[str, Vector], previous: Parts | None
) -> Parts:
    """Both parts of dO/dtheta at points near the states.

    Args:
        previous: parts found at other points nearby; their solves are then corrected once, and not made anew.
    Raises:
        NotConvergedError: of a linear solve.
    """
    parts_of = _forward if mode == "forward" else _reverse
    with solves_of(problem):
        return parts_of(problem, ws, previous)


def _forward(problem: SensitivityProblem, ws: Mapping[str, Vector], previous: Parts | None) -> Parts:
    rows, residuals = {}, {}
    for key, state in problem.states.items():
        w = ws[key]
        B = force_change(state.landscape, w, problem.selection, problem.theta)
        rows[key], residuals[key] = _corrected(problem, key, w, -B, previous, False)
    clamped, relaxation = _push(*_measured(problem), problem.theta, dict(ws), rows)
    return Parts(np.asarray(clamped).T, np.asarray(relaxation).T, rows, residuals, rows)


def _reverse(problem: SensitivityProblem, ws: Mapping[str, Vector], previous: Parts | None) -> Parts:
    selection, theta = problem.selection, problem.theta
    clamped, slopes = _pull(*_measured(problem), theta, dict(ws))
    rows, residuals = {}, {}
    relaxation = np.zeros(clamped.shape)
    for key, state in problem.states.items():
        w, slope = ws[key], slopes[key]
        rows[key], residuals[key] = _corrected(problem, key, w, slope, previous, True)
        pulled = pull_parameters(state.landscape, w, selection, theta, rows[key])
        relaxation -= np.asarray(pulled)
    return Parts(np.asarray(clamped), relaxation, rows, residuals, {})


def _measured(problem: SensitivityProblem) -> tuple[Any, Any, Any, Any]:
    """What is measured, on what: the first arguments of the compiled functions below."""
    return problem.observables, problem.selection, problem.potential, problem.views


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
    product = _product(state, w, np.asarray(rows), transposed)
    off, residual = _remainder(state.gauge, right, jnp.asarray(product))
    return rows + solve(off), float(residual)


def _product(state: Equilibrium, w: Vector, rows: np.ndarray, transposed: bool) -> np.ndarray:
    product = hessian_times(state.landscape, w, rows)
    strains = state.landscape.n_strains
    if transposed and not state.symmetric:
        if not state.landscape.coordinates.conservative:
            return np.asarray(_transposed_rows(state.landscape, w, jnp.asarray(rows)))
        # under a target stress with shear the strain block alone is not symmetric: rows H e_k of unit strains
        # show by how much
        units = np.eye(strains, len(w), len(w) - strains)
        block = hessian_times(state.landscape, w, units)[:, -strains:]
        asymmetry = block.T - block
        product[:, -strains:] += rows[:, -strains:] @ asymmetry
    return product


# --- compiled once for each size ------------------------------------------------------------------


@eqx.filter_jit
def force_change(landscape: Landscape, w: Vector, selection: Selection, theta: Theta) -> Block:
    """B = dF/dtheta at w, one row a parameter."""
    forces = lambda theta: _with_parameters(landscape, selection, theta).gradient(w)
    # the rows of the result, not those of the argument, decide how many fit at once: carry them along
    still = jnp.zeros((theta.size, w.size))
    along = lambda direction: jax.jvp(forces, (theta,), (direction,))[1]
    return map_rows(lambda e, zero: zero + along(e), jnp.eye(theta.size), still)


@eqx.filter_jit
def pull_parameters(
    landscape: Landscape, w: Vector, selection: Selection, theta: Theta, adjoints: Block
) -> Float[Array, "rows parameters"]:
    """adjoints . B, without forming B: for many parameters and few observables."""

    def replaced(landscape: Landscape, theta: Theta) -> Landscape:
        return _with_parameters(landscape, selection, theta)

    pulled = lambda row: landscape.pull(w, row, theta, replaced)
    return map_rows(pulled, adjoints, at_once=landscape.potential.rows_at_once)


def _with_parameters(landscape: Landscape, selection: Selection, theta: Theta) -> Landscape:
    return dataclasses.replace(landscape, potential=selection.replaced(landscape.potential, theta))


@eqx.filter_jit
def _transposed_rows(landscape: Landscape, w: Vector, rows: Block) -> Block:
    pull = jax.vjp(landscape.gradient, w)[1]
    return map_rows(lambda row: pull(row)[0], rows)


@eqx.filter_jit
def _remainder(gauge: Gauge, right: Block, product: Block) -> tuple[Block, Float[Array, ""]]:
    """What a block of solves leaves undone, and its norm relative to the largest right-hand side."""
    project = jax.vmap(gauge.project)
    off = project(right - product)
    right = project(right)
    size = jnp.max(jnp.linalg.norm(right, axis=1))
    left = jnp.max(jnp.linalg.norm(off, axis=1))
    return off, left / jnp.where(size > 0, size, 1.0)


@eqx.filter_jit
def cartesian(coordinates: Coordinates, w: Vector, rows: Block) -> Float[Array, "rows atoms 3"]:
    """Moves dW as motions of the atoms, Å per unit, strain included."""
    positions = lambda w: coordinates.structure(w).positions
    along = lambda row: jax.jvp(positions, (w,), (row,))[1]
    return jax.vmap(along)(rows)


@eqx.filter_jit
def _push(observables, selection: Selection, potential, views, theta, ws, moves: Mapping[str, Block]):
    """Clamped part and relaxation part of dO/dtheta, each (parameters, numbers): one product a direction."""
    function = lambda theta, ws: measured(observables, selection, potential, views, theta, ws)
    still = jax.tree.map(jnp.zeros_like, moves)
    units = jnp.eye(theta.size)
    directions = jnp.concatenate([units, jnp.zeros_like(units)])
    motions = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), still, dict(moves))
    along = lambda *tangents: jax.jvp(function, (theta, ws), tangents)[1]
    pushed = map_rows(along, directions, motions)
    return pushed[: theta.size], pushed[theta.size :]


@eqx.filter_jit
def _pull(observables, selection: Selection, potential, views, theta, ws):
    """O_theta (numbers, parameters) and O_w of each state (numbers, unknowns), in reverse mode."""
    function = lambda theta, ws: measured(observables, selection, potential, views, theta, ws)
    values, pull = jax.vjp(function, theta, ws)
    if not potential.heavy:
        return jax.vmap(pull)(jnp.eye(values.size))
    return map_rows(pull, jnp.eye(values.size), at_once=0)
