"""Fixed points x = T(x, theta): solvers as objects, and the derivative of what they find.

Three ways to a fixed point, all from values of T alone:

- `Picard` repeats T. It converges where T contracts, by the contraction factor at each step.
- `Anderson` looks for the mixture of the last few x whose residuals T(x) - x cancel best, and takes the same
  mixture of their images: where T is smooth, like GMRES on its linearisation.
- `Halpern` pulls every image back to the start by a weight that fades, 1 / (k + 2). It converges wherever T
  does not expand, also where Picard circles for ever, with a bound known before the first step.

The derivative is that of the fixed point, not of the steps: dx = (1 - dT/dx)^-1 (dT/dtheta) dtheta, and for
the linear solve the same iteration serves (`Iterated`), as y = b + (dT/dx) y is a fixed point itself.

Source: Walker, Ni, SIAM J. Numer. Anal. 49, 1715 (2011), doi:10.1137/10078356X; Halpern, Bull. Am. Math. Soc.
    73, 957 (1967); its bound: Lieder, Optim. Lett. 15, 405 (2021), doi:10.1007/s11590-020-01617-9.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from mdsens.checks import instance, number, whole
from mdsens.errors import NotConvergedError
from mdsens.implicit.linear import AbstractLinearSolver, Operator, Vector
from mdsens.implicit.rule import fixed_point
from mdsens.implicit.vectors import on_vectors
from mdsens.precision import require_x64

Map = Callable[[Vector], Vector]

GROWN = 10.0  # times the smallest residual so far: Anderson forgets what it knew and starts again
DEPENDENT = 1e-12  # relative: combinations of differences with less than this squared norm are left out


class FixedPoint(NamedTuple):
    """Where an iteration stopped.

    Attributes:
        x: the last point; differentiable w.r.t. the parameters of the map.
        residual: |T(x) - x|, root of the sum of squares.
        steps: evaluations of T.
        converged: the residual, or the bound of a solver that has one, is below the tolerance.
    """

    x: Any
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]

    @property
    def status(self) -> str:
        """In words."""
        if bool(self.converged):
            return f"converged in {int(self.steps)} steps"
        if not bool(jnp.isfinite(self.residual)):
            return f"diverged within {int(self.steps)} steps"
        return f"stopped after {int(self.steps)} steps, {float(self.residual):.1e} from its image"


class AbstractFixedPointSolver(eqx.Module):
    """A way to x = T(x).

    Attributes:
        rtol, atol: done where |T(x) - x| <= rtol |T(x)| + atol.
        max_steps: evaluations of T allowed.
    """

    rtol: eqx.AbstractVar[float]
    atol: eqx.AbstractVar[float]
    max_steps: eqx.AbstractVar[int]

    def __check_init__(self) -> None:
        number("rtol", self.rtol, at_least=0)
        number("atol", self.atol, at_least=0)
        whole("max_steps", self.max_steps, at_least=1)

    @abstractmethod
    def start(self, x: Vector) -> Any:
        """What it remembers at the first point."""

    @abstractmethod
    def step(self, x: Vector, image: Vector, memory: Any, k: Array) -> tuple[Vector, Any]:
        """The next point, from this one and its image."""

    def near_enough(self, x: Vector, image: Vector) -> Array:
        """Whether the point is as good as asked for."""
        goal = self.rtol * jnp.linalg.norm(image) + self.atol
        return jnp.linalg.norm(image - x) <= goal

    def solve(self, map: Map, x: Vector) -> FixedPoint:
        """Iterate from x; works under jit."""

        def unfinished(state: Any) -> Array:
            x, image, _, k = state
            finite = jnp.all(jnp.isfinite(image))
            return finite & (k < self.max_steps) & ~self.near_enough(x, image)

        def step(state: Any) -> Any:
            x, image, memory, k = state
            x, memory = self.step(x, image, memory, k)
            return x, map(x), memory, k + 1

        first = (x, map(x), self.start(x), jnp.array(1))
        x, image, _, k = jax.lax.while_loop(unfinished, step, first)
        return FixedPoint(x, jnp.linalg.norm(image - x), k, self.near_enough(x, image))


class Picard(AbstractFixedPointSolver):
    """x <- x + mixing (T(x) - x).

    Attributes:
        mixing: 1 repeats T itself; less of it where T swings from side to side.
    """

    mixing: float = eqx.field(static=True, default=1.0)
    rtol: float = eqx.field(static=True, default=1e-12)
    atol: float = eqx.field(static=True, default=1e-14)
    max_steps: int = eqx.field(static=True, default=2000)

    def __check_init__(self) -> None:
        number("mixing", self.mixing, above=0)

    def start(self, x: Vector) -> Any:
        return ()

    def step(self, x: Vector, image: Vector, memory: Any, k: Array) -> tuple[Vector, Any]:
        return x + self.mixing * (image - x), memory


class Halpern(AbstractFixedPointSolver):
    """x <- x_0 / (k + 2) + (1 - 1 / (k + 2)) T(x).

    Of a map that does not expand, |T(x) - T(y)| <= |x - y|, the residual after k steps is at most
    2 |x_0 - x*| / (k + 1), whatever the map; no solver of this kind has a better bound. One that contracts is
    found faster by the others.
    """

    rtol: float = eqx.field(static=True, default=1e-6)
    atol: float = eqx.field(static=True, default=1e-14)
    max_steps: int = eqx.field(static=True, default=100_000)

    def start(self, x: Vector) -> Any:
        return x

    def step(self, x: Vector, image: Vector, memory: Any, k: Array) -> tuple[Vector, Any]:
        pull = 1 / (k + 1)  # k evaluations have been made: this is step k - 1
        return pull * memory + (1 - pull) * image, memory

    @staticmethod
    def residual_bound(distance: float, steps: int) -> float:
        """The residual after so many steps, at most, of a map that does not expand.

        Args:
            distance: |x_0 - x*|, or more.
        """
        return 2 * distance / (steps + 1)


class _Past(NamedTuple):
    """The last points and residuals, as differences of one to the next, in rows that are filled in turn."""

    dx: Float[Array, "history unknowns"]
    df: Float[Array, "history unknowns"]
    x: Vector
    f: Vector
    best: Array
    kept: Array  # differences that are there


class Anderson(AbstractFixedPointSolver):
    """Anderson's mixing of the last points.

    Attributes:
        history: differences of points that are kept.
        mixing: of the residual that is left over.
    """

    history: int = eqx.field(static=True, default=8)
    mixing: float = eqx.field(static=True, default=1.0)
    rtol: float = eqx.field(static=True, default=1e-12)
    atol: float = eqx.field(static=True, default=1e-14)
    max_steps: int = eqx.field(static=True, default=500)

    def __check_init__(self) -> None:
        whole("history", self.history, at_least=1)
        number("mixing", self.mixing, above=0)

    def start(self, x: Vector) -> Any:
        rows = jnp.zeros((self.history, len(x)), x.dtype)
        infinite = jnp.asarray(jnp.inf, x.dtype)
        return _Past(rows, rows, x, jnp.zeros_like(x), infinite, jnp.array(0))

    def step(self, x: Vector, image: Vector, memory: Any, k: Array) -> tuple[Vector, Any]:
        f = image - x
        past = self._remembered(memory, x, f, k)
        # min over g of |f - sum_i g_i df_i|; then x and f take back the same differences
        g = _least_squares(past.df, f)
        new = x + self.mixing * f - g @ (past.dx + self.mixing * past.df)
        return new, past

    def _remembered(self, past: Any, x: Vector, f: Vector, k: Array) -> Any:
        size = jnp.linalg.norm(f)
        lost = size > GROWN * past.best
        place = past.kept % self.history
        is_first = k == 1
        write = lambda rows, row: rows.at[place].set(jnp.where(is_first, 0.0, row))
        forget = lambda rows: jnp.where(lost, 0.0, rows)
        dx = forget(write(past.dx, x - past.x))
        df = forget(write(past.df, f - past.f))
        kept = jnp.where(lost | is_first, 0, past.kept + 1)
        return _Past(dx, df, x, f, jnp.where(lost, size, jnp.minimum(past.best, size)), kept)


def _least_squares(rows: Float[Array, "history unknowns"], f: Vector) -> Float[Array, "history"]:
    # the normal equations of rows of norm one; what is nearly dependent, and empty rows, are left out
    norms = jnp.linalg.norm(rows, axis=1)
    scale = jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1.0), 0.0)
    unit = scale[:, None] * rows
    values, vectors = jnp.linalg.eigh(unit @ unit.T)
    keep = values > DEPENDENT * values[-1]
    inverse = jnp.where(keep, 1 / jnp.where(keep, values, 1.0), 0.0)
    right = vectors.T @ (unit @ f)
    return scale * (vectors @ (inverse * right))


class Iterated(AbstractLinearSolver):
    """A y = b as the fixed point y = b + (1 - A) y, for operators A = 1 - B with a B that contracts.

    Attributes:
        by: how it is found.
    """

    by: AbstractFixedPointSolver = eqx.field(default_factory=Anderson)

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        b = project(b)

        def image(y: Vector) -> Vector:
            return b + y - project(matvec(y))

        found = self.by.solve(image, b)
        return eqx.error_if(
            found.x,
            ~found.converged,
            "the iteration of a linear solve did not converge: the map expands, or max_steps is too small. "
            "Use Anderson(), which needs no contraction, or a linear solver: GMRES(), Dense().",
        )


def find_fixed_point(
    map: Callable[..., Any],
    start: Any,
    *theta: Any,
    solver: AbstractFixedPointSolver | None = None,
    linear_solver: AbstractLinearSolver | None = None,
    throw: bool = True,
) -> FixedPoint:
    """x with x = T(x, theta), differentiable w.r.t. theta, forward and in reverse, to any order.

    Args:
        map: (x, *theta) -> T, of the form of x.
        start: where to begin: arrays of floats, in any pytree. No derivative: it only chooses among fixed
            points.
        solver: `Anderson()` by default.
        linear_solver: of (1 - dT/dx) y = b for derivatives; `Iterated(Picard())` repeats the linearised map,
            by default the matrix is built up to 1000 unknowns, and GMRES serves beyond.
        throw: raise where it did not converge; else look at `FixedPoint.status`.
    Raises:
        InputError: T(x) does not have the form of x.
        NotConvergedError: with the last point in `.partial`.
    """
    require_x64()
    hint = "Write solver=ms.Anderson(), ms.Picard() or ms.Halpern()."
    chosen: AbstractFixedPointSolver = solver or Anderson()
    instance("solver", chosen, AbstractFixedPointSolver, hint)
    seen = on_vectors(map, start, theta, "the map")
    found = chosen.solve(seen.function, seen.start)
    found = _checked(found, seen.unravel) if throw else found
    # The point is there already: the rule of implicit derivatives only has to tie it to theta.
    tied = fixed_point(map, lambda x, *theta: x, linear_solver=linear_solver, check=None)
    return found._replace(x=tied(seen.unravel(found.x), *theta))


def _checked(found: FixedPoint, unravel: Any) -> FixedPoint:
    advice = (
        "Where the map expands (ms.contraction says by how much), Picard cannot converge: use Anderson(), "
        "less mixing, or a start nearer to the fixed point; else raise max_steps."
    )
    if isinstance(found.converged, Tracer):
        message = f"a fixed point was not found. {advice}"
        return found._replace(x=eqx.error_if(found.x, ~found.converged, message))
    if not bool(found.converged):
        partial = found._replace(x=unravel(found.x))
        raise NotConvergedError(f"a fixed point was not found: {found.status}. {advice}", partial)
    return found
