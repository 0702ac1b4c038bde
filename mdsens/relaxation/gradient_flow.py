"""The way a drop of water would go: steepest descent, followed exactly enough to end in its own basin.

    dw/dt = -g(w)

Minima divide space into basins: of every point, the minimum that steepest descent leads to. Fast relaxers end
in a neighboring basin for a share of starts, which falsifies counts of minima and volumes of basins. The flow
is stiff: strong bonds settle first, and then move with the soft modes. An implicit method takes steps as long
as the path is smooth,

    (1 + c h H) k1 = -g(w),      (1 + c h H) k2 = -g(w + h k1) - 2 k1,
    w <- w + h (3 k1 + k2) / 2,      error ~ h (k1 + k2) / 2,      c = 1 - 1 / sqrt(2),

of second order and damped at infinity: as h grows near the minimum, steps become those of Newton's method.

Source: ROS2, Verwer, Spee, Blom, Hundsdorfer, SIAM J. Sci. Comput. 20, 1456 (1999),
    doi:10.1137/S1064827597326651; basins: Asenjo, Stevenson, Wales, Frenkel, J. Phys. Chem. B 117, 12717
    (2013), doi:10.1021/jp312457a.
"""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.checks import number
from mdsens.implicit.linear import conjugate_gradient
from mdsens.implicit.steady import DAMPING
from mdsens.relaxation.landscape import Vector
from mdsens.relaxation.scene import AbstractStepper, Scene, Walker

TRIALS = 40  # of a step, each shorter than the last


class _Trial(NamedTuple):
    """A step that was tried."""

    w: Vector
    value: Array
    gradient: Vector
    h: Array  # its length
    following: Array  # that of the next one
    good: Array


class GradientFlow(AbstractStepper):
    """Steepest descent by an implicit method with steps as long as the path allows: finds its own minimum.

    Slower than the other relaxers, for when it matters which minimum is found. The path depends on the
    coordinates: with a cell that is free it is that of the scaled coordinates of `relax`, and atoms alone
    follow the forces.

    Attributes:
        tolerance: error of one step, Å, of the atom that is farthest off.
        first: length of the first step, Å²/eV.
        max_inner: products with the Hessian for each of the two solves of a step.
    """

    needs_hessian: ClassVar[bool] = True
    beyond: ClassVar[float] = 1e-2

    tolerance: float = eqx.field(static=True, default=1e-3)
    first: float = eqx.field(static=True, default=1e-4)
    max_inner: int = eqx.field(static=True, default=400)

    def __check_init__(self) -> None:
        number("tolerance", self.tolerance, "Å", above=0)
        number("first", self.first, "Å²/eV", above=0)

    def start(self, w: Vector) -> Float[Array, ""]:
        return jnp.asarray(self.first, float)

    def step(self, scene: Scene, walker: Walker) -> Walker:
        def again(state: tuple[_Trial, Array]) -> tuple[_Trial, Array]:
            last, k = state
            return self._try(scene, walker, last.following), k + 1

        def unfinished(state: tuple[_Trial, Array]) -> Array:
            last, k = state
            return ~last.good & (k < TRIALS)

        start = (self._try(scene, walker, walker.memory), jnp.array(1))
        found, _ = jax.lax.while_loop(unfinished, again, start)
        keep = lambda new, old: jnp.where(found.good, new, old)
        w, gradient = keep(found.w, walker.w), keep(found.gradient, walker.gradient)
        value = keep(found.value, walker.value)
        return Walker(w, value, gradient, found.following, ~found.good)

    def _try(self, scene: Scene, walker: Walker, h: Array) -> _Trial:
        w, force = walker.w, -scene.gauge.project(walker.gradient)
        k1, bent1 = self._solve(scene, w, h, force)
        _, gradient = scene.value_and_gradient(w + h * k1)
        k2, bent2 = self._solve(scene, w, h, -scene.gauge.project(gradient) - 2 * k1)
        move = h * (3 * k1 + k2) / 2
        error = scene.longest_move(h * (k1 + k2) / 2)
        value, gradient = scene.value_and_gradient(w + move)
        whole = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient)) & jnp.isfinite(error)
        # the list must hold every pair, at the end as at the point between
        reach = jnp.maximum(scene.reach_of(move), scene.reach_of(h * k1))
        inside = reach < 0.99 * scene.room(w)
        # differences of energies near the end are rounding
        rounding = 1e-13 * (jnp.abs(walker.value) + 1.0)
        falls = scene.change(walker, w + move, value) <= rounding
        good = whole & inside & falls & ~bent1 & ~bent2 & (error <= self.tolerance)
        wanted = 0.9 * jnp.sqrt(self.tolerance / jnp.maximum(error, 1e-300))
        factor = jnp.where(good, jnp.clip(wanted, 0.3, 4.0), jnp.clip(wanted, 0.1, 0.4))
        factor = jnp.where(whole, factor, 0.1)
        return _Trial(w + move, value, gradient, h, jnp.minimum(factor * h, 1e8), good)

    def _solve(self, scene: Scene, w: Vector, h: Array, b: Vector) -> tuple[Vector, Array]:
        """(1 + c h H)^-1 b, and whether that matrix has a direction along which it is not positive."""
        product = lambda v: v + DAMPING * h * scene.product(w, v)
        found = conjugate_gradient(product, b, scene.gauge.project, rtol=1e-4, max_steps=self.max_inner)
        return found.solution, found.negative
