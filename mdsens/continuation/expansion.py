"""States and observables to second order in the parameters.

F(w(theta), theta) = 0 for all theta, and its derivatives along e_i, and then along e_j, are

    H w_i = - F_i,        H w_ij = - D2F[(e_i, w_i), (e_j, w_j)],

where D2F is the second derivative by parameters and unknowns together. One factor serves all of them. An
observable O(theta, w) follows as

    O_ij = D2O[(e_i, w_i), (e_j, w_j)] + O_w . w_ij.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.batching import map_rows
from mdsens.checks import nearest
from mdsens.errors import InputError
from mdsens.ghosts import without_ghosts
from mdsens.implicit.linear import AbstractLinearSolver
from mdsens.observables.observable import Observable
from mdsens.potentials.base import Potential
from mdsens.relaxation.coordinates import Coordinates
from mdsens.relaxation.landscape import Landscape, Vector
from mdsens.sensitivity.first_order import force_change
from mdsens.sensitivity.problem import AnyState, Selection, SensitivityProblem, Theta, View, measured
from mdsens.structure import Structure

if TYPE_CHECKING:
    from rich.table import Table

MOST_PARAMETERS = 60  # of which there are 1830 pairs

Moves = Float[Array, "parameters unknowns"]
Bends = Float[Array, "pairs unknowns"]
Pairs = Int[Array, "pairs"]


@dataclasses.dataclass(frozen=True)
class Expansion:
    """Observables and states as quadratic functions of the change of the parameters.

    Attributes:
        observables, units: of each number. parameters: flat names. theta: their values.
        values, first, second: O, dO/dtheta (observables, parameters), and d2O/dtheta2 (observables,
            parameters, parameters), all along the relaxation.
        moves, bends: dw/dtheta (parameters, unknowns) and d2w/dtheta2 (parameters, parameters, unknowns) of
            each state, in the unknowns of its relaxation.
        origin: w of each state. coordinates: what turns w into a structure.
    """

    observables: tuple[str, ...]
    units: tuple[str, ...]
    parameters: tuple[str, ...]
    theta: np.ndarray
    values: np.ndarray
    first: Float[np.ndarray, "observables parameters"]
    second: Float[np.ndarray, "observables parameters parameters"]
    moves: dict[str, np.ndarray]
    bends: dict[str, np.ndarray]
    origin: dict[str, np.ndarray]
    coordinates: dict[str, Coordinates]

    def predict(self, changes: Mapping[str, float], order: int = 2) -> dict[str, float]:
        """Observables with changed parameters.

        Args:
            changes: new values of parameters by name; the others stay.
            order: 1 or 2.
        Raises:
            InputError: an unknown name or order.
        """
        d = self._change(changes, order)
        values = self.values + self.first @ d
        if order == 2:
            values = values + 0.5 * np.einsum("oij,i,j->o", self.second, d, d)
        return dict(zip(self.observables, values.tolist(), strict=True))

    def structure(self, changes: Mapping[str, float], state: str = "structure", order: int = 2) -> Structure:
        """A state with changed parameters: a start that is nearly relaxed.

        Raises:
            InputError: an unknown parameter, state or order.
        """
        if state not in self.origin:
            raise InputError(
                f"no state '{state}'.{nearest(state, self.origin)} States: {', '.join(self.origin)}."
            )
        d = self._change(changes, order)
        w = self.origin[state] + d @ self.moves[state]
        if order == 2:
            w = w + 0.5 * np.einsum("ijw,i,j->w", self.bends[state], d, d)
        return without_ghosts(self.coordinates[state].structure(jnp.asarray(w)))

    def _change(self, changes: Mapping[str, float], order: int) -> np.ndarray:
        if order not in (1, 2):
            raise InputError(f"order = {order}: an expansion has the orders 1 and 2.")
        d = np.zeros(len(self.parameters))
        for name, value in changes.items():
            if name not in self.parameters:
                raise InputError(
                    f"the expansion has no parameter '{name}'.{nearest(name, self.parameters)} It has: "
                    f"{', '.join(self.parameters)}."
                )
            k = self.parameters.index(name)
            d[k] = float(value) - self.theta[k]
        return d

    @property
    def log_second(self) -> Float[np.ndarray, "observables parameters parameters"]:
        """d2O / dln(theta_i) dln(theta_j)."""
        scaled = self.second * self.theta[:, None] * self.theta
        diagonal = self.first * self.theta
        return scaled + diagonal[:, :, None] * np.eye(len(self.theta))

    def table(self) -> "Table":
        """Rich table: values, first and second derivatives along each parameter, by logarithms."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title="O, dO/dln(θ), d²O/dln(θ)²", title_justify="left")
        for title in ("observable", "value", *self.parameters):
            table.add_column(escape(title), justify="left" if title == "observable" else "right")
        slopes = self.first * self.theta
        bends = np.diagonal(self.log_second, axis1=1, axis2=2)
        for k, name in enumerate(self.observables):
            pairs = zip(slopes[k], bends[k], strict=True)
            cells = [f"{slope:.4g}, {bend:.4g}" for slope, bend in pairs]
            table.add_row(name, f"{self.values[k]:.6g} {self.units[k]}", *cells)
        return table


