"""The compiled part of a simulation: integrators, run for many steps and all replicas at once.

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

from mdsens.dynamics.steps import (
    Resting,
    Scales,
    System,
    conserved_energy,
    measure,
    set_off,
    state_at_rest,
    step_of,
    stress_of,
)
from mdsens.neighbors import Neighbors

MOST_RECORDS = 100  # that the device keeps until the host fetches them
MOST_NUMBERS = 30_000_000  # of which they may consist; large systems keep fewer records


class Record(NamedTuple):
    """What is recorded. None: there is no stress, or the cell stays as it is."""

    positions: Float[Array, "*records replicas atoms 3"]  # Å
    momenta: Float[Array, "*records replicas atoms 3"]  # u Å / timestep
    forces: Float[Array, "*records replicas atoms 3"]  # u Å / timestep²
    potential: Float[Array, "*records replicas"]  # eV
    conserved: Float[Array, "*records replicas"]  # eV
    stress: Float[Array, "*records replicas 3 3"] | None = None  # eV/Å³, of the potential alone
    cell: Float[Array, "*records replicas 3 3"] | None = None  # Å
    cell_velocity: Float[Array, "*records replicas 3 3"] | None = None  # 1 / timestep


class Reached(NamedTuple):
    """How far the device came."""

    state: Any  # of the integrator, with a leading axis for the replicas
    heat: Float[Array, "replicas"]  # taken from the bath since the start, u Å² / timestep²
    records: Record  # in the first places of a buffer
    steps: Int[Array, ""]  # taken
    left: Int[Array, ""]  # steps until the next record
    good: Int[Array, ""]  # records that are finite
    stale: Bool[Array, ""]  # the next step needs a new list of neighbors
    counts: Bool[Array, ""]  # the last record was complete and finite


def start(
    system: System,
    scales: Scales,
    rest: Resting,
    momenta: Float[np.ndarray, "replicas atoms 3"],
    cell_velocity: Float[np.ndarray, "replicas 3 3"],
    neighbors: Neighbors | None,
) -> Reached:
    """State of the integrator and first record."""
    state, still = state_at_rest(rest, scales)
    one, heat = jnp.asarray(1), jnp.zeros(len(rest.position))
    first = advance(system, still, state, heat, neighbors, one, one, one)
    p = jnp.asarray(momenta)
    moving = set_off(first.state, rest, scales, p, jnp.asarray(cell_velocity))
    # The record was made at rest: its potential, forces and stress hold, and what moves is put in.
    energy = first.records.potential[0] * scales.electronvolt
    conserved = _conserved(moving, energy, heat, scales)
    made = {"momenta": p, "conserved": conserved / scales.electronvolt}
    if scales.barostat is not None:
        made["cell_velocity"] = moving.cell_velocity
    put = {name: getattr(first.records, name).at[0].set(value) for name, value in made.items()}
    return first._replace(
        state=moving, heat=heat, records=first.records._replace(**put), steps=jnp.asarray(0)
    )


@eqx.filter_jit
def advance(
    system: System,
    scales: Scales,
    state: Any,
    heat: Float[Array, "replicas"],
    neighbors: Neighbors | None,
    left: Int[Array, ""],
    every: Int[Array, ""],
    records: Int[Array, ""],
) -> Reached:
    """`records` records, one after `left` steps and then one every `every`.

    Fewer where something is no longer finite, or where the list of neighbors does not serve any more.
    """
    try_step = _stepper(system, scales, neighbors)
    look = _over_replicas(lambda state, near: _looked_at(system, scales, state, near), neighbors)

    def walk(state: Any, heat: Array, left: Array) -> tuple[Any, Array, Array, Array]:
        def unfinished(reached: tuple[Any, Array, Array, Array]) -> Array:
            state, _, left, stale = reached
            return (left > 0) & ~stale & _finite(state.force)

        def step(reached: tuple[Any, Array, Array, Array]) -> tuple[Any, Array, Array, Array]:
            state, heat, taken = try_step(*reached[:2])
            return state, heat, reached[2] - taken, ~taken

        return jax.lax.while_loop(unfinished, step, (state, heat, left, jnp.asarray(False)))

    def record(reached: Reached) -> Reached:
        state, heat, left, stale = walk(reached.state, reached.heat, reached.left)
        new = _record(scales, state, heat, *look(state))
        # What is not finite is written too, for the host to say what is wrong, but does not count.
        buffers = jax.tree.map(lambda kept, one: kept.at[reached.good].set(one), reached.records, new)
        complete = (left == 0) & _finite(*jax.tree.leaves(new))
        return Reached(
            state,
            heat,
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
    buffers = _buffers(jax.eval_shape(lambda s, h: _record(scales, s, h, *look(s)), state, heat))
    began = Reached(state, heat, buffers, nothing, left, nothing, stale=~yes, counts=yes)
    return jax.lax.while_loop(unfinished, record, began)


def room(replicas: int, atoms: int) -> int:
    """Records that fit into the buffers on the device."""
    return int(np.clip(MOST_NUMBERS // (9 * replicas * atoms), 1, MOST_RECORDS))


def _buffers(record: Any) -> Record:
    n = room(*record.positions.shape[:2])
    return jax.tree.map(lambda one: jnp.zeros((n, *one.shape), one.dtype), record)


def _looked_at(
    system: System, scales: Scales, state: Any, neighbors: Any
) -> tuple[Array, Array, Array | None]:
    """Energy (eV), forces and stress of one replica, as it is recorded."""
    if scales.barostat is not None:  # the step needed all of it
        stress = stress_of(state.virial, state.cell, scales) if system.stress else None
        return state.energy / scales.electronvolt, state.force, stress
    if system.stress:
        cell = system.structure.cell
        seen = measure(system, scales, state.position, cell, neighbors)
        return seen.energy / scales.electronvolt, seen.force, stress_of(seen.virial, cell, scales)
    energy = system.potential.energy(system.structure.at(state.position), neighbors)
    return energy, state.force, None


def _record(
    scales: Scales, state: Any, heat: Array, potential: Array, forces: Array, stress: Array | None
) -> Record:
    conserved = _conserved(state, potential * scales.electronvolt, heat, scales)
    new = Record(state.position, state.momentum, forces, potential, conserved / scales.electronvolt, stress)
    if scales.barostat is None:
        return new
    return new._replace(cell=state.cell, cell_velocity=state.cell_velocity)


def _conserved(state: Any, energy: Array, heat: Array, scales: Scales) -> Float[Array, "replicas"]:
    return jax.vmap(conserved_energy, in_axes=(0, 0, 0, None))(state, energy, heat, scales)


def _stepper(
    system: System, scales: Scales, neighbors: Neighbors | None
) -> Callable[[Any, Array], tuple[Any, Array, Bool[Array, ""]]]:
    """A step that is taken only if the list of neighbors still serves where it leads; and whether it was."""
    structure, cutoff = system.structure, system.potential.cutoff
    step = _over_replicas(lambda state, near: step_of(system, scales, near)(state), neighbors)

    def slack_of(state: Any, near: Any) -> Array:
        cell = structure.cell if scales.barostat is None else state.cell
        return near.slack(structure.at(state.position, cell), cutoff)

    slack = _over_replicas(slack_of, neighbors)

    def try_step(state: Any, heat: Array) -> tuple[Any, Array, Array]:
        ahead, gained = step(state)
        if neighbors is None:
            return ahead, heat + gained, jnp.asarray(True)
        # Positions that are not finite have a slack of NaN: that step is taken, and `walk` stops at its
        # forces.
        taken = ~jnp.any(slack(ahead) < 0)
        keep = lambda new, old: jnp.where(taken, new, old)
        return jax.tree.map(keep, ahead, state), keep(heat + gained, heat), taken

    return try_step


def _over_replicas(function: Callable[[Any, Any], Any], neighbors: Neighbors | None) -> Callable[[Any], Any]:
    """A function of one replica and its neighbors, as one of all replicas."""
    if neighbors is None:
        return jax.vmap(lambda state: function(state, None))
    return lambda states: jax.vmap(function)(states, neighbors)


def _finite(*arrays: Array) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(array).all() for array in arrays]).all()
