"""Steady states of dx/dt = f(x, theta), driven and with friction: no energy needs to stand behind f.

The equation is followed from the start until nothing moves, |f| <= tolerance. So the state found is stable,
and the one that this start leads to. Fast motions settle long before slow ones do, which makes the equation
stiff; the implicit method ROS2, damped at infinity, takes steps as long as the path is smooth,

    (1 - c h J) k1 = f(x),      (1 - c h J) k2 = f(x + h k1) - 2 k1,        c = 1 - 1 / sqrt(2),
    x <- x + h (3 k1 + k2) / 2,         error ~ h (k1 + k2) / 2,        J = df/dx,

and near the end they become Newton's. The derivative is that of the state, dx = -J^-1 (df/dtheta) dtheta,
whatever the path was.

Source: Verwer, Spee, Blom, Hundsdorfer, SIAM J. Sci. Comput. 20, 1456 (1999), doi:10.1137/S1064827597326651;
    the stop by |f|: Pal, Edelman, Rackauckas, arXiv:2201.12240.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from mdsens.checks import number, whole
from mdsens.errors import InputError, NotConvergedError
from mdsens.implicit.linear import Vector
from mdsens.implicit.rule import root
from mdsens.implicit.vectors import on_vectors
from mdsens.precision import require_x64

DAMPING = 1 - 1 / np.sqrt(2)  # c of ROS2: damped at infinity
LARGEST = 4000  # unknowns: their matrix is built at each step


class SteadyState(NamedTuple):
    """Where nothing moves any more.

    Attributes:
        x: differentiable w.r.t. the parameters of f.
        speed: |f| there, root of the sum of squares. time: that the way took. steps: taken.
        converged: |f| is below the tolerance.
    """

    x: Any
    speed: Float[Array, ""]
    time: Float[Array, ""]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]


class _Path(NamedTuple):
    x: Vector
    f: Vector
    time: Array
    h: Array
    steps: Array


def steady_state(
    f: Callable[..., Any],
    start: Any,
    *theta: Any,
    tolerance: float = 1e-10,
    accuracy: float = 1e-3,
    max_steps: int = 5000,
    throw: bool = True,
) -> SteadyState:
    """The state that dx/dt = f(x, theta) comes to rest in; differentiable w.r.t. theta, to any order.

    Args:
        f: (x, *theta) -> dx/dt, of the form of x; it does not depend on time.
        start: arrays of floats in any pytree; no derivative: it only chooses among steady states.
        tolerance: of |f|.
        accuracy: error of a step, relative to 1 + |x|: how exactly the path is followed.
        max_steps: tried, also those that were too long.
        throw: raise where it does not come to rest; else look at `converged`.
    Raises:
        NotConvergedError: with the last point in `.partial`: it circles, runs away, or is not there yet.
        InputError: f does not have the form of x, or there are too many unknowns.
    """
    require_x64()
    number("tolerance", tolerance, above=0)
    number("accuracy", accuracy, above=0)
    whole("max_steps", max_steps, at_least=1)
    seen = on_vectors(f, start, theta, "f")
    _check_size(len(seen.start))
    path = _follow(seen.function, seen.start, tolerance, accuracy, max_steps)
    speed = jnp.linalg.norm(path.f)
    found = SteadyState(seen.unravel(path.x), speed, path.time, path.steps, speed <= tolerance)
    if throw:
        found = _checked(found, tolerance)
    # the point is there already: the rule of implicit derivatives only has to tie it to theta
    tied = root(f, lambda x, *theta: x, check=None)
    return found._replace(x=tied(found.x, *theta))


def _follow(f: Any, x: Vector, tolerance: float, accuracy: float, max_steps: int) -> _Path:
    def unfinished(path: _Path) -> Array:
        speed = jnp.linalg.norm(path.f)
        return (speed > tolerance) & (path.steps < max_steps) & jnp.all(jnp.isfinite(path.x))

    def step(path: _Path) -> _Path:
        x, h = path.x, path.h
        J = jax.jacfwd(f)(x)
        factor = jax.scipy.linalg.lu_factor(jnp.eye(len(x)) - DAMPING * h * J)
        k1 = jax.scipy.linalg.lu_solve(factor, path.f)
        k2 = jax.scipy.linalg.lu_solve(factor, f(x + h * k1) - 2 * k1)
        new = x + h * (3 * k1 + k2) / 2
        allowed = accuracy * (1 + jnp.linalg.norm(x))
        error = jnp.linalg.norm(h * (k1 + k2) / 2)
        f_new = f(new)
        good = (error <= allowed) & jnp.all(jnp.isfinite(f_new))
        wanted = 0.9 * jnp.sqrt(allowed / jnp.maximum(error, 1e-300))
        wanted = jnp.where(jnp.isfinite(wanted), jnp.clip(wanted, 0.1, 4.0), 0.1)
        keep = lambda after, before: jnp.where(good, after, before)
        time = path.time + keep(h, 0.0)
        return _Path(keep(new, x), keep(f_new, path.f), time, jnp.minimum(h * wanted, 1e10), path.steps + 1)

    first = f(x)
    # moves by the accuracy at most
    h = 0.1 * accuracy * (1 + jnp.linalg.norm(x)) / (jnp.linalg.norm(first) + 1e-300)
    begin = _Path(x, first, jnp.zeros(()), jnp.minimum(h, 1.0), jnp.array(0))
    return jax.lax.while_loop(unfinished, step, begin)


def _check_size(count: int) -> None:
    if count > LARGEST:
        raise InputError(
            f"{count} unknowns: a steady state is looked for with matrices of up to {LARGEST}. For forces "
            "of a potential use ms.relax(..., solver=ms.GradientFlow())."
        )


def _checked(found: SteadyState, tolerance: float) -> SteadyState:
    advice = "it circles, runs away, or is slow: look at `.partial`, raise max_steps, or start elsewhere."
    if isinstance(found.converged, Tracer):
        x = eqx.error_if(found.x, ~found.converged, f"dx/dt = f(x) did not come to rest: {advice}")
        return found._replace(x=x)
    if not bool(found.converged):
        raise NotConvergedError(
            f"dx/dt = f(x) did not come to rest in {int(found.steps)} steps, the time "
            f"{float(found.time):.3g}: |f| = {float(found.speed):.1e}, above tolerance = {tolerance:.1e}; "
            f"{advice}",
            found,
        )
    return found
