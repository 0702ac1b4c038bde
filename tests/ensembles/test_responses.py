"""Derivatives of functions of averages, and their error bars: closed forms, and scatter over many draws."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from numpy.testing import assert_allclose

from mdsens.ensembles.correlation import statistical_inefficiency
from mdsens.ensembles.responses import response

N = 64


class Moments(eqx.Module):
    """Mean and variance of x under exp(a - z_0 x - z_1 x²)."""

    x: Array

    def __call__(self, log_w, z):
        w = jax.nn.softmax(log_w - z[0] * self.x - z[1] * self.x**2)
        mean = jnp.sum(w * self.x)
        return jnp.stack([mean, jnp.sum(w * (self.x - mean) ** 2)])


@pytest.fixture(scope="module")
def drawn():
    return np.random.default_rng(0).normal(size=N)


@pytest.fixture(scope="module")
def found(drawn):
    zeros = jnp.zeros(N), jnp.zeros(2)
    return response(Moments(jnp.asarray(drawn)), *zeros, second_order=True)


def test_derivatives_of_mean_and_variance_are_cumulants(drawn, found):
    m = [np.mean((drawn - drawn.mean()) ** k) for k in range(6)]
    square = drawn**2
    with_square = np.mean((drawn - drawn.mean()) * square)
    assert_allclose(found.values, [drawn.mean(), m[2]], rtol=1e-12)
    assert_allclose(found.derivatives[:, 0], [-m[2], -m[3]], rtol=1e-10, atol=1e-12)
    assert_allclose(found.derivatives[0, 1], -with_square, rtol=1e-10)
    # second derivatives by z_0: third and fourth cumulant
    assert_allclose(found.second[:, 0, 0], [m[3], m[4] - 3 * m[2] ** 2], rtol=1e-9, atol=1e-12)
    assert_allclose(found.second, found.second.swapaxes(1, 2))


def test_errors_are_those_of_textbooks(drawn, found):
    d = drawn - drawn.mean()
    assert_allclose(found.errors[0], drawn.std(ddof=1) / np.sqrt(N), rtol=1e-12)
    # of a variance: the scatter of its terms (x - <x>)²
    assert_allclose(found.errors[1], (d**2).std(ddof=1) / np.sqrt(N), rtol=1e-12)
    assert_allclose(found.derivative_errors[0, 0], found.errors[1], rtol=1e-10)


def test_errors_of_derivatives_are_their_scatter_over_draws():
    rng, many = np.random.default_rng(1), []
    for _ in range(150):
        x = jnp.asarray(rng.normal(size=N))
        many.append(response(Moments(x), jnp.zeros(N), jnp.zeros(2), second_order=True))
    for part, errors in (
        ("values", "errors"),
        ("derivatives", "derivative_errors"),
        ("second", "second_errors"),
    ):
        scatter = np.std([getattr(one, part) for one in many], axis=0)
        claimed = np.mean([getattr(one, errors) for one in many], axis=0)
        # 64 samples of high moments: the jackknife is low by its own bias, the scatter known to 6 percent
        assert np.all((claimed > 0.55 * scatter) & (claimed < 1.3 * scatter)), part


def test_weights_may_have_any_sum(drawn, found):
    quantity = Moments(jnp.asarray(drawn))
    shifted = response(quantity, jnp.full(N, 7.0), jnp.zeros(2), second_order=True)
    for one, other in zip(shifted, found, strict=True):
        assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_weights_stand_for_copies_of_samples():
    x = jnp.asarray([0.1, -0.4, 1.3])
    twice = jnp.asarray([0.1, -0.4, 1.3, 1.3])
    one = response(Moments(x), jnp.log(jnp.asarray([1.0, 1.0, 2.0])), jnp.zeros(2))
    other = response(Moments(twice), jnp.zeros(4), jnp.zeros(2))
    assert_allclose(one.values, other.values, rtol=1e-12)
    assert_allclose(one.derivatives, other.derivatives, rtol=1e-12)


def test_samples_that_remember_have_larger_errors(drawn):
    # every sample four times in a row: a series of 256 that knows no more than 64 do
    repeated = jnp.asarray(np.repeat(drawn, 4))
    zeros = jnp.zeros(4 * N), jnp.zeros(2)
    free = response(Moments(repeated), *zeros)
    bound = response(Moments(repeated), *zeros, replicas=1)
    assert_allclose(bound.values, free.values)
    g = statistical_inefficiency(np.asarray(repeated))
    assert g > 3  # four, but for chance
    assert_allclose(bound.errors[0], np.sqrt(g) * free.errors[0], rtol=1e-9)
