"""Eigenvalues that are equal, and means over them that have derivatives.

A perturbation splits eigenvalues that are equal, and none of them alone has a derivative; their mean has.
With the eigenvectors V of a Hermitian matrix D held where they are, what D becomes is

    V^H D V = diag(lambda) + Delta,

and the mean over the group g of equal eigenvalues is, by perturbation theory to second order in Delta,

    mean = lambda_g + (1/n_g) [ sum_i Delta_ii + sum_im |Delta_im|² / (lambda_g - lambda_m) ],

i running over the n_g members of the group and m over all others.

Delta is zero at the point itself. So this expression has the value, the first and the second derivatives of
the mean, in any mode; the third are not right.

Source: Kato, Perturbation Theory for Linear Operators, II.2.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

SAME = 1e-6  # of the largest eigenvalue: those closer than this are one group

Groups = Sequence[tuple[int, int]]


def groups_of(values: Float[np.ndarray, "modes"]) -> list[tuple[int, int]]:
    """First and last of each group of equal values in ascending order."""
    size = np.abs(values).max()
    gaps = np.flatnonzero(np.diff(values) > SAME * size)
    starts = [0, *(gaps + 1)]
    ends = [*gaps, len(values) - 1]
    return [(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]


def group_means(matrix: Inexact[Array, "modes modes"], groups: Groups) -> Float[Array, "groups"]:
    """Mean eigenvalue of each group, ascending; with first and second derivatives.

    Args:
        matrix: Hermitian.
        groups: first and last of each group of equal eigenvalues; together all of them.
    """
    values, vectors = jnp.linalg.eigh(held(matrix))
    turned = vectors.conj().T @ matrix @ vectors
    members = jnp.asarray(_members(groups, len(matrix)))
    sizes = jnp.sum(members, axis=1)
    centers = members @ values / sizes
    # the same for every member, so that rounding within a group does not count
    center = members.T @ centers
    apart = ~(members.T @ members).astype(bool)
    gaps = jnp.where(apart, center[:, None] - center, 1.0)
    # not by the absolute value, which has no derivative at zero
    size = jnp.real(turned) ** 2 + jnp.imag(turned) ** 2
    squares = jnp.where(apart, size, 0.0)
    second = jnp.sum(squares / gaps, axis=1)
    each = jnp.real(jnp.diagonal(turned)) + second
    return members @ each / sizes


def _members(groups: Groups, n: int) -> Float[np.ndarray, "groups modes"]:
    members = np.zeros((len(groups), n))
    for row, (first, last) in zip(members, groups, strict=True):
        row[first : last + 1] = 1.0
    return members


def held(tree: Any) -> Any:
    """The same without derivatives."""
    stop = lambda x: jax.lax.stop_gradient(x) if _has_derivative(x) else x
    return jax.tree.map(stop, tree)


def _has_derivative(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.inexact)
