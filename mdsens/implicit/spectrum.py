"""Lowest and highest eigenvalues of a symmetric operator: is this a minimum, and how soft is it?"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.batching import map_rows
from mdsens.implicit.linear import Operator, Vector, identity
from mdsens.threads import in_one_thread

FEW_NUMBERS = 100_000  # in all rows together, up to which they are mapped at once
UNEXPECTED = 0.03  # relative error of the last vector of a block, which nothing is known of, at the end
TINY = 1e-300  # keeps a division by the norm of a zero vector finite


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
    n = len(A)
    if not np.isfinite(A).all():
        unknown = np.asarray(np.nan)
        return Spectrum(unknown, np.full(n, np.nan), unknown, unknown)
    # Directions projected out are moved above everything else.
    symmetric = (A + A.T) / 2
    above = 2 * (np.linalg.norm(A) + 1.0)
    lifted = symmetric + above * (np.eye(n) - P)
    lowest, mode, highest = _ends(lifted, (rank - 1) % n)
    residual = np.linalg.norm(symmetric @ mode - lowest * mode)
    return Spectrum(*(np.asarray(x) for x in (lowest, mode, highest, residual)))


@in_one_thread
def positive_definite(A: Float[np.ndarray, "unknowns unknowns"]) -> bool:
    """Whether all eigenvalues of a symmetric matrix are positive; the matrix is used up.

    In a tenth of the time that eigenvalues take: a matrix is positive definite if it has a Cholesky factor.
    """
    from scipy import linalg

    lapack: Any = linalg.lapack
    # the transpose of a symmetric matrix is the matrix itself, in the order that LAPACK reads
    factor, failed = lapack.dpotrf(A.T, lower=1, clean=0, overwrite_a=1)
    return failed == 0 and bool(np.isfinite(np.diagonal(factor)).all())


def _ends(A: np.ndarray, top: int) -> tuple[float, np.ndarray, float]:
    """Lowest eigenvalue with its vector, and the eigenvalue number `top`, of a symmetric matrix."""
    # A = Q T Q^T with T tridiagonal is most of the work, and serves for both ends. All eigenvectors would
    # take three times as long; and on the way to them the threads of LAPACK wait for each other thousands of
    # times: with other processes on the same cores that took a hundred times longer.
    from scipy import linalg

    lapack: Any = linalg.lapack
    eigh_tridiagonal: Any = linalg.eigh_tridiagonal
    n = len(A)
    if n == 1:
        return A[0, 0], np.ones(1), A[0, 0]
    work, _ = lapack.dsytrd_lwork(n, lower=1)
    reflections, diagonal, below, factors, _ = lapack.dsytrd(A, lower=1, lwork=int(work))
    (lowest,), vectors = eigh_tridiagonal(diagonal, below, select="i", select_range=(0, 0))
    (highest,) = eigh_tridiagonal(diagonal, below, True, select="i", select_range=(top, top))
    # Q leaves the first unit vector alone; its reflections are stored as those of a QR factorisation are
    rest, _, _ = lapack.dormqr("L", "N", reflections[1:, :-1], factors, vectors[1:], n)
    return lowest, np.concatenate([vectors[0], rest[:, 0]]), highest


def iterative_spectrum(
    matvec: Operator,
    n: int,
    project: Operator = identity,
    precondition: Operator = identity,
    guesses: Float[Array, "guesses unknowns"] | None = None,
) -> Spectrum:
    """The same from products alone: LOBPCG below, Lanczos above.

    Args:
        matvec: v -> A v, symmetric.
        n: number of unknowns.
        precondition: approximate inverse of A, positive definite.
        guesses: vectors that the softest modes may be near to; they save steps, and hide no other mode.
    """
    lowest, mode, residual = lobpcg(matvec, n, project, precondition, guesses)
    return Spectrum(lowest, mode, _lanczos_top(matvec, n, project), residual)


class _Block(NamedTuple):
    """The best eigenvectors so far, the way each of them has come, and the products of both with A."""

    X: Float[Array, "block unknowns"]
    AX: Float[Array, "block unknowns"]
    P: Float[Array, "block unknowns"]
    AP: Float[Array, "block unknowns"]
    values: Float[Array, "block"]

    @property
    def errors(self) -> Float[Array, "block unknowns"]:
        """A x - lambda x of each."""
        return self.AX - self.values[:, None] * self.X


def lobpcg(
    matvec: Operator,
    n: int,
    project: Operator,
    precondition: Operator,
    guesses: Float[Array, "guesses unknowns"] | None = None,
    *,
    rtol: float = 1e-3,
    max_steps: int = 200,
    block: int = 3,
) -> tuple[Array, Vector, Array]:
    """Lowest eigenpair by locally optimal block preconditioned conjugate gradients.

    Returns:
        eigenvalue, normalised eigenvector, residual norm. Stops when the residual is below rtol |eigenvalue|,
        and that of the last vector of the block below UNEXPECTED times its own.
    Source: Knyazev, SIAM J. Sci. Comput. 23, 517 (2001).
    """
    # Each step looks for the best `block` vectors among those there are, X, the preconditioned errors W, and
    # the last moves P. Products with A are linear, so that only those of W are new.
    product = lambda rows: map_rows(lambda v: project(matvec(v)), rows, at_once=FEW_NUMBERS)
    smooth = lambda rows: map_rows(lambda v: project(precondition(v)), rows, at_once=FEW_NUMBERS)

    def step(state: tuple[_Block, Array]) -> tuple[_Block, Array]:
        best, k = state
        W = smooth(best.errors)
        W = _rows_of_norm_1(W - (W @ best.X.T) @ best.X)
        scale = 1 / jnp.maximum(jnp.linalg.norm(best.P, axis=1, keepdims=True), TINY)
        S = jnp.concatenate([best.X, W, scale * best.P])
        AS = jnp.concatenate([best.AX, product(W), scale * best.AP])
        values, chosen = _best_of(S, AS, block)
        moves = chosen.at[:, :block].set(0.0)
        return _Block(chosen @ S, chosen @ AS, moves @ S, moves @ AS, values), k + 1

    def unfinished(state: tuple[_Block, Array]) -> Array:
        best, k = state
        errors = jnp.linalg.norm(best.errors, axis=1) / jnp.abs(best.values)
        return ((errors[0] > rtol) | (errors[-1] > UNEXPECTED)) & (k < max_steps)

    # In this order the first numbers do not depend on how many there are: ghosts change nothing.
    random = jax.random.normal(jax.random.key(7), (n, block)).T
    start = _rows_of_norm_1(smooth(random))
    if guesses is not None:
        # A random vector holds a part of every mode, and guesses may hold nothing of the softest. So the last
        # row starts as such a vector, and has to come to an end, too.
        guessed = _rows_of_norm_1(map_rows(project, guesses, at_once=FEW_NUMBERS))
        _, chosen = _best_of(guessed, product(guessed), block - 1)
        start = jnp.concatenate([chosen @ guessed, start[:1]])
    products = product(start)
    values, chosen = _best_of(start, products, block)
    X = chosen @ start
    still = jnp.zeros_like(X)
    first = _Block(X, chosen @ products, still, still, values)
    best, _ = jax.lax.while_loop(unfinished, step, (first, jnp.array(0)))
    # the product once more: those above are sums, and carry the rounding of all steps
    mode, lowest = best.X[0], best.values[0]
    return lowest, mode, jnp.linalg.norm(project(matvec(mode)) - lowest * mode)


def _rows_of_norm_1(rows: Float[Array, "rows unknowns"]) -> Float[Array, "rows unknowns"]:
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=1, keepdims=True), TINY)


def _best_of(
    S: Float[Array, "rows unknowns"], AS: Float[Array, "rows unknowns"], count: int
) -> tuple[Float[Array, "count"], Float[Array, "count rows"]]:
    """The lowest Ritz values in the span of the rows of S, and their vectors as combinations of these."""
    # An orthonormal basis B S of the span: S S^T = V s V^T, B = s^-1/2 V^T. Nearly dependent rows are dropped
    # by moving them up the spectrum of the small matrix B (S A S^T) B^T.
    size, V = jnp.linalg.eigh(S @ S.T)
    keep = size > 1e-10 * size[-1]
    scale = jnp.where(keep, 1 / jnp.sqrt(jnp.where(keep, size, 1.0)), 0.0)
    B = scale[:, None] * V.T
    small = B @ (S @ AS.T) @ B.T
    huge = 10 * jnp.sum(jnp.abs(small)) + 1.0
    lifted = (small + small.T) / 2 + jnp.diag(jnp.where(keep, 0.0, huge))
    values, C = jnp.linalg.eigh(lifted)
    return values[:count], C[:, :count].T @ B


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
