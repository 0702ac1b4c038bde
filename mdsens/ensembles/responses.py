"""Any function of averages, its derivatives along any variables, and error bars on all of them.

Let samples x_i have weights proportional to exp(a_i), and let a quantity Q be made of their averages: a mean,
a variance, a ratio of such. It depends on variables z (parameters, temperature, pressure) through the weights
and through what is averaged, Q = Q(a; z). Automatic differentiation by z then gives its response, which for a
mean is

    d<A>/dz = <dA/dz> - cov(A, du/dz),          a = -u(x; z),

and to second order the cumulants that follow.

Error bars come from the same function. One more copy of sample i would change Q by its influence

    I_i = n dQ/da_i           (of a mean of equal weights: A_i - <A>),

whose mean is zero; to first order in the noise Q is off by the mean of I over samples, so that

    var Q = g var(I) / n

with the statistical inefficiency g of the series I_i itself. This holds for every smooth Q, derivatives too:
the influence of dQ/dz is n d²Q/(da_i dz), and so forth.

Source: the infinitesimal jackknife, Efron, The Jackknife, the Bootstrap and Other Resampling Plans, SIAM
    (1982), chapter 6; fluctuation formulas, Allen, Tildesley, Computer Simulation of Liquids (2017),
    section 2.5.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.ensembles.correlation import standard_errors

AT_ONCE = 20_000_000  # numbers of influences that are kept together

Quantity = Callable[[Array, Array], Array]


class Response(NamedTuple):
    """Functions of averages, their derivatives, and standard errors.

    Attributes:
        values, errors: of each number.
        derivatives, derivative_errors: by each variable.
        second, second_errors: by each pair of variables; None unless asked for.
    """

    values: Float[np.ndarray, " numbers"]
    errors: Float[np.ndarray, " numbers"]
    derivatives: Float[np.ndarray, "numbers variables"]
    derivative_errors: Float[np.ndarray, "numbers variables"]
    second: Float[np.ndarray, "numbers variables variables"] | None = None
    second_errors: Float[np.ndarray, "numbers variables variables"] | None = None


def response(
    quantity: Quantity,
    log_w: Float[Array, " frames"],
    z: Float[Array, " variables"],
    *,
    replicas: int = 0,
    second_order: bool = False,
) -> Response:
    """Values, derivatives by z, and standard errors of functions of averages.

    Args:
        quantity: Q(log weights, z), a vector of numbers; an `equinox.Module` if it holds arrays. The weights
            need no normalization, and Q must not depend on their sum.
        log_w: of the samples, in the order of time.
        z: where the derivatives are taken.
        replicas: samples of one time, which stand together; 0: all samples are independent.
        second_order: second derivatives too.
    """
    n, m = len(log_w), len(z)
    values, influence = _plain(quantity, log_w, z)
    k = len(values)
    errors = _errors(influence, n, replicas)
    directions = np.eye(m)
    slopes, slope_errors = _along(_first, quantity, log_w, z, (directions,), k, replicas)
    first = Response(np.asarray(values), errors, slopes, slope_errors)
    if not second_order:
        return first
    rows, columns = np.triu_indices(m)
    pairs = directions[rows], directions[columns]
    bends, bend_errors = _along(_second, quantity, log_w, z, pairs, k, replicas)
    return first._replace(
        second=_symmetric(bends, rows, columns, m), second_errors=_symmetric(bend_errors, rows, columns, m)
    )


def _along(
    function: Callable[..., tuple[Array, Array]],
    quantity: Quantity,
    log_w: Array,
    z: Array,
    directions: tuple[np.ndarray, ...],
    numbers: int,
    replicas: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives along each direction (or pair of them), and their errors, some directions at a time."""
    n, total = len(log_w), len(directions[0])
    together = max(1, AT_ONCE // max(1, numbers * n))
    found, errors = np.zeros((numbers, total)), np.zeros((numbers, total))
    for start in range(0, total, together):
        here = slice(start, start + together)
        chosen = tuple(part[here] for part in directions)
        values, influence = function(quantity, log_w, z, *chosen)
        found[:, here] = np.asarray(values).T
        flat = influence.reshape(-1, n)
        errors[:, here] = _errors(flat, n, replicas).reshape(values.shape).T
    return found, errors


def _errors(influence: Array, n: int, replicas: int) -> np.ndarray:
    series = n * np.asarray(influence).T
    return standard_errors(series, replicas)


def _symmetric(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, m: int) -> np.ndarray:
    full = np.zeros((len(values), m, m))
    full[:, rows, columns] = values
    full[:, columns, rows] = values
    return full


@eqx.filter_jit
def _plain(quantity: Quantity, log_w: Array, z: Array) -> tuple[Array, Array]:
    """Q and dQ/da."""
    of_weights = lambda a: quantity(a, z)
    return of_weights(log_w), jax.jacrev(of_weights)(log_w)


@eqx.filter_jit
def _first(quantity: Quantity, log_w: Array, z: Array, directions: Array) -> tuple[Array, Array]:
    """dQ along each direction, and its derivative by a."""

    def along(direction: Array) -> tuple[Array, Array]:
        slope = lambda a: _slope(lambda z: quantity(a, z), z, direction)
        return slope(log_w), jax.jacrev(slope)(log_w)

    return jax.lax.map(along, jnp.asarray(directions))


@eqx.filter_jit
def _second(quantity: Quantity, log_w: Array, z: Array, one: Array, other: Array) -> tuple[Array, Array]:
    """d²Q along each pair of directions, and its derivative by a."""

    def along(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        def bend(a: Array) -> Array:
            slope = lambda z: _slope(lambda z: quantity(a, z), z, pair[0])
            return _slope(slope, z, pair[1])

        return bend(log_w), jax.jacrev(bend)(log_w)

    return jax.lax.map(along, (jnp.asarray(one), jnp.asarray(other)))


def _slope(function: Callable[[Array], Array], z: Array, direction: Array) -> Array:
    return jax.jvp(function, (z,), (direction,))[1]
