"""Sums over eigenvalues, sum_i f(lambda_i), with three derivatives, whatever eigenvalues are equal.

With the eigenvectors of a Hermitian matrix held, V^H D V = diag(lambda) + Delta, and with g = f'

    sum f = sum_i f(lambda_i) + sum_i g_i Delta_ii + 1/2 sum_ij g_ij Delta_ij Delta_ji
          + 1/3 sum_ijk g_ijk Delta_ij Delta_jk Delta_ki + ...

g_ij = (g_i - g_j) / (lambda_i - lambda_j) and g_ijk being divided differences of g, which become derivatives
where eigenvalues are equal. Delta is zero at the point itself, so the series is no approximation: it has the
value and the first three derivatives of the sum, in any mode.

Source: Daleckii, Krein, Voronezh. Gos. Univ. Trudy Sem. Funkcional. Anal. 1, 81 (1956).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact

from mdsens.implicit.groups import held

CLOSE = 1e-3  # relative: eigenvalues nearer than this have derivatives in place of differences

Scalar = Callable[[Float[Array, ""]], Float[Array, ""]]


def spectral_sum(
    matrix: Inexact[Array, "modes modes"], function: Scalar, counted: Bool[Array, "modes"]
) -> Float[Array, ""]:
    """sum of f over the eigenvalues that count, ascending; with three derivatives.

    Args:
        matrix: Hermitian; what does not count must be decoupled from the rest, such as shifts of a crystal.
        function: f, smooth where eigenvalues count.
        counted: False for eigenvalues left out.
    """
    values, vectors = jnp.linalg.eigh(held(matrix))
    values = jnp.where(counted, values, 1.0)
    change = matrix - held(matrix)
    delta = vectors.conj().T @ change @ vectors
    both = counted[:, None] & counted
    delta = jnp.where(both, delta, 0.0)
    slope = jax.grad(function)
    zeroth = jnp.sum(jnp.where(counted, jax.vmap(function)(values), 0.0))
    first = jnp.sum(jax.vmap(slope)(values) * jnp.real(jnp.diagonal(delta)))
    pairs = differences(slope, values)
    second = jnp.einsum("ij,ij,ji->", pairs, delta, delta)
    triples = second_differences(slope, values)
    third = jnp.einsum("ijk,ij,jk,ki->", triples, delta, delta, delta)
    return zeroth + first + jnp.real(second) / 2 + jnp.real(third) / 3


def differences(g: Scalar, values: Float[Array, "modes"]) -> Float[Array, "modes modes"]:
    """g[a, b] = (g(a) - g(b)) / (a - b) of every two values; g' of equal ones."""
    a, b = jnp.meshgrid(values, values, indexing="ij")
    return _difference(g, a, b)


def second_differences(g: Scalar, values: Float[Array, "modes"]) -> Float[Array, "modes modes modes"]:
    """g[a, b, c] = (g[a, b] - g[b, c]) / (a - c) of every three values; g''/2 of equal ones."""
    three = jnp.stack(jnp.meshgrid(values, values, values, indexing="ij"))
    # the outer two of three in order are the farthest apart
    low, middle, high = jnp.sort(three, axis=0)
    close = _close(low, high)
    gap = jnp.where(close, 1.0, high - low)
    apart = (_difference(g, middle, high) - _difference(g, low, middle)) / gap
    center = (low + middle + high) / 3
    curvature = _elementwise(jax.grad(jax.grad(g)), center)
    return jnp.where(close, curvature / 2, apart)


def _difference(g: Scalar, a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    close = _close(a, b)
    gap = jnp.where(close, 1.0, a - b)
    apart = (_elementwise(g, a) - _elementwise(g, b)) / gap
    # g(m + d/2) - g(m - d/2) = g' d + g''' d³ / 24 + ...
    middle, d = (a + b) / 2, a - b
    slope = jax.grad(g)
    third = jax.grad(jax.grad(slope))
    series = _elementwise(slope, middle) + _elementwise(third, middle) * d**2 / 24
    return jnp.where(close, series, apart)


def _close(a: Float[Array, "..."], b: Float[Array, "..."]) -> Bool[Array, "..."]:
    return jnp.abs(a - b) < CLOSE * (jnp.abs(a) + jnp.abs(b))


def _elementwise(g: Scalar, values: Float[Array, "..."]) -> Float[Array, "..."]:
    return jax.vmap(g)(values.ravel()).reshape(values.shape)
