"""Molecular dynamics of one molecule whose energy JAX can differentiate: a flow, or any other function.

The energy is reduced, u(x) in kT of positions in nm, as flows and their training have it; the equation of
motion is

    m d²x/dt² = -kT du/dx.

Runs without a bath (`nve`) are the sharpest test there is of a force field: velocity Verlet conserves the
total energy up to an oscillation of the order of timestep², as long as forces are smooth. Where they jump, as
those of splines do at every knot, each jump leaves an error of its own, and the total energy walks away.

The integrators are jax-md's. Steps run compiled, all replicas at once; the host looks at what was recorded in
between.
"""

import dataclasses
import time as clock
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.dynamics.integrate import BUFFER, Frame, ReducedEnergy, Scales, advance, start
from mdsens.dynamics.trajectory import Trajectory
from mdsens.errors import InputError, NonFiniteError
from mdsens.precision import require_x64
from mdsens.units import ACCELERATION, BOLTZMANN

LOOK = 1.0  # s: about how often the host looks
TOO_CLOSE = 0.3  # Å: nuclei do not come that near; those of H2 are 0.74 Å apart


class Movable(eqx.Module):
    """Any energy function as something that `nve` and `langevin` can move: a force field in JAX, say.

    Attributes:
        energy_fn: energy in kT of positions (atoms, 3) in nm.
        species: atomic number of each atom.
        temperature: at which kT is meant, K.
    """

    energy_fn: Callable[[Float[Array, "atoms 3"]], Float[Array, ""]]
    species: tuple[int, ...] = eqx.field(static=True)
    temperature: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not callable(self.energy_fn) or not self.species or not 0 < self.temperature < np.inf:
            raise InputError(
                "Movable(energy_fn, species, temperature) needs a function, atomic numbers and a positive "
                "temperature, not "
                f"{type(self.energy_fn).__name__}, {self.species}, {self.temperature} K."
            )

    def energy(self, positions: Float[Array, "atoms 3"]) -> Float[Array, ""]:
        """Energy in kT of positions in nm."""
        return jnp.asarray(self.energy_fn(positions), positions.dtype)


class Progress(NamedTuple):
    """What a progress callback sees about once a second; energies are means over the replicas."""

    step: int
    steps: int
    time: float  # fs
    potential: float  # eV
    total: float  # eV
    temperature: float  # K, of the kinetic energy


def nve(
    system: ReducedEnergy,
    positions: Any,
    *,
    steps: int,
    velocities: Any = None,
    temperature: float | None = None,
    timestep: float = 1.0,
    record_every: int = 10,
    seed: int = 0,
    masses: Any = None,
    progress: Callable[[Progress], None] | None = None,
) -> Trajectory:
    """Move a molecule at constant energy, by velocity Verlet.

    Computed in float64. Compiled once for a system and a number of replicas; importing jax-md takes seconds,
    at the first use. To go on where a run ended, pass its last positions and velocities. ASE takes the same
    steps with `ase.md.verlet.VelocityVerlet` and `FlowCalculator`.

    Args:
        system: a `BoltzmannGenerator`, or `Movable`, made of any energy function.
        positions: (atoms, 3), or (replicas, atoms, 3) for several runs at once; Å. Best from an equilibrium
            sample.
        steps: how many; a multiple of `record_every`.
        velocities: as the positions, Å/fs, used as they are. Unless given, drawn from the Maxwell
            distribution, with the center of mass at rest.
        temperature: of the velocities that are drawn, K; unless told that of the system.
        timestep: fs. A bond to hydrogen swings in 9 fs: take 1 fs at most.
        record_every: steps between records.
        seed: of the velocities. What a replica draws does not depend on how many there are.
        masses: (atoms,), u; unless told the standard atomic weights.
        progress: called about once a second.
    Returns:
        `Trajectory`, the start included; `drift()` tells how well the energy was conserved.
    Raises:
        InputError: shapes or numbers that do not fit.
        NonFiniteError: energy or forces became NaN or infinite. `partial` is the trajectory up to the record
        before.
        PrecisionError: float64 is off.
    """
    run = _Run(system, positions, velocities, masses, temperature, timestep, steps, record_every, seed, None)
    return run.simulate(progress)


def langevin(
    system: ReducedEnergy,
    positions: Any,
    *,
    steps: int,
    friction: float = 1e-3,
    velocities: Any = None,
    temperature: float | None = None,
    timestep: float = 1.0,
    record_every: int = 10,
    seed: int = 0,
    masses: Any = None,
    progress: Callable[[Progress], None] | None = None,
) -> Trajectory:
    """Move a molecule in a bath, by Langevin's equation: in the long run a sample of the Boltzmann distribution.

    Arguments, result and errors are those of `nve`, except:

    Args:
        friction: 1/fs; 1e-3 is one per ps. The center of mass feels bath and friction too: the molecule
            diffuses.
        temperature: of the bath, K; unless told that of the system.
        seed: of velocities and noise. A run that goes on from another one needs another seed.
    Source: the splitting BAOAB of Leimkuhler and Matthews, Appl. Math. Res. eXpress 2013, 34 (2013), as
    jax-md has it.
    """
    if not 0 < friction < np.inf:
        raise InputError(
            f"friction = {friction} / fs: it must be positive, 1e-3 say. Without friction use nve."
        )
    run = _Run(
        system,
        positions,
        velocities,
        masses,
        temperature,
        timestep,
        steps,
        record_every,
        seed,
        float(friction),
    )
    return run.simulate(progress)


