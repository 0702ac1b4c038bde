"""Increasing functions without a corner in any derivative: on the interval, on the circle, on the line.

Splines of any degree have derivatives that jump at their knots; where a density is made from one, so do its
forces. Here every function is a sum of ramps that rise from 0 to 1 within a finite stretch and are smooth to
all orders, also where the stretch ends. Its derivative, the density, is a mixture of bumps of compact
support.

Each function acts element by element on x of any shape; its parameters carry the same shape, and mixtures one
more axis in the end, the components. `forward(x)` gives y and log dy/dx, `inverse(y)` gives x and log dx/dy,
by root finding with exact derivatives (`mdsens.implicit.inverse`).

A *family* (`IntervalMixture(8)`, `CircleMixture(8)`, `LineMixture(4)`, ...) says how `n_raw` unconstrained
numbers, the output of a network, become a function: `family.build(raw)`.

Source: Köhler, Krämer, Noé, Smooth Normalizing Flows, NeurIPS 2021, arXiv:2110.00351, section 3.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.implicit.inverse import inverse

# The bump g' is highest in its middle, with no dip, from this steepness on (by power k of the ramp). With u
# as in `ramp`, the middle has g' = u'/4 and its curvature is g''' = u'''/4 - u'^3/8. There u' = a k 2^(k+2)
# and u''' = a k (k+1) (k+2) 2^(k+4), so there is no dip if a² >= (k+1) (k+2) / (2 k² 4^k). (Köhler et al.
# give 0.8656721 and 0.3052033, with dips of 4e-7 and 2e-5 of the height.)
LEAST_STEEPNESS = {1: 3**0.5 / 2, 2: 6**0.5 / 8}
# closer than this to its ends a ramp is 0 or 1 to all digits: exp(-0.86 / 1e-3) and exp(-0.3 / 0.02²)
# underflow
EDGE = {1: 1e-3, 2: 2e-2}


def ramp(
    z: Float[Array, "*shape"], steepness: Float[Array, "*#shape"], power: int = 1
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """The smooth ramp, 0 for z <= 0 and 1 for z >= 1, and its slope; infinitely often differentiable."""
    # g = rho(z) / (rho(z) + rho(1 - z)),  rho(z) = exp(a (1 - z^-k)): the logistic function of
    #     u = log rho(z) - log rho(1 - z) = a ((1 - z)^-k - z^-k)
    # and with it  g' = g (1 - g) u',  u' = a k ((1 - z)^-(k+1) + z^-(k+1)).
    z = jnp.clip(z, EDGE[power], 1 - EDGE[power])
    p, q = 1 / z, 1 / (1 - z)
    u = steepness * (q**power - p**power)
    # logistic function from exp(-|u|), so that nothing overflows and both tails keep their digits
    up = u >= 0
    e = jnp.exp(jnp.where(up, -u, u))
    r = 1 / (1 + e)
    return jnp.where(up, r, e * r), e * r * r * (steepness * power) * (q ** (power + 1) + p ** (power + 1))


class AbstractTransform(eqx.Module):
    """An increasing function of each element."""

    @abc.abstractmethod
    def forward(self, x: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        """y and log dy/dx."""

    @abc.abstractmethod
    def inverse(self, y: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        """x and log dx/dy."""


class Affine(AbstractTransform):
    """y = x exp(log_scale) + shift, on the line."""

    shift: Float[Array, "..."]
    log_scale: Float[Array, "..."]

    def forward(self, x: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        y = x * jnp.exp(self.log_scale) + self.shift
        return y, jnp.broadcast_to(self.log_scale, x.shape)

    def inverse(self, y: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        x = (y - self.shift) * jnp.exp(-self.log_scale)
        return x, jnp.broadcast_to(-self.log_scale, y.shape)


class Rotation(AbstractTransform):
    """y = x + turn on the circle of circumference 1."""

    turn: Float[Array, "..."]

    def forward(self, x: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        return x + self.turn, jnp.zeros_like(x)

    def inverse(self, y: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        return y - self.turn, jnp.zeros_like(y)


class RampMixture(AbstractTransform):
    """y = slope x + offset + sum_i height_i g(sharpness_i (x - center_i) + 1/2), on one of three domains.

    Attributes:
        slope: of the straight part, above zero; the least density there is.
        offset: y = offset where all ramps and x are zero.
        height: what each ramp adds, not negative.
        center: middle of each ramp.
        sharpness: one over the length of each ramp; at least 1 on the circle.
        steepness: how fast it rises within that length, at least LEAST_STEEPNESS.
        power: of the ramp, 1 or 2.
        domain: "interval" [0, 1], "circle" of circumference 1, or "line".
    """

    slope: Float[Array, "..."]
    offset: Float[Array, "..."]
    height: Float[Array, "... components"]
    center: Float[Array, "... components"]
    sharpness: Float[Array, "... components"]
    steepness: Float[Array, "... components"]
    power: int = eqx.field(static=True, default=1)
    domain: str = eqx.field(static=True, default="line")

    def value_and_slope(
        self, x: Float[Array, "*shape"]
    ) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        """y and dy/dx."""
        distance = x[..., None] - self.center
        if self.domain == "circle":
            # A staircase, one ramp a turn: y(x + 1) = y(x) + 1. A sharpness of 1 or more keeps each ramp
            # within its turn, so that its ends, flat to all orders, meet those of its neighbors.
            stair = jax.lax.stop_gradient(jnp.floor(distance + 0.5))
            z = self.sharpness * (distance - stair) + 0.5
            g, slope = ramp(z, self.steepness, self.power)
            g = g + stair
        else:
            g, slope = ramp(self.sharpness * distance + 0.5, self.steepness, self.power)
        rise = jnp.sum(self.height * g, axis=-1)
        steep = jnp.sum(self.height * self.sharpness * slope, axis=-1)
        return self.slope * x + self.offset + rise, self.slope + steep

    def bracket(self, y: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        """Two x with the root for y between them."""
        if self.domain == "interval":
            return jnp.zeros_like(y), jnp.ones_like(y)
        height = jnp.sum(self.height, axis=-1)
        if self.domain == "circle":
            # a staircase deviates from the straight line that it follows by half a stair:
            #     |g_i(x) - (x - center_i + 1/2)| <= 1/2
            middle = jnp.sum(self.height * (0.5 - self.center), axis=-1)
            line = (y - self.offset - middle) / (self.slope + height)
            half = 0.5 * height / (self.slope + height) + 1e-4
            return line - half, line + half
        # the ramps add between 0 and the sum of their heights; before the first ramp begins, and after the
        # last, the one or the other
        low = (y - self.offset - height) / self.slope
        high = (y - self.offset) / self.slope
        first = jnp.min(self.center - 0.5 / self.sharpness, axis=-1)
        last = jnp.max(self.center + 0.5 / self.sharpness, axis=-1)
        size = jnp.abs(y) + jnp.abs(self.offset) + height
        rounding = jnp.finfo(y.dtype).eps * size / self.slope
        margin = 1e-4 + 16 * rounding
        lower = jnp.maximum(low, jnp.minimum(first, high)) - margin
        upper = jnp.minimum(high, jnp.maximum(last, low)) + margin
        return lower, upper

    def __call__(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """y."""
        return self.value_and_slope(x)[0]

    def forward(self, x: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        y, slope = self.value_and_slope(x)
        return y, jnp.log(slope)

    def inverse(self, y: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
        x = inverse(self, y, *self.bracket(y))
        return x, -jnp.log(self.value_and_slope(x)[1])


class AbstractFamily(eqx.Module):
    """How unconstrained numbers become a transform. Static throughout: the numbers come from elsewhere."""

    @property
    @abc.abstractmethod
    def n_raw(self) -> int:
        """How many numbers one function takes."""

    @abc.abstractmethod
    def build(self, raw: Float[Array, "*shape n_raw"]) -> AbstractTransform:
        """The functions, one for each row. All zeros give a function near the identity."""


class AffineFamily(AbstractFamily):
    """Shift and scale on the line: conditional Gaussians."""

    @property
    def n_raw(self) -> int:
        return 2

    def build(self, raw: Float[Array, "*shape n_raw"]) -> Affine:
        return Affine(raw[..., 0], raw[..., 1])


class RotationFamily(AbstractFamily):
    """Turns of the circle."""

    @property
    def n_raw(self) -> int:
        return 1

    def build(self, raw: Float[Array, "*shape n_raw"]) -> Rotation:
        return Rotation(raw[..., 0])


class _MixtureFamily(AbstractFamily):
    """What the three mixtures share.

    Attributes:
        n_components: ramps in each function.
        power: of the ramp, 1 or 2.
        least_slope: of the straight part (on interval and circle, where the whole rise is 1).
        sharpest: upper bound of the sharpness.
    """

    n_components: int = eqx.field(static=True, default=8)
    power: int = eqx.field(static=True, default=1)
    least_slope: float = eqx.field(static=True, default=1e-3)
    sharpest: float = eqx.field(static=True, default=50.0)

    def __check_init__(self) -> None:
        name = type(self).__name__
        if self.n_components < 1:
            raise InputError(f"{name}(n_components={self.n_components}): needs one ramp or more.")
        if self.power not in LEAST_STEEPNESS:
            raise InputError(f"{name}(power={self.power}): ramps are made with power 1 or 2.")
        if not 0 < self.least_slope < 1:
            raise InputError(
                f"{name}(least_slope={self.least_slope:g}): must be between 0 and 1, or the function has no "
                "inverse."
            )
        if not self.sharpest > self.first_sharpness:
            raise InputError(
                f"{name}(sharpest={self.sharpest:g}): must be above {self.first_sharpness:g}, where training "
                "begins."
            )

    @property
    def first_sharpness(self) -> float:
        """Sharpness of all ramps where the raw numbers are zero: each overlaps with several others."""
        return max(1.5, self.n_components / 4)

    @property
    def n_raw(self) -> int:
        return 4 * self.n_components + 1

    def _steepness(self, raw: Array) -> Array:
        return LEAST_STEEPNESS[self.power] + jax.nn.softplus(raw)

    def _shares(self, raw: Array) -> tuple[Array, Array]:
        """Slope of the straight part and heights, together 1."""
        share = jax.nn.softmax(raw, axis=-1)
        rest = 1 - self.least_slope
        slope = self.least_slope + rest * share[..., 0]
        return slope, rest * share[..., 1:]


class IntervalMixture(_MixtureFamily):
    """Maps [0, 1] onto itself; bumps of any width, cut at the ends of the interval and normalized within."""

    def build(self, raw: Float[Array, "*shape n_raw"]) -> RampMixture:
        m = self.n_components
        ends = (m + 1, 2 * m + 1, 3 * m + 1)
        shares, centers, sharpnesses, steepnesses = jnp.split(raw, ends, axis=-1)
        slope, height = self._shares(shares)
        spread = (np.arange(m) + 0.5) / m
        even = np.log(spread / (1 - spread)).astype(raw.dtype)
        center = jax.nn.sigmoid(centers + even)
        sharpness = _between(sharpnesses, 0.5, self.sharpest, self.first_sharpness)
        steepness = self._steepness(steepnesses)
        # (g(z(x)) - g(z(0))) / (g(z(1)) - g(z(0))): each ramp runs from 0 to 1 within the interval
        first, _ = ramp(0.5 - sharpness * center, steepness, self.power)
        last, _ = ramp(0.5 + sharpness * (1 - center), steepness, self.power)
        height = height / (last - first)
        offset = -jnp.sum(height * first, axis=-1)
        return RampMixture(slope, offset, height, center, sharpness, steepness, self.power, "interval")


class CircleMixture(_MixtureFamily):
    """Maps the circle of circumference 1 onto itself, once around, smooth where it closes."""

    def build(self, raw: Float[Array, "*shape n_raw"]) -> RampMixture:
        m = self.n_components
        ends = (m + 1, 2 * m + 1, 3 * m + 1)
        shares, centers, sharpnesses, steepnesses = jnp.split(raw, ends, axis=-1)
        slope, height = self._shares(shares)
        center = centers + (np.arange(m) / m).astype(raw.dtype)
        sharpness = _between(sharpnesses, 1.0, self.sharpest, self.first_sharpness)
        # each ramp keeps its own middle in place: height_i (g_i(x) - 1/2 + center_i) is height_i center_i at
        # center_i
        offset = jnp.sum(height * (center - 0.5), axis=-1)
        return RampMixture(
            slope, offset, height, center, sharpness, self._steepness(steepnesses), self.power, "circle"
        )


class LineMixture(_MixtureFamily):
    """Maps the line onto itself: shift and scale, bumps within a few units of the origin, straight far out.

    For coordinates with mean zero and variance one. The tails of a Gaussian stay those of a Gaussian.
    """

    n_components: int = eqx.field(static=True, default=4)
    sharpest: float = eqx.field(static=True, default=4.0)

    @property
    def first_sharpness(self) -> float:
        return 0.4

    @property
    def n_raw(self) -> int:
        return 4 * self.n_components + 2

    def build(self, raw: Float[Array, "*shape n_raw"]) -> RampMixture:
        m = self.n_components
        ends = (2, m + 2, 2 * m + 2, 3 * m + 2)
        affine, heights, centers, sharpnesses, steepnesses = jnp.split(raw, ends, axis=-1)
        height = jax.nn.softplus(heights - 3)
        spread = np.linspace(-2, 2, m + 2)[1:-1]
        center = centers + spread.astype(raw.dtype)
        sharpness = _between(sharpnesses, 0.1, self.sharpest, self.first_sharpness)
        steepness = self._steepness(steepnesses)
        slope = jnp.exp(affine[..., 1])
        offset = affine[..., 0] - 0.5 * jnp.sum(height, axis=-1)
        return RampMixture(slope, offset, height, center, sharpness, steepness, self.power, "line")


def _between(raw: Array, low: float, high: float, initial: float) -> Array:
    """A number between low and high, on the scale of its logarithm; initial where raw is zero."""
    share = np.log(initial / low) / np.log(high / low)
    start = float(np.log(share / (1 - share)))
    return low * (high / low) ** jax.nn.sigmoid(raw + start)
