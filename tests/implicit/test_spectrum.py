"""Ends of a spectrum: from products alone, as from the matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from states import cluster

import mdsens as ms
from mdsens.implicit.spectrum import dense_spectrum, iterative_spectrum, lobpcg, positive_definite
from mdsens.relaxation import equilibrium, memory

N = 120
rng = np.random.default_rng(3)
Q, _ = np.linalg.qr(rng.normal(size=(N, N)))


@jax.jit
def from_products(A, projector, diagonal):
    return iterative_spectrum(lambda v: A @ v, N, lambda v: projector @ v, lambda v: v / diagonal)


def both(A, null, diagonal):
    """Dense and iterative, off the (unit or zero) vector `null`, with a diagonal preconditioner."""
    projector = jnp.eye(N) - jnp.outer(null, null)
    rank = N - bool(np.any(null))
    dense = dense_spectrum(np.asarray(projector @ A @ projector), np.asarray(projector), rank)
    return dense, from_products(A, projector, diagonal)


def test_a_matrix_that_is_not_finite_has_no_curvatures():
    found = dense_spectrum(np.full((3, 3), np.nan), np.eye(3), 3)
    assert np.isnan(found.lowest) and np.isnan(found.highest) and np.isnan(found.mode).all()


@pytest.mark.parametrize(
    "lowest",
    [[0.1, 0.4], [0.1, 0.1, 0.1, 0.2], [-0.3, 0.4], [1e-4, 0.3, 0.4]],
    ids=["gap", "degenerate", "negative", "soft"],
)
def test_the_lowest_eigenvalue_is_found_and_lies_within_the_residual(lowest):
    values = np.r_[lowest, np.linspace(0.5, 40.0, N - len(lowest))]
    dense, products = both(jnp.asarray(Q @ np.diag(values) @ Q.T), jnp.zeros(N), jnp.ones(N))
    assert_allclose(dense.lowest, values[0], atol=1e-12)
    assert_allclose(dense.highest, 40.0, rtol=1e-12)
    # an eigenvalue is off by residual² / gap only: with a residual of 1e-3 of it, six digits
    assert_allclose(products.lowest, values[0], rtol=1e-5)
    assert abs(products.lowest - values[0]) <= products.residual + 1e-14
    assert products.residual <= 1e-3 * abs(values[0])
    assert_allclose(products.highest, 40.0, rtol=1e-2)
    assert_allclose(jnp.linalg.norm(products.mode), 1.0, rtol=1e-9)


@pytest.mark.parametrize("hidden", [-0.1, 0.05, 0.09])
def test_a_soft_mode_is_found_beside_guesses_that_hold_nothing_of_it(hidden):
    # the guesses are eigenvectors themselves: from them alone no step would lead out of their span
    values = np.r_[hidden, np.full(12, 0.1), np.linspace(0.5, 40.0, N - 13)]
    A = jnp.asarray(Q @ np.diag(values) @ Q.T)
    guesses = jnp.asarray(Q[:, 1:13].T)
    found = iterative_spectrum(lambda v: A @ v, N, guesses=guesses)
    assert_allclose(found.lowest, hidden, rtol=1e-5)
    assert_allclose(abs(found.mode @ Q[:, 0]), 1.0, rtol=1e-5)


def test_good_guesses_are_the_answer():
    A = jnp.asarray(Q @ np.diag(np.linspace(0.1, 40.0, N)) @ Q.T)
    lowest, mode, residual = lobpcg(
        lambda v: A @ v, N, lambda v: v, lambda v: v, jnp.asarray(Q[:, :3].T), max_steps=0
    )
    assert_allclose(lowest, 0.1, rtol=1e-12)
    assert_allclose(abs(mode @ Q[:, 0]), 1.0, rtol=1e-12)
    assert residual < 1e-10


def test_a_matrix_of_one_number_is_its_own_spectrum():
    found = dense_spectrum(np.array([[3.0]]), np.eye(1), 1)
    assert (found.lowest, found.highest, found.mode) == (3.0, 3.0, 1.0)


def test_what_is_projected_out_is_not_found():
    t = jnp.asarray(Q[:, 0])
    values = np.r_[-5.0, 0.3, np.linspace(0.6, 40.0, N - 2)]  # t itself would be the lowest by far
    dense, products = both(jnp.asarray(Q @ np.diag(values) @ Q.T), t, jnp.ones(N))
    assert_allclose([dense.lowest, products.lowest], 0.3, rtol=1e-5)
    assert max(abs(dense.mode @ t), abs(products.mode @ t)) < 1e-12
    assert_allclose(dense.highest, 40.0, rtol=1e-12)


def test_a_badly_scaled_matrix_needs_its_preconditioner():
    diagonal = jnp.geomspace(1.0, 1e6, N)
    scale = jnp.sqrt(diagonal)
    A = scale[:, None] * jnp.asarray(Q @ np.diag(np.linspace(0.5, 2.0, N)) @ Q.T) * scale
    dense, products = both(A, jnp.zeros(N), diagonal)
    assert_allclose(products.lowest, dense.lowest, rtol=1e-5)


def test_large_systems_take_the_way_of_products_to_the_same_spectrum(monkeypatch):
    # a small cluster sent down the path of large systems, where no matrix is built
    by_matrix = ms.certify(ms.relax(*cluster(), fmax=1e-10))
    memory.forget()
    monkeypatch.setattr(equilibrium, "DENSE_LIMIT", 0)
    by_products = ms.certify(ms.relax(*cluster(), fmax=1e-10))
    memory.forget()
    assert_allclose(by_products.lowest_curvature, by_matrix.lowest_curvature, rtol=1e-5)
    assert_allclose(by_products.highest_curvature, by_matrix.highest_curvature, rtol=1e-2)


@pytest.mark.parametrize(("lowest", "definite"), [(1e-6, True), (-1e-6, False), (np.nan, False)])
def test_a_cholesky_factor_tells_whether_all_eigenvalues_are_positive(lowest, definite):
    eigenvalues = np.linspace(1.0, 5.0, N)
    eigenvalues[7] = lowest
    assert positive_definite((Q * eigenvalues) @ Q.T) is definite
