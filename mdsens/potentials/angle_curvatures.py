"""Second derivatives of the energy of a shell whose angles are held near a preferred one.

    e = sum_j f(r_j) + 1/2 sum_{j != k} lambda_jk g(r_j) g(r_k) C_jk²,      C_jk = cos_jk - c_jk,

with the unit vectors u_j = d_j / r_j and cos_jk = u_j . u_k. With the projector P_j = (1 - u_j u_j^T) / r_j,

    dr_j / dd_j = u_j,      du_j / dd_j = P_j,      dC_jk / dd_j = P_j u_k = v_jk,
    dv_jk / dd_k = P_j P_k,      dv_jk / dd_j = -(v_jk u_j^T + u_j v_jk^T + cos_jk P_j) / r_j.

The gradient of an angle is g_k (g'_j C² u_j + 2 g_j C v_jk), and its derivatives by d_k and d_j are

    g'_j g'_k C² u_j u_k^T + 2 g'_j g_k C u_j v_kj^T + 2 g_j g'_k C v_jk u_k^T
        + 2 g_j g_k (v_jk v_kj^T + C P_j P_k),
    g_k [(g''_j u_j u_j^T + g'_j P_j) C² + 2 (g'_j - g_j / r_j) C (u_j v_jk^T + v_jk u_j^T)
        + 2 g_j v_jk v_jk^T - 2 (g_j / r_j) C cos_jk P_j].

All of that is made of u_j and u_k alone. So a few numbers for each angle say everything, in a fraction of the
time that derivatives of the gradient along 3 directions of every place take.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# atoms come last, so that the innermost loops are long
Angle = Float[Array, "width width atoms"]
Place = Float[Array, "width atoms"]
Vector = list[Array]  # x, y, z


class Radial(NamedTuple):
    """A function of the distance at each place, with its first two derivatives."""

    value: Place
    slope: Place
    bend: Place

    @classmethod
    def of(cls, function: Callable[[Array], Array], r: Float[Array, "atoms width"]) -> "Radial":
        """Of a function that acts on each distance by itself."""
        along = lambda f: lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1]
        slope = along(function)
        return cls(function(r).T, slope(r).T, along(slope)(r).T)


class Curvatures(NamedTuple):
    """Second derivatives by two neighbors of an atom, and by one; the first holds nothing for j = k."""

    between: Float[Array, "atoms width width 3 3"]
    within: Float[Array, "atoms width 3 3"]

    def together(self) -> Float[Array, "atoms width width 3 3"]:
        """All in one array. Not where they are formed: XLA would form one for each element of the other."""
        between = jax.lax.optimization_barrier(self.between)
        same = jnp.eye(between.shape[1], dtype=bool)[:, :, None, None]
        return jnp.where(same, self.within[:, :, None], between)


class AngularShell(NamedTuple):
    """The shells of some atoms, for a sum over angles.

    Attributes:
        d: x, y and z of the vectors to the neighbors, Å.
        pair, decay: f and g.
        strength, cosine: lambda_jk and c_jk, of a shape that fits (width, width, atoms), symmetric in j, k.
    """

    d: tuple[Float[Array, "atoms width"], ...]
    pair: Radial
    decay: Radial
    strength: Array
    cosine: Array

    def curvatures(self) -> Curvatures:
        """d²e/dd_j dd_k and d²e/dd_j dd_j, eV/Å²."""
        d = [dk.T for dk in self.d]
        r = jnp.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
        u = [dk / r for dk in d]
        cos = _of_both(u[0], u[0]) + _of_both(u[1], u[1]) + _of_both(u[2], u[2])
        different = ~jnp.eye(len(r), dtype=bool)[:, :, None]
        weight = jnp.where(different, self.strength, jnp.zeros_like(cos))
        # XLA is kept from forming these, and sums over them, anew for every component
        inputs = jax.lax.optimization_barrier((r, cos, cos - self.cosine, weight))
        between = _components(_Between.of(self.decay, *inputs), u)
        within = _components(_Within.of(self.pair, self.decay, u, *inputs), u)
        own = jax.lax.optimization_barrier(within)
        return Curvatures(jnp.transpose(between, (4, 2, 3, 0, 1)), jnp.transpose(own, (3, 2, 0, 1)))


class _Between(NamedTuple):
    """d²e/dd_j dd_k for j != k, in which each angle occurs once.

    jk u_j u_k^T + kj u_k u_j^T + jj u_j u_j^T + kk u_k u_k^T + one.
    """

    jk: Angle
    kj: Angle
    jj: Angle
    kk: Angle
    one: Angle

    @classmethod
    def of(cls, decay: Radial, r: Place, cos: Angle, C: Angle, weight: Angle) -> "_Between":
        """The numbers of each angle."""
        g, slope, _ = decay
        over_r = g / r
        q = 2 * weight * _of_both(over_r, over_r)
        bent = 2 * weight * C
        # the derivative of g_j and the turn of u_k, and the other way round
        first, second = bent * _of_both(slope, over_r), bent * _of_both(over_r, slope)
        turns = q * (cos + C)
        jk = weight * C * C * _of_both(slope, slope) - cos * (first + second - turns)
        return cls(*jax.lax.optimization_barrier((jk, q, first - turns, second - turns, q * C)))

    def component(self, u: Vector, a: int, b: int) -> Angle:
        """Along the axes a of d_j and b of d_k."""
        of_j, of_k = u[a] * u[b], u[a] * u[b]
        turned = self.jj * of_j[:, None] + self.kk * of_k[None]
        crossed = self.jk * _of_both(u[a], u[b]) + self.kj * _of_both(u[b], u[a])
        return turned + crossed + (self.one if a == b else 0.0)


class _Within(NamedTuple):
    """d²e/dd_j dd_j, of the pair and of its angles with all k.

    jj u_j u_j^T + u_j m^T + m u_j^T + S + one, with m = sum of jk u_k and S = sum of kk u_k u_k^T.
    """

    jj: Place
    m: Vector
    S: list[list[Place]]
    one: Place

    @classmethod
    def of(
        cls, pair: Radial, decay: Radial, u: Vector, r: Place, cos: Angle, C: Angle, weight: Angle
    ) -> "_Within":
        """The numbers of each place."""
        g, slope, bend = decay
        over_r = g / r
        shared = weight * g[None]
        over_k = lambda values: jnp.sum(values, axis=1)
        squares, mixed, turned = over_k(shared * C * C), shared * C, shared * cos
        bent, crossed = over_k(mixed * cos), over_k(turned * cos)
        # C² (g'' u u^T + g' P), and the same of the pair, whose C² is one
        stretch = bend * squares + pair.bend
        one = (slope * squares + pair.slope - 2 * over_r * bent) / r
        turn = 2 * (slope - over_r) / r
        spread = 2 * over_r / r
        jj = stretch - one - 2 * turn * bent + spread * crossed
        m = [turn * over_k(mixed * uk[None]) - spread * over_k(turned * uk[None]) for uk in u]
        S = [[spread * over_k(shared * (ua * ub)[None]) for ub in u] for ua in u]
        return cls(*jax.lax.optimization_barrier((jj, m, S, one)))

    def component(self, u: Vector, a: int, b: int) -> Place:
        """Along the axes a and b of d_j."""
        moved = self.jj * u[a] * u[b] + u[a] * self.m[b] + u[b] * self.m[a]
        return moved + self.S[a][b] + (self.one if a == b else 0.0)


def _components(blocks: _Between | _Within, u: Vector) -> Float[Array, "3 3 ... atoms"]:
    axes = range(3)
    return jnp.stack([jnp.stack([blocks.component(u, a, b) for b in axes]) for a in axes])


def _of_both(of_j: Place, of_k: Place) -> Angle:
    """The product of a number of one neighbor with one of another."""
    return of_j[:, None] * of_k[None]
