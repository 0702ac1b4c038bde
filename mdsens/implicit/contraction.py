"""How strongly a map contracts, and how far its fixed point can be at most.

Where |T(x) - T(y)| <= c |x - y| with c < 1, there is one fixed point, and by the triangle inequality

    |x - x*| <= |T(x) - x| / (1 - c).

At a point, the factor is that of the linearised map J = dT/dx. Two numbers say it: the norm |J|, largest
singular value, is the factor of one step; the spectral radius, largest |eigenvalue|, that of many. Of an
affine map they hold everywhere, and the bound is rigorous; else they hold near the point.

Maps of positive numbers. In Thompson's metric d(x, y) = max_i |log x_i - log y_i| the factor of T is the
largest sum of a row of |d log T_i / d log x_j|: the degree mu of homogeneity, where T rises with all of its
arguments. T(t x) = t^mu T(x) with mu < 1 contracts, whatever norm it expands in, and

    d(x_k, x*) <= mu / (1 - mu) d(x_k, x_k-1)

bounds the relative error of every component: `PositivePicard` stops by it.

Source: Park, Choo, Park, Convergent Graph Solvers, ICLR 2022, arXiv:2106.01680; Sittoni, Tudisco,
    Subhomogeneous Deep Equilibrium Models, ICML 2024, arXiv:2403.00720; Thompson, Proc. Am. Math. Soc. 14,
    438 (1963).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from mdsens.checks import number
from mdsens.errors import InputError
from mdsens.implicit.iterations import AbstractFixedPointSolver
from mdsens.implicit.linear import Vector


class Contraction(NamedTuple):
    """Of a map at a point.

    Attributes:
        norm: largest singular value of dT/dx: what one step does, at most.
        radius: largest |eigenvalue| of dT/dx: what each of many steps does.
        residual: |T(x) - x|.
    """

    norm: float
    radius: float
    residual: float

    @property
    def distance(self) -> float:
        """|x - x*| at most, of a map with this norm everywhere; infinite where it is 1 or more."""
        return self.residual / (1 - self.norm) if self.norm < 1 else float("inf")

    def __str__(self) -> str:
        verdict = "contracts" if self.norm < 1 else "contracts in the end" if self.radius < 1 else "expands"
        return (
            f"the map {verdict}: a step by {self.norm:.4g} at most, many steps by {self.radius:.4g} each; "
            f"the fixed point is within {self.distance:.2g}"
        )


def contraction(map: Callable[..., Any], x: Any, *theta: Any, steps: int = 200) -> Contraction:
    """How strongly T contracts at x, by power iteration on the linearised map.

    Both numbers approach the exact ones from below, as power iteration does; `steps` products are made for
    each.

    Args:
        map: (x, *theta) -> T, of the form of x.
    """
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, float), x))

    def of_vector(v: Vector) -> Vector:
        return ravel_pytree(map(unravel(v), *theta))[0]

    norm, radius, residual = _factors(of_vector, flat, steps)
    return Contraction(float(norm), float(radius), float(residual))


@eqx.filter_jit
def _factors(map: Any, x: Vector, steps: int) -> tuple[Array, Array, Array]:
    image, forward = jax.linearize(map, x)
    backward = jax.linear_transpose(forward, x)
    there_and_back = lambda v: backward(forward(v))[0]
    # the second half of the growth: the first half has turned v into the direction that grows most
    square = _growth(there_and_back, x, steps)
    return jnp.sqrt(square), _growth(forward, x, steps), jnp.linalg.norm(image - x)


def _growth(product: Any, x: Vector, steps: int) -> Array:
    tiny = 1e-300

    def step(v: Vector, _: Any) -> tuple[Vector, Array]:
        w = product(v)
        size = jnp.linalg.norm(w)
        return w / jnp.maximum(size, tiny), size

    v = jax.random.normal(jax.random.key(3), x.shape)
    _, sizes = jax.lax.scan(step, v / jnp.linalg.norm(v), length=steps)
    # eigenvalues that come in pairs let single steps swing: their geometric mean does not
    late = jnp.maximum(sizes[steps // 2 :], tiny)
    return jnp.exp(jnp.mean(jnp.log(late)))


def thompson_distance(x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, ""]:
    """max |log x - log y| of positive numbers."""
    return jnp.max(jnp.abs(jnp.log(x) - jnp.log(y)))


def homogeneity(map: Callable[[Vector], Vector], x: Vector) -> float:
    """Degree of homogeneity of a map of positive numbers at x: the largest row sum of |d log T / d log x|.

    Raises:
        InputError: x or T(x) has numbers that are not positive.
    """
    x = jnp.asarray(x, float)
    _require_positive(x, "x")
    _require_positive(map(x), "T(x)")
    of_logarithms = lambda u: jnp.log(map(jnp.exp(u)))
    rows = jax.jacrev(of_logarithms)(jnp.log(x))
    return float(jnp.max(jnp.sum(jnp.abs(rows), axis=1)))


def _require_positive(x: Array, name: str) -> None:
    if not bool(jnp.all(x > 0)):
        raise InputError(
            f"{name} has the entry {float(jnp.min(x)):g}: Thompson's metric is one of positive numbers. "
            "Start from positive numbers, or use Anderson()."
        )


class PositivePicard(AbstractFixedPointSolver):
    """Picard's iteration of a map of positive numbers, stopped by a bound that is rigorous.

    Attributes:
        degree: mu, of homogeneity, below 1: that of the map everywhere (`homogeneity` says it at a point).
        rtol: no component is farther from the fixed point than this part of it.
    """

    degree: float = eqx.field(static=True)
    rtol: float = eqx.field(static=True, default=1e-12)
    atol: float = eqx.field(static=True, default=0.0)
    max_steps: int = eqx.field(static=True, default=2000)

    def __check_init__(self) -> None:
        if not number("degree", self.degree, at_least=0) < 1:
            raise InputError(
                f"degree = {self.degree}: a map of positive numbers contracts in Thompson's metric if its "
                "degree of homogeneity is below 1; take a root of it, or use Anderson()."
            )

    def start(self, x: Vector) -> Any:
        return ()

    def step(self, x: Vector, image: Vector, memory: Any, k: Array) -> tuple[Vector, Any]:
        return image, memory

    def near_enough(self, x: Vector, image: Vector) -> Array:
        # of x itself, d(x, x*) <= d(x, T x) / (1 - mu); its image, mu times nearer, would be the next
        return thompson_distance(image, x) <= (1 - self.degree) * self.rtol
