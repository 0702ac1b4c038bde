"""What is known of parameters: matrices, draws, posteriors of other programs; what makes no distribution."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from triangle import ARGON, COVARIANCE, EPSILON, ERRORS, SIGMA

import mdsens as ms
from mdsens.errors import InputError, NonFiniteError
from mdsens.uncertainty import ParameterDistribution, from_posterior

MIXED = ms.LennardJones([0.0104, 0.012, 0.014], [3.4, 3.5, 3.6], elements=("Ar", "Kr"), cutoff_radius=9.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_a_matrix_comes_back_as_it_was_also_where_directions_have_no_variance(seed, rank):
    L = np.random.default_rng(seed).normal(size=(6, rank)) * np.array([1e-4, 1, 1e3, 1, 1, 1e-2])[:, None]
    found = ParameterDistribution.from_covariance(MIXED, L @ L.T)
    assert found.factor.shape == (6, rank)
    scale = np.sqrt(np.outer(*[np.diag(L @ L.T)] * 2))
    assert_allclose(found.covariance / scale, L @ L.T / scale, atol=1e-9)
    assert_allclose(found.standard_errors, np.linalg.norm(L, axis=1), rtol=1e-9)
    rows = np.random.default_rng(seed).normal(size=(2, 6))
    assert_allclose(found.times(rows), rows @ found.covariance, rtol=1e-9, atol=1e-9 * scale.max())


def test_draws_have_mean_and_covariance():
    found = ParameterDistribution.from_covariance(ARGON, COVARIANCE)
    draws = found.draw(4000, seed=1)
    # errors of means and of variances: one and sqrt(2) by the root of their number; four of them
    assert_allclose((draws.mean(0) - [EPSILON, SIGMA]) / ERRORS, 0, atol=4 / np.sqrt(4000))
    relative = np.cov(draws.T) / np.outer(ERRORS, ERRORS)
    assert_allclose(relative, [[1, 0.5], [0.5, 1]], atol=4 * np.sqrt(2 / 4000))
    assert np.array_equal(draws, found.draw(4000, seed=1))
    alone = ParameterDistribution.from_errors(ARGON, {"sigma": 0.1}).draw(4000)
    assert_allclose(alone.std(), 0.1, rtol=0.05)


def test_samples_have_their_own_mean_and_covariance_and_are_drawn_again():
    samples = np.random.default_rng(0).normal(size=(20, 2)) * ERRORS + [EPSILON, SIGMA]
    for given_ in (samples, {"epsilon": samples[:, 0], "sigma": samples[:, 1]}):
        found = ParameterDistribution.from_samples(ARGON, given_)
        assert_allclose(found.mean, samples.mean(0))
        assert_allclose(found.covariance, np.cov(samples.T), rtol=1e-10)
        assert all(draw in samples for draw in found.draw(50))


def test_parameters_are_put_into_the_potential_by_name():
    found = ParameterDistribution.from_errors(MIXED, {"sigma[Ar-Kr]": 0.1})
    moved = found.moved(MIXED, np.array([0.2]))
    assert ms.parameter_values(moved)["sigma[Ar-Kr]"] == pytest.approx(3.7)
    assert found.at_mean(MIXED) is MIXED


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[1.0, 2.0], [2.0, 1.0]], r"is not positive: .* lowest eigenvalue is -1, along 0.71 epsilon - 0.71"),
        ([[-1.0, 0.0], [0.0, 1.0]], r"variance of epsilon is -1: it cannot be negative"),
        ([[1.0, 0.5], [0.0, 1.0]], r"is not symmetric: 0.5 of epsilon and sigma, and 0 of sigma and epsilon"),
        ([1.0, 1.0], r"has the shape \(2,\), and the parameters ask for \(2, 2\)"),
    ],
)
def test_what_is_no_covariance_is_refused_with_the_reason(matrix, message):
    with pytest.raises(InputError, match=message):
        ParameterDistribution.from_covariance(ARGON, matrix)


def test_names_that_there_are_not_are_refused_and_the_nearest_said():
    with pytest.raises(InputError, match=r"epsilom.*epsilon"):
        ParameterDistribution.from_errors(ARGON, {"epsilom": 0.1})
    with pytest.raises(InputError, match=r"epsilon is named 2 times"):
        ParameterDistribution.from_covariance(ARGON, COVARIANCE, ["epsilon", "epsilon"])
    with pytest.raises(InputError, match=r"error of sigma is -0.1: a standard error is not negative"):
        ParameterDistribution.from_errors(ARGON, {"sigma": -0.1})
    with pytest.raises(NonFiniteError, match=r"the covariance at \[0, 1\] is nan"):
        ParameterDistribution.from_covariance(ARGON, [[1.0, np.nan], [np.nan, 1.0]])
    with pytest.raises(InputError, match="1 samples have no scatter"):
        ParameterDistribution.from_samples(ARGON, [[EPSILON, SIGMA]])


# --- posteriors


def regression(**parts):
    return SimpleNamespace(coef_=np.array([EPSILON, SIGMA]), **parts)


def test_covariances_of_noise_and_of_misspecification_add_up():
    both = regression(sigma_=COVARIANCE, misspecification_sigma_=2 * COVARIANCE)
    found = from_posterior(ARGON, both)
    assert_allclose(found.covariance, 3 * COVARIANCE, rtol=1e-9)
    assert_allclose(found.mean, [EPSILON, SIGMA])
    # names say the order of the coefficients
    swapped = from_posterior(ARGON, regression(sigma_=COVARIANCE), ["sigma", "epsilon"])
    assert_allclose(swapped.mean, [EPSILON, SIGMA]) and swapped.names == ("sigma", "epsilon")
    kept = from_posterior(ARGON, regression(sigma_=COVARIANCE), centered=False)
    assert_allclose(kept.mean, [EPSILON, SIGMA])


def test_a_posterior_of_ace_jax_is_its_cholesky_factor_undone():
    # A = D S D, S = C C^T, D = 1 / dinv
    rng = np.random.default_rng(0)
    root, dinv = np.tril(rng.normal(size=(2, 2))) + 2 * np.eye(2), np.array([0.1, 3.0])
    posterior = SimpleNamespace(mean=np.array([EPSILON, SIGMA]), chol=root, dinv=dinv, kappa=1.5)
    A = np.diag(1 / dinv) @ root @ root.T @ np.diag(1 / dinv)
    assert_allclose(from_posterior(ARGON, posterior).covariance, 1.5**2 * np.linalg.inv(A), rtol=1e-10)
    posterior.chol = None
    with pytest.raises(InputError, match="saved without its Cholesky factor"):
        from_posterior(ARGON, posterior)


def test_a_regression_of_popsregression_is_taken_over():
    pops = pytest.importorskip("popsregression")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    fitted = pops.POPSRegression().fit(X, X @ [EPSILON, SIGMA] + 0.01 * np.sin(5 * X[:, 0]))
    found = from_posterior(ARGON, fitted)
    assert_allclose(found.covariance, fitted.sigma_ + fitted.misspecification_sigma_, rtol=1e-6, atol=1e-12)


def test_what_is_no_posterior_is_refused():
    assert_allclose(from_posterior(ARGON, COVARIANCE).covariance, COVARIANCE, rtol=1e-9)
    with pytest.raises(InputError, match="has coefficients and no covariance"):
        from_posterior(ARGON, regression())
    with pytest.raises(InputError, match="a posterior is str: give a regression"):
        from_posterior(ARGON, "posterior.npz")
