"""Sums over eigenvalues have three derivatives, also where eigenvalues are equal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mdsens.implicit.spectral_sums import differences, second_differences, spectral_sum

RANDOM = np.random.default_rng(8)
V = np.linalg.qr(RANDOM.normal(size=(4, 4)) + 1j * RANDOM.normal(size=(4, 4)))[0]
CHANGE = RANDOM.normal(size=(4, 4)) + 1j * RANDOM.normal(size=(4, 4))
CHANGE = CHANGE + CHANGE.conj().T
ALL = jnp.ones(4, bool)


@pytest.mark.parametrize(
    "levels", [[1.0, 2.0, 2.0, 2.0], [1.0, 2.0, 2.0 + 1e-5, 3.0]], ids=["equal", "close"]
)
def test_powers_have_the_derivatives_of_traces(levels):
    # sum lambda^4 = tr (D + t C)^4, a polynomial in t, of which the first four terms are claimed
    D = (V * np.array(levels)) @ V.conj().T
    along = lambda t: spectral_sum(jnp.asarray(D) + t * CHANGE, lambda x: x**4, ALL)
    found = [along(0.0)]
    for _ in range(3):
        along = jax.jacfwd(along)
        found.append(along(0.0))
    t = np.linspace(-1, 1, 5)
    traces = [np.trace(np.linalg.matrix_power(D + x * CHANGE, 4)).real for x in t]
    exact = np.polynomial.polynomial.polyfit(t, traces, 4)[:4] * [1, 1, 2, 6]
    assert_allclose(found, exact, rtol=1e-8)
    slope = jax.grad(lambda t: spectral_sum(jnp.asarray(D) + t * CHANGE, lambda x: x**4, ALL))(0.0)
    assert_allclose(slope, exact[1], rtol=1e-10)


def test_what_does_not_count_is_left_out():
    D = jnp.diag(jnp.array([-1e-17, 1.0, 4.0]))
    counted = jnp.array([False, True, True])
    along = lambda t: spectral_sum(D * (1 + t), jnp.sqrt, counted)
    assert_allclose(along(0.0), 3.0)
    assert_allclose(jax.grad(along)(0.0), 1.5)


def test_divided_differences_of_powers_are_sums_of_products():
    values = jnp.array([1.0, 1.0 + 1e-6, 2.0, 2.002, 5.0])
    cube = lambda x: x**3
    a, b, c = np.meshgrid(values, values, values, indexing="ij")
    pairs = a**2 + a * b + b**2
    assert_allclose(differences(cube, values), pairs[:, :, 0], rtol=1e-10)
    assert_allclose(second_differences(cube, values), a + b + c, rtol=1e-8)