def expand(
    states: AnyState | Mapping[str, AnyState],
    observables: Sequence[Observable | str] | Observable | str = "energy",
    parameters: Sequence[str] | None = None,
    *,
    linear_solver: AbstractLinearSolver | None = None,
) -> Expansion:
    """States and observables to second order in the parameters, around states that are known.

    Args:
        states: `Relaxed` (minima or saddle points); one, called "structure", or several by name.
        observables: `Observable` objects, or names.
        parameters: flat names; default all, up to 60.
        linear_solver: by default the factor up to 1200 unknowns.
    Raises:
        InputError: unknown names, or too many parameters. SaddlePointError: a state with a mode that has no
            curvature.
    """
    problem = SensitivityProblem.of(states, observables, parameters, linear_solver)
    count = len(problem.selection.names)
    if count > MOST_PARAMETERS:
        raise InputError(
            f"{count} parameters have {count * (count + 1) // 2} pairs: name up to {MOST_PARAMETERS} with "
            "parameters=[...]."
        )
    i, j = np.triu_indices(count)
    moves, bends = {}, {}
    for key, state in problem.states.items():
        if state.is_singular:
            raise state.certificate.error(key)
        arguments = state.landscape, state.w, problem.selection, problem.theta
        solve = lambda rows, state=state: state.solve(rows, linear_solver=linear_solver)
        moves[key] = -solve(force_change(*arguments))
        bends[key] = -solve(_force_bends(*arguments, moves[key], jnp.asarray(i), jnp.asarray(j)))
    measuring = problem.observables, problem.selection, problem.potential, problem.views
    pairs = jnp.asarray(i), jnp.asarray(j)
    first, second = _observed(*measuring, problem.theta, problem.origin, moves, bends, *pairs)
    of_pairs = _square(np.asarray(second), i, j)
    return Expansion(
        observables=problem.names,
        units=problem.units,
        parameters=problem.selection.names,
        theta=np.asarray(problem.theta),
        values=problem.values(),
        first=np.asarray(first).T,
        second=np.moveaxis(of_pairs, -1, 0),
        moves=jax.tree.map(np.asarray, moves),
        bends={key: _square(np.asarray(rows), i, j) for key, rows in bends.items()},
        origin=jax.tree.map(np.asarray, problem.origin),
        coordinates={key: state.landscape.coordinates for key, state in problem.states.items()},
    )


def _square(rows: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Rows of pairs i <= j as a symmetric matrix of rows."""
    n = int(i.max()) + 1
    whole = np.zeros((n, n, *rows.shape[1:]))
    whole[i, j] = rows
    whole[j, i] = rows
    return whole


# --- compiled once for each size ------------------------------------------------------------------


@eqx.filter_jit
def _force_bends(
    landscape: Landscape, w: Vector, selection: Selection, theta: Theta, moves: Moves, i: Pairs, j: Pairs
) -> Bends:
    """D2F[(e_i, w_i), (e_j, w_j)] of each pair."""
    units = jnp.eye(theta.size)

    def force(theta: Theta, w: Vector) -> Vector:
        potential = selection.replaced(landscape.potential, theta)
        return dataclasses.replace(landscape, potential=potential).gradient(w)

    def bend(e_i: Array, w_i: Array, e_j: Array, w_j: Array) -> Vector:
        return _second(force, (theta, w), (e_i, w_i), (e_j, w_j))

    return map_rows(bend, units[i], moves[i], units[j], moves[j])


def _second(function: Any, at: Any, one: Any, other: Any) -> Any:
    """Second derivative of a function of several arguments along two directions."""
    slope = lambda *at: jax.jvp(function, at, one)[1]
    return jax.jvp(slope, at, other)[1]


@eqx.filter_jit
def _observed(
    observables: tuple[Observable, ...],
    selection: Selection,
    potential: Potential,
    views: Mapping[str, View],
    theta: Theta,
    ws: Mapping[str, Vector],
    moves: Mapping[str, Array],
    bends: Mapping[str, Array],
    i: Pairs,
    j: Pairs,
) -> tuple[Float[Array, "parameters numbers"], Float[Array, "pairs numbers"]]:
    function = lambda theta, ws: measured(observables, selection, potential, views, theta, ws)
    units, origin = jnp.eye(theta.size), dict(ws)
    chosen = lambda rows, k: jax.tree.map(lambda leaf: leaf[k], dict(rows))

    def slope(e: Array, move: Any) -> Array:
        return jax.jvp(function, (theta, origin), (e, move))[1]

    def bend(e_i: Array, w_i: Any, e_j: Array, w_j: Any, w_ij: Any) -> Array:
        straight = _second(function, (theta, origin), (e_i, w_i), (e_j, w_j))
        return straight + slope(jnp.zeros_like(theta), w_ij)

    first = map_rows(slope, units, dict(moves))
    second = map_rows(bend, units[i], chosen(moves, i), units[j], chosen(moves, j), dict(bends))
    return first, second
