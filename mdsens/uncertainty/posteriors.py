"""Posteriors that other programs found, taken over by the names of their parameters.

popsregression: `coef_` is the mean; `sigma_` (of the noise) and `misspecification_sigma_` (of what a form
with these parameters cannot express) are covariances that add up. A regression that has `sigma_` alone, such
as scikit-learn's BayesianRidge, is taken as well.

ace-jax: with D = diag(1 / dinv) the posterior is that of S = D^-1 A D^-1 = C C^T, so

    Sigma = kappa² D^-1 S^-1 D^-1 = L L^T,      L = kappa diag(dinv) C^-T.

Sources: for misspecification Swinburne, Perez, Mach. Learn.: Sci. Technol. (2025),
doi:10.1088/2632-2153/ad9fce; the posterior of `ace_jax.fit.ard`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mdsens.errors import InputError
from mdsens.potentials.base import Potential
from mdsens.uncertainty.distribution import ParameterDistribution


def from_posterior(
    potential: Potential, posterior: Any, names: Sequence[str] | None = None, *, centered: bool = True
) -> ParameterDistribution:
    """A posterior as a distribution of parameters.

    Args:
        potential: linear or not, whose parameters it is about.
        posterior: a regression of popsregression or scikit-learn that was fitted, an `ARDPosterior` of
            ace-jax, or a matrix.
        names: of the potential's parameters, in the order of the coefficients; default all.
        centered: the mean is that of the posterior; if False that of the potential, which is to be checked
            with what was fitted to a part of the data, say.
    Raises:
        InputError: none of these, or one that was not fitted; coefficients that are more or fewer than the
            names.
    """
    if hasattr(posterior, "coef_"):
        mean, covariance = np.ravel(posterior.coef_), _total(posterior)
        found = ParameterDistribution.from_covariance(
            potential, covariance, names, mean=mean if centered else None
        )
        return _named(found, type(posterior).__name__)
    if all(hasattr(posterior, name) for name in ("mean", "chol", "dinv", "kappa")):
        mean = np.asarray(posterior.mean) if centered else None
        found = ParameterDistribution.from_factor(potential, _factor(posterior), names, mean=mean)
        return _named(found, type(posterior).__name__)
    if np.ndim(posterior) == 2:
        return ParameterDistribution.from_covariance(potential, posterior, names)
    raise InputError(
        f"a posterior is {type(posterior).__name__}: give a regression that was fitted (with coef_ and "
        "sigma_), an ARDPosterior of ace-jax, or a matrix; draws go to ParameterDistribution.from_samples."
    )


def _total(regression: Any) -> np.ndarray:
    parts = [getattr(regression, name, None) for name in ("sigma_", "misspecification_sigma_")]
    there = [np.asarray(part, float) for part in parts if part is not None]
    if not there:
        raise InputError(
            f"{type(regression).__name__} has coefficients and no covariance (sigma_): take POPSRegression "
            "or BayesianRidge, and fit it."
        )
    return np.sum(there, axis=0)


def _factor(posterior: Any) -> np.ndarray:
    dinv = np.asarray(posterior.dinv, float)
    if posterior.chol is None:
        raise InputError(
            "the ARDPosterior was saved without its Cholesky factor: take the one that the fit returned."
        )
    import scipy.linalg

    cholesky = np.asarray(posterior.chol, float)
    root = scipy.linalg.solve_triangular(cholesky, np.eye(len(dinv)), lower=True)
    return float(posterior.kappa) * dinv[:, None] * root.T


def _named(found: ParameterDistribution, source: str) -> ParameterDistribution:
    return dataclasses.replace(found, source=source)