@dataclasses.dataclass
class _Run:
    """What was asked for, checked, and the host's part of a simulation."""

    system: Any
    positions: Any
    velocities: Any
    masses: Any
    temperature: Any
    timestep: float
    steps: int
    every: int
    seed: int
    friction: float | None

    def __post_init__(self) -> None:
        require_x64()
        if not all(hasattr(self.system, name) for name in ("energy", "species", "temperature")):
            raise InputError(
                f"a {type(self.system).__name__} cannot be moved. Give a BoltzmannGenerator, or "
                "Movable(energy_fn, species, "
                "temperature) with energy_fn(positions in nm) in kT."
            )
        self.n = len(self.system.species)
        self._check_numbers()
        self._check_arrays()
        if hasattr(self.system, "astype"):
            self.system = self.system.astype(jnp.float64)

    def _check_numbers(self) -> None:
        self.temperature = float(self.system.temperature if self.temperature is None else self.temperature)
        if not 0 <= self.temperature < np.inf:
            raise InputError(f"temperature = {self.temperature} K: it must not be negative.")
        if not 0 < self.timestep < np.inf:
            raise InputError(f"timestep = {self.timestep} fs: it must be positive, 0.5 or 1 say.")
        if self.every < 1 or self.steps < 1:
            raise InputError(f"steps = {self.steps}, record_every = {self.every}: both must be positive.")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed = {self.seed}: it must be a number from 0 to 2³² - 1.")
        if self.steps % self.every:
            raise InputError(
                f"steps = {self.steps} is no multiple of record_every = {self.every}: the run would not end "
                "with a record. Take "
                f"{-(-self.steps // self.every) * self.every} steps."
            )

    def _check_arrays(self) -> None:
        from ase.data import atomic_masses

        masses = (
            atomic_masses[list(self.system.species)]
            if self.masses is None
            else np.asarray(self.masses, float)
        )
        if masses.shape != (self.n,) or not (masses > 0).all():
            raise InputError(
                f"masses of shape {masses.shape}, the smallest {masses.min(initial=np.inf):g} u: give "
                f"{self.n} positive ones."
            )
        shape = np.shape(self.positions)
        if self.velocities is not None and np.shape(self.velocities) != shape:
            raise InputError(
                f"velocities have the shape {np.shape(self.velocities)}, positions {shape}: they must be the "
                "same."
            )
        self.masses, self.single = masses, len(shape) == 2
        self.positions = self._with_replicas(self.positions, "positions", "Å")
        self._check_distances()
        self.velocities = (
            self._drawn()
            if self.velocities is None
            else self._with_replicas(self.velocities, "velocities", "Å/fs")
        )

    def _with_replicas(self, value: Any, name: str, unit: str) -> np.ndarray:
        array, n = np.asarray(value, float), self.n
        if array.ndim not in (2, 3) or array.shape[-2:] != (n, 3) or not array.size:
            raise InputError(
                f"{name} have the shape {array.shape}: give ({n}, 3) or (replicas, {n}, 3), in {unit}, for "
                f"the system's {n} atoms."
            )
        array = array.reshape(-1, n, 3)
        if not np.isfinite(array).all():
            replica, atom = np.argwhere(~np.isfinite(array).all(-1))[0]
            raise NonFiniteError(f"{name}: atom {atom}{self._of(replica)} has {array[replica, atom]} {unit}.")
        return array

    def _of(self, replica: int) -> str:
        return "" if self.single else f" of replica {replica}"

    def _check_distances(self) -> None:
        for replica, frame in enumerate(self.positions):
            distances = np.linalg.norm(frame[:, None] - frame, axis=-1) + np.diag([np.inf] * self.n)
            i, j = np.unravel_index(np.argmin(distances), distances.shape)
            if distances[i, j] < TOO_CLOSE:
                raise InputError(
                    f"atoms {i} and {j}{self._of(replica)} are {distances[i, j]:.3g} Å apart, below "
                    f"{TOO_CLOSE} Å, where no nuclei come. "
                    "If these positions are in nm, as those of mdtraj, multiply them by 10."
                )

    def _drawn(self) -> np.ndarray:
        # Maxwell: each component is normal with the variance kT / m. Without a bath the total momentum stays
        # what it is: take away the velocity of the center of mass, which leaves 3 n - 3 components of the
        # temperature asked for. (jax-md takes the same momentum from each atom, which heats hydrogens: by a
        # fifth in alanine dipeptide.)
        normal = np.stack(
            [
                np.random.default_rng((self.seed, k)).normal(size=(self.n, 3))
                for k in range(len(self.positions))
            ]
        )
        velocities = normal * np.sqrt(BOLTZMANN * self.temperature * ACCELERATION / self.masses)[:, None]
        if self.friction is None and self.n > 1:
            velocities = velocities - np.average(velocities, axis=1, weights=self.masses)[:, None]
        return velocities

    def _keys(self) -> Array:
        words = np.array([(self.seed, k) for k in range(len(self.positions))], np.uint32)
        return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")

    def simulate(self, progress: Callable[[Progress], None] | None) -> Trajectory:
        """Run from beginning to end."""
        joule = ACCELERATION * self.timestep**2  # u Å² / timestep² per eV
        unit, kT = (jnp.asarray(BOLTZMANN * T * joule) for T in (self.system.temperature, self.temperature))
        scales = Scales(
            unit, kT, None if self.friction is None else jnp.asarray(self.friction * self.timestep)
        )
        momenta = self.masses[:, None] * self.velocities * self.timestep
        reached = start(self.system, scales, self.positions, momenta, self.masses, self._keys())
        frames, done, size = [_first(reached.frames, 1)], 0, 1
        if not reached.good:
            raise NonFiniteError(
                self._what_is_wrong(0, np.asarray(frames[0].potential[0]), np.asarray(reached.state.force))
            )
        while done < self.steps:
            began, records = clock.monotonic(), min(size, (self.steps - done) // self.every)
            reached = advance(
                self.system, scales, reached.state, jnp.asarray(self.every), jnp.asarray(records)
            )
            good = int(reached.good)
            frames.append(_first(reached.frames, good))
            done += int(reached.steps)
            if good < records:
                potential = np.asarray(reached.frames.potential)[good]
                raise NonFiniteError(
                    self._what_is_wrong(done, potential, np.asarray(reached.state.force)),
                    self._trajectory(frames),
                )
            if progress is not None:
                progress(self._report(done, frames[-1]))
            duration = clock.monotonic() - began
            size = (
                min(2 * size, BUFFER)
                if duration < LOOK / 2
                else max(size // 2, 1)
                if duration > 2 * LOOK
                else size
            )
        return self._trajectory(frames)

    def _trajectory(self, frames: list[Frame]) -> Trajectory:
        positions, momenta, potential = (np.concatenate(parts) for parts in zip(*frames, strict=True))
        with_replicas = Trajectory(
            time=np.arange(len(positions)) * (self.every * self.timestep),
            positions=positions,
            velocities=momenta / self.masses[:, None] / self.timestep,
            potential=BOLTZMANN * self.system.temperature * potential,
            kinetic=0.5
            * np.einsum("...ac,a->...", momenta**2, 1 / self.masses)
            / (ACCELERATION * self.timestep**2),
            masses=self.masses,
            species=tuple(self.system.species),
            temperature=self.temperature,
            timestep=self.timestep,
            friction=self.friction,
            seed=self.seed,
        )
        if not self.single:
            return with_replicas
        names = ("positions", "velocities", "potential", "kinetic")
        return dataclasses.replace(
            with_replicas, **{name: getattr(with_replicas, name)[:, 0] for name in names}
        )

    def _report(self, done: int, frames: Frame) -> Progress:
        last = self._trajectory([Frame(*(array[-1:] for array in frames))])
        means = (float(value.mean()) for value in (last.potential, last.total, last.temperatures))
        return Progress(done, self.steps, done * self.timestep, *means)

    def _what_is_wrong(self, step: int, potential: np.ndarray, force: np.ndarray) -> str:
        lost = ~(np.isfinite(potential) & np.isfinite(force).all((1, 2)))
        replica = int(np.argmax(lost))
        atoms = np.flatnonzero(~np.isfinite(force[replica]).all(1)).tolist()
        what = (
            f"the force on atom {atoms[0]}{self._of(replica)} is not finite"
            if atoms
            else f"the energy{self._of(replica)} is {potential[replica]}"
        )
        if step == 0:
            return f"{what} at the start. Start from an equilibrium frame: Å, atoms in the order of the training data, the molecule whole."
        return (
            f"{what} at step {step} ({step * self.timestep:g} fs). Take a smaller timestep than "
            f"{self.timestep:g} fs, or start from an "
            "equilibrium frame. If neither helps, the molecule has left the region that the system was made "
            "for: look at `partial` of "
            "this error, the trajectory up to the record before."
        )


def _first(frames: Frame, n: int) -> Frame:
    """n records, on the host."""
    return Frame(*(np.array(array[:n]) for array in frames))  # pyright: ignore[reportArgumentType]
