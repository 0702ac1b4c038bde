"""Cheap derivatives, to see what they are worth: never a default.

An implicit derivative solves A y = b. Codes without such a solve take one of these in its place, by name or
unknowingly:

- `Neumann`: y = s sum_k<K (1 - s A)^k b, the derivative of K steps of gradient descent unrolled from the
  solution (as after a warm start). Along an eigenvector with the eigenvalue a it is off by (1 - s a)^K: the
  soft ones need K of the order of the condition number.
- `Ridge`: y = (A + r)^-1 b, off by r / (a + r): of the order one along all that is softer than r.
- `TruncatedCG`: K steps of conjugate gradients, the best of all that need K products.

Source: Lorraine, Vicol, Duvenaud, AISTATS 2020, arXiv:1911.02590; Vicol et al., On Implicit Bias in
    Overparameterized Bilevel Optimization, ICML 2022, arXiv:2212.14032.
"""

import equinox as eqx
import jax
from jaxtyping import Array

from mdsens.checks import number, whole
from mdsens.implicit.linear import (
    AbstractLinearSolver,
    ConjugateGradient,
    Operator,
    Vector,
    conjugate_gradient,
)


class Neumann(AbstractLinearSolver):
    """K terms of Neumann's series: K steps of gradient descent, differentiated.

    Attributes:
        terms: K.
        step: s, below two over the largest eigenvalue.
    """

    terms: int = eqx.field(static=True)
    step: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        whole("terms", self.terms, at_least=1)
        number("step", self.step, above=0)

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        def add(y: Vector, _: None) -> tuple[Vector, None]:
            return y + self.step * project(b - matvec(y)), None

        y, _ = jax.lax.scan(add, 0.0 * b, length=self.terms)
        return project(y)


class Ridge(AbstractLinearSolver):
    """(A + r)^-1 b.

    Attributes:
        amount: r, in the unit of A (eV/Å² for atoms).
    """

    amount: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        number("amount", self.amount, above=0)

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        damped = lambda v: matvec(v) + self.amount * v
        return ConjugateGradient(rtol=1e-10).solve(damped, b, project, precondition)


class TruncatedCG(AbstractLinearSolver):
    """Conjugate gradients, ended after K products without complaint.

    Attributes:
        steps: K.
    """

    steps: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        whole("steps", self.steps, at_least=1)

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Array:
        return conjugate_gradient(matvec, b, project, rtol=0.0, max_steps=self.steps).solution
