"""Weights of the samples of a reference with respect to a target, and how many samples they leave.

w(x) = exp(-u(x; theta)) / p(x)
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.batching import map_rows
from mdsens.ensembles.checks import check_counts, usable, without_nan
from mdsens.errors import InputError

AT_ONCE = 1024  # samples evaluated together where there are many
# Samples; with fewer the spread of the weights is itself unknown, and so is every error bar
MIN_EFFECTIVE = 10.0

LogWeights = Float[Array | np.ndarray, " n"]


def log_weights(
    reduced_energy: Callable[..., Array], x: Any, log_p: LogWeights, *theta: Any
) -> Float[Array, " n"]:
    """log w = -u(x; theta) - log p(x) of each sample.

    Differentiable w.r.t. theta, x and log p. Works under jit; then NaN is not reported.

    Args:
        reduced_energy: u(x) or u(x, theta) of one sample, in kT.
        x: samples (n, ...) of the reference, in its unit.
        log_p: the reference's log density of each, as it was drawn.
        theta: parameters of the target, if u takes them: any tree.
    Returns:
        log w (n,); -inf where u is infinite, for such a sample has no weight.
    Raises:
        InputError: numbers of samples that differ.
        NonFiniteError: u or log p is NaN.
    """
    check_counts(x, log_p)
    return without_nan(energies(reduced_energy, x, theta), jnp.asarray(log_p))


def effective_sample_size(log_w: LogWeights, clip: float | None = None) -> Float[Array, ""]:
    """Share of the samples that count, (sum w)² / (n sum w²).

    1 for equal weights, 1/n if one sample has all the weight.

    Args:
        log_w: log weights.
        clip: share of the weights, the largest, that are set to the smallest among them first. A few flawed
            samples then no longer hide how good the others are; but a clipped weight is a biased one, and
            what the clipped number says of the reference holds without its tail only. 1e-2 is a usual choice.
    Returns:
        A number in (0, 1]; times n, the effective number of samples.
    Raises:
        InputError: a clip outside [0, 1).
        NonFiniteError: NaN among the weights, or none above zero.
    Source: Kish, Survey Sampling, Wiley (1965); truncated weights, Ionides, J. Comput. Graph. Stat. 17, 295
    (2008).
    """
    if clip is not None and not 0 <= clip < 1:
        raise InputError(
            f"clip = {clip}: the share of the weights that are clipped must be at least 0 and below 1."
        )
    log_w = usable(log_w)
    largest = int(np.ceil((clip or 0.0) * log_w.size))
    if largest:
        log_w = jnp.minimum(log_w, jnp.sort(log_w)[-largest])
    return share(log_w)


@jax.jit
def share(log_w: Array) -> Array:
    """Kish's share of samples that count."""
    w = jnp.exp(log_w - jax.lax.stop_gradient(jnp.max(log_w)))
    return jnp.sum(w) ** 2 / (w.size * jnp.sum(w * w))


def effective(log_w: Array) -> Array:
    """Number of samples that count, without a derivative."""
    return jax.lax.stop_gradient(log_w.size * share(log_w))


@eqx.filter_jit
def energies(reduced_energy: Callable[..., Array], x: Any, theta: tuple[Any, ...]) -> Array:
    """u of each sample."""
    return map_rows(lambda row: reduced_energy(row, *theta), x, batch=AT_ONCE)
