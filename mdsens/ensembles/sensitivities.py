"""Free energies and averages of the target, and their derivatives by its parameters, with standard errors.

The derivatives are averages of the target themselves, over the same samples:

    dF/dtheta   = <du/dtheta>,
    d<A>/dtheta = <dA/dtheta> - <A du/dtheta> + <A> <du/dtheta>.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.batching import map_rows
from mdsens.ensembles.averages import along, mean_and_error
from mdsens.ensembles.checks import (
    check_counts,
    check_finite,
    check_overlap,
    usable,
    with_parameters,
    without_nan,
)
from mdsens.ensembles.free_energies import perturbation
from mdsens.ensembles.weights import AT_ONCE, MIN_EFFECTIVE, LogWeights, effective


class EnsembleSensitivity(NamedTuple):
    """A free energy or an average of the target, and its derivatives by the target's parameters.

    Attributes:
        value: free energy difference (kT), or the average.
        error: its standard error.
        derivatives: by each array of floats in theta, a tree like theta (None where it holds something else);
            value's shape comes first, then the parameter's.
        errors: standard errors of the derivatives, likewise.
        effective_samples: how many equally weighted samples would tell as much.
    """

    value: Float[Array, "..."]
    error: Float[Array, "..."]
    derivatives: Any
    errors: Any
    effective_samples: Float[Array, ""]


def free_energy_sensitivity(
    reduced_energy: Callable[[Any, Any], Array],
    theta: Any,
    x: Any,
    log_p: LogWeights,
    *,
    min_effective: float = MIN_EFFECTIVE,
) -> EnsembleSensitivity:
    """F_target - F_reference and dF/dtheta = <du/dtheta>, with standard errors.

    Args:
        reduced_energy: u(x, theta) of one sample, kT.
        theta: parameters of the target: any tree, a potential for one.
        x: samples (n, ...) of the reference.
        log_p: the reference's log density of each.
        min_effective: effective samples asked for.
    Returns:
        EnsembleSensitivity: derivatives in kT per unit of the parameter. The derivative is at constant kT.
    Raises:
        InputError: theta without floats, less than two samples, numbers of samples that differ.
        NonFiniteError: NaN energies, or derivatives that are not finite.
        NotConvergedError: fewer effective samples than `min_effective`; `partial` is the result.
    """
    theta = with_parameters(theta)
    check_counts(x, log_p)
    u, slopes = _energies_and_slopes(reduced_energy, theta, x)
    log_w = usable(without_nan(u, jnp.asarray(log_p)))
    result = _free_energy_response(log_w, slopes)
    check_finite({"dF/dtheta": result.derivatives})
    check_overlap(result, result.effective_samples, min_effective, "the samples of the reference")
    return result


def average_sensitivity(
    observable: Callable[[Any, Any], Array],
    reduced_energy: Callable[[Any, Any], Array],
    theta: Any,
    x: Any,
    log_p: LogWeights,
    *,
    min_effective: float = MIN_EFFECTIVE,
) -> EnsembleSensitivity:
    """<A> of the target and d<A>/dtheta = <dA/dtheta> - cov(A, du/dtheta), with standard errors.

    Args:
        observable: A(x, theta) of one sample: a number or an array.
        reduced_energy: u(x, theta) of one sample, kT.
        theta: parameters of the target: any tree.
        x: samples (n, ...) of the reference.
        log_p: the reference's log density of each.
        min_effective: effective samples asked for.
    Raises:
        InputError, NonFiniteError, NotConvergedError: as `free_energy_sensitivity`.
    """
    theta = with_parameters(theta)
    check_counts(x, log_p)
    u, slopes = _energies_and_slopes(reduced_energy, theta, x)
    values, own_slopes = _values_and_slopes(observable, theta, x)
    log_w = usable(without_nan(u, jnp.asarray(log_p)))
    result = _average_response(log_w, values, own_slopes, slopes)
    check_finite({"the average": result.value, "d<A>/dtheta": result.derivatives})
    check_overlap(result, result.effective_samples, min_effective, "the samples of the reference")
    return result


@jax.jit
def _free_energy_response(log_w: Array, slopes: Any) -> EnsembleSensitivity:
    # dF/dtheta = sum_i W_i du_i/dtheta,  W_i = w_i / sum w
    weights = jax.nn.softmax(log_w)
    value, error, effective = perturbation(log_w)
    derivatives, errors = _each(lambda g: mean_and_error(weights, g), slopes)
    return EnsembleSensitivity(value, error, derivatives, errors, effective)


@jax.jit
def _average_response(log_w: Array, values: Array, own_slopes: Any, slopes: Any) -> EnsembleSensitivity:
    weights = jax.nn.softmax(log_w)
    value, error = mean_and_error(weights, values)
    deviation = jnp.where(along(weights, values) > 0, values - value, 0)

    # d<A>/dtheta = sum_i W_i h_i,  h_i = dA_i/dtheta - (A_i - <A>) (du_i/dtheta - <du/dtheta>)
    # The errors of <A> and <du/dtheta> in h cancel to first order, as sum_i W_i (A_i - <A>) = 0.
    def derivative(own: Array, g: Array) -> tuple[Array, Array]:
        g = jnp.where(along(weights, g) > 0, g - mean_and_error(weights, g)[0], 0)
        product = deviation.reshape(*values.shape, *[1] * (g.ndim - 1)) * g.reshape(
            -1, *[1] * (values.ndim - 1), *g.shape[1:]
        )
        return mean_and_error(weights, own - product)

    derivatives, errors = _each(derivative, own_slopes, slopes)
    return EnsembleSensitivity(value, error, derivatives, errors, effective(log_w))


def _each(function: Callable[..., tuple[Array, Array]], *trees: Any) -> tuple[Any, Any]:
    """Two trees, of the first and the second results of function on each leaf."""
    pairs = [function(*leaves) for leaves in zip(*(jax.tree.leaves(tree) for tree in trees), strict=True)]
    form = jax.tree.structure(trees[0])
    return form.unflatten([a for a, _ in pairs]), form.unflatten([b for _, b in pairs])


@eqx.filter_jit
def _energies_and_slopes(
    reduced_energy: Callable[[Any, Any], Array], theta: Any, x: Any
) -> tuple[Array, Any]:
    slope = eqx.filter_value_and_grad(lambda theta, row: reduced_energy(row, theta))
    return map_rows(lambda row: slope(theta, row), x, batch=AT_ONCE)


@eqx.filter_jit
def _values_and_slopes(observable: Callable[[Any, Any], Array], theta: Any, x: Any) -> tuple[Array, Any]:
    parameters, rest = eqx.partition(theta, eqx.is_inexact_array)

    def both(row: Any) -> tuple[Array, Any]:
        def value(parameters: Any) -> Array:
            return jnp.asarray(observable(row, eqx.combine(parameters, rest)), float)

        return value(parameters), jax.jacrev(value)(parameters)

    return map_rows(both, x, batch=AT_ONCE)
