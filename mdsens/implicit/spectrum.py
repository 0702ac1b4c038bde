"""Lowest and highest eigenvalues of a symmetric operator: is this a minimum, and how soft is it?"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.batching import map_rows
from mdsens.implicit.linear import Operator, Vector, identity
from mdsens.threads import in_one_thread


class Spectrum(NamedTuple):
    """Ends of a spectrum, on the image of the projector."""

    lowest: Float[Array | np.ndarray, ""]
    mode: Float[Array | np.ndarray, "unknowns"]  # eigenvector of the lowest, norm 1
    highest: Float[Array | np.ndarray, ""]
    residual: Float[Array | np.ndarray, ""]  # |A mode - lowest mode|: some eigenvalue is that near


@in_one_thread
def dense_spectrum(
    A: Float[np.ndarray, "unknowns unknowns"], P: Float[np.ndarray, "unknowns unknowns"], rank: int
) -> Spectrum:
    """Ends of the spectrum of P A P on the image of P, by diagonalising the (symmetrised) matrix on the host.

    Args:
        rank: dimension of the image of P.
    """
    # one eigenvector takes a third of the time of all
    from scipy.linalg import eigh

    symmetric, n = (A + A.T) / 2, len(A)
    if not np.isfinite(A).all():
        unknown = np.asarray(np.nan)
        return Spectrum(unknown, np.full(n, np.nan), unknown, unknown)
    # Directions projected out are moved above everything else.
    above = 2 * (np.linalg.norm(A) + 1.0)
    shifted = symmetric + above * (np.eye(n) - P)
    (lowest,), vectors = eigh(shifted, subset_by_index=[0, 0])
    top = (rank - 1) % n
    (highest,) = eigh(shifted, subset_by_index=[top, top], eigvals_only=True)
    mode = vectors[:, 0]
    residual = np.linalg.norm(symmetric @ mode - lowest * mode)
    return Spectrum(*(np.asarray(x) for x in (lowest, mode, highest, residual)))


def iterative_spectrum(
    matvec: Operator, n: int, project: Operator = identity, precondition: Operator = identity
) -> Spectrum:
    """The same from products alone: LOBPCG below, Lanczos above.

    Args:
        matvec: v -> A v, symmetric.
        n: number of unknowns.
        precondition: approximate inverse of A, positive definite.
    """
    lowest, mode, residual = lobpcg(matvec, n, project, precondition)
    return Spectrum(lowest, mode, _lanczos_top(matvec, n, project), residual)


def lobpcg(
    matvec: Operator,
    n: int,
    project: Operator,
    precondition: Operator,
    *,
    rtol: float = 1e-3,
    max_steps: int = 200,
    block: int = 3,
) -> tuple[Array, Vector, Array]:
    """Lowest eigenpair by locally optimal block preconditioned conjugate gradients.

    Returns:
        eigenvalue, normalised eigenvector, residual norm. Stops when the residual is below rtol |eigenvalue|.
    Source: Knyazev, SIAM J. Sci. Comput. 23, 517 (2001).
    """
    product = lambda rows: map_rows(lambda v: project(matvec(v)), rows)
    many = jax.vmap(project)

    def ritz(S):
        # Orthonormal basis of the rows of S; nearly dependent rows are dropped by moving them up the
        # spectrum.
        size, V = jnp.linalg.eigh(S @ S.T)
        keep = size > 1e-10 * size[-1]
        scale = jnp.where(keep, 1 / jnp.sqrt(jnp.where(keep, size, 1.0)), 0.0)
        B = scale[:, None] * (V.T @ S)
        AB = product(B)
        small = B @ AB.T
        huge = 10 * jnp.sum(jnp.abs(small)) + 1.0
        dropped = jnp.diag(jnp.where(keep, 0.0, huge))
        values, C = jnp.linalg.eigh((small + small.T) / 2 + dropped)
        lowest = C[:, :block].T
        return values[:block], lowest @ B, lowest @ AB

    def step(state):
        X, AX, P, values, k = state
        residuals = AX - values[:, None] * X
        W = many(jax.vmap(precondition)(residuals))
        unit = lambda Z: Z / jnp.maximum(jnp.linalg.norm(Z, axis=1, keepdims=True), 1e-300)
        space = jnp.concatenate([X, unit(W), unit(P)])
        values, Y, AY = ritz(space)
        P = Y - (Y @ X.T) @ X
        return Y, AY, P, values, k + 1

    def first_residual(X, AX, values):
        return jnp.linalg.norm(AX[0] - values[0] * X[0])

    def unfinished(state):
        X, AX, _, values, k = state
        goal = rtol * jnp.abs(values[0])
        return (first_residual(X, AX, values) > goal) & (k < max_steps)

    # in this order the first numbers do not depend on how many there are: ghosts change nothing
    random = jax.random.normal(jax.random.key(7), (n, block)).T
    start = many(jax.vmap(precondition)(random))
    values, X, AX = ritz(start / jnp.linalg.norm(start, axis=1, keepdims=True))
    state = (X, AX, jnp.zeros_like(X), values, jnp.array(0))
    X, AX, _, values, _ = jax.lax.while_loop(unfinished, step, state)
    return values[0], X[0], first_residual(X, AX, values)


def _lanczos_top(matvec: Operator, n: int, project: Operator, steps: int = 24) -> Float[Array, ""]:
    # Plain Lanczos: the top of the spectrum comes out to better than a percent long before orthogonality is
    # lost.
    def step(state, _):
        old, v, beta = state
        w = project(matvec(v)) - beta * old
        alpha = w @ v
        w = w - alpha * v
        norm = jnp.linalg.norm(w)
        return (v, w / jnp.maximum(norm, 1e-300), norm), (alpha, norm)

    v = project(jax.random.normal(jax.random.key(11), (n,)))
    start = (jnp.zeros_like(v), v / jnp.linalg.norm(v), jnp.array(0.0))
    _, (alpha, beta) = jax.lax.scan(step, start, length=steps)
    beside = beta[:-1]
    tridiagonal = jnp.diag(alpha) + jnp.diag(beside, 1) + jnp.diag(beside, -1)
    return jnp.linalg.eigvalsh(tridiagonal)[-1]
