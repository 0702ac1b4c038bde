"""The compiled part of a simulation: jax-md's integrators, run for many steps and all replicas at once.

A list of neighbors holds until an atom has used up its skin. Each step is therefore tried: where the list
would miss a pair at the new positions, the step is not taken, and the device stops there. The host makes
a new list and goes on from the same state, so that where lists were made changes nothing but rounding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdsens.dynamics.energies import EnergyOfStructure
from mdsens.neighbors import Neighbors
from mdsens.structure import Structure

MOST_RECORDS = 100  # that the device keeps until the host fetches them
MOST_NUMBERS = 30_000_000  # of which they may consist; large systems keep fewer records


class System(eqx.Module):
    """What moves.

    Attributes:
        potential: energy in eV of a structure and its neighbors.
        structure: cell, species, masses, and which coordinates are held; its positions are not used.
    """

    potential: EnergyOfStructure
    structure: Structure


class Scales(NamedTuple):
    """Numbers of a run, in its own units: Å, u and the timestep.

    jax-md rounds the timestep to float32. A step of 1 needs no rounding, and serves for every timestep with
    the same compiled program.
    """

    electronvolt: Float[Array, ""]  # u Å² / timestep²
    kT: Float[Array, ""]  # of the bath, u Å² / timestep²
    friction: Float[Array, ""] | None  # 1 / timestep; None without a bath


class Record(NamedTuple):
    """What is recorded."""

    positions: Float[Array, "*records replicas atoms 3"]  # Å
    momenta: Float[Array, "*records replicas atoms 3"]  # u Å / timestep
    forces: Float[Array, "*records replicas atoms 3"]  # u Å / timestep²
    potential: Float[Array, "*records replicas"]  # eV


class Reached(NamedTuple):
    """How far the device came."""

    state: Any  # of jax-md, with a leading axis for the replicas
    records: Record  # in the first places of a buffer
    steps: Int[Array, ""]  # taken
    left: Int[Array, ""]  # steps until the next record
    good: Int[Array, ""]  # records that are finite
    stale: Bool[Array, ""]  # the next step needs a new list of neighbors
    counts: Bool[Array, ""]  # the last record was complete and finite


def start(
    system: System,
    scales: Scales,
    positions: Float[np.ndarray, "replicas atoms 3"],
    momenta: Float[np.ndarray, "replicas atoms 3"],
    neighbors: Neighbors | None,
    keys: Array,
) -> Reached:
    """State of jax-md and first record."""
    from jax_md.simulate import NVEState, NVTLangevinState

    x, p = jnp.asarray(positions), jnp.asarray(momenta)
    rest = jnp.zeros_like(x)
    masses = jnp.tile(system.structure.masses[:, None], (len(x), 1, 1))
    state: Any
    # The first force comes from a step that leads nowhere: from rest, without force and noise. `advance` is
    # the only program then, and compiling it is what short runs of a flow wait for.
    if scales.friction is None:
        cold = scales
        state = NVEState(position=x, momentum=rest, force=rest, mass=masses)  # pyright: ignore[reportCallIssue]
    else:
        cold = scales._replace(kT=jnp.zeros(()))
        start: Any = {"position": x, "momentum": rest, "force": rest, "mass": masses, "rng": keys}
        state = NVTLangevinState(**start)
    one = jnp.asarray(1)
    first = advance(system, cold, state, neighbors, one, one, one)
    records = first.records._replace(momenta=first.records.momenta.at[0].set(p))
    return first._replace(state=first.state.set(momentum=p), records=records, steps=jnp.asarray(0))


@eqx.filter_jit
def advance(
    system: System,
    scales: Scales,
    state: Any,
    neighbors: Neighbors | None,
    left: Int[Array, ""],
    every: Int[Array, ""],
    records: Int[Array, ""],
) -> Reached:
    """`records` records, one after `left` steps and then one every `every`.

    Fewer where something is no longer finite, or where the list of neighbors does not serve any more.
    """
    try_step = _stepper(system, scales, neighbors)
    energies = _over_replicas(
        lambda x, near: system.potential.energy(system.structure.at(x), near), neighbors
    )

    def walk(state: Any, left: Array) -> tuple[Any, Array, Array]:
        def unfinished(reached: tuple[Any, Array, Array]) -> Array:
            state, left, stale = reached
            return (left > 0) & ~stale & _finite(state.force)

        def step(reached: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
            state, taken = try_step(reached[0])
            return state, reached[1] - taken, ~taken

        return jax.lax.while_loop(unfinished, step, (state, left, jnp.asarray(False)))

    def record(reached: Reached) -> Reached:
        state, left, stale = walk(reached.state, reached.left)
        new = Record(state.position, state.momentum, state.force, energies(state.position))
        # What is not finite is written too, for the host to say what is wrong, but does not count.
        buffers = jax.tree.map(lambda kept, one: kept.at[reached.good].set(one), reached.records, new)
        complete = (left == 0) & _finite(*new)
        return Reached(
            state,
            buffers,
            reached.steps + reached.left - left,
            jnp.where(complete, every, left),
            reached.good + complete,
            stale,
            complete,
        )

    def unfinished(reached: Reached) -> Array:
        return reached.counts & (reached.good < records)

    nothing, yes = jnp.asarray(0), jnp.asarray(True)
    began = Reached(state, _buffers(state.position), nothing, left, nothing, stale=~yes, counts=yes)
    return jax.lax.while_loop(unfinished, record, began)


def room(replicas: int, atoms: int) -> int:
    """Records that fit into the buffers on the device."""
    return int(np.clip(MOST_NUMBERS // (9 * replicas * atoms), 1, MOST_RECORDS))


def _buffers(x: Float[Array, "replicas atoms 3"]) -> Record:
    n = room(*x.shape[:2])
    one = jnp.zeros((n, *x.shape), x.dtype)
    number = jnp.zeros((n, len(x)), x.dtype)
    return Record(positions=one, momenta=one, forces=one, potential=number)


def _stepper(
    system: System, scales: Scales, neighbors: Neighbors | None
) -> Callable[[Any], tuple[Any, Bool[Array, ""]]]:
    """A step that is taken only if the list of neighbors still serves where it leads; and whether it was."""
    structure, free = system.structure, ~system.structure.fixed
    cutoff = system.potential.cutoff
    step = _over_replicas(lambda state, near: _one_step(system, scales, near, free)(state), neighbors)
    slack = _over_replicas(lambda x, near: near.slack(structure.at(x), cutoff), neighbors)

    def try_step(state: Any) -> tuple[Any, Bool[Array, ""]]:
        ahead = step(state)
        if neighbors is None:
            return ahead, jnp.asarray(True)
        # Positions that are not finite have a slack of NaN: that step is taken, and `walk` stops at its
        # forces.
        taken = ~jnp.any(slack(ahead.position) < 0)
        return jax.tree.map(lambda new, old: jnp.where(taken, new, old), ahead, state), taken

    return try_step


def _one_step(system: System, scales: Scales, neighbors: Any, free: Bool[Array, "atoms 3"]) -> Any:
    """jax-md's step for one replica, in units in which the timestep is 1."""
    from jax_md import simulate

    # Newton's equation m d²x/dt² = -dE/dx with t = n dt. Mass in u, length in Å and time in timesteps make
    #     m d²x/dn² = -d(s E)/dx,   s = dt² · (1 eV in u Å²/fs²),
    # so the integrator sees the energy s E, and momenta p = m dx/dn in u Å / timestep.
    def energy(x: Array, **_: Any) -> Array:
        return scales.electronvolt * system.potential.energy(system.structure.at(x), neighbors)

    # A held coordinate does not follow its momentum, and loses it at the end of the step: coordinates meet
    # only in the energy, so the others move as if it were a constant.
    def shift(x: Array, displacement: Array, **_: Any) -> Array:
        return x + jnp.where(free, displacement, 0.0)

    if scales.friction is None:
        _, step = simulate.nve(energy, shift, 1.0)
    else:
        kT, friction = scales.kT, scales.friction
        _, step = simulate.nvt_langevin(energy, shift, 1.0, kT, friction)  # pyright: ignore[reportArgumentType]

    def held(state: Any) -> Any:
        after = step(state)
        return after.set(momentum=jnp.where(free, after.momentum, 0.0))

    return held


def _over_replicas(function: Callable[[Any, Any], Any], neighbors: Neighbors | None) -> Callable[[Any], Any]:
    """A function of one replica and its neighbors, as one of all replicas."""
    if neighbors is None:
        return jax.vmap(lambda state: function(state, None))
    return lambda states: jax.vmap(function)(states, neighbors)


def _finite(*arrays: Array) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(array).all() for array in arrays]).all()
