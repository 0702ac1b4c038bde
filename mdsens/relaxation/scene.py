"""How a stepper walks downhill.

Steps inside one compiled loop, until converged or the neighbor list runs out.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from mdsens.compiling import while_loop
from mdsens.gauge import Gauge
from mdsens.implicit.blocks import BorderedMatrix
from mdsens.relaxation.landscape import Landscape, Vector, load_once, merit, residuals_once, room_once
from mdsens.relaxation.precondition import ElasticPreconditioner

STRIDE = 0.1  # of the distance of the nearest atoms: no atom moves farther in one step


class Scene(eqx.Module):
    """Everything a step needs to know about the problem.

    Attributes:
        gauge: what may move.
        preconditioner: an approximate inverse of the Hessian; None where nobody asks for one.
        stride: longest move of an atom in one step, Å, as the distances of this system have it.
        matrix: the Hessian written down, of a point nearby; None where products of the potential serve.
    """

    landscape: Landscape
    gauge: Gauge
    preconditioner: ElasticPreconditioner | None
    stride: Array
    matrix: BorderedMatrix | None = None

    def value_and_gradient(self, w: Vector) -> tuple[Array, Vector]:
        return merit(self.landscape, self.gauge.free, w)

    def precondition(self, v: Vector) -> Vector:
        """The preconditioner's product; v itself without one."""
        return v if self.preconditioner is None else self.preconditioner(v)

    def product(self, w: Vector, v: Vector) -> Vector:
        """The Hessian at w times v, or that of the point nearby that `matrix` is of."""
        return self.landscape.product(w, v) if self.matrix is None else self.matrix(v)

    def change(self, start: "Walker", w: Vector, value: Array) -> Array:
        """How much the merit, `value` at w, has changed from where the walk is.

        Forces without an energy count too.
        """
        # A target stress with shear has no energy: the work it does along the way (trapezoid) takes its
        # place.
        n = 3 * self.landscape.coordinates.reference.n_atoms
        if self.landscape.n_strains == 0:
            return value - start.value
        load = (load_once(self.landscape, start.w) + load_once(self.landscape, w)) / 2
        return value - start.value - (w - start.w)[n:] @ load

    def room(self, w: Vector) -> Array:
        """How far (Å) the list allows atoms to approach each other from here."""
        return room_once(self.landscape, w)

    def longest_move(self, p: Vector) -> Array:
        """Length of the longest move of an atom in a step p, Å.

        A strain counts by how it stretches one atom's cell.
        """
        reference = self.landscape.coordinates.reference
        n = reference.n_atoms
        longest = jnp.sqrt(jnp.max(jnp.sum(p[: 3 * n].reshape(n, 3) ** 2, axis=-1)))
        strain = jnp.max(jnp.abs(p[3 * n :]), initial=0.0)
        return jnp.maximum(longest, strain / jnp.sqrt(reference.count))

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
    # True: the matrix of the scene is that of a point too far from here
    stale: Array = eqx.field(default_factory=lambda: jnp.array(False))


class AbstractStepper(eqx.Module):
    """One way to walk downhill. Its numbers are static: another value recompiles.

    Attributes:
        needs_hessian: steps need products with the Hessian.
        wants_preconditioner: steps are better with a preconditioner, where the potential can give one.
        wants_matrix: steps multiply with the Hessian many times, so that it is better written down once.
        beyond: part of the tolerance that the last steps go down to. Where a step more costs little, all that
            is measured on the state gains by it.
    """

    needs_hessian: ClassVar[bool] = False
    wants_preconditioner: ClassVar[bool] = False
    wants_matrix: ClassVar[bool] = False
    beyond: ClassVar[float] = 1.0

    @abstractmethod
    def start(self, w: Vector) -> Any:
        """Memory at the beginning of a walk from w."""

    @abstractmethod
    def step(self, scene: Scene, walker: Walker) -> Walker:
        """One step. May leave the range of the list only if it needs no evaluation there (see `advance`)."""


def advance_on_host(
    stepper: AbstractStepper, scene: Scene, walker: Walker, fmax: Array, max_steps: Array, margin: Array
) -> tuple[Walker, Array]:
    """`advance`, with the loops on the host.

    A potential that takes long to compile is then part of two programs only, its merit and its products with
    the Hessian, which all steppers and the certificate share.
    """
    return _walked(stepper, scene, walker, fmax, max_steps, margin)


