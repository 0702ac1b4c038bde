"""Smooth transforms: right at the ends of domains and ramps, closed around the circle, without corners."""

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.testing import assert_allclose

from mdsens.errors import InputError
from mdsens.flows.transforms import (
    EDGE,
    LEAST_STEEPNESS,
    Affine,
    AffineFamily,
    CircleMixture,
    IntervalMixture,
    LineMixture,
    RampMixture,
    Rotation,
    RotationFamily,
    ramp,
)

rng = np.random.default_rng(0)
POWERS = pytest.mark.parametrize("power", [1, 2])


def orders(function, x, n):
    """function(x) and its first n derivatives, element by element."""
    if n == 0:
        return function(x)[None]
    below = lambda x: orders(function, x, n - 1)
    values, slopes = jax.jvp(below, (x,), (jnp.ones_like(x),))
    return jnp.concatenate([values, slopes[-1:]])


# --- the ramp -------------------------------------------------------------------------------------------

ramp_orders = jax.jit(
    lambda z, steepness, power: orders(lambda z: ramp(z, steepness, power)[0], z, 4), static_argnums=2
)


@POWERS
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["f64", "f32"])
def test_a_ramp_joins_its_ends_without_a_corner_in_any_derivative(power, dtype):
    edge = np.array([EDGE[power]], dtype)
    around = np.concatenate([np.nextafter(edge, 0), edge, np.nextafter(edge, 1)])
    before = np.array(
        [-np.inf, -1e30, -1.0, -0.0, 0.0, np.finfo(dtype).tiny, np.finfo(dtype).eps, *around], dtype
    )
    after = 1 - before
    middle = np.linspace(0, 1, 77, dtype=dtype)
    for steepness in (LEAST_STEEPNESS[power], 3.0, 40.0):
        found = np.asarray(
            ramp_orders(jnp.asarray([*before, *after, *middle], dtype), jnp.asarray(steepness, dtype), power)
        )
        assert found.dtype == dtype and np.all(np.isfinite(found))
        assert not np.any(found[:, : before.size])
        assert np.all(found[0, before.size : 2 * before.size] == 1)
        assert not np.any(found[1:, before.size : 2 * before.size])
        assert_allclose(found[0, -77:] + found[0, -77:][::-1], 1, atol=4 * np.finfo(dtype).eps)


@POWERS
def test_a_ramp_and_its_derivatives_are_those_of_its_formula_in_150_digits(power):
    z = np.array([0.11, 0.3, 0.45, 0.77])
    for steepness in (LEAST_STEEPNESS[power], 3.0, 11.0):
        rho = lambda z, a=steepness: mpmath.exp(a * (1 - z**-power))
        with mpmath.workdps(150):  # near 1 the ramp misses it by 1e-79
            g = lambda z, rho=rho: rho(z) / (rho(z) + rho(1 - z))
            exact = [[float(mpmath.diff(g, mpmath.mpf(p), n)) for p in z.tolist()] for n in range(5)]
        # g ~ exp(u), u = a ((1 - z)^-k - z^-k) up to some hundreds: as many roundings
        assert_allclose(ramp_orders(jnp.asarray(z), jnp.asarray(steepness), power), exact, rtol=1e-11)
        assert_allclose(ramp(jnp.asarray(z), jnp.asarray(steepness), power)[1], exact[1], rtol=1e-12)


@POWERS
def test_the_bump_has_one_maximum_from_the_least_steepness_on_and_two_below(power):
    z = jnp.linspace(0, 0.5, 2001)
    bump = lambda a: np.asarray(ramp(z, jnp.asarray(a), power)[1])
    for steepness in (LEAST_STEEPNESS[power], 1.5, 11.0):
        rise = np.diff(bump(steepness))
        assert np.all(rise >= -4e-16 * np.max(bump(steepness)))
    # a dip of one in a million is ten digits above rounding
    two = bump(0.999 * LEAST_STEEPNESS[power])
    assert two[-1] < (1 - 1e-6) * np.max(two)
    # the middle of a symmetric bump is where the other half begins
    assert_allclose(ramp(1 - z, jnp.asarray(3.0), power)[1], bump(3.0), atol=1e-12)


# --- mixtures, for any output of a network --------------------------------------------------------------

N = 48


@eqx.filter_jit
def built(family, raw):
    f = family.build(raw)
    return f, jnp.concatenate([f.center, f.center - 0.5 / f.sharpness, f.center + 0.5 / f.sharpness])


@eqx.filter_jit
def transform_orders(f, x):
    """y with three derivatives, and log dy/dx with two."""
    return orders(lambda x: f.forward(x)[0], x, 3), orders(lambda x: f.forward(x)[1], x, 2)


