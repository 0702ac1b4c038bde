"""Truncated Newton: solve H p = -g only as well as the distance to the minimum deserves.

Where H is written down, that of the first point serves for the steps after it: each of them then gains the
factor by which H has changed, at a small part of the cost. It is written down anew where that is not enough.

Source: Dembo, Steihaug, Math. Programming 26, 190 (1983); Nocedal and Wright, Numerical Optimization, 7.1.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from mdsens.implicit.linear import conjugate_gradient
from mdsens.relaxation.landscape import Vector
from mdsens.relaxation.scene import AbstractStepper, Scene, Walker, search_line

SLOW = 0.1  # a step that leaves more of the gradient than this asks for the Hessian of where it has come to


class NewtonCG(AbstractStepper):
    """Newton steps by preconditioned conjugate gradients, with a line search; quadratic at the end.

    Attributes:
        max_step: longest move of an atom in one step, Å.
        max_inner: products with the Hessian in one step.
    """

    needs_hessian: ClassVar[bool] = True
    wants_preconditioner: ClassVar[bool] = True
    wants_matrix: ClassVar[bool] = True
    beyond: ClassVar[float] = 1e-2  # two steps with a Hessian that is there, or one with a new one

    max_step: float = eqx.field(static=True, default=0.2)
    max_inner: int = eqx.field(static=True, default=400)

    def start(self, w: Vector) -> Array:
        return jnp.asarray(jnp.inf)  # norm of the gradient one step ago

    def step(self, scene: Scene, walker: Walker) -> Walker:
        g = walker.gradient
        norm = jnp.linalg.norm(g)
        # Forcing term (Eisenstat, Walker 1996, choice 2): solve well when the last step reduced the gradient
        # well.
        ratio = jnp.where(jnp.isfinite(walker.memory), norm / jnp.maximum(walker.memory, 1e-300), 0.5)
        loosest = 0.25 if scene.matrix is None else SLOW / 3
        tolerance = jnp.clip(0.9 * ratio**2, 1e-6, loosest)
        inner = conjugate_gradient(
            lambda v: scene.product(walker.w, v),
            -g,
            scene.gauge.project,
            scene.precondition,
            rtol=tolerance,
            max_steps=self.max_inner,
        )
        p = jnp.where(g @ inner.solution < 0, inner.solution, -g / jnp.maximum(norm, 1e-300))
        w, value, gradient, found = search_line(scene, walker, p, self.max_step)
        slow = jnp.linalg.norm(gradient) > SLOW * norm
        stale = slow & (scene.matrix is not None)
        return Walker(w, value, gradient, norm, ~found, stale)
