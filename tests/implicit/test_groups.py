"""Means over equal eigenvalues have the derivatives that single ones lack."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

from mdsens.implicit.groups import group_means, groups_of

RANDOM = np.random.default_rng(5)
V = np.linalg.qr(RANDOM.normal(size=(5, 5)) + 1j * RANDOM.normal(size=(5, 5)))[0]
LEVELS = np.array([-1.0, 2.0, 2.0, 2.0, 3.5])
GROUPS = ((0, 0), (1, 3), (4, 4))


def hermitian():
    raw = RANDOM.normal(size=(5, 5)) + 1j * RANDOM.normal(size=(5, 5))
    return raw + raw.conj().T


MATRIX, FIRST, SECOND = (V * LEVELS) @ V.conj().T, hermitian(), hermitian()


def means(t):
    """Along a path through a matrix with a threefold eigenvalue, which splits on either side."""
    return group_means(jnp.asarray(MATRIX) + t * FIRST + t**2 * SECOND, GROUPS)


def exact(t):
    values = np.linalg.eigvalsh(MATRIX + t * FIRST + t**2 * SECOND)
    return np.array([values[0], values[1:4].mean(), values[4]])


def test_groups_are_runs_of_equal_values():
    squares = np.array([-1e-9, 0, 1e-9, 0.5, 0.5 + 1e-8, 2.0])
    assert groups_of(squares) == [(0, 2), (3, 4), (5, 5)]


def test_value_and_two_derivatives_are_those_of_the_mean():
    h = 1e-3
    assert_allclose(means(0.0), exact(0.0), rtol=1e-13)
    first = (exact(h) - exact(-h)) / (2 * h)
    second = (exact(h) - 2 * exact(0.0) + exact(-h)) / h**2
    # the error of differences goes as h² times fourth derivatives of some ten
    assert_allclose(jax.jacfwd(means)(0.0), first, rtol=1e-4)
    assert_allclose(jax.jacrev(means)(0.0), jax.jacfwd(means)(0.0), rtol=1e-12)
    assert_allclose(jax.jacfwd(jax.jacrev(means))(0.0), second, rtol=1e-3)


def test_all_means_together_are_the_trace():
    slopes = jax.jacfwd(jax.jacfwd(means))(0.0)
    assert_allclose(np.array([1, 3, 1]) @ slopes, 2 * np.trace(SECOND).real, rtol=1e-10)
