"""Roots of hard mixtures to the last digits.

Derivatives of the inverse against closed forms and 50-digit arithmetic.
"""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from mixtures import ExactMixture, mixtures
from numpy.testing import assert_allclose

from mdsens.errors import InputError
from mdsens.flows.transforms import RampMixture
from mdsens.implicit.inverse import BracketedNewton, inverse, triangular_inverse
from mdsens.testing import central_difference

rng = np.random.default_rng(0)
# derivative along v of a function that passes on what it was derived from
STEPS = {
    "forward": lambda f: lambda p, v: jax.jvp(lambda p: f(p, v), (p,), (v,), has_aux=True)[1:],
    "reverse": lambda f: (
        lambda p, v: (lambda slope, lower: (slope @ v, lower))(*jax.grad(f, has_aux=True)(p, v))
    ),
}
MODES = {"forward": ["forward"] * 3, "reverse": ["reverse"] * 3, "mixed": ["forward", "reverse", "forward"]}


# --- the error ------------------------------------------------------------------------------------------

ALLOWED = {np.float64: 1e-12, np.float32: 1e-6}


@eqx.filter_jit
def roots(f, y):
    # Measured: one guard step for ordinary batches, up to 25 for the others. What takes more than are allowed
    # here is NaN.
    return inverse(f, y, *f.bracket(y), solver=BracketedNewton(guard_steps=40))


@eqx.filter_jit
def off(f, y, x, allowed):
    """Whether x or f(x) is right, and by how much f(x) is off where f is flat, x where it is steep."""
    value, slope = f.value_and_slope(x)
    h = allowed * jnp.maximum(1, jnp.abs(x))
    # f increases: f(x - h) <= y <= f(x + h) puts the root between
    x_is_right = (f(x - h) <= y) & (y <= f(x + h))
    return x_is_right | (jnp.abs(value - y) <= allowed * jnp.maximum(1, jnp.abs(y))), jnp.abs(
        value - y
    ) / jnp.maximum(1, slope)


