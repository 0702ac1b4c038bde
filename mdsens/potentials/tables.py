"""Functions given by a table, between whose knots lie cubic polynomials.

The knots stand at 0, h, 2h, ... (or begin elsewhere) and are the parameters; the slope at a knot comes from
its neighbors,

    s_k = (f_{k-2} - 8 f_{k-1} + 8 f_{k+1} - f_{k+2}) / 12,                      per spacing h,

from two knots next to either end and from one at the end itself. In between, with t = x/h - k,

    f(x) = f_k + s_k t + [3 (f_{k+1} - f_k) - 2 s_k - s_{k+1}] t² + [s_k + s_{k+1} - 2 (f_{k+1} - f_k)] t³.

Value and slope are continuous, the second derivative jumps a little at the knots. All of it is linear in the
knots, and a knot is felt within three spacings only.

Source: the interpolation of LAMMPS pair_style eam, whose numbers these are.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

FEWEST_KNOTS = 5  # for the slope from four neighbors


def knot_slopes(values: Float[Array, "... knots"]) -> Float[Array, "... knots"]:
    """Slope at each knot, per spacing."""
    f = values
    inner = (f[..., :-4] - 8 * f[..., 1:-3] + 8 * f[..., 3:-1] - f[..., 4:]) / 12
    first = f[..., 1:2] - f[..., :1]
    last = f[..., -1:] - f[..., -2:-1]
    second = (f[..., 2:3] - f[..., :1]) / 2
    last_but_one = (f[..., -1:] - f[..., -3:-2]) / 2
    return jnp.concatenate([first, second, inner, last_but_one, last], axis=-1)


class Place(NamedTuple):
    """Where on the grid a number lies: behind which knot, and how far in units of the spacing."""

    knot: Int[Array, "..."]
    t: Float[Array, "..."]


class Tables(eqx.Module):
    """Several tables with the same grid.

    Attributes:
        values, slopes: at the knots, one table behind the other.
        spacing: between two knots. n_knots: of one table. start: where the first knot stands.
    """

    values: Float[Array, "tables_times_knots"]
    slopes: Float[Array, "tables_times_knots"]
    spacing: float = eqx.field(static=True)
    n_knots: int = eqx.field(static=True)
    start: float = eqx.field(static=True, default=0.0)

    @classmethod
    def through(cls, knots: Float[Array, "tables knots"], spacing: float, start: float = 0.0) -> "Tables":
        """The tables with these values at the knots."""
        return cls(knots.reshape(-1), knot_slopes(knots).reshape(-1), spacing, knots.shape[-1], start)

    def place(self, x: Float[Array, "..."]) -> Place:
        """Place of each number on the grid; behind the last knot t grows above 1."""
        x = x - self.start if self.start else x
        in_spacings = x * (1 / self.spacing)
        knot = jnp.clip(in_spacings.astype(jnp.int32), 0, self.n_knots - 2)
        return Place(knot, in_spacings - knot)

    def held(self, at: Place, table: Int[Array, "..."] | None) -> Float[Array, "..."]:
        """Value; behind the last knot, that of the last knot. `table`: which one, None if there is one."""
        return self._cubic(at.knot, jnp.minimum(at.t, 1.0), table)

    def prolonged(self, at: Place, table: Int[Array, "..."] | None) -> Float[Array, "..."]:
        """Value; behind the last knot, along the straight line with the slope there."""
        beyond = jnp.maximum(at.t - 1.0, 0.0)
        last_slope = self._entry(self.slopes, at.knot + 1, table)
        return self.held(at, table) + beyond * last_slope

    def prolonged_both_ways(self, at: Place, table: Int[Array, "..."] | None) -> Float[Array, "..."]:
        """Value; outside of the knots, along the straight lines with the slopes at the ends."""
        before = jnp.minimum(at.t, 0.0)
        within = Place(at.knot, jnp.maximum(at.t, 0.0))
        return self.prolonged(within, table) + before * self._entry(self.slopes, at.knot, table)

    def _cubic(self, knot: Array, t: Array, table: Array | None) -> Array:
        f = self._entry(self.values, knot, table)
        f_next = self._entry(self.values, knot + 1, table)
        s = self._entry(self.slopes, knot, table)
        s_next = self._entry(self.slopes, knot + 1, table)
        rise = f_next - f
        quadratic = 3 * rise - 2 * s - s_next
        cubic = s + s_next - 2 * rise
        return f + t * (s + t * (quadratic + t * cubic))

    def _entry(self, entries: Array, knot: Array, table: Array | None) -> Array:
        at = knot if table is None else table * self.n_knots + knot
        return entries.at[at].get(mode="promise_in_bounds")


def knot_positions(n_knots: int, spacing: float, start: float = 0.0) -> np.ndarray:
    """Where the knots stand."""
    return start + spacing * np.arange(n_knots)
