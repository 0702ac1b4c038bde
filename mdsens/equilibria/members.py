"""A fixed set of random directions whose averages are exact up to third order.

An average over a Gaussian, <f(m + R xi)>, becomes a mean over members xi_k that never change: then a state
that is defined by averages is an exact root of an equation, with derivatives. The members are Sobol points
turned into normal ones, each with its opposite (odd moments vanish), stretched so that their second moments
are exactly those of the Gaussian: a quadratic potential gives its exact averages from any number of members.
"""

from typing import Any

import numpy as np

from mdsens.checks import whole
from mdsens.errors import InputError


def gaussian_members(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    """(count, dimensions) with means 0 and second moments 1, in pairs of opposites.

    Args:
        count: even, at least twice the dimensions.
        seed: of the scrambling.
    Raises:
        InputError: fewer members, or an odd number.
    """
    from scipy.stats import norm, qmc

    whole("members", count, at_least=2)
    least = 2 * dimensions
    if count < least or count % 2:
        raise InputError(
            f"members = {count}: {dimensions} directions need an even number, {least} at least, or some of "
            "them would not be sampled. Take more members, or a smaller structure."
        )
    half = count // 2
    sobol: Any = qmc.Sobol
    drawn = sobol(dimensions, seed=seed).random_base2(int(np.ceil(np.log2(half))))
    xi = norm.ppf(np.clip(drawn[:half], 1e-12, 1 - 1e-12))
    # xi C^-1/2 with C the second moments
    values, vectors = np.linalg.eigh(xi.T @ xi / half)
    if values[0] < 1e-10:
        raise InputError(f"members = {count}: too few for {dimensions} directions. Take more.")
    white = xi @ (vectors / np.sqrt(values)) @ vectors.T
    return np.concatenate([white, -white])
