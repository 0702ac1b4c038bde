"""Linear solves A y = b for operators given as products, singular along known directions.

The operator of an implicit derivative is a Hessian: symmetric, positive definite except along motions that cost no
energy. Those are projected out of right-hand side, iterates and result; nothing is ever added to the diagonal (a
ridge biases the response by percents).

A solver is an object with `solve(matvec, b, project, precondition)`. All of them live inside
`jax.lax.custom_linear_solve`, so they are themselves never differentiated.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Vector = Float[Array, "unknowns"]
Operator = Callable[[Vector], Vector]


def identity(v: Vector) -> Vector:
    return v


class AbstractLinearSolver(eqx.Module):
    """How A y = b is solved on the image of `project`."""

    @abstractmethod
    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        """y with project(A y - b) = 0 and project(y) = y."""

    def solve_transposed(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        """The same for A^T, whose products `matvec` then gives."""
        return self.solve(matvec, b, project, precondition)


class Dense(AbstractLinearSolver):
    """Build the matrix, product by product, and factorise it: exact, for up to a few thousand unknowns.

    The factor is shared by all right-hand sides of one call. Works for any non-singular operator.
    """

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        unit = jnp.eye(b.shape[0], dtype=b.dtype)
        columns = jax.vmap(lambda e: project(matvec(project(e))))(unit)
        return Factorized.of(columns.T, jax.vmap(project)(unit).T).solve(matvec, b, project, precondition)


class Factorized(AbstractLinearSolver):
    """A matrix factorised beforehand: solves cost nothing more, whatever is differentiated and how often.

    Attributes:
        matrix: P A P + s (1 - P), with s of the size of A: singular nowhere, and P A P on the image of P.
        lu, pivots: its factor.
    """

    matrix: Float[Array, "unknowns unknowns"]
    lu: Float[Array, "unknowns unknowns"]
    pivots: Array

    @classmethod
    def of(cls, matrix: Float[Array, "unknowns unknowns"], projector: Float[Array, "unknowns unknowns"]) -> Self:
        matrix = matrix + jnp.max(jnp.abs(jnp.diagonal(matrix))) * (jnp.eye(matrix.shape[0]) - projector)
        return cls(matrix, *jax.scipy.linalg.lu_factor(matrix))

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        return project(self._solve(project(b), 0))

    def solve_transposed(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        return project(self._solve(project(b), 1))

    def _solve(self, b: Vector, transposed: int) -> Vector:
        matrix = self.matrix.T if transposed else self.matrix
        y = jax.scipy.linalg.lu_solve((self.lu, self.pivots), b, trans=transposed)
        # one step of iterative refinement
        return y + jax.scipy.linalg.lu_solve((self.lu, self.pivots), b - matrix @ y, trans=transposed)


class ConjugateGradient(AbstractLinearSolver):
    """Preconditioned conjugate gradients, projected in every step; a block of right-hand sides runs in lockstep.

    Attributes:
        rtol: |b - A y| <= rtol |b| at the end.
        max_steps: products allowed; not getting there is an error, not a wrong number.
    """

    rtol: float = eqx.field(static=True, default=1e-11)
    max_steps: int = eqx.field(static=True, default=3000)

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        result = conjugate_gradient(matvec, b, project, precondition, rtol=self.rtol, max_steps=self.max_steps)
        # rounding sets a floor of about eps * condition number: accept ten thousand times the tolerance asked for
        bad = result.residual > 1e4 * self.rtol * jnp.linalg.norm(b)
        return eqx.error_if(
            result.solution,
            bad | ~jnp.isfinite(result.residual),
            "the linear solve of the implicit derivative did not converge: the state is not a well-conditioned minimum "
            "(a soft or negative mode), or max_steps of ConjugateGradient is too small. Look at the certificate "
            "(mdsens.certify), relax further, or use linear_solver=Dense() for up to about 2000 atoms.",
        )


class CGResult(NamedTuple):
    solution: Vector
    residual: Float[Array, ""]  # |b - A y|
    steps: Array
    negative: Array  # True: met a direction of negative curvature and stopped there


def conjugate_gradient(
    matvec: Operator,
    b: Vector,
    project: Operator = identity,
    precondition: Operator = identity,
    *,
    rtol: float | Array = 1e-11,
    max_steps: int = 3000,
    start: Vector | None = None,
) -> CGResult:
    """Conjugate gradients that also report negative curvature (as Newton steps need to know).

    Args:
        start: first guess; a good one from a neighbouring problem saves most of the steps.
    Source: Hestenes, Stiefel (1952); projection as in Gould, Hribar, Nocedal, SIAM J. Sci. Comput. 23, 1376 (2001).
    """
    b = project(b)
    y = jnp.zeros_like(b) if start is None else project(start)
    r = b if start is None else b - project(matvec(y))
    z = project(precondition(r))
    goal = rtol * jnp.linalg.norm(b)

    def unfinished(state):
        _, r, _, _, _, k, negative = state
        return (jnp.linalg.norm(r) > goal) & (k < max_steps) & ~negative

    def step(state):
        y, r, z, q, rz, k, _ = state
        Aq = project(matvec(q))
        curvature = q @ Aq
        negative = curvature <= 0
        a = jnp.where(negative, 0.0, rz / jnp.where(negative, 1.0, curvature))
        # at once with negative curvature the preconditioned gradient itself is the best known direction
        y = jnp.where(negative & (k == 0), q, y + a * q)
        r = r - a * Aq
        z = project(precondition(r))
        new = r @ z
        q = z + new / rz * q
        return y, r, z, q, new, k + 1, negative

    first = (y, r, z, z, r @ z, 0, jnp.array(False))
    y, r, _, _, _, k, negative = jax.lax.while_loop(unfinished, step, first)
    return CGResult(y, jnp.linalg.norm(r), k, negative)


def solve(
    matvec: Operator,
    b: Vector,
    *,
    solver: AbstractLinearSolver,
    project: Operator = identity,
    precondition: Operator = identity,
    symmetric: bool = True,
) -> Vector:
    """y with A y = b on the image of `project`; differentiable to any order, forward and reverse.

    Args:
        matvec: y -> A y, linear. With `symmetric`, A = A^T.
        project: symmetric projector (P P = P = P^T) onto the directions that count. In reverse mode the cotangent
            is projected as well: an arbitrary one has a part along the null space.
    """
    operator = lambda y: project(matvec(project(y)))
    run = lambda product, c: solver.solve(product, c, project, precondition)
    back = lambda product, c: solver.solve_transposed(product, c, project, precondition)
    return jax.lax.custom_linear_solve(operator, project(b), run, transpose_solve=back, symmetric=symmetric)
