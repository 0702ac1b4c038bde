"""FIRE: molecular dynamics that is stopped whenever it goes uphill.

Source: Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from mdsens.relaxation.landscape import Vector
from mdsens.relaxation.scene import AbstractStepper, Scene, Walker


class FIREMemory(NamedTuple):
    """What FIRE remembers from step to step, of anything that walks: a vector, or the images of a path."""

    velocity: Array
    dt: Array
    a: Array
    downhill: Array  # steps since the last uphill one


class FIRE(AbstractStepper):
    """FIRE as ASE has it, step for step (semi-implicit Euler).

    Attributes: the names and defaults of `ase.optimize.FIRE`, and
        max_step: longest step, Å: of all atoms together (the norm of the whole step, as ASE has it), or
        per_atom: of each atom, so that large systems do not crawl; never more than `Scene.stride` then.
        guarded: take back a step that raises the merit, and go on slower from rest: a system that is too
            stiff for dt does not fly apart.
    """

    dt: float = eqx.field(static=True, default=0.1)
    max_step: float = eqx.field(static=True, default=0.2)
    dt_max: float = eqx.field(static=True, default=1.0)
    n_min: int = eqx.field(static=True, default=5)
    f_inc: float = eqx.field(static=True, default=1.1)
    f_dec: float = eqx.field(static=True, default=0.5)
    a_start: float = eqx.field(static=True, default=0.1)
    f_a: float = eqx.field(static=True, default=0.99)
    per_atom: bool = eqx.field(static=True, default=False)
    guarded: bool = eqx.field(static=True, default=False)

    def start(self, w: Array) -> FIREMemory:
        dt, a = jnp.asarray(self.dt, float), jnp.asarray(self.a_start, float)
        return FIREMemory(jnp.zeros_like(w), dt, a, jnp.asarray(0, int))

    def step(self, scene: Scene, walker: Walker) -> Walker:
        pushed = self.pushed(walker.memory, -walker.gradient)
        dr = self._shortened(scene, pushed.dt * pushed.velocity)
        w = walker.w + dr
        value, gradient = scene.value_and_gradient(w)
        new = Walker(w, value, gradient, pushed, ~jnp.isfinite(value))
        return self._guard(scene, walker, new) if self.guarded else new

    def pushed(self, memory: FIREMemory, force: Array) -> FIREMemory:
        """The velocity that moves next, and its time step; arrays of any shape."""
        v, dt, a, downhill = memory
        along = jnp.vdot(force, v) > 0
        # downhill: turn the velocity towards the force, and go faster after n_min such steps; uphill: stop
        turned = (1 - a) * v + a * force / jnp.maximum(jnp.linalg.norm(force), 1e-300) * jnp.linalg.norm(v)
        faster = along & (downhill > self.n_min)
        v = jnp.where(along, turned, 0.0)
        dt_new = jnp.where(
            faster, jnp.minimum(dt * self.f_inc, self.dt_max), jnp.where(along, dt, dt * self.f_dec)
        )
        a_new = jnp.where(faster, a * self.f_a, jnp.where(along, a, self.a_start))
        # the first step starts from rest: neither downhill nor uphill
        resting = jnp.all(memory.velocity == 0)
        dt_new, a_new = jnp.where(resting, dt, dt_new), jnp.where(resting, a, a_new)
        downhill = jnp.where(along, downhill + 1, 0)
        return FIREMemory(v + dt_new * force, dt_new, a_new, downhill)

    def _shortened(self, scene: Scene, dr: Vector) -> Vector:
        if self.per_atom:
            length, longest = scene.longest_move(dr), jnp.minimum(self.max_step, scene.stride)
        else:
            length, longest = jnp.linalg.norm(dr), self.max_step
        return dr * jnp.minimum(1.0, longest / jnp.maximum(length, 1e-300))

    def _guard(self, scene: Scene, old: Walker, new: Walker) -> Walker:
        # Energy that rises beyond rounding is a step too long: dt² times the stiffest curvature is above its
        # limit.
        rises = ~(scene.change(old, new.w, new.value) <= 1e-10 * (jnp.abs(old.value) + 1.0))
        _, dt, _, _ = new.memory
        rest = FIREMemory(
            jnp.zeros_like(old.w),
            self.f_dec * dt,
            jnp.asarray(self.a_start),
            jnp.zeros_like(new.memory.downhill),
        )
        back = Walker(old.w, old.value, old.gradient, rest, dt < 1e-9)
        return jax.tree.map(lambda a, b: jnp.where(rises, a, b), back, new)


class JaxMDFIRE(AbstractStepper):
    """jax-md's `minimize.fire_descent` (velocity Verlet), with its own state.

    Its norm of the force has a floor of 1e-3 per array of positions, so it slows down below about 1e-3 eV/Å:
    follow it with `NewtonCG`. Its steps have no cap: stiff or overlapping atoms fly apart unless dt_max is
    below about one over the root of the largest curvature (0.05 for 400 eV/Å²). Importing jax-md takes
    seconds, and happens at the first use.

    Attributes: the names and defaults of `jax_md.minimize.fire_descent`.
    """

    dt_start: float = eqx.field(static=True, default=0.1)
    dt_max: float = eqx.field(static=True, default=0.4)
    n_min: float = eqx.field(static=True, default=5)
    f_inc: float = eqx.field(static=True, default=1.1)
    f_dec: float = eqx.field(static=True, default=0.5)
    alpha_start: float = eqx.field(static=True, default=0.1)
    f_alpha: float = eqx.field(static=True, default=0.99)

    def _minimizer(self, force: Any):
        from jax_md import minimize

        return minimize.fire_descent(
            force,
            lambda R, dR, **_: R + dR,
            self.dt_start,
            self.dt_max,
            self.n_min,
            self.f_inc,
            self.f_dec,
            self.alpha_start,
            self.f_alpha,
        )

    def start(self, w: Vector) -> Any:
        init, _ = self._minimizer(lambda R, **_: jnp.zeros_like(R))
        # of the types that `step` returns, whose program then serves for all
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), init(w[:, None]))

    def step(self, scene: Scene, walker: Walker) -> Walker:
        _, apply = self._minimizer(lambda R, **_: -scene.value_and_gradient(R[:, 0])[1][:, None])
        # the force in jax-md's state belongs to the current list
        state = walker.memory.set(force=-walker.gradient[:, None])
        state = apply(state)
        w = state.position[:, 0]
        value = scene.value_and_gradient(w)[0]
        return Walker(w, value, -state.force[:, 0], jax.tree.map(jnp.asarray, state), ~jnp.isfinite(value))
