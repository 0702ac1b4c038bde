"""Invert increasing functions that have no formula for their inverse, and differentiate the inverse.

x = f⁻¹(y; θ) is the root of f(x; θ) = y. One derivative of that equation,

    f' dx + (∂f/∂θ) dθ = dy        so        dx = (dy - (∂f/∂θ) dθ) / f',

is the inverse function theorem. The x on the right-hand side is the inverse itself, so the rule can be
differentiated again, and again: derivatives of every order, forward and reverse, are those of the inverse and
not of the steps that found it.

Source: Köhler, Krämer, Noé, Smooth Normalizing Flows, NeurIPS 2021, arXiv:2110.00351.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from mdsens.errors import InputError

# done where the residual is below this many roundings: of the value, and of x itself where the function is
# steep
ROUNDINGS = 2
# as many are allowed where the function ends, at lower or upper, by rounding just short of y
ROUNDINGS_AT_END = 32
# how much farther than before to look for a root that is not where float32 saw it
GROWTH = 64


class _Search(NamedTuple):
    """Where each root is sought: at x next, between low and high.

    The compiler may compute a residual twice, for different outputs of a step, and round it differently. A
    root is therefore where the residual was looked at, and what a step makes of that residual decides only
    whether to go on.
    """

    root: Float[Array, "*shape"]  # where the last step was; the root, once done
    x: Float[Array, "*shape"]
    low: Float[Array, "*shape"]
    high: Float[Array, "*shape"]
    low_known: Bool[Array, "*shape"]  # function(low) < y, evaluated in full precision
    high_known: Bool[Array, "*shape"]
    reach: Float[Array, "*shape"]
    last: Float[Array, "*shape"]  # residual where the Newton step to x began, else infinite
    done: Bool[Array, "*shape"]
    lost: Bool[Array, "*shape"]  # there is no root between lower and upper


class BracketedNewton(eqx.Module):
    """Bisection to the neighborhood of the root, then Newton steps within a bracket; element by element.

    The bisections run in float32: they only have to find the neighborhood. Its ends are conjectures, and
    Newton steps within it, as many as ordinary functions need, need not arrive: a guard begins where they
    end, and ends when all residuals say that the roots are there. It takes an end of the bracket for known
    when it has been there and seen the sign of the residual. Where an end is not as conjectured it goes on
    farther out; where a Newton step would leave the bracket, or the one before it did not halve the residual,
    it halves the bracket.

    One guard step confirms an ordinary batch. The hardest root decides how many there are, up to some
    twenty-five where flat stretches lie between steep ones.

    Attributes:
        bisections: halvings of the bracket in float32.
        newton_steps: in full precision, before the guard takes over.
        guard_steps: the most that the guard may take.
    """

    bisections: int = eqx.field(static=True, default=12)
    newton_steps: int = eqx.field(static=True, default=3)
    guard_steps: int = eqx.field(static=True, default=200)

    def __check_init__(self) -> None:
        if min(self.bisections, self.newton_steps) < 0 or self.guard_steps < 1:
            raise InputError(
                f"BracketedNewton(bisections={self.bisections}, newton_steps={self.newton_steps}, "
                f"guard_steps={self.guard_steps}): needs at least one guard step, and no negative count."
            )

    def __call__(
        self,
        function: Callable[[Array], Array],
        y: Float[Array, "*shape"],
        lower: Float[Array, "*shape"],
        upper: Float[Array, "*shape"],
    ) -> Float[Array, "*shape"]:
        """The root of function(x) = y between lower and upper; NaN where there is none."""
        search = _neighborhood(function, y, lower, upper, self.bisections)

        def newton(_: Any, x: Array) -> Array:
            value, slope = value_and_slope(function, x)
            x = x - (value - y) / slope
            return jnp.where(x > search.low, jnp.minimum(x, search.high), search.low)

        x = jax.lax.fori_loop(0, self.newton_steps, newton, search.x)

        def goes_on(state: tuple[_Search, Array]) -> Array:
            search, step = state
            return ~jnp.all(search.done) & (step < self.guard_steps)

        def guard(state: tuple[_Search, Array]) -> tuple[_Search, Array]:
            search, step = state
            return _guard(function, y, lower, upper, search), step + 1

        start = (search._replace(x=x), jnp.zeros((), int))
        search, _ = jax.lax.while_loop(goes_on, guard, start)
        return jnp.where(search.done & ~search.lost, search.root, jnp.nan)


def _neighborhood(
    function: Callable[[Array], Array], y: Array, lower: Array, upper: Array, bisections: int
) -> _Search:
    """Where float32 sees the root, and half as much again on either side."""
    coarse, y32 = _float32(function), y.astype(jnp.float32)

    def halve(_: Any, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        below = coarse(middle) < y32
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    ends = (lower.astype(jnp.float32), upper.astype(jnp.float32))
    low, high = jax.lax.fori_loop(0, bisections, halve, ends)
    low, high = low.astype(y.dtype), high.astype(y.dtype)
    size = jnp.maximum(jnp.abs(low), jnp.abs(high))
    rounding = 4 * jnp.finfo(jnp.float32).eps * size
    width = jnp.maximum(high - low, rounding)
    no, never = jnp.zeros(y.shape, bool), jnp.full_like(y, jnp.inf)
    between = lambda x: jnp.clip(x, lower, upper)
    start = between(0.5 * (low + high))
    low, high = between(low - 0.5 * width), between(high + 0.5 * width)
    return _Search(
        root=start,
        x=start,
        low=low,
        high=high,
        low_known=no,
        high_known=no,
        reach=width,
        last=never,
        done=no,
        lost=no,
    )


def _guard(
    function: Callable[[Array], Array], y: Array, lower: Array, upper: Array, search: _Search
) -> _Search:
    """A step: evaluate at x, tighten the bracket, choose the next x."""
    root, x, low, high, low_known, high_known, reach, last, done, lost = search
    root = jnp.where(done, root, x)
    value, slope = value_and_slope(function, x)
    residual = value - y
    below, above = residual < 0, residual > 0

    # the root is as good as rounding allows
    eps = jnp.finfo(y.dtype).eps
    in_y, in_x = jnp.maximum(1, jnp.abs(y)), jnp.maximum(1, jnp.abs(x))
    rounding = eps * (in_y + slope * in_x)
    at_end = (below & (x >= upper)) | (above & (x <= lower))
    there = jnp.abs(residual) < jnp.where(at_end, ROUNDINGS_AT_END, ROUNDINGS) * rounding
    no_root = (at_end & ~there) | jnp.isnan(residual)
    lost = lost | (~done & no_root)

    # what was taken for an end of the bracket is not: the root lies farther out
    too_low, too_high = below & (x >= high), above & (x <= low)
    reach = jnp.where(too_low | too_high, GROWTH * reach, reach)
    beyond = jnp.maximum(lower, x - reach)
    low = jnp.where(below, x, jnp.where(too_high, beyond, low))
    beyond = jnp.minimum(upper, x + reach)
    high = jnp.where(above, x, jnp.where(too_low, beyond, high))
    low_known = (low_known & ~too_high) | below
    high_known = (high_known & ~too_low) | above
    # closed up between two neighboring numbers: a root by continuity
    narrow = high - low <= 2 * eps * in_x
    closed = narrow & low_known & high_known

    newton = x - residual / slope
    stalls = jnp.abs(residual) > 0.5 * last
    steps = (newton >= low) & (newton <= high) & ~stalls
    # a conjectured end that Newton would pass is worth a look; otherwise halve
    past_high, past_low = (newton > high) & ~high_known, (newton < low) & ~low_known
    other = jnp.where(past_low, low, 0.5 * (low + high))
    other = jnp.where(past_high, high, other)
    x = jnp.where(done, x, jnp.where(steps, newton, other))
    last = jnp.where(steps, jnp.abs(residual), jnp.inf)
    done = done | there | closed | lost
    return _Search(root, x, low, high, low_known, high_known, reach, last, done, lost)


def value_and_slope(
    function: Callable[[Array], Array], x: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """f(x) and f'(x) of a function that acts element by element.

    By a method of this name, if the function has one.
    """
    if hasattr(function, "value_and_slope"):
        return function.value_and_slope(x)
    return jax.jvp(function, (x,), (jnp.ones_like(x),))


def _float32(tree: Any) -> Any:
    floats, others = eqx.partition(tree, eqx.is_inexact_array)
    coarse = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), floats)
    return eqx.combine(coarse, others)


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
        function: increasing, smooth, acts on each element by itself; a pytree (an `equinox.Module` with a
            `__call__`, or `jax.tree_util.Partial`), whose arrays are its parameters. What a lambda closes
            over cannot be differentiated. A method `value_and_slope(x)` is used, if there is one, in place of
            automatic differentiation.
        y: values, any shape.
        lower: end of the bracket, function(lower) <= y. Derivative zero, as it does not move the root.
        upper: other end, function(upper) >= y.
        solver: called as solver(function, y, lower, upper); `BracketedNewton()` by default.
    Returns:
        x, of the shape and the precision of y. The error is that of rounding: x is off by less than 1e-12 in
        float64 and 1e-6 in float32 (in units of |x|, if above 1), or function(x) is (in units of |y|, if
        above 1): where f is as flat as 1e-6, rounding of y alone moves x by 1e-10. NaN where the bracket
        holds no root.
    Raises:
        InputError: the bracket holds no root (not under `jax.jit`, where NaN is all that can be said).
    """
    y = jnp.asarray(y)
    low, high = _ends(lower, upper, y)
    x = _inverse(function, y, low, high, BracketedNewton() if solver is None else solver)
    if not isinstance(x, Tracer) and bool(jnp.any(jnp.isnan(x))):
        k = int(jnp.argmax(jnp.isnan(x).ravel()))
        asked, left, right = (float(values.ravel()[k]) for values in (y, low, high))
        raise InputError(
            f"inverse found no root: element {k} asks for y = {asked:.6g} between x = {left:.6g} and "
            f"{right:.6g}. The function must be increasing and finite there, with function(lower) <= y <= "
            "function(upper)."
        )
    return x


