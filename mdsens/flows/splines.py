"""Rational-quadratic splines: the baseline that the smooth transforms are compared with.

Monotonic, flexible, with a closed inverse, and the customary choice; but only once continuously
differentiable: d(log dy/dx)/dx, the force that a density made from one exerts, jumps at every knot.

Source: Durkan et al., Neural Spline Flows, NeurIPS 2019, arXiv:1906.04032; on the circle, Rezende et al.,
Normalizing Flows on Tori and Spheres, ICML 2020, arXiv:2002.02428.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.flows.transforms import AbstractFamily, AbstractTransform

LEAST_BIN, LEAST_SLOPE = 1e-3, 1e-3


class RationalQuadraticSpline(AbstractTransform):
    """Increasing, on one of three domains.

    On [-bound, bound], straight with slope 1 outside (domain "line"), around the circle of circumference 1,
    or on [0, 1].

    Attributes:
        x, y: knots, rising; from -bound to bound, or from 0 to 1.
        slope: dy/dx at the knots; 1 at both ends of the line, equal at both ends of the circle.
        shift: added to y.
        domain: "line", "circle" or "interval".
    """

    x: Float[Array, "... knots"]
    y: Float[Array, "... knots"]
    slope: Float[Array, "... knots"]
    shift: Float[Array, "..."]
    domain: str = eqx.field(static=True, default="line")

    def forward(self, x: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        x, turns = self._into_domain(x)
        outside, inner = self._split(x, self.x)
        x0, y0, w, h, d0, d1 = self._bin(inner, self.x)
        s, t = h / w, (inner - x0) / w
        u = t * (1 - t)
        # Durkan et al., equations 4 and 5
        denominator = s + (d0 + d1 - 2 * s) * u
        rise = s * t**2 + d0 * u
        y = y0 + h * rise / denominator
        numerator = d1 * t**2 + 2 * s * u + d0 * (1 - t) ** 2
        log_slope = 2 * jnp.log(s / denominator) + jnp.log(numerator)
        y = jnp.where(outside, x, y) + turns + self.shift
        return y, jnp.where(outside, 0, log_slope)

    def inverse(self, y: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        y, turns = self._into_domain(y - self.shift)
        outside, inner = self._split(y, self.y)
        x0, y0, w, h, d0, d1 = self._bin(inner, self.y)
        s, r = h / w, inner - y0
        # equations 6 to 8: a t² + b t + c = 0, the root that does not cancel
        curvature = d0 + d1 - 2 * s
        a = h * (s - d0) + r * curvature
        b = h * d0 - r * curvature
        c = -s * r
        root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0))
        t = 2 * c / (-b - root)
        x = jnp.where(outside, y, x0 + t * w) + turns
        return x, -self.forward(x)[1]

    def _into_domain(self, x: Array) -> tuple[Array, Array]:
        if self.domain != "circle":
            return x, jnp.zeros_like(x)
        turns = jax.lax.stop_gradient(jnp.floor(x))
        return x - turns, turns

    def _split(self, x: Array, knots: Array) -> tuple[Array, Array]:
        """What lies outside, and x with a knot in its place: what is not used has finite derivatives."""
        if self.domain != "line":
            return jnp.zeros(x.shape, bool), x
        outside = (x < knots[..., 0]) | (x > knots[..., -1])
        return outside, jnp.where(outside, knots[..., 0], x)

    def _bin(self, x: Array, knots: Array) -> tuple[Array, ...]:
        """Lower corner, width, height and end slopes of the bin that x is in, along the axis of `knots`."""
        inner = knots[..., 1:-1]
        at = jnp.sum(x[..., None] >= inner, axis=-1, keepdims=True)

        def take(values: Array, k: Array) -> Array:
            spread = jnp.broadcast_to(values, (*x.shape, values.shape[-1]))
            return jnp.take_along_axis(spread, k, axis=-1)[..., 0]

        x0, x1 = take(self.x, at), take(self.x, at + 1)
        y0, y1 = take(self.y, at), take(self.y, at + 1)
        d0, d1 = take(self.slope, at), take(self.slope, at + 1)
        return x0, y0, x1 - x0, y1 - y0, d0, d1


class _SplineFamily(AbstractFamily):
    """What the splines share. `n_bins`: intervals between knots."""

    n_bins: int = eqx.field(static=True, default=8)

    def __check_init__(self) -> None:
        if self.n_bins < 2 or self.n_bins * LEAST_BIN >= 0.5:
            raise InputError(
                f"{type(self).__name__}(n_bins={self.n_bins}): needs between 2 and "
                f"{int(0.5 / LEAST_BIN) - 1} bins."
            )

    def _knots(self, raw: Array) -> Array:
        """From 0 to 1."""
        rest = 1 - LEAST_BIN * self.n_bins
        share = LEAST_BIN + rest * jax.nn.softmax(raw, axis=-1)
        ends = jnp.cumsum(share, axis=-1).at[..., -1].set(1)
        before = [(0, 0)] * (raw.ndim - 1) + [(1, 0)]
        return jnp.pad(ends, before)

    def _slopes(self, raw: Array) -> Array:
        one = float(np.log(np.expm1(1 - LEAST_SLOPE)))  # where the slope is 1
        return LEAST_SLOPE + jax.nn.softplus(raw + one)


class CircularSpline(_SplineFamily):
    """Once around the circle of circumference 1."""

    @property
    def n_raw(self) -> int:
        return 3 * self.n_bins + 1

    def build(self, raw: Float[Array, "*shape n_raw"]) -> RationalQuadraticSpline:
        n = self.n_bins
        ends = (n, 2 * n, 3 * n)
        widths, heights, slopes, shift = jnp.split(raw, ends, axis=-1)
        slope = self._slopes(slopes)
        slope = jnp.concatenate([slope, slope[..., :1]], axis=-1)
        return RationalQuadraticSpline(
            self._knots(widths), self._knots(heights), slope, shift[..., 0], "circle"
        )


class IntervalSpline(_SplineFamily):
    """Maps [0, 1] onto itself, with any slopes at its ends."""

    @property
    def n_raw(self) -> int:
        return 3 * self.n_bins + 1

    def build(self, raw: Float[Array, "*shape n_raw"]) -> RationalQuadraticSpline:
        n = self.n_bins
        widths, heights, slopes = jnp.split(raw, (n, 2 * n), axis=-1)
        shift = jnp.zeros_like(raw[..., 0])
        return RationalQuadraticSpline(
            self._knots(widths), self._knots(heights), self._slopes(slopes), shift, "interval"
        )


class LineSpline(_SplineFamily):
    """Shift and scale, then a spline on [-bound, bound] with slope 1 outside."""

    bound: float = eqx.field(static=True, default=5.0)

    @property
    def n_raw(self) -> int:
        return 3 * self.n_bins + 1

    def build(self, raw: Float[Array, "*shape n_raw"]) -> "ScaledSpline":
        n, b = self.n_bins, self.bound
        ends = (2, n + 2, 2 * n + 2)
        affine, widths, heights, slopes = jnp.split(raw, ends, axis=-1)
        ends = [(0, 0)] * (raw.ndim - 1) + [(1, 1)]
        slope = jnp.pad(self._slopes(slopes), ends, constant_values=1.0)
        x, y = (b * (2 * self._knots(part) - 1) for part in (widths, heights))
        spline = RationalQuadraticSpline(x, y, slope, jnp.zeros_like(affine[..., 0]), "line")
        return ScaledSpline(affine[..., 0], affine[..., 1], spline)


class ScaledSpline(AbstractTransform):
    """spline(x exp(log_scale) + shift)."""

    shift: Float[Array, "..."]
    log_scale: Float[Array, "..."]
    spline: RationalQuadraticSpline

    def forward(self, x: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        moved = x * jnp.exp(self.log_scale) + self.shift
        y, log_slope = self.spline.forward(moved)
        return y, log_slope + self.log_scale

    def inverse(self, y: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        x, log_slope = self.spline.inverse(y)
        back = (x - self.shift) * jnp.exp(-self.log_scale)
        return back, log_slope - self.log_scale