@eqx.filter_jit
def raw_slopes(family, raw, x):
    return jax.jacrev(lambda raw: jnp.stack([jnp.sum(part) for part in family.build(raw).forward(x)]))(raw)


CASES = {
    "interval f32": (IntervalMixture(3), np.float32),
    "interval f64": (IntervalMixture(3, power=2), np.float64),
    "circle f32": (CircleMixture(3, power=2), np.float32),
    "circle f64": (CircleMixture(3), np.float64),
    "line f32": (LineMixture(3), np.float32),
    "line f64": (LineMixture(3, power=2), np.float64),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mixture_increases_and_is_finite_with_all_derivatives_for_any_raw_numbers(case):
    family, dtype = CASES[case]
    numbers = arrays.arrays(np.float32, family.n_raw, elements=st.floats(-9, 9, width=32))

    @settings(max_examples=40)
    @given(numbers)
    @example(np.zeros(family.n_raw, np.float32))
    @example(np.full(family.n_raw, 9, np.float32))
    @example(np.full(family.n_raw, -9, np.float32))
    def check(raw):
        raw = jnp.asarray(raw, dtype)
        f, special = built(family, raw)
        low, high = (0, 1) if f.domain == "interval" else (-4, 4)
        grid = [low, high, 0, -0.0, 1, np.finfo(dtype).tiny, 1 - np.finfo(dtype).epsneg, *special]
        x = np.sort(np.clip(np.asarray([*grid, *np.linspace(low, high, N - len(grid))], dtype), low, high))
        y, log_slope = (np.asarray(part) for part in transform_orders(f, jnp.asarray(x)))
        assert y.dtype == log_slope.dtype == dtype
        assert np.all(np.isfinite(y)) and np.all(np.isfinite(log_slope))
        assert np.all(np.isfinite(raw_slopes(family, raw, jnp.asarray(x))))
        eps = np.finfo(dtype).eps
        assert np.all(y[1] >= float(f.slope) * (1 - 4 * eps)) and f.slope > 0
        assert np.all(np.diff(y[0]) >= -32 * eps * np.max(np.abs(y[0])))
        # near the ends of a ramp the slope is exp(u) with u some hundreds: as many roundings
        assert_allclose(log_slope[0], np.log(y[1]), atol=1e3 * eps)
        if f.domain == "interval":
            assert_allclose(y[0, [0, -1]], [0, 1], atol=16 * eps)

    check()


def test_around_the_circle_values_rise_by_one_and_derivatives_come_back():
    family = CircleMixture(3)
    for seed in range(5):
        f, special = built(family, jnp.asarray(np.random.default_rng(seed).normal(size=family.n_raw)))
        x = jnp.asarray(np.concatenate([special, np.linspace(-2, 2, N - special.size)]))
        (y, log_slope), (y_next, log_slope_next) = transform_orders(f, x), transform_orders(f, x + 1)
        assert_allclose(y_next[0], y[0] + 1, atol=1e-14)
        for now, later in ((y[1:], y_next[1:]), (log_slope, log_slope_next)):
            scale = np.max(np.abs(now), axis=1, keepdims=True)
            # x + 1 is rounded: 1e-16 times the next derivative, which is some 100 times as large
            assert_allclose(later / scale, now / scale, atol=1e-12)


def wide_ramps(sharpness):
    """Ramps as long as the circle, or longer."""
    height, center, steepness = (jnp.asarray(a) for a in ([0.6, 0.3], [0.2, 0.7], [LEAST_STEEPNESS[1], 1.1]))
    return RampMixture(
        jnp.asarray(0.1), jnp.asarray(0.0), height, center, jnp.full(2, sharpness), steepness, domain="circle"
    )


def jumps(f, at, gap):
    """Of value and three derivatives between at - gap and at + gap, relative to the largest anywhere."""
    x = jnp.asarray(np.concatenate([[at - gap, at + gap], np.linspace(0, 1, N - 2)]))
    y = np.asarray(transform_orders(f, x)[0])
    return np.abs(y[:, 1] - y[:, 0]) / np.max(np.abs(y), axis=1)


def test_a_ramp_as_long_as_the_circle_meets_itself_smoothly_and_a_longer_one_does_not():
    for center in (0.2, 0.7):
        # half a turn away from its center: the other ramp and the straight part go on, by 2 gap times the
        # next derivative
        assert np.all(jumps(wide_ramps(1.0), center + 0.5, 1e-8) < 1e-6)
        assert np.max(jumps(wide_ramps(0.7), center + 0.5, 1e-8)) > 1e-3


forward = eqx.filter_jit(lambda f, x: f.forward(x))


@pytest.mark.parametrize("family", [IntervalMixture(3), CircleMixture(3)])
def test_the_density_has_integral_one(family):
    f, _ = built(family, jnp.asarray(rng.normal(size=family.n_raw)))
    nodes, weights = np.polynomial.legendre.leggauss(40)
    x = (np.arange(50)[:, None] + (nodes + 1) / 2) / 50
    density = np.exp(forward(f, jnp.asarray(x.ravel()))[1])
    # Gauss-Legendre of a smooth function, forty points for each length of the shortest ramp there can be
    assert_allclose(np.sum(density.reshape(x.shape) * weights) / 100, 1, atol=1e-9)


@pytest.mark.parametrize("family", [IntervalMixture(), CircleMixture(), LineMixture()])
def test_zeros_give_nearly_the_identity(family):
    f, _ = built(family, jnp.zeros(family.n_raw))
    x = jnp.linspace(0, 1, N)
    assert np.max(np.abs(forward(f, x)[0] - x)) < 0.1


# --- both directions ------------------------------------------------------------------------------------


@eqx.filter_jit
def there_and_back(family, raw, x):
    f = family.build(raw)
    y, log_slope = f.forward(x)
    return (y, log_slope), f.inverse(y)


@pytest.mark.parametrize("case", ["interval f32", "circle f64", "line f64"])
def test_what_a_network_builds_is_inverted(case):
    family, dtype = CASES[case]
    raw = jnp.asarray(2 * rng.normal(size=(1000, family.n_raw)), dtype)
    x = (
        jnp.asarray(rng.random(1000) if "interval" in case else rng.normal(size=1000), dtype)
        .at[:2]
        .set(jnp.asarray([0, 1], dtype))
    )
    (_, log_slope), (back, log_inverse) = there_and_back(family, raw, x)
    eps = np.finfo(dtype).eps
    # y is rounded; where f is flat that moves x, and the slope with it
    assert np.all(np.abs(back - x) * np.minimum(1, np.exp(log_slope)) < 64 * eps)
    moved = np.abs(back - x) > 64 * eps
    assert_allclose(
        log_inverse[~moved], -log_slope[~moved], atol=1e5 * eps
    )  # log-slopes change by up to 1000 a unit


@pytest.mark.parametrize("family", [AffineFamily(), RotationFamily()], ids=["affine", "rotation"])
def test_affine_functions_and_rotations_are_inverted(family):
    raw, x = jnp.asarray(rng.normal(size=(9, family.n_raw))), jnp.asarray(rng.normal(size=9))
    (_, log_slope), (back, log_inverse) = there_and_back(family, raw, x)
    assert_allclose(back, x, atol=1e-14)
    assert_allclose(log_inverse, -log_slope, atol=1e-15)
    slope = jax.vmap(jax.grad(lambda x, raw: family.build(raw).forward(x)[0]))(x, raw)
    assert_allclose(log_slope, np.log(slope), atol=1e-15)


def test_affine_functions_and_rotations_are_what_they_say():
    assert_allclose(Affine(jnp.array(2.0), jnp.log(3.0)).forward(jnp.array(5.0)), (17, np.log(3)), rtol=1e-15)
    assert_allclose(Rotation(jnp.array(0.25)).forward(jnp.array(0.5)), (0.75, 0), rtol=1e-15)


@pytest.mark.parametrize(
    "family", [IntervalMixture(3), CircleMixture(3), LineMixture(3), AffineFamily(), RotationFamily()]
)
def test_float32_stays_float32(family):
    raw, x = jnp.zeros((2, family.n_raw), np.float32), jnp.zeros(2, np.float32)
    for shape in jax.tree.leaves(eqx.filter_eval_shape(there_and_back, family, raw, x)):
        assert shape.dtype == np.float32


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [IntervalMixture, CircleMixture, LineMixture])
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"power": 3}, r"\(power=3\): .*1 or 2"),
        ({"least_slope": 0.0}, r"\(least_slope=0\): .*no inverse"),
        ({"least_slope": 1.0}, r"\(least_slope=1\): .*between 0 and 1"),
        ({"n_components": 0}, r"\(n_components=0\): .*one ramp or more"),
        ({"sharpest": 0.3}, r"\(sharpest=0\.3\): must be above"),
    ],
    ids=["power", "flat", "too steep", "no ramps", "too wide"],
)
def test_families_that_cannot_be_are_refused(family, wrong, why):
    with pytest.raises(InputError, match=f"^{family.__name__}{why}"):
        family(**wrong)