@eqx.filter_jit
def advance(
    stepper: AbstractStepper, scene: Scene, walker: Walker, fmax: Array, max_steps: Array, margin: Array
) -> tuple[Walker, Array]:
    """Walk until the residual is below fmax, max_steps are done, the list is used up, or no way leads down.

    Or the matrix of the scene is outdated.

    At least one step is taken, so that a walk whose list is always used up still gets somewhere.

    Args:
        margin: of `Scene.room`, Å, below which the list counts as used up.
    Returns:
        the walker and the number of steps. If the list was overrun in the last step, value and gradient are
        those of an incomplete list: `Scene.room` is negative, and the caller makes a new list.
    """
    return _walked(stepper, scene, walker, fmax, max_steps, margin)


def _walked(
    stepper: AbstractStepper, scene: Scene, walker: Walker, fmax: Array, max_steps: Array, margin: Array
) -> tuple[Walker, Array]:
    def unfinished(state):
        walker, steps = state
        residual = residuals_once(scene.landscape, walker.w, walker.gradient)[2]
        converged = residual <= fmax
        used_up = scene.room(walker.w) <= margin
        # what is left to do beyond the tolerance is worth no new matrix
        outdated = walker.stale & (residual > fmax / stepper.beyond)
        goes_on = ~walker.stuck & ~outdated & (steps < max_steps)
        return (steps == 0) | (~converged & ~used_up & goes_on)

    def step(state):
        walker, steps = state
        return stepper.step(scene, walker), steps + 1

    return while_loop(unfinished, step, (walker, jnp.asarray(0)))


def longest_step(scene: Scene, walker: Walker, p: Vector, max_step: float) -> Array:
    """The part of p that may be gone at once: at most 1."""
    n = scene.landscape.coordinates.reference.n_atoms
    longest = scene.longest_move(p)
    strain = jnp.max(jnp.abs(p[3 * n :]), initial=0.0) / scene.landscape.coordinates.length
    room = scene.room(walker.w)
    # The whole step, unless an atom would move too far, the cell would strain too much, or the list would
    # miss a pair.
    t = jnp.minimum(1.0, jnp.minimum(max_step, scene.stride) / jnp.maximum(longest, 1e-300))
    t = jnp.minimum(t, 0.05 / jnp.maximum(strain, 1e-300))  # at most five percent of strain
    t = jnp.minimum(
        t, jnp.where(jnp.isfinite(room), 0.99 * room, 1e300) / jnp.maximum(scene.reach_of(p), 1e-300)
    )
    return t


def search_line(
    scene: Scene, walker: Walker, p: Vector, max_step: float
) -> tuple[Vector, Array, Vector, Array]:
    """Go along p, shortened to `max_step` and to what the list allows, then to a third until the merit falls.

    Returns:
        new point, merit, gradient, and whether a lower point was found.
    Source: backtracking with Armijo's condition, Nocedal and Wright, Numerical Optimization, 3.1.
    """
    t = longest_step(scene, walker, p, max_step)
    slope = walker.gradient @ p
    # Differences of energies near convergence are rounding: then a smaller gradient decides.
    rounding = 1e-13 * (jnp.abs(walker.value) + 1.0)
    norm = jnp.linalg.norm(walker.gradient)

    def trial(t):
        w = walker.w + t * p
        value, gradient = scene.value_and_gradient(w)
        change = scene.change(walker, w, value)
        lower = change <= 1e-4 * t * slope
        flatter = (change <= rounding) & (jnp.linalg.norm(gradient) < norm)
        return w, value, gradient, lower | flatter

    def shorter(state):
        t, _, k = state
        return t / 3, trial(t), k + 1

    here = (walker.w, walker.value, walker.gradient, jnp.array(False))
    tried = lambda s: ~s[1][3] & (s[2] < 12)
    _, (w, value, gradient, ok), _ = while_loop(tried, shorter, (t, here, jnp.asarray(0)))
    keep = lambda new, old: jnp.where(ok, new, old)
    return keep(w, walker.w), keep(value, walker.value), keep(gradient, walker.gradient), ok
