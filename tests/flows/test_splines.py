"""Rational-quadratic splines: inverses, ends and knots; and the corner that mixtures of ramps do not have."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mdsens.errors import InputError
from mdsens.flows.splines import CircularSpline, IntervalSpline, LineSpline
from mdsens.flows.transforms import CircleMixture, IntervalMixture, LineMixture

rng = np.random.default_rng(0)
FAMILIES = pytest.mark.parametrize(
    "family",
    [CircularSpline(5), IntervalSpline(5), LineSpline(5, bound=2.0)],
    ids=["circle", "interval", "line"],
)
N = 40


@eqx.filter_jit
def built(family, raw):
    """The function, and its knots in x and y."""
    f = family.build(raw)
    if not hasattr(f, "spline"):
        return f, f.x, f.y + f.shift
    return f, (f.spline.x - f.shift) * jnp.exp(-f.log_scale), f.spline.y


@eqx.filter_jit
def forward(f, x):
    """y, log dy/dx, and the derivatives of both."""
    values, slopes = jax.jvp(f.forward, (x,), (jnp.ones_like(x),))
    return *values, *slopes


@eqx.filter_jit
def backward(f, y):
    """x, log dx/dy, and the derivatives of both."""
    values, slopes = jax.jvp(f.inverse, (y,), (jnp.ones_like(y),))
    return *values, *slopes


def random_spline(family, dtype=np.float64, seed=0):
    f, x, y = built(family, jnp.asarray(0.5 * np.random.default_rng(seed).normal(size=family.n_raw), dtype))
    low, high = (0, 1) if isinstance(family, IntervalSpline) else (-7, 7)
    return f, x, y, jnp.sort(jnp.concatenate([x, jnp.linspace(low, high, N - x.size, dtype=dtype)]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["f64", "f32"])
@FAMILIES
def test_a_spline_increases_and_its_inverse_undoes_it_at_knots_ends_and_between(family, dtype):
    eps = np.finfo(dtype).eps
    for seed in range(5):
        f, _, _, x = random_spline(family, dtype, seed)
        y, log_slope, slope, bend = forward(f, x)
        back, log_inverse, inverse_slope, inverse_bend = backward(f, y)
        assert all(
            part.dtype == dtype and np.all(np.isfinite(part))
            for part in (y, log_slope, slope, bend, back, inverse_bend)
        )
        assert np.all(np.diff(y) >= 0) and np.all(slope > 0)
        assert_allclose(slope, np.exp(log_slope), rtol=1e3 * eps)
        # y is rounded, at |y| ~ 10, and slopes are as low as 0.1
        assert_allclose(back, x, atol=1e4 * eps)
        assert_allclose(inverse_slope, np.exp(log_inverse), rtol=1e3 * eps)
        # at a knot rounding decides which of two neighboring bins it is; the slope is that of both
        assert_allclose(log_inverse, -log_slope, atol=1e5 * eps)


@FAMILIES
def test_the_derivative_of_the_inverse_at_a_knot_is_that_of_both_sides(family):
    f, _, y, _ = random_spline(family)
    slopes = [np.asarray(backward(f, jnp.resize(y[1:-1], N) + gap)[2]) for gap in (-1e-9, 0, 1e-9)]
    for slope in slopes[1:]:
        assert_allclose(slope, slopes[0], rtol=1e-6)
    # and where the first bin begins
    first = np.asarray(backward(f, jnp.resize(y[0], N).at[1:].add(1e-9))[2])
    assert_allclose(first, first[1], rtol=1e-6)


def test_a_spline_closes_around_the_circle():
    f, _, _, points = random_spline(CircularSpline(5))
    (y, log_slope, *_), later = forward(f, points), forward(f, points + 1)
    assert_allclose(later[0], y + 1, atol=1e-13)
    assert_allclose(later[1], log_slope, atol=1e-11)
    # across the knot at 0, where the circle is cut
    across = np.asarray(forward(f, jnp.linspace(-1e-9, 1e-9, N))[2])
    assert_allclose(across, across[0], rtol=1e-6)


def test_the_interval_keeps_its_ends():
    f, *_ = random_spline(IntervalSpline(5))
    assert_allclose(forward(f, jnp.linspace(0, 1, N))[0][jnp.array([0, -1])], [0, 1], atol=1e-15)


def test_a_spline_on_the_line_is_straight_beyond_its_knots():
    f, x, _, _ = random_spline(LineSpline(5, bound=2.0))
    outside = jnp.concatenate([x[0] - jnp.linspace(0.01, 50, N // 2), x[-1] + jnp.linspace(0.01, 50, N // 2)])
    y, log_slope, _, bend = forward(f, outside)
    assert_allclose(y, outside * np.exp(f.log_scale) + f.shift, rtol=1e-14)
    assert_allclose(log_slope, f.log_scale, atol=1e-15)
    assert not np.any(bend)


@pytest.mark.parametrize(
    ("spline", "mixture"),
    [
        (CircularSpline(5), CircleMixture(3)),
        (IntervalSpline(5), IntervalMixture(3)),
        (LineSpline(5, bound=2.0), LineMixture(3)),
    ],
    ids=["circle", "interval", "line"],
)
def test_the_force_of_a_spline_jumps_at_knots_and_that_of_a_mixture_nowhere(spline, mixture):
    f, knots, _, _ = random_spline(spline)
    g = mixture.build(jnp.asarray(rng.normal(size=mixture.n_raw)))
    ramp_ends = jnp.concatenate([g.center - 0.5 / g.sharpness, g.center + 0.5 / g.sharpness])

    def jump(function, at, gap):
        at = jnp.resize(at, N // 2)
        bend = np.asarray(forward(function, jnp.concatenate([at - gap, at + gap]))[3])
        return np.abs(bend[N // 2 :] - bend[: N // 2])

    for gap in (1e-5, 1e-7):
        # d log(dy/dx) / dx from left to right: finite however close, at each inner knot
        assert np.all(jump(f, knots[1:-1], gap) > 1e-2)
        # third derivatives of log dy/dx are some 1e4
        assert np.all(jump(g, ramp_ends, gap) < 1e5 * gap)
    # its slope is the same on both sides of each knot
    left, right = (forward(f, jnp.resize(knots[1:-1], N) + gap)[1] for gap in (-1e-9, 1e-9))
    assert_allclose(left, right, atol=1e-6)


@pytest.mark.parametrize("n_bins", [1, 500])
@pytest.mark.parametrize("family", [CircularSpline, IntervalSpline, LineSpline])
def test_too_few_or_too_many_bins_are_refused(family, n_bins):
    with pytest.raises(
        InputError, match=rf"^{family.__name__}\(n_bins={n_bins}\): needs between 2 and 499 bins"
    ):
        family(n_bins=n_bins)
