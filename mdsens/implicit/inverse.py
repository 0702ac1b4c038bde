"""Invert increasing functions that have no formula for their inverse, and differentiate the inverse as if they had.

x = f⁻¹(y; θ) is the root of f(x; θ) = y. One derivative of that equation,

    f' dx + (∂f/∂θ) dθ = dy        so        dx = (dy - (∂f/∂θ) dθ) / f',

is the inverse function theorem. The x on the right-hand side is the inverse itself, so the rule can be differentiated
again, and again: derivatives of every order, forward and reverse, are those of the inverse and not of the steps that
found it.

Source: Köhler, Krämer, Noé, Smooth Normalizing Flows, NeurIPS 2021, arXiv:2110.00351.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.errors import InputError


class BracketedNewton(eqx.Module):
    """Bisection to the neighborhood of the root, then Newton steps that never leave a bracket; element by element.

    The bisections run in float32: they only have to find the neighborhood, and nothing they say is trusted, since
    the Newton steps keep a bracket of their own, from values in full precision. The counts are fixed, so that a batch
    costs the same whatever is in it. Only where the residual says that a root is not there yet (flat stretches
    between steep ones) a guard goes on, with a bisection every third step, until all are.

    Attributes:
        bisections: halvings of the bracket in float32.
        newton_steps: fixed steps in full precision.
        guard_steps: the most that the guard may add.
    """

    bisections: int = eqx.field(static=True, default=12)
    newton_steps: int = eqx.field(static=True, default=3)
    guard_steps: int = eqx.field(static=True, default=200)

    def __check_init__(self) -> None:
        if min(self.bisections, self.guard_steps) < 0 or self.newton_steps < 1:
            raise InputError(
                f"BracketedNewton(bisections={self.bisections}, newton_steps={self.newton_steps}, guard_steps={self.guard_steps}): "
                "needs at least one Newton step, and no negative count."
            )

    def __call__(
        self, function: Callable[[Array], Array], y: Float[Array, "*shape"], lower: Float[Array, "*shape"], upper: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """The root of function(x) = y between lower and upper; NaN where there is none."""
        eps = jnp.finfo(y.dtype).eps
        coarse = _float32(function)

        def halve(_: Any, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = 0.5 * (low + high)
            below = coarse(middle) < y32
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        y32, start = y.astype(jnp.float32), (lower.astype(jnp.float32), upper.astype(jnp.float32))
        low, high = jax.lax.fori_loop(0, self.bisections, halve, start)
        x = jnp.clip((0.5 * (low + high)).astype(y.dtype), lower, upper)

        def step(x: Array, low: Array, high: Array) -> tuple[Array, Array, Array, Array]:
            value, slope = value_and_slope(function, x)
            residual = value - y
            low, high = jnp.where(residual < 0, x, low), jnp.where(residual > 0, x, high)
            # the root is as good as rounding allows: of the value, and of x itself where the function is steep
            done = jnp.abs(residual) <= 8 * eps * (jnp.maximum(1, jnp.abs(y)) + slope * jnp.maximum(1, jnp.abs(x)))
            newton = x - residual / slope
            inside = (newton >= low) & (newton <= high)
            return jnp.where(inside, newton, jnp.where(done, x, 0.5 * (low + high))), low, high, done

        low, high, done = lower, upper, jnp.zeros(y.shape, bool)
        for _ in range(self.newton_steps):
            x, low, high, done = step(x, low, high)

        def unfinished(state: tuple[Array, Array, Array, Array, Array]) -> Array:
            return ~jnp.all(state[3]) & (state[4] < self.guard_steps)

        def guard(state: tuple[Array, Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array, Array]:
            x, low, high, done, count = state
            trial = jnp.where(count % 3 == 2, 0.5 * (low + high), x)
            moved, low, high, there = step(trial, low, high)
            # closed up between two neighboring numbers, strictly inside: a root by continuity
            closed = (high - low <= 2 * eps * jnp.maximum(1, jnp.abs(x))) & (low > lower) & (high < upper)
            return jnp.where(done, x, moved), low, high, done | there | closed, count + 1

        x, _, _, done, _ = jax.lax.while_loop(unfinished, guard, (x, low, high, done, jnp.zeros((), int)))
        return jnp.where(done, x, jnp.nan)


def value_and_slope(function: Callable[[Array], Array], x: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """f(x) and f'(x) of a function that acts element by element."""
    return jax.jvp(function, (x,), (jnp.ones_like(x),))


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, tree)


