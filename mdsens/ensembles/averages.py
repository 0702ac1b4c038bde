"""Averages of the target out of weighted samples, with their standard errors.

<A> = <w A>_p / <w>_p
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.ensembles.checks import check_counts, check_finite, check_overlap, usable
from mdsens.ensembles.weights import MIN_EFFECTIVE, LogWeights, effective


class Average(NamedTuple):
    """An average over the target.

    Attributes:
        value: of the shape of the observable, in its unit.
        error: standard error for independent samples. No derivative.
        effective_samples: how many equally weighted samples would tell as much.
    """

    value: Float[Array, "..."]
    error: Float[Array, "..."]
    effective_samples: Float[Array, ""]


def reweighted_average(
    values: Float[Array | np.ndarray, "samples ..."],
    log_w: LogWeights,
    *,
    min_effective: float = MIN_EFFECTIVE,
) -> Average:
    """<A> of the target from samples of the reference.

    Differentiable in values and log w: with theta in both this is d<A>/dtheta. Works under jit; then nothing
    is raised.

    Args:
        values: A of each sample, numbers or arrays: `jax.vmap(observable)(x)`.
        log_w: of `log_weights` or `joint_log_weights`.
        min_effective: effective samples asked for; 0 shows the result whatever it is.
    Raises:
        InputError: less than two samples, or numbers of samples that differ.
        NonFiniteError: NaN among the weights, or A not finite where the weight is above zero.
        NotConvergedError: fewer effective samples than `min_effective`; `partial` is the result.
    """
    check_counts(values, log_w)
    log_w = usable(log_w)
    value, error = mean_and_error(jax.nn.softmax(log_w), jnp.asarray(values))
    result = Average(value, error, effective(log_w))
    check_finite({"the average": result.value})
    check_overlap(result, result.effective_samples, min_effective, "the samples of the reference")
    return result


@jax.jit
def mean_and_error(weights: Array, values: Array) -> tuple[Array, Array]:
    """<A> and its standard error, which has no derivative, from weights whose sum is one."""
    # <A> = sum W A; by the delta method its variance is that of the mean of W (A - <A>)
    W, n = along(weights, values), weights.size
    values = jnp.where(W > 0, values, 0)  # a clash: no weight, and no finite value
    mean = jnp.sum(W * values, axis=0)
    spread = jax.lax.stop_gradient(W * (values - mean))
    error = jnp.sqrt(n / (n - 1) * jnp.sum(spread**2, axis=0))
    return mean, error


def along(weights: Array, values: Array) -> Array:
    """The weights, to multiply values (n, ...)."""
    return weights.reshape(-1, *[1] * (values.ndim - 1))
