"""Truncated Newton: solve H p = -g only as well as the distance to the minimum deserves.

Where H is written down, that of the first point serves for the steps after it: each of them then gains the
factor by which H has changed, at a small part of the cost. It is written down anew where that is not enough.

How far to go along the step p: as far as a line search says (`NewtonCG`), or a model (`DampedNewton`).
In the norm of the Hessian itself, n² = p^T H p = |g|²_H*, a function whose Hessian changes by at most L n^q
relative to itself has

    f(w + a p) <= f - a n² + a² n² / 2 + L a^(2+q) n^(2+q) / ((1 + q) (2 + q)),

which is lowest where 1 - a - L n^q a^(1+q) / (1 + q) = 0. For q = 1 that is a = (sqrt(1 + 2 G) - 1) / G,
G = L n: no search, whatever units the coordinates have. L is found as one goes: it grows fourfold until the
bound holds, and is halved after each step.

Source: Dembo, Steihaug, Math. Programming 26, 190 (1983); Nocedal and Wright, Numerical Optimization, 7.1;
    Hanzely, Kamzolov, Pasechnyuk, Gasnikov, Richtárik, Takáč, A Damped Newton Method Achieves Global O(1/k²)
    and Local Quadratic Convergence Rate, NeurIPS 2022; Hanzely, Abdukhakimov, Takáč, arXiv:2405.18926.
"""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.checks import number
from mdsens.compiling import while_loop
from mdsens.errors import InputError
from mdsens.implicit.linear import conjugate_gradient
from mdsens.relaxation.landscape import Vector
from mdsens.relaxation.scene import AbstractStepper, Scene, Walker, longest_step, search_line

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
        return jnp.asarray(jnp.inf, float)  # norm of the gradient one step ago

    def step(self, scene: Scene, walker: Walker) -> Walker:
        norm = jnp.linalg.norm(walker.gradient)
        p = newton_direction(scene, walker, walker.memory, self.max_inner)
        w, value, gradient, found = search_line(scene, walker, p, self.max_step)
        slow = jnp.linalg.norm(gradient) > SLOW * norm
        stale = slow & (scene.matrix is not None)
        return Walker(w, value, gradient, norm, ~found, stale)


@eqx.filter_jit
def newton_direction(scene: Scene, walker: Walker, before: Array, max_inner: int) -> Vector:
    """p with H p = -g, solved for as well as the last step deserves; downhill in any case.

    Args:
        before: norm of the gradient one step ago; infinite at the first.
        max_inner: products with the Hessian.
    """
    # Forcing term (Eisenstat, Walker 1996, choice 2): solve well when the last step reduced the gradient
    # well.
    g = walker.gradient
    norm = jnp.linalg.norm(g)
    ratio = jnp.where(jnp.isfinite(before), norm / jnp.maximum(before, 1e-300), 0.5)
    loosest = 0.25 if scene.matrix is None else SLOW / 3
    tolerance = jnp.clip(0.9 * ratio**2, 1e-6, loosest)
    inner = conjugate_gradient(
        lambda v: scene.product(walker.w, v),
        -g,
        scene.gauge.project,
        scene.precondition,
        rtol=tolerance,
        max_steps=max_inner,
    )
    return jnp.where(g @ inner.solution < 0, inner.solution, -g / jnp.maximum(norm, 1e-300))


class Pace(NamedTuple):
    """What a damped Newton walk remembers: the norm of the last gradient, and L."""

    before: Float[Array, ""]
    constant: Float[Array, ""]


class DampedNewton(AbstractStepper):
    """Newton steps whose length follows from a model, in the norm of the Hessian, and from no line search.

    As fast as `NewtonCG` near a minimum; far from it the line search of that one goes farther.

    Attributes:
        order: q, between 0 and 1; 1 is the cubic model (AICN).
        constant: L to begin with, eV^(-q/2).
        max_step: longest move of an atom in one step, Å.
        max_inner: products with the Hessian in one step.
    Source: Hanzely et al., NeurIPS 2022 (AICN); Hanzely, Abdukhakimov, Takáč, arXiv:2405.18926.
    """

    needs_hessian: ClassVar[bool] = True
    wants_preconditioner: ClassVar[bool] = True
    wants_matrix: ClassVar[bool] = True
    beyond: ClassVar[float] = 1e-2

    order: float = eqx.field(static=True, default=1.0)
    constant: float = eqx.field(static=True, default=1.0)
    max_step: float = eqx.field(static=True, default=0.2)
    max_inner: int = eqx.field(static=True, default=400)

    def __check_init__(self) -> None:
        if not number("order", self.order, above=0) <= 1:
            raise InputError(f"order = {self.order}: the model has an order above 0, up to 1.")
        number("constant", self.constant, above=0)
        number("max_step", self.max_step, "Å", above=0)

    def start(self, w: Vector) -> Pace:
        return Pace(jnp.asarray(jnp.inf, float), jnp.asarray(self.constant, float))

    def step(self, scene: Scene, walker: Walker) -> Walker:
        norm = jnp.linalg.norm(walker.gradient)
        p = newton_direction(scene, walker, walker.memory.before, self.max_inner)
        cap = longest_step(scene, walker, p, self.max_step)
        square = -(walker.gradient @ p)
        n = jnp.sqrt(jnp.maximum(square, 0.0))
        # differences of energies near convergence are rounding: then a smaller gradient decides
        rounding = 1e-13 * (jnp.abs(walker.value) + 1.0)

        def trial(L: Array) -> tuple[Array, ...]:
            a = jnp.minimum(step_length(L * n**self.order, self.order), cap)
            w = walker.w + a * p
            value, gradient = scene.value_and_gradient(w)
            change = scene.change(walker, w, value)
            held = change <= self._bound(a, n, L)
            flatter = (change <= rounding) & (jnp.linalg.norm(gradient) < norm)
            return w, value, gradient, held | flatter

        def shorter(state: tuple) -> tuple:
            L, _, k = state
            return 4 * L, trial(4 * L), k + 1

        first = walker.memory.constant
        state = (first, trial(first), jnp.asarray(0))
        tried = lambda s: ~s[1][3] & (s[2] < 20)
        L, (w, value, gradient, ok), _ = while_loop(tried, shorter, state)
        keep = lambda new, old: jnp.where(ok, new, old)
        gradient = keep(gradient, walker.gradient)
        slow = jnp.linalg.norm(gradient) > SLOW * norm
        stale = slow & (scene.matrix is not None)
        pace = Pace(norm, jnp.maximum(L / 2, 1e-12))
        return Walker(keep(w, walker.w), keep(value, walker.value), gradient, pace, ~ok, stale)

    def _bound(self, a: Array, n: Array, L: Array) -> Array:
        q = self.order
        curvature = L * (a * n) ** (2 + q) / ((1 + q) * (2 + q))
        return -a * n**2 + (a * n) ** 2 / 2 + curvature


def step_length(G: Float[Array, ""], order: float) -> Float[Array, ""]:
    """a with 1 - a = G a^(1+q) / (1 + q), G = L n^q: between 0 and 1."""
    if order == 1:
        # (sqrt(1 + 2 G) - 1) / G, without the difference
        return 2 / (1 + jnp.sqrt(1 + 2 * G))

    def newton(a: Array, _: None) -> tuple[Array, None]:
        left = a + G * a ** (1 + order) / (1 + order) - 1
        slope = 1 + G * a**order
        return a - left / slope, None

    # convex and rising: from above Newton's iteration falls on the root
    a, _ = jax.lax.scan(newton, jnp.ones_like(G), length=40)
    return a
