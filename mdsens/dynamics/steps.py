"""One step of each ensemble, for one replica, in units in which the timestep is 1.

Newton's equation is m d²x/dt² = -dE/dx with t = n dt. Mass in u, length in Å and time in timesteps make

    m d²x/dn² = -d(s E)/dx,   s = dt² · (1 eV in u Å²/fs²),

so an integrator sees the energy s E, and momenta p = m dx/dn in u Å / timestep. Constant energy, Langevin's
bath and chains of Nose and Hoover are jax-md's; the cell moves by `mdsens.dynamics.barostat`.

Each ensemble conserves a quantity H, up to an oscillation of the order of timestep²:

    constant energy         H = K + E
    Langevin                H = K + E - heat taken from the bath
    Nose-Hoover chain       H = K + E + sum_k p_k² / 2 Q_k + kT (n ξ_1 + ξ_2 + ξ_3 + ...)
    constant pressure       H = K + E + P V + W |g|² / 2 - heat taken from the bath
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mdsens.dynamics.barostat import Barostat, CellState, cell_energy, cell_step
from mdsens.dynamics.energies import EnergyOfStructure
from mdsens.strain import volume_of
from mdsens.structure import Structure

CHAIN = 3  # thermostats in a chain of Nose and Hoover
# Each half of a step takes the chain through 2 times 3 smaller ones, as Suzuki and Yoshida weigh them
CHAIN_STEPS, CHAIN_WEIGHTS = 2, 3


class System(eqx.Module):
    """What moves.

    Attributes:
        potential: energy in eV of a structure and its neighbors.
        structure: cell, species, masses, and which coordinates are held; its positions are not used.
        stress: the energy is a function of the cell as well, and the records know its stress.
    """

    potential: EnergyOfStructure
    structure: Structure
    stress: bool = eqx.field(static=True, default=False)

    @property
    def free(self) -> Bool[Array, "atoms 3"]:
        """Coordinates that are not held."""
        return ~self.structure.fixed


class Thermostats(NamedTuple):
    """A chain of Nose-Hoover thermostats.

    Attributes:
        time: in which it acts, timesteps; its masses follow from it.
    """

    time: Float[Array, ""]


class Scales(NamedTuple):
    """Numbers of a run, in its own units: Å, u and the timestep.

    jax-md rounds the timestep to float32. A step of 1 needs no rounding, and serves for every timestep with
    the same compiled program.
    """

    electronvolt: Float[Array, ""]  # u Å² / timestep²
    kT: Float[Array, ""]  # of the bath, u Å² / timestep²
    friction: Float[Array, ""] | None = None  # 1 / timestep; None without a bath
    chain: Thermostats | None = None
    barostat: Barostat | None = None


class Measured(NamedTuple):
    """What the energy function says of one arrangement."""

    energy: Float[Array, ""]  # u Å² / timestep²
    force: Float[Array, "atoms 3"]  # u Å / timestep²
    virial: Float[Array, "3 3"]  # -dE/dstrain, u Å² / timestep²


def measure(system: System, scales: Scales, x: Array, cell: Array, neighbors: Any) -> Measured:
    """Energy, forces and virial."""

    def energy(x: Array, strain: Array) -> Array:
        deformation = jnp.eye(3) + (strain + strain.T) / 2
        there = system.structure.at(x, cell).deformed(deformation)
        return scales.electronvolt * system.potential.energy(there, neighbors)

    value, (by_x, by_strain) = jax.value_and_grad(energy, argnums=(0, 1))(x, jnp.zeros((3, 3)))
    return Measured(value, -by_x, -by_strain)


def step_of(system: System, scales: Scales, neighbors: Any) -> Callable[[Any], tuple[Any, Float[Array, ""]]]:
    """The step of one replica: from a state to the next, and the heat taken from the bath on the way."""
    if scales.barostat is not None:
        return _with_cell(system, scales, scales.barostat, neighbors)
    if scales.chain is not None:
        return _in_chain(system, scales, scales.chain, neighbors)
    if scales.friction is not None:
        return _in_bath(system, scales, scales.friction, neighbors)
    return _alone(system, scales, neighbors)


def _energy(system: System, scales: Scales, neighbors: Any) -> Callable[..., Array]:
    def energy(x: Array, **_: Any) -> Array:
        return scales.electronvolt * system.potential.energy(system.structure.at(x), neighbors)

    return energy


def _shift(free: Array) -> Callable[..., Array]:
    # A held coordinate does not follow its momentum, and loses it at the end of the step: coordinates meet
    # only in the energy, so the others move as if it were a constant.
    def shift(x: Array, displacement: Array, **_: Any) -> Array:
        return x + jnp.where(free, displacement, 0.0)

    return shift


def _without_held(state: Any, free: Array) -> Any:
    return state.set(momentum=jnp.where(free, state.momentum, 0.0))


def _alone(system: System, scales: Scales, neighbors: Any) -> Any:
    from jax_md import simulate

    _, step = simulate.nve(_energy(system, scales, neighbors), _shift(system.free), 1.0)
    return lambda state: (_without_held(step(state), system.free), jnp.zeros(()))


def _in_bath(system: System, scales: Scales, friction: Array, neighbors: Any) -> Any:
    from jax_md import simulate

    energy, free = _energy(system, scales, neighbors), system.free
    bath: Any = (scales.kT, friction)
    _, step = simulate.nvt_langevin(energy, _shift(free), 1.0, *bath)

    def kinetic(momentum: Array, force: Array, mass: Array) -> Array:
        return kinetic_energy(jnp.where(free, momentum + force / 2, 0.0), mass)

    def run(state: Any) -> Any:
        after = _without_held(step(state), free)
        # Half a kick after the start of the step the momentum met the bath, which left it as it is half a
        # kick before the end.
        heat = kinetic(after.momentum, -after.force, after.mass)
        return after, heat - kinetic(state.momentum, state.force, state.mass)

    return run


def _in_chain(system: System, scales: Scales, chain: Thermostats, neighbors: Any) -> Any:
    from jax_md import simulate

    gradient, free = jax.grad(_energy(system, scales, neighbors)), system.free

    def force(x: Array, **_: Any) -> Array:
        return jnp.where(free, -gradient(x), 0.0)  # the chain counts the energy of every momentum

    numbers: Any = {"kT": scales.kT, "tau": chain.time}
    _, step = simulate.nvt_nose_hoover(
        force,
        _shift(free),
        1.0,
        chain_length=CHAIN,
        chain_steps=CHAIN_STEPS,
        sy_steps=CHAIN_WEIGHTS,
        **numbers,
    )
    return lambda state: (step(state), jnp.zeros(()))


def _with_cell(system: System, scales: Scales, barostat: Barostat, neighbors: Any) -> Any:
    friction = jnp.zeros(()) if scales.friction is None else scales.friction

    def at(x: Array, cell: Array) -> Measured:
        return measure(system, scales, x, cell, neighbors)

    return lambda state: cell_step(state, at, barostat, scales.kT, friction, system.free)


# --- energies -------------------------------------------------------------------------------------------


def kinetic_energy(momentum: Float[Array, "atoms 3"], mass: Float[Array, "atoms 1"]) -> Float[Array, ""]:
    """sum_a p_a² / 2 m_a, u Å² / timestep²."""
    return 0.5 * jnp.sum(momentum**2 / mass)


def conserved_energy(
    state: Any, energy: Float[Array, ""], heat: Float[Array, ""], scales: Scales
) -> Float[Array, ""]:
    """H of the ensemble, see above; u Å² / timestep²."""
    total = energy + kinetic_energy(state.momentum, state.mass) - heat
    if scales.barostat is not None:
        total += cell_energy(state, scales.barostat)
    if scales.chain is not None:
        total += chain_energy(state.chain, scales.kT)
    return total


def chain_energy(chain: Any, kT: Float[Array, ""]) -> Float[Array, ""]:
    """Energy of a chain of thermostats, u Å² / timestep²."""
    first = jnp.arange(CHAIN) == 0
    freedom = jnp.where(first, chain.degrees_of_freedom, 1)
    return jnp.sum(chain.momentum**2 / (2 * chain.mass)) + kT * jnp.sum(freedom * chain.position)


def chain_masses(freedom: int, scales: Scales, chain: Thermostats) -> Float[Array, "chain"]:
    """Q_1 = n kT time², and kT time² for the others."""
    first = jnp.arange(CHAIN) == 0
    return jnp.where(first, freedom, 1) * scales.kT * chain.time**2


# --- states ---------------------------------------------------------------------------------------------


class Resting(NamedTuple):
    """Atoms without momentum, all replicas: what a first force is computed for."""

    position: Float[Array, "replicas atoms 3"]
    mass: Float[Array, "replicas atoms 1"]
    keys: Array
    cell: Float[Array, "replicas 3 3"]
    freedom: int  # coordinates that the temperature counts


def state_at_rest(rest: Resting, scales: Scales) -> tuple[Any, Scales]:
    """A state from which a step leads nowhere, and the scales with which it does: no force, no noise.

    The first force comes from such a step. `advance` is the only program then, and compiling it is what short
    runs of a flow wait for.
    """
    from jax_md.simulate import NVEState, NVTLangevinState, NVTNoseHooverState

    x = rest.position
    common: Any = {
        "position": x,
        "momentum": jnp.zeros_like(x),
        "force": jnp.zeros_like(x),
        "mass": rest.mass,
    }
    cold = scales._replace(kT=jnp.zeros_like(scales.kT))
    if scales.barostat is not None:
        nothing = jnp.zeros_like(rest.cell)
        energy = jnp.zeros(len(x), x.dtype)
        state = CellState(
            **common, rng=rest.keys, cell=rest.cell, cell_velocity=nothing, virial=nothing, energy=energy
        )
        still = scales.barostat._replace(pressure=jnp.zeros_like(scales.barostat.pressure))
        return state, cold._replace(barostat=still)
    if scales.chain is not None:
        coupled = common | {"chain": _chain_at_rest(rest, scales, scales.chain)}
        return NVTNoseHooverState(**coupled), scales
    if scales.friction is not None:
        noisy = common | {"rng": rest.keys}
        return NVTLangevinState(**noisy), cold
    return NVEState(**common), scales


def _chain_at_rest(rest: Resting, scales: Scales, chain: Thermostats) -> Any:
    from jax_md.simulate import NoseHooverChain

    n = len(rest.position)
    zeros = jnp.zeros((n, CHAIN))
    masses = jnp.tile(chain_masses(rest.freedom, scales, chain), (n, 1))
    time = jnp.full(n, chain.time, jnp.float32)  # jax-md's own type
    parts: Any = (zeros, zeros, masses, time, jnp.zeros(n), rest.freedom)
    return NoseHooverChain(*parts)


def set_off(
    state: Any, rest: Resting, scales: Scales, momenta: Float[Array, "replicas atoms 3"], cell_velocity: Any
) -> Any:
    """The state with its momenta, where the first force is known."""
    moving = state.set(momentum=momenta)
    if scales.barostat is not None:
        return moving.set(cell_velocity=cell_velocity)
    if scales.chain is not None:
        kinetic = jax.vmap(kinetic_energy)(momenta, rest.mass)
        return moving.set(chain=_chain_at_rest(rest, scales, scales.chain).set(kinetic_energy=kinetic))
    return moving


def stress_of(virial: Float[Array, "3 3"], cell: Float[Array, "3 3"], scales: Scales) -> Float[Array, "3 3"]:
    """Stress of the potential, without the motion of the atoms; eV/Å³, positive in tension."""
    return -virial / volume_of(cell) / scales.electronvolt
