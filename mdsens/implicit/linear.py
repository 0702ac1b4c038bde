"""Linear solves A y = b for operators given as products, singular along known directions.

The operator of an implicit derivative is a Hessian: symmetric, positive definite except along motions that
cost no energy. Those are projected out of right-hand side, iterates and result; nothing is ever added to the
diagonal (a ridge biases the response by percents).

A solver is an object with `solve(matvec, b, project, precondition)`. All of them live inside
`jax.lax.custom_linear_solve`, so they are themselves never differentiated. That is also why they are plain
loops: those of `jax.scipy` open a second custom_linear_solve inside, which breaks reverse mode.

Which one? `Dense` for any operator up to a few thousand unknowns. Beyond: `ConjugateGradient` for symmetric
positive definite operators, `NearlySymmetric` around it when only a small block is not symmetric, `GMRES` for
all others.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Vector = Float[Array, "unknowns"]
Operator = Callable[[Vector], Vector]


def identity(v: Vector) -> Vector:
    """Leave v as it is: no projector, no preconditioner."""
    return v


class AbstractLinearSolver(eqx.Module):
    """How A y = b is solved on the image of `project`."""

    @abstractmethod
    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        """y with project(A y - b) = 0 and project(y) = y."""

    def solve_transposed(
        self, matvec: Operator, b: Vector, project: Operator, precondition: Operator
    ) -> Vector:
        """The same for A^T, whose products `matvec` then gives."""
        return self.solve(matvec, b, project, precondition)


class Dense(AbstractLinearSolver):
    """Build the matrix, product by product, and factorise it: exact, for up to a few thousand unknowns.

    The factor is shared by all right-hand sides of one call. Works for any non-singular operator.
    """

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        unit = jnp.eye(b.shape[0], dtype=b.dtype)
        columns = jax.vmap(lambda e: project(matvec(project(e))))(unit)
        projector = jax.vmap(project)(unit).T
        factorized = Factorized.of(columns.T, projector)
        return factorized.solve(matvec, b, project, precondition)


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
    def of(
        cls, matrix: Float[Array, "unknowns unknowns"], projector: Float[Array, "unknowns unknowns"]
    ) -> Self:
        # s sets the scale off the image; where nothing is left to solve for, any will do
        s = jnp.max(jnp.abs(jnp.diagonal(matrix)), initial=0.0)
        off_the_image = jnp.eye(matrix.shape[0]) - projector
        matrix = matrix + jnp.where(s > 0, s, 1.0) * off_the_image
        return cls(matrix, *jax.scipy.linalg.lu_factor(matrix))

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        return project(self._solve(project(b), 0))

    def solve_transposed(
        self, matvec: Operator, b: Vector, project: Operator, precondition: Operator
    ) -> Vector:
        return project(self._solve(project(b), 1))

    def _solve(self, b: Vector, transposed: int) -> Vector:
        matrix = self.matrix.T if transposed else self.matrix
        factor = (self.lu, self.pivots)
        y = jax.scipy.linalg.lu_solve(factor, b, trans=transposed)
        # one step of iterative refinement
        return y + jax.scipy.linalg.lu_solve(factor, b - matrix @ y, trans=transposed)


class Assembled(AbstractLinearSolver):
    """Conjugate gradients with a matrix written down beforehand in place of the operator.

    `Refined` checks the answer with the operator itself, and takes it on from there.

    Attributes:
        matrix: v -> A v, of the operator or one nearby.
    """

    matrix: Operator
    rtol: float = eqx.field(static=True, default=1e-11)
    max_steps: int = eqx.field(static=True, default=3000)

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        return conjugate_gradient(
            self.matrix, b, project, precondition, rtol=self.rtol, max_steps=self.max_steps
        ).solution


class Refined(AbstractLinearSolver):
    """A solver for an operator nearby, refined with products of the operator itself.

    At the state that was factorised one step is rounding; by a matrix each step gains the digits it is solved
    to; where the operator has changed by a small part r of itself, each step gains the factor r. The operator
    need not be positive.

    Attributes:
        nearby: solves with the operator nearby, by its factor or its matrix.
        rtol: |b - A y| <= rtol |b| at the end.
        max_steps: products allowed; not getting there is an error, not a wrong number.
        least: steps taken in any case.
    """

    nearby: AbstractLinearSolver
    rtol: float = eqx.field(static=True, default=1e-11)
    max_steps: int = eqx.field(static=True, default=60)
    least: int = eqx.field(static=True, default=2)

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        return self._refine(self.nearby.solve, matvec, b, project, precondition)

    def solve_transposed(
        self, matvec: Operator, b: Vector, project: Operator, precondition: Operator
    ) -> Vector:
        return self._refine(self.nearby.solve_transposed, matvec, b, project, precondition)

    def _refine(
        self, inverse: Any, matvec: Operator, b: Vector, project: Operator, precondition: Operator
    ) -> Vector:
        # y <- y + A0^-1 (b - A y), until the residual is small or rounding lets it fall no further
        b = project(b)
        goal = self.rtol * jnp.linalg.norm(b)
        correct = lambda r: inverse(matvec, r, project, precondition)

        def unfinished(state):
            _, r, before, k = state
            size = jnp.linalg.norm(r)
            falls = (size > goal) & (size < 0.9 * before)
            wanted = (k < self.least) | (falls & (k < self.max_steps))
            return (size > 0) & wanted

        def step(state):
            y, r, _, k = state
            y = y + correct(r)
            left = b - project(matvec(y))
            return y, left, jnp.linalg.norm(r), k + 1

        start = (jnp.zeros_like(b), b, jnp.asarray(jnp.inf, b.dtype), 0)
        y, r, _, _ = jax.lax.while_loop(unfinished, step, start)
        size = jnp.linalg.norm(r)
        return eqx.error_if(
            y,
            ~(size <= 1e4 * goal),
            "a linear solve around an equilibrium did not converge: the structure is too far from the state "
            "whose Hessian was written down, or a mode has no curvature. Relax the structure itself, or pass "
            "linear_solver=Dense().",
        )


class Embedded(AbstractLinearSolver):
    """A solver for the first unknowns, made of one for more unknowns of which the further ones are held.

    Attributes:
        larger: solves with all unknowns. size: their number.
    """

    larger: AbstractLinearSolver
    size: int = eqx.field(static=True)

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        return self._of_first(self.larger.solve, matvec, b, project, precondition)

    def solve_transposed(
        self, matvec: Operator, b: Vector, project: Operator, precondition: Operator
    ) -> Vector:
        return self._of_first(self.larger.solve_transposed, matvec, b, project, precondition)

    def _of_first(self, run: Any, matvec: Operator, b: Vector, *others: Operator) -> Vector:
        n = b.shape[0]
        fill = lambda v: jnp.pad(v, (0, self.size - n))
        widened = lambda function: lambda v: fill(function(v[:n]))
        return run(widened(matvec), fill(b), *map(widened, others))[:n]


class ConjugateGradient(AbstractLinearSolver):
    """Preconditioned conjugate gradients, projected in every step.

    A block of right-hand sides runs in lockstep.

    Attributes:
        rtol: |b - A y| <= rtol |b| at the end.
        max_steps: products allowed; not getting there is an error, not a wrong number.
    """

    rtol: float = eqx.field(static=True, default=1e-11)
    max_steps: int = eqx.field(static=True, default=3000)

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        result = conjugate_gradient(
            matvec, b, project, precondition, rtol=self.rtol, max_steps=self.max_steps
        )
        # rounding sets a floor of about eps * condition number: accept ten thousand times the tolerance asked
        # for
        bad = result.residual > 1e4 * self.rtol * jnp.linalg.norm(b)
        return eqx.error_if(
            result.solution,
            bad | ~jnp.isfinite(result.residual),
            "the linear solve of the implicit derivative did not converge: the state is not a "
            "well-conditioned minimum (a soft or negative mode), or max_steps of ConjugateGradient is too "
            "small. Look at the certificate (mdsens.certify), relax further, or use linear_solver=Dense() "
            "for up to about 2000 atoms.",
        )


class GMRES(AbstractLinearSolver):
    """Restarted GMRES for operators that are neither symmetric nor positive.

    Smallest residual in a growing space.

    Memory: 2 `restart` vectors. Where it stagnates (eigenvalues all around zero), raise `restart` or
    precondition.

    Attributes:
        rtol: |b - A y| <= rtol |b| at the end.
        restart: size of the space before it is rebuilt from the residual.
        max_steps: products allowed; not getting there is an error, not a wrong number.
    """

    rtol: float = eqx.field(static=True, default=1e-11)
    restart: int = eqx.field(static=True, default=60)
    max_steps: int = eqx.field(static=True, default=6000)

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        limits = {"rtol": self.rtol, "restart": self.restart, "max_steps": self.max_steps}
        y, residual, _ = gmres(matvec, b, project, precondition, **limits)
        bad = residual > 1e4 * self.rtol * jnp.linalg.norm(project(b))  # rounding sets a floor, as above
        return eqx.error_if(
            y,
            bad | ~jnp.isfinite(residual),
            "the linear solve of the implicit derivative did not converge: the operator is singular beyond "
            "what `project` takes out, or GMRES stagnates. Use linear_solver=Dense() for up to a few "
            "thousand unknowns, a larger restart or max_steps of GMRES, or ConjugateGradient() if the "
            "operator is symmetric and positive.",
        )


class NearlySymmetric(AbstractLinearSolver):
    """A = S + E K E^T with S symmetric and K antisymmetric on the last `size` unknowns.

    A few more solves with S.

    The case of a cell under a target stress with shear: only the strains feel that such a stress has no
    energy. The projector must leave the last `size` unknowns alone.

    Attributes:
        symmetric: solver for S.
        size: number of unknowns, at the end of the vector, among which A is not symmetric.
    """

    symmetric: AbstractLinearSolver
    size: int = eqx.field(static=True)

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        # E holds the unit vectors of the last unknowns. Woodbury's formula, in the form that takes a singular
        # K:
        #     A^-1 b = y - Z (1 + K E^T Z)^-1 K E^T y,      S y = b,  S Z = E.
        k = self.size
        one = jnp.eye(k, dtype=b.dtype)
        E = jnp.zeros((k, b.shape[0]), b.dtype).at[:, -k:].set(one)
        block = jax.vmap(matvec)(E)[:, -k:].T
        K = (block - block.T) / 2

        def product(v: Vector) -> Vector:
            return matvec(v).at[-k:].add(-K @ v[-k:])

        run = lambda c: self.symmetric.solve(product, c, project, precondition)
        y, Z = run(b), jax.vmap(run)(E).T
        of_last = jnp.linalg.solve(one + K @ Z[-k:], K @ y[-k:])
        return y - Z @ of_last


class CGResult(NamedTuple):
    """Where conjugate gradients stopped."""

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
    Source: Hestenes, Stiefel (1952); projection as in Gould, Hribar, Nocedal, SIAM J. Sci. Comput. 23, 1376
    (2001).
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

    first = (y, r, z, z, r @ z, jnp.array(0), jnp.array(False))
    last = jax.lax.while_loop(unfinished, step, first)
    y, r, _, _, _, k, negative = last
    return CGResult(y, jnp.linalg.norm(r), k, negative)


def gmres(
    matvec: Operator,
    b: Vector,
    project: Operator = identity,
    precondition: Operator = identity,
    *,
    rtol: float = 1e-11,
    restart: int = 60,
    max_steps: int = 6000,
) -> tuple[Vector, Float[Array, ""], Array]:
    """Restarted GMRES, preconditioned from the right.

    Returns:
        solution, norm of its residual, products used.
    Source: the variant without Givens rotations of Walker, Zhou, Numer. Linear Algebra Appl. 1, 571 (1994).
    """
    # One cycle: an orthonormal basis w_1 ... w_m of A z_1 ... A z_m, with z_1 = r_0 / |r_0| and z_k+1 = w_k.
    # Each new w_k takes its part out of the residual, so r is always at hand:
    #     A z_k = sum_l<=k R_lk w_l,    a_k = w_k . r,    r <- r - a_k w_k;
    # at the end y += sum_k t_k z_k with R t = a.
    operator = lambda z: project(matvec(project(precondition(z))))
    b = project(b)
    n = b.shape[0]
    goal = rtol * jnp.linalg.norm(b)

    def expand(state):
        z, r, Z, W, R, a, k = state
        w = operator(z)
        part = W @ w
        w = w - part @ W
        again = W @ w  # orthogonalised twice: once loses digits
        w = w - again @ W
        size = jnp.linalg.norm(w)
        # otherwise A z is in the space already: A is singular there
        grown = size > 1e-14 * jnp.linalg.norm(part + again)
        w = jnp.where(grown, w / jnp.where(grown, size, 1.0), 0.0)
        along = w @ r
        R = R.at[:, k].set(part + again)
        R = R.at[k, k].set(jnp.where(grown, size, 1.0))
        Z, W = Z.at[k].set(z), W.at[k].set(w)
        return w, r - along * w, Z, W, R, a.at[k].set(along), k + 1

    def cycle(state):
        y, r, steps, _ = state
        start = jnp.linalg.norm(r)
        # the basis loses its digits as |r| falls: look at the true residual after six orders of magnitude
        enough = jnp.maximum(goal, 1e-6 * start)
        empty = jnp.zeros((restart, n), b.dtype)
        R, a = jnp.eye(restart, dtype=b.dtype), jnp.zeros(restart, b.dtype)
        first = (r / start, r, empty, empty, R, a, 0)

        def going(inner):
            _, r, *_, k = inner
            return (k < restart) & (jnp.linalg.norm(r) > enough)

        last = jax.lax.while_loop(going, expand, first)
        _, _, Z, _, R, a, k = last
        t = jax.scipy.linalg.solve_triangular(R, a)
        y = y + project(precondition(t @ Z))
        r = b - project(matvec(y))
        stagnates = jnp.linalg.norm(r) > 0.9 * start  # or has come down to rounding
        return y, r, steps + k + 1, stagnates

    def unfinished(state):
        _, r, steps, stagnates = state
        return (jnp.linalg.norm(r) > goal) & (steps < max_steps) & ~stagnates

    start = (jnp.zeros_like(b), b, jnp.array(0), jnp.array(False))
    y, r, steps, _ = jax.lax.while_loop(unfinished, cycle, start)
    return y, jnp.linalg.norm(r), steps


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
        project: symmetric projector (P P = P = P^T) onto the directions that count. In reverse mode the
            cotangent is projected as well: an arbitrary one has a part along the null space.
    """
    operator = lambda y: project(matvec(project(y)))
    run = lambda product, c: solver.solve(product, c, project, precondition)
    back = lambda product, c: solver.solve_transposed(product, c, project, precondition)
    return jax.lax.custom_linear_solve(operator, project(b), run, transpose_solve=back, symmetric=symmetric)
