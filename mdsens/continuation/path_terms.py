"""How a state moves along one number s: first and second derivatives of w*(s), and of its lowest curvature.

F(w(s), s) = 0 for all s. One derivative, and another one of it:

    H w' = - F_s,        H w'' = - d2/dt2 F(w + t w', s + t)  at t = 0,

so that the second-order term is one more solve with the same factor. Along the branch the curvature of a mode
m of norm 1 changes by d/dt m . H(w + t w', s + t) m, its own motion counting in second order only.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.continuation.control import AbstractControl
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.relaxation.landscape import Landscape, Vector

Number = Float[Array, ""]


class Motion(NamedTuple):
    """Derivatives of a state along s.

    Attributes:
        first, second: w' and w''.
        curvature_slope: d/ds of the lowest curvature, eV/Å² per unit of s.
    """

    first: np.ndarray
    second: np.ndarray
    curvature_slope: float


def motion_of(control: AbstractControl, base: Landscape, state: Equilibrium, s: float) -> Motion:
    """How a state moves along s.

    Args:
        base: the landscape that the control turns at, with the list of the state.
        state: of `control.place(base, s)`.
    """
    here = jnp.asarray(s)
    force = force_along(control, base, here, state.w)
    first = -state.solve(force[None])[0]
    bend = force_bend(control, base, here, state.w, first)
    second = -state.solve(bend[None])[0]
    mode = jnp.asarray(state.spectrum.mode)
    slope = curvature_slope(control, base, here, state.w, first, mode)
    return Motion(np.asarray(first), np.asarray(second), float(slope))


# --- compiled once for each size ------------------------------------------------------------------


@eqx.filter_jit
def placed(control: AbstractControl, base: Landscape, s: Number) -> Landscape:
    """The landscape at s, compiled."""
    return control.place(base, s)


@eqx.filter_jit
def force_along(control: AbstractControl, base: Landscape, s: Number, w: Vector) -> Vector:
    """F_s, the generalised force that a unit of s brings up."""
    force = lambda s: control.place(base, s).gradient(w)
    return jax.jvp(force, (s,), (jnp.ones(()),))[1]


@eqx.filter_jit
def force_bend(control: AbstractControl, base: Landscape, s: Number, w: Vector, first: Vector) -> Vector:
    """d2/dt2 F(w + t w', s + t)."""
    force = lambda t: control.place(base, s + t).gradient(w + t * first)
    slope = lambda t: jax.jvp(force, (t,), (jnp.ones(()),))[1]
    return jax.jvp(slope, (jnp.zeros(()),), (jnp.ones(()),))[1]


@eqx.filter_jit
def curvature_slope(
    control: AbstractControl, base: Landscape, s: Number, w: Vector, first: Vector, mode: Vector
) -> Number:
    """d/dt of m . H(w + t w', s + t) m."""

    def curvature(t: Number) -> Number:
        landscape = control.place(base, s + t)
        return mode @ landscape.product(w + t * first, mode)

    return jax.jvp(curvature, (jnp.zeros(()),), (jnp.ones(()),))[1]


@eqx.filter_jit
def bent_curvature(
    control: AbstractControl, base: Landscape, s: Number, w: Vector, left: Vector, right: Vector
) -> tuple[Vector, Number]:
    """Slopes of left . H(w, s) right by w and by s."""

    def curvature(w: Vector, s: Number) -> Number:
        return left @ control.place(base, s).product(w, right)

    return jax.grad(curvature, argnums=(0, 1))(w, s)