def _ends(lower: Any, upper: Any, y: Array) -> tuple[Array, Array]:
    """Both ends of the bracket of each element of y."""
    of_each = lambda end: jnp.broadcast_to(jnp.asarray(end, y.dtype), y.shape)
    return of_each(lower), of_each(upper)


@eqx.filter_custom_jvp
def _inverse(function: Any, y: Array, lower: Array, upper: Array, solver: Any) -> Array:
    return _solve(solver, function, y, lower, upper)


@eqx.filter_jit
def _solve(solver: Any, function: Any, y: Array, lower: Array, upper: Array) -> Array:
    return solver(function, y, lower, upper)


@_inverse.def_jvp
def _inverse_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    function, y, *_ = primals
    d_function, d_y, *_ = tangents
    x = _inverse(*primals)
    # f' dx = dy - (∂f/∂θ) dθ
    _, slope = value_and_slope(function, x)
    right = _or_zeros(d_y, y) - _moved_by_parameters(function, d_function, x)
    return x, right / slope


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
    """The x with function(x) = y, for a triangular map.

    Its component i depends on x[0], ..., x[i] only, and increases with x[i]. An autoregressive flow, inverted
    one component after the other. Differentiable like `inverse`; batches by `jax.vmap`.

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
    low, high = _ends(lower, upper, y)
    return _triangular_inverse(function, y, low, high, BracketedNewton() if solver is None else solver)


class _Component(eqx.Module):
    """Component i of a triangular map as a function of x[i], the earlier ones held."""

    function: Any
    x: Float[Array, " n"]
    i: Array

    def __call__(self, x_i: Float[Array, ""]) -> Float[Array, ""]:
        x = self.x.at[self.i].set(x_i)
        return self.function(x.astype(x_i.dtype))[self.i]


@eqx.filter_custom_jvp
def _triangular_inverse(function: Any, y: Array, lower: Array, upper: Array, solver: Any) -> Array:
    def place(i: Array, x: Array) -> Array:
        function_of_one = _Component(function, x, i)
        root = solver(function_of_one, y[i], lower[i], upper[i])
        return x.at[i].set(root)

    return jax.lax.fori_loop(0, y.size, place, 0.5 * (lower + upper))


@_triangular_inverse.def_jvp
def _triangular_inverse_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    function, y, *_ = primals
    d_function, d_y, *_ = tangents
    x = _triangular_inverse(*primals)
    # J dx = dy - (∂f/∂θ) dθ, J lower triangular
    right = _or_zeros(d_y, y) - _moved_by_parameters(function, d_function, x)
    J = jax.jacfwd(function)(x)
    return x, jax.scipy.linalg.solve_triangular(J, right, lower=True)