def inverse(
    function: Callable[[Array], Array],
    y: Float[Array, "*shape"],
    lower: Float[Array, "*#shape"] | float,
    upper: Float[Array, "*#shape"] | float,
    *,
    solver: Callable[..., Array] | None = None,
) -> Float[Array, "*shape"]:
    """The x with function(x) = y, element by element.

    Differentiable w.r.t. y and every array of floats inside `function`, forward and reverse, to any order.
    Works under `jax.jit` and `jax.vmap`.

    Args:
        function: increasing, smooth, acts on each element by itself; a pytree (an `equinox.Module` with a `__call__`,
            or `jax.tree_util.Partial`), whose arrays are its parameters. What a lambda closes over cannot be
            differentiated.
        y: values, any shape.
        lower: end of the bracket, function(lower) <= y. Derivative zero, as it does not move the root.
        upper: other end, function(upper) >= y.
        solver: called as solver(function, y, lower, upper); `BracketedNewton()` by default.
    Returns:
        x, of the shape and the precision of y. The error is that of rounding: |x - x*| min(1, f') below 1e-12 in
        float64 and 1e-6 in float32 (where f is as flat as 1e-6, rounding of y alone moves x by 1e-10). NaN where
        the bracket holds no root.
    Raises:
        InputError: the bracket holds no root (not under `jax.jit`, where NaN is all that can be said).
    """
    y = jnp.asarray(y)
    low, high = (jnp.broadcast_to(jnp.asarray(end, y.dtype), y.shape) for end in (lower, upper))
    x = _inverse(function, y, low, high, BracketedNewton() if solver is None else solver)
    if not isinstance(x, jax.core.Tracer) and bool(jnp.any(jnp.isnan(x))):
        at = int(jnp.argmax(jnp.isnan(x).ravel()))
        raise InputError(
            f"inverse found no root: element {at} asks for y = {float(y.ravel()[at]):.6g} between x = {float(low.ravel()[at]):.6g} and "
            f"{float(high.ravel()[at]):.6g}. The function must be increasing and finite there, with function(lower) <= y <= function(upper)."
        )
    return x


@eqx.filter_custom_jvp
def _inverse(function: Any, y: Array, lower: Array, upper: Array, solver: Any) -> Array:
    return solver(function, y, lower, upper)


@_inverse.def_jvp
def _inverse_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    function, y, *_ = primals
    d_function, d_y, *_ = tangents
    x = _inverse(*primals)
    # f' dx = dy - (∂f/∂θ) dθ
    _, slope = value_and_slope(function, x)
    return x, (_or_zeros(d_y, y) - _moved_by_parameters(function, d_function, x)) / slope


def _or_zeros(tangent: Array | None, like: Array) -> Array:
    return jnp.zeros_like(like) if tangent is None else tangent


def _moved_by_parameters(function: Any, tangent: Any, x: Array) -> Array:
    """(∂f/∂θ) dθ at fixed x."""
    if not jax.tree.leaves(tangent):
        return jnp.zeros_like(x)
    return eqx.filter_jvp(lambda function: function(x), (function,), (tangent,))[1]


def triangular_inverse(
    function: Callable[[Array], Array],
    y: Float[Array, " n"],
    lower: Float[Array, " n"] | float,
    upper: Float[Array, " n"] | float,
    *,
    solver: Callable[..., Array] | None = None,
) -> Float[Array, " n"]:
    """The x with function(x) = y, for a map whose component i depends on x[0], ..., x[i] only and increases with x[i].

    An autoregressive flow, inverted one component after the other. Differentiable like `inverse`; batches by `jax.vmap`.

    Args:
        function: (n,) -> (n,), a pytree whose arrays of floats are its parameters.
        y: values (n,).
        lower: ends of the brackets of each component of x.
        upper: other ends.
        solver: as in `inverse`.
    Returns:
        x (n,); NaN where a bracket holds no root, and in all components after it.
    """
    y = jnp.asarray(y)
    low, high = (jnp.broadcast_to(jnp.asarray(end, y.dtype), y.shape) for end in (lower, upper))
    return _triangular_inverse(function, y, low, high, BracketedNewton() if solver is None else solver)


class _Component(eqx.Module):
    """Component i of a triangular map as a function of x[i], the earlier ones held."""

    function: Any
    x: Float[Array, " n"]
    i: Array

    def __call__(self, x_i: Float[Array, ""]) -> Float[Array, ""]:
        return self.function(self.x.at[self.i].set(x_i).astype(x_i.dtype))[self.i]


@eqx.filter_custom_jvp
def _triangular_inverse(function: Any, y: Array, lower: Array, upper: Array, solver: Any) -> Array:
    def place(i: Array, x: Array) -> Array:
        return x.at[i].set(solver(_Component(function, x, i), y[i], lower[i], upper[i]))

    return jax.lax.fori_loop(0, y.size, place, 0.5 * (lower + upper))


@_triangular_inverse.def_jvp
def _triangular_inverse_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    function, y, *_ = primals
    d_function, d_y, *_ = tangents
    x = _triangular_inverse(*primals)
    # J dx = dy - (∂f/∂θ) dθ, J lower triangular
    right = _or_zeros(d_y, y) - _moved_by_parameters(function, d_function, x)
    return x, jax.scipy.linalg.solve_triangular(jax.jacfwd(function)(x), right, lower=True)
