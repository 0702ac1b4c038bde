"""How a pair interaction ends at its cutoff: the choices LAMMPS users know, each an object.

Each turns a pair function phi(r) into one that is zero beyond r_c. Which derivative jumps at r_c decides what
can be trusted there: relaxed states need a continuous force, their sensitivities a continuous second
derivative.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.checks import number
from mdsens.errors import InputError

PairFunction = Callable[[Float[Array, "..."]], Float[Array, "..."]]


class AbstractCut(eqx.Module):
    """How phi(r) is brought to zero at r_c."""

    @abstractmethod
    def __call__(self, phi: PairFunction, r: Float[Array, "..."], cutoff: float) -> Float[Array, "..."]:
        """Energy of each pair, eV. Only called with r <= cutoff: what lies beyond is masked by the caller."""


class Truncated(AbstractCut):
    """phi(r) up to r_c: the energy jumps there (LAMMPS `lj/cut`)."""

    def __call__(self, phi: PairFunction, r: Float[Array, "..."], cutoff: float) -> Float[Array, "..."]:
        return phi(r)


class Shifted(AbstractCut):
    """phi(r) - phi(r_c): the force jumps at r_c (LAMMPS `pair_modify shift yes`)."""

    def __call__(self, phi: PairFunction, r: Float[Array, "..."], cutoff: float) -> Float[Array, "..."]:
        return phi(r) - phi(jnp.full_like(r, cutoff))


class ForceShifted(AbstractCut):
    """phi(r) - phi(r_c) - (r - r_c) phi'(r_c): the second derivative jumps there (LAMMPS `smooth/linear`)."""

    def __call__(self, phi: PairFunction, r: Float[Array, "..."], cutoff: float) -> Float[Array, "..."]:
        end = jnp.full_like(r, cutoff)
        value, slope = jax.jvp(phi, (end,), (jnp.ones_like(r),))
        return phi(r) - value - (r - cutoff) * slope


class Smooth(AbstractCut):
    """phi(r) S(t), t = (r - r_on) / (r_c - r_on), S = 1 - 10 t³ + 15 t⁴ - 6 t⁵: two continuous derivatives.

    Attributes:
        onset: where the switch begins, as a fraction of r_c.
    """

    onset: float = eqx.field(static=True, default=0.8)

    def __check_init__(self) -> None:
        if not 0 <= number("onset", self.onset, finite=False) < 1:
            raise InputError(
                f"Smooth(onset={self.onset}): the onset is a fraction of the cutoff, 0 <= onset < 1."
            )

    def __call__(self, phi: PairFunction, r: Float[Array, "..."], cutoff: float) -> Float[Array, "..."]:
        onset, width = self.onset * cutoff, (1 - self.onset) * cutoff
        t = jnp.clip((r - onset) / width, 0.0, 1.0)
        return phi(r) * (1 - switched_off(t))


def switched_off(t: Any) -> Any:
    """1 - S(t) of `Smooth`: from 0 at t = 0 to 1 at t = 1, with two continuous derivatives at either end."""
    return t**3 * (10 - 15 * t + 6 * t**2)


CUTS: dict[str, AbstractCut] = {
    "truncated": Truncated(),
    "shifted": Shifted(),
    "force-shifted": ForceShifted(),
    "smooth": Smooth(),
}
