"""First derivatives of observables along relaxed states, as arrays: the algebra behind a sensitivity report.

Around a relaxed state, w = 0, with generalised forces F(w, theta) = 0,

    B = dF/dtheta,    dW = -H^+ B         how the state moves with each parameter (forward),
    lambda = H^+ (dO/dw)                  what an observable O feels of a force (reverse),
    dO/dtheta = O_theta + O_w dW = O_theta - lambda . B

the first term at frozen atoms, the second through relaxation. Everything here is jitted once per size.
"""

from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.batching import map_rows
from mdsens.gauge import Gauge
from mdsens.implicit.linear import AbstractLinearSolver
from mdsens.neighbors import Neighbors
from mdsens.observables.named import Observable, State
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import replace_parameters
from mdsens.relaxation.coordinates import Coordinates, Landscape
from mdsens.relaxation.walk import Scene, Vector

Block = Float[Array, "rows unknowns"]


class Names(NamedTuple):
    """Parameters to differentiate w.r.t.; hashable."""

    names: tuple[str, ...]

    def replaced(self, potential: Potential, theta: Float[Array, "parameters"]) -> Potential:
        return replace_parameters(potential, {name: theta[k] for k, name in enumerate(self.names)})


@eqx.filter_jit
def force_change(scene: Scene, w: Vector, names: Names, theta: Float[Array, "parameters"]) -> Block:
    """B = dF/dtheta at w, one row a parameter."""

    def forces(theta):
        return eqx.tree_at(
            lambda s: s.potential, scene.landscape, names.replaced(scene.landscape.potential, theta)
        ).gradient(w)

    # the rows of the result, not those of the argument, decide how many fit at once: carry them along
    still = jnp.zeros((theta.size, w.size))
    return map_rows(lambda e, zero: zero + jax.jvp(forces, (theta,), (e,))[1], jnp.eye(theta.size), still)


@eqx.filter_jit
def pull_back(
    scene: Scene, w: Vector, names: Names, theta: Float[Array, "parameters"], adjoints: Block
) -> Float[Array, "rows parameters"]:
    """adjoints . B, without forming B: for many parameters and few observables."""

    def forces(theta):
        return eqx.tree_at(
            lambda s: s.potential, scene.landscape, names.replaced(scene.landscape.potential, theta)
        ).gradient(w)

    pull = jax.vjp(forces, theta)[1]
    return map_rows(lambda row: pull(row)[0], adjoints)


@eqx.filter_jit
def solve_block(
    method: AbstractLinearSolver, scene: Scene, w: Vector, rows: Block, transposed: bool
) -> Block:
    """H^+ of each row, all in one block."""
    solve = method.solve_transposed if transposed else method.solve

    def product(v):
        if not transposed:
            return scene.gauge.project(scene.landscape.product(w, scene.gauge.project(v)))
        push = lambda v: scene.gauge.project(scene.landscape.product(w, scene.gauge.project(v)))
        return jax.linear_transpose(push, v)(v)[0]

    return map_rows(lambda b: solve(product, b, scene.gauge.project, scene.preconditioner), rows)


@eqx.filter_jit
def remainder(gauge: Gauge, right: Block, product: Block) -> tuple[Block, Float[Array, ""]]:
    """What a block of solves leaves undone, and its norm relative to the largest right-hand side."""
    right, off = jax.vmap(gauge.project)(right), jax.vmap(gauge.project)(right - product)
    size = jnp.max(jnp.linalg.norm(right, axis=1))
    return off, jnp.max(jnp.linalg.norm(off, axis=1)) / jnp.where(size > 0, size, 1.0)


@eqx.filter_jit
def cartesian(coordinates: Coordinates, rows: Block) -> Float[Array, "rows atoms 3"]:
    """Moves dW as motions of the atoms at w = 0, Å per unit, strain included."""
    origin = jnp.zeros(coordinates.size)
    return jax.vmap(lambda row: jax.jvp(lambda w: coordinates.structure(w).positions, (origin,), (row,))[1])(
        rows
    )


class View(NamedTuple):
    """What observables see of each state: coordinates and neighbor list."""

    coordinates: Coordinates
    neighbors: Neighbors


def view(landscape: Landscape) -> View:
    """The view of the state a landscape is drawn around."""
    return View(landscape.coordinates, landscape.neighbors)


def _observe(
    observables, names: Names, potential, views: Mapping[str, View], theta, ws: Mapping[str, Vector]
):
    potential = names.replaced(potential, theta)
    states = {key: State(v.coordinates.structure(ws[key]), v.neighbors) for key, v in views.items()}
    return jnp.stack([value for o in observables for value in o.function(potential, states)])


@eqx.filter_jit
def observe(
    observables: tuple[Observable, ...],
    names: Names,
    potential: Potential,
    views: Mapping[str, View],
    theta,
    ws,
) -> Float[Array, "observables"]:
    """Values of all observables."""
    return _observe(observables, names, potential, views, theta, ws)


@eqx.filter_jit
def push_forward(observables, names: Names, potential, views, theta, ws, moves: Mapping[str, Block]):
    """Frozen part and relaxation part of dO/dtheta, each (parameters, observables): one product a direction."""
    function = lambda theta, ws: _observe(observables, names, potential, views, theta, ws)
    still = jax.tree.map(jnp.zeros_like, moves)
    frozen_then_moving = (
        jnp.concatenate([jnp.eye(theta.size), jnp.zeros((theta.size, theta.size))]),
        jax.tree.map(lambda a, b: jnp.concatenate([a, b]), still, dict(moves)),
    )
    pushed = map_rows(
        lambda dtheta, dws: jax.jvp(function, (theta, dict(ws)), (dtheta, dws))[1], *frozen_then_moving
    )
    return pushed[: theta.size], pushed[theta.size :]


@eqx.filter_jit
def pull_observables(observables, names: Names, potential, views, theta, ws):
    """O_theta (observables, parameters) and O_w of each state (observables, unknowns), in reverse mode."""
    values, pull = jax.vjp(
        lambda theta, ws: _observe(observables, names, potential, views, theta, ws), theta, dict(ws)
    )
    return jax.vmap(pull)(jnp.eye(values.size))
