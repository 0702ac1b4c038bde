"""How a relaxer walks downhill: steps inside one compiled loop, until converged or the neighbor list runs out."""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.batching import map_rows
from mdsens.gauge import Gauge
from mdsens.relaxation.coordinates import Landscape
from mdsens.relaxation.precondition import ElasticPreconditioner

Vector = Float[Array, "unknowns"]


class Scene(eqx.Module):
    """Everything a step needs to know about the problem."""

    landscape: Landscape
    gauge: Gauge
    preconditioner: ElasticPreconditioner

    def value_and_gradient(self, w: Vector) -> tuple[Array, Vector]:
        value, gradient = self.landscape.value_and_gradient(w)
        return value, jnp.where(self.gauge.free, gradient, 0.0)

    def room(self, w: Vector) -> Array:
        """How far (Å) the list allows atoms to approach each other from here."""
        return self.landscape.neighbors.slack(
            self.landscape.coordinates.structure(w), self.landscape.potential.cutoff
        )

    def longest_move(self, p: Vector) -> Array:
        """Length of the longest move of an atom in a step p, Å; a strain counts by how it stretches one atom's cell."""
        n = self.landscape.coordinates.reference.n_atoms
        longest = jnp.sqrt(jnp.max(jnp.sum(p[: 3 * n].reshape(n, 3) ** 2, axis=-1)))
        return jnp.maximum(longest, jnp.max(jnp.abs(p[3 * n :]), initial=0.0) / jnp.sqrt(n))

    def reach_of(self, p: Vector) -> Array:
        """How much of `room` a step p uses at most."""
        n = self.landscape.coordinates.reference.n_atoms
        longest = self.longest_move(p)
        strain = jnp.sqrt(jnp.sum(p[3 * n :] ** 2)) / self.landscape.coordinates.length
        reach = self.landscape.neighbors.reach
        return 2.2 * longest + strain * jnp.where(jnp.isfinite(reach), 1.5 * reach, 0.0)


class Walker(eqx.Module):
    """Where the walk is: point, merit, gradient, and what the relaxer remembers."""

    w: Vector
    value: Array
    gradient: Vector
    memory: Any
    stuck: Array  # True: no step downhill was found


class Phase(NamedTuple):
    """What to do next: a relaxer, the residual (eV/Å) it should reach, and the steps it gets."""

    relaxer: "AbstractRelaxer"
    goal: float
    steps: int


class AbstractRelaxer(eqx.Module):
    """A way to walk downhill. Its numbers are static: another value recompiles."""

    def phase(self, residual: float, fmax: float, failures: int) -> Phase:
        """Plan from here on; `failures` counts walks in a row that found no way down."""
        return Phase(self, fmax, 1000)

    @abstractmethod
    def start(self, w: Vector) -> Any:
        """Memory at the beginning of a walk from w."""

    @abstractmethod
    def step(self, scene: Scene, walker: Walker) -> Walker:
        """One step. May leave the range of the list only if it needs no evaluation there (see `advance`)."""


@eqx.filter_jit
def look_around(scene: Scene, w: Vector) -> tuple[Array, Vector]:
    """Merit and gradient at w (after the list was rebuilt)."""
    return scene.value_and_gradient(w)


@eqx.filter_jit
def products(
    landscape: Landscape, w: Vector, vectors: Float[Array, "k unknowns"]
) -> Float[Array, "k unknowns"]:
    """Hessian at w times each of the vectors. Compiled once for each k: callers keep to few values of k."""
    return map_rows(lambda v: landscape.product(w, v), vectors)


@eqx.filter_jit
def measure(scene: Scene, w: Vector, gradient: Vector) -> tuple[Array, Array, Array]:
    """Largest force (eV/Å), largest stress off target (eV/Å³), and both as one number in eV/Å."""
    fmax, stress = scene.landscape.residual(w, gradient)
    return fmax, stress, jnp.maximum(fmax, scene.landscape.stress_in_force_units(w, stress))


@eqx.filter_jit
def advance(
    relaxer: AbstractRelaxer, scene: Scene, walker: Walker, fmax: Array, max_steps: Array, margin: Array
):
    """Walk until the residual is below fmax, max_steps are done, the list is used up, or no way leads down.

    Returns:
        the walker and the number of steps. If the list was overrun in the last step, value and gradient are
        those
        of an incomplete list: `Scene.room` is negative, and the caller rebuilds and looks around again.
    """

    def unfinished(state):
        walker, steps = state
        residual = measure(scene, walker.w, walker.gradient)[2]
        return (residual > fmax) & (steps < max_steps) & (scene.room(walker.w) > margin) & ~walker.stuck

    def step(state):
        walker, steps = state
        return relaxer.step(scene, walker), steps + 1

    return jax.lax.while_loop(unfinished, step, (walker, 0))


def search_line(
    scene: Scene, walker: Walker, p: Vector, max_step: float
) -> tuple[Vector, Array, Vector, Array]:
    """Go along p, shortened to `max_step` and to what the list allows, then to a third until the merit falls.

    Returns:
        new point, merit, gradient, and whether a lower point was found.
    Source: backtracking with Armijo's condition, Nocedal and Wright, Numerical Optimization, 3.1.
    """
    n = scene.landscape.coordinates.reference.n_atoms
    longest = scene.longest_move(p)
    strain = jnp.max(jnp.abs(p[3 * n :]), initial=0.0) / scene.landscape.coordinates.length
    room = scene.room(walker.w)
    t = jnp.minimum(1.0, max_step / jnp.maximum(longest, 1e-300))
    t = jnp.minimum(t, 0.05 / jnp.maximum(strain, 1e-300))  # at most five percent of strain
    t = jnp.minimum(
        t, jnp.where(jnp.isfinite(room), 0.99 * room, 1e300) / jnp.maximum(scene.reach_of(p), 1e-300)
    )
    slope = walker.gradient @ p
    # A target stress with shear has no energy: take the work it does along the way (trapezoid) from the merit
    # instead.
    load = scene.landscape.load(walker.w)
    # Differences of energies near convergence are rounding: then a smaller gradient decides.
    rounding = 1e-13 * (jnp.abs(walker.value) + 1.0)
    norm = jnp.linalg.norm(walker.gradient)

    def trial(t):
        w = walker.w + t * p
        value, gradient = scene.value_and_gradient(w)
        change = value - walker.value - t * p[3 * n :] @ (load + scene.landscape.load(w)) / 2
        lower = change <= 1e-4 * t * slope
        flatter = (change <= rounding) & (jnp.linalg.norm(gradient) < norm)
        return w, value, gradient, lower | flatter

    def shorter(state):
        t, _, k = state
        return t / 3, trial(t), k + 1

    here = (walker.w, walker.value, walker.gradient, jnp.array(False))
    _, (w, value, gradient, ok), _ = jax.lax.while_loop(
        lambda s: ~s[1][3] & (s[2] < 12), shorter, (t, here, 0)
    )
    keep = lambda new, old: jnp.where(ok, new, old)
    return keep(w, walker.w), keep(value, walker.value), keep(gradient, walker.gradient), ok