@pytest.mark.parametrize("domain", ["interval", "circle", "line"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["f64", "f32"])
def test_each_root_of_100000_ordinary_and_100000_adversarial_mixtures_is_right(domain, dtype):
    pair = [mixtures(domain, 100_000, adversarial=adversarial) for adversarial in (False, True)]
    f, y = jax.tree.map(lambda a, b: jnp.concatenate([a, b]).astype(dtype), *pair)
    x = roots(f, y)
    assert x.dtype == dtype
    # judged in float64, for the numbers that the solver was given
    f, y, x = jax.tree.map(lambda a: a.astype(jnp.float64), (f, y, x))
    if domain == "interval":
        assert np.all((x >= 0) & (x <= 1))
    right, residual = off(f, y, x, jnp.asarray(ALLOWED[dtype]))
    assert np.all(right)
    for i in [*np.argsort(np.asarray(residual))[-25:].tolist(), *range(0, 200_000, 8_000)]:
        assert_right_with_50_digits(ExactMixture.of(f, i), float(y[i]), float(x[i]), ALLOWED[dtype])


def assert_right_with_50_digits(f, y, x, allowed):
    with mpmath.workdps(50):
        h = allowed * max(1, abs(x))
        value, before, after = (f(mpmath.mpf(x) + s) - y for s in (0, -h, h))
        assert before <= 0 <= after or abs(value) <= allowed * max(1, abs(y))
        if allowed == ALLOWED[np.float64]:
            # the root itself. In float32 it can be anywhere on a flat stretch, and the slope there another
            # than at x.
            root = mpmath.findroot(lambda x: f(x) - y, (x, x + 1e-9), tol=1e-40)
            assert abs(root - x) * min(1, mpmath.diff(f, root)) <= h


# --- derivatives in closed form -------------------------------------------------------------------------


class Cubic(eqx.Module):
    a: jax.Array
    b: jax.Array

    def __call__(self, x):
        return self.a * x + self.b * x**3

    def closed(self, y):
        # Cardano: 4 s³ + 3 s = sinh(3 asinh s)
        scale = jnp.sqrt(4 * self.a / (3 * self.b))
        return scale * jnp.sinh(jnp.arcsinh(3 * y / (self.a * scale)) / 3)


class HyperbolicSine(eqx.Module):
    a: jax.Array
    b: jax.Array

    def __call__(self, x):
        return self.a * jnp.sinh(self.b * x)

    def closed(self, y):
        return jnp.arcsinh(y / self.a) / self.b


class Exponential(eqx.Module):
    a: jax.Array
    b: jax.Array

    def __call__(self, x):
        return self.a * jnp.exp(self.b * x)

    def closed(self, y):
        return jnp.log(y / self.a) / self.b


def orders_along(g, mode):
    """(p, v) -> g(p + t v) and its first three derivatives in t at t = 0."""
    nest = lambda p, v: (g(p), ())
    for step in MODES[mode]:
        nest = STEPS[step](
            lambda p, v, inner=nest: (lambda value, lower: (value, (*lower, value)))(*inner(p, v))
        )
    return jax.jit(lambda p, v: (lambda value, lower: jnp.stack([*lower, value]))(*nest(p, v)))


@pytest.mark.parametrize(
    ("kind", "mode"), [(Cubic, "forward"), (HyperbolicSine, "reverse"), (Exponential, "mixed")]
)
def test_derivatives_to_third_order_are_those_of_the_closed_inverse(kind, mode):
    found = orders_along(lambda p: inverse(kind(p[0], p[1]), p[2], -20.0, 20.0), mode)
    closed = orders_along(lambda p: kind(p[0], p[1]).closed(p[2]), "forward")
    p = jnp.array([1.3, 0.4, 0.7])
    for v in jnp.asarray(
        [*np.eye(3), *rng.normal(size=(7, 3))]
    ):  # ten directions fix a third derivative in three numbers
        assert_allclose(found(p, v), closed(p, v), rtol=1e-12, atol=1e-12)


def test_the_bracket_does_not_move_the_root():
    slopes = jax.grad(lambda ends: inverse(jnp.sinh, jnp.array(0.5), ends[0], ends[1]))(
        jnp.array([-1.0, 2.0])
    )
    assert not np.any(slopes)


# --- derivatives of a mixture, from 50 digits and from differences --------------------------------------

# slope, offset, two heights, centers, sharpnesses and steepnesses, and y: the numbers that x depends on
POINT = jnp.array([0.05, -0.1, 0.45, 0.55, 0.31, 0.64, 2.1, 3.7, 1.2, 2.3, 0.47])


def mixture_inverse(p):
    return inverse(RampMixture(p[0], p[1], *p[2:10].reshape(4, 2), domain="interval"), p[10], 0.0, 1.0)


@functools.cache
def mixture_orders(mode):
    return orders_along(mixture_inverse, mode)


DIRECTIONS = [np.eye(11)[10], *rng.normal(size=(3, 11))]


@pytest.fixture(scope="module")
def exact_orders():
    """d^n x / dt^n along POINT + t v, n = 0 to 3, for each direction v, from 50 digits."""

    def along(v):
        def x(t):
            p = [mpmath.mpf(float(a)) + t * mpmath.mpf(float(b)) for a, b in zip(POINT, v, strict=True)]
            f = ExactMixture(p[0], p[1], p[2:4], p[4:6], p[6:8], p[8:10])
            return mpmath.findroot(lambda x: f(x) - p[10], (start, start + 1e-9), tol=1e-90)

        return [float(mpmath.diff(x, 0, n)) for n in range(4)]

    start = float(mixture_orders("forward")(POINT, jnp.zeros(11))[0])
    with mpmath.workdps(50):
        return [along(v) for v in DIRECTIONS]


@pytest.mark.parametrize("mode", MODES)
def test_derivatives_to_third_order_in_all_parameters_are_those_of_50_digit_arithmetic(mode, exact_orders):
    for v, exact in zip(DIRECTIONS, exact_orders, strict=True):
        # rounding of x, 1e-16, times the next derivative
        assert_allclose(mixture_orders(mode)(POINT, jnp.asarray(v)), exact, rtol=1e-11, atol=1e-12)


def test_derivatives_are_those_of_differences():
    for v in map(jnp.asarray, DIRECTIONS):
        orders = lambda t, v=v: mixture_orders("reverse")(POINT + t * v, v)
        # each order is some 100 times the one before it: (100 step)⁴
        assert_allclose(
            orders(0.0)[1:], central_difference(orders, 0.0, step=1e-4, order=4)[:3], rtol=1e-7, atol=1e-7
        )


# --- triangular maps ------------------------------------------------------------------------------------


class Autoregressive(eqx.Module):
    """Component i is a mixture whose slope and offset depend on the components before it."""

    weights: jax.Array
    mixtures: RampMixture

    def __call__(self, x):
        scale, shift = jnp.tril(self.weights, -1) @ jnp.tanh(x)
        return dataclasses.replace(self.mixtures, slope=jnp.exp(scale), offset=shift)(x)


RAMPS = RampMixture(jnp.ones(3), jnp.zeros(3), *(jnp.asarray(rng.uniform(1, 3, (3, 2))) for _ in range(4)))
WEIGHTS = jnp.asarray(rng.normal(size=(2, 3, 3)))


def chain(weights, x):
    return Autoregressive(weights, RAMPS)(x)


def chain_inverse(weights, y):
    return triangular_inverse(Autoregressive(weights, RAMPS), y, -30.0, 30.0)


def chain_slopes(weights, y):
    """x, and its slopes in the weights and in y."""
    x, pull_back = jax.vjp(chain_inverse, weights, y)
    return x, *jax.vmap(pull_back)(jnp.eye(3))


all_slopes = jax.jit(jax.vmap(chain_slopes, (None, 0)))


@jax.jit
def chain_forward(x):
    """y, and its slopes in the weights and in x."""
    return chain(WEIGHTS, x), *jax.jacfwd(chain, argnums=(0, 1))(WEIGHTS, x)


X = rng.normal(size=(8, 3))


def test_a_triangular_map_is_inverted_with_its_jacobian_and_slopes_in_the_parameters():
    forward = [chain_forward(x) for x in X]
    back, by_weights, jacobian = all_slopes(WEIGHTS, jnp.stack([y for y, *_ in forward]))
    # slopes are above exp(-3); rounding of each component passes on to those after it
    assert_allclose(back, X, atol=1e-12)
    assert not np.any(np.triu(jacobian, 1))
    for k, (_, forward_by_weights, forward_jacobian) in enumerate(forward):
        inverted = np.linalg.inv(forward_jacobian)
        assert_allclose(jacobian[k], inverted, rtol=1e-10, atol=1e-10)
        assert_allclose(by_weights[k], -np.tensordot(inverted, forward_by_weights, 1), rtol=1e-10, atol=1e-10)


def test_triangular_inverses_have_second_derivatives_in_values_and_parameters():
    y, *_ = chain_forward(X[0])
    at, along = (WEIGHTS, y), (jnp.asarray(rng.normal(size=WEIGHTS.shape)), jnp.asarray(rng.normal(size=3)))
    _, second = jax.jit(lambda at, along: jax.jvp(chain_slopes, at, along))(at, along)

    def moved(t):
        weights, y = (a + t * d for a, d in zip(at, along, strict=True))
        return [part[0] for part in all_slopes(weights, jnp.tile(y, (8, 1)))]

    for mine, twin in zip(second, central_difference(moved, 0.0, step=1e-3, order=4), strict=True):
        assert_allclose(mine, twin, rtol=1e-7, atol=1e-7)  # step⁴ = 1e-12 times a fifth derivative or sixth


def test_after_a_component_without_root_there_is_none():
    y, *_ = chain_forward(jnp.array([0.5, 50.0, 0.1]))
    x, *_ = all_slopes(WEIGHTS, jnp.tile(y, (8, 1)))
    assert_allclose(x[:, 0], 0.5, atol=1e-13)
    assert np.all(np.isnan(x[:, 1:]))


# --- what is refused ------------------------------------------------------------------------------------


def test_a_bracket_without_root_is_an_error_and_nan_where_errors_cannot_be_raised():
    y = jnp.array([0.0, 3.0])
    with pytest.raises(InputError, match=r"element 1 asks for y = 3 between x = -1 and 1\. .*increasing"):
        inverse(jnp.sinh, y, -1.0, 1.0)
    assert_allclose(jax.jit(lambda y: inverse(jnp.sinh, y, -1.0, 1.0))(y), [0, np.nan], atol=1e-15)


def test_a_decreasing_function_is_refused():
    with pytest.raises(InputError, match=r"element 0 asks for y = 0\.5 .*increasing"):
        inverse(lambda x: -x, jnp.array([0.5, 0.0]), -1.0, 1.0)


def test_nan_and_infinity_have_no_root():
    x = jax.jit(lambda y: inverse(jnp.sinh, y, -1.0, 1.0))(jnp.array([np.nan, np.inf, -np.inf, 0.5]))
    assert_allclose(x, [np.nan, np.nan, np.nan, np.arcsinh(0.5)], atol=1e-15)


@pytest.mark.parametrize("counts", [{"guard_steps": 0}, {"newton_steps": -1}, {"bisections": -1}])
def test_a_solver_without_steps_is_refused(counts):
    with pytest.raises(
        InputError,
        match=rf"BracketedNewton\(.*{next(iter(counts))}={next(iter(counts.values()))}.*at least one",
    ):
        BracketedNewton(**counts)
