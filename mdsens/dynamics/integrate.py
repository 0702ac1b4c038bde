"""The compiled part of a simulation: jax-md's integrators, run for many steps and all replicas at once."""

from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdsens.units import NM

BUFFER = 100  # records that the device keeps until the host fetches them


class ReducedEnergy(Protocol):
    """What moves: `BoltzmannGenerator` and `Movable` have all of it."""

    @property
    def species(self) -> tuple[int, ...]: ...

    @property
    def temperature(self) -> float: ...

    def energy(self, positions: Float[Array, "atoms 3"]) -> Float[Array, ""]: ...


class Scales(NamedTuple):
    """Numbers of a run, in its own units: Å, u and the timestep.

    jax-md rounds the timestep to float32. A step of 1 needs no rounding, and serves for every timestep with
    the same compiled program.
    """

    unit: Float[Array, ""]  # kT of the reduced energies, u Å² / timestep²
    kT: Float[Array, ""]  # of the bath, u Å² / timestep²
    friction: Float[Array, ""] | None  # 1 / timestep; None without a bath


class Frame(NamedTuple):
    """What is recorded."""

    positions: Float[Array, "*records replicas atoms 3"]  # Å
    momenta: Float[Array, "*records replicas atoms 3"]  # u Å / timestep
    potential: Float[Array, "*records replicas"]  # reduced, in kT


class Advance(NamedTuple):
    """How far the device came."""

    state: Any  # of jax-md, with a leading axis for the replicas
    frames: Frame  # records, in the first places of a buffer
    steps: Int[Array, ""]  # taken
    good: Int[Array, ""]  # records that are finite


def start(
    system: ReducedEnergy,
    scales: Scales,
    positions: Float[np.ndarray, "replicas atoms 3"],
    momenta: Float[np.ndarray, "replicas atoms 3"],
    masses: Float[np.ndarray, " atoms"],
    keys: Array,
) -> Advance:
    """State of jax-md and first record."""
    from jax_md.simulate import NVEState, NVTLangevinState

    x, p = jnp.asarray(positions), jnp.asarray(momenta)
    rest, m = jnp.zeros_like(x), jnp.tile(jnp.asarray(masses)[:, None], (len(x), 1, 1))
    # The first force comes from a step that leads nowhere: from rest, without force and noise. `advance` is
    # the only program then, and compiling it is what short runs of a flow wait for.
    if scales.friction is None:
        state, cold = NVEState(x, rest, rest, m), scales  # pyright: ignore[reportCallIssue]  (jax-md's own dataclass)
    else:
        state, cold = NVTLangevinState(x, rest, rest, m, keys), scales._replace(kT=jnp.zeros(()))  # pyright: ignore[reportCallIssue]
    first = advance(system, cold, state, jnp.asarray(1), jnp.asarray(1))
    frames = first.frames._replace(momenta=first.frames.momenta.at[0].set(p))
    return Advance(first.state.set(momentum=p), frames, jnp.asarray(0), first.good)


@eqx.filter_jit
def advance(
    system: ReducedEnergy, scales: Scales, state: Any, every: Int[Array, ""], records: Int[Array, ""]
) -> Advance:
    """`records` times `every` steps; fewer where something is no longer finite."""
    from jax_md import simulate

    reduced = lambda positions: system.energy(positions / NM)
    energy = lambda positions: scales.unit * reduced(positions)
    shift = lambda positions, displacement: positions + displacement
    if scales.friction is None:
        _, one_step = simulate.nve(energy, shift, 1.0)
    else:
        _, one_step = simulate.nvt_langevin(energy, shift, 1.0, scales.kT, scales.friction)  # pyright: ignore[reportArgumentType]
    step = jax.vmap(one_step)

    def walk(state: Any) -> tuple[Any, Array]:
        unfinished = lambda c: (c[1] < every) & _finite(c[0].force)
        return jax.lax.while_loop(unfinished, lambda c: (step(c[0]), c[1] + 1), (state, jnp.asarray(0)))

    def record(reached: Advance) -> Advance:
        state, steps = walk(reached.state)
        frame = Frame(state.position, state.momentum, jax.vmap(reduced)(state.position))
        frames = jax.tree.map(lambda buffer, one: buffer.at[reached.good].set(one), reached.frames, frame)
        return Advance(
            state, frames, reached.steps + steps, reached.good + (_finite(*frame) & _finite(state.force))
        )

    # a bad record is the last: `good` has then fallen behind the number of records that the steps stand for
    unfinished = lambda reached: (reached.good < records) & (reached.steps == reached.good * every)
    x = state.position
    empty = Frame(*(jnp.zeros((BUFFER, *shape), x.dtype) for shape in (x.shape, x.shape, x.shape[:1])))
    return jax.lax.while_loop(unfinished, record, Advance(state, empty, jnp.asarray(0), jnp.asarray(0)))


def _finite(*arrays: Array) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(array).all() for array in arrays]).all()
