"""Uncertainty of what is measured on relaxed states: from data to parameters, from these to observables."""

from mdsens.uncertainty.distribution import ParameterDistribution
from mdsens.uncertainty.files import read_covariance, read_samples, write_covariance
from mdsens.uncertainty.laplace import SloppySpectra, from_fit, laplace, sloppiness
from mdsens.uncertainty.monte_carlo import DrawsProgress, MonteCarlo, monte_carlo
from mdsens.uncertainty.posteriors import from_posterior
from mdsens.uncertainty.propagate import propagate
from mdsens.uncertainty.result import PropagatedUncertainty, SecondOrder

__all__ = [
    "DrawsProgress",
    "MonteCarlo",
    "ParameterDistribution",
    "PropagatedUncertainty",
    "SecondOrder",
    "SloppySpectra",
    "from_fit",
    "from_posterior",
    "laplace",
    "monte_carlo",
    "propagate",
    "read_covariance",
    "read_samples",
    "sloppiness",
    "write_covariance",
]
