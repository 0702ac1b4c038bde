"""Molecular dynamics of crystals and clusters under a potential, and of molecules under a flow.

The equation of motion is

    m d²x/dt² = -dE/dx.

Runs without a bath (`nve`) are the sharpest test there is of a force field: velocity Verlet conserves the
total energy up to an oscillation of the order of timestep², as long as forces are smooth. Where they jump, as
those of splines do at every knot, each jump leaves an error of its own, and the total energy walks away.

The integrators are jax-md's. Steps run compiled, all replicas at once; the host looks at what was recorded in
between, and searches neighbors when atoms have used up the skin of their list.
"""

import dataclasses
import time as clock
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mdsens.checks import number
from mdsens.dynamics.integrate import Reached, Record, advance, room, start
from mdsens.dynamics.setup import Choices, Coupling, Setup, prepare
from mdsens.dynamics.trajectory import Trajectory
from mdsens.errors import InputError, NonFiniteError
from mdsens.io.files import check_free
from mdsens.io.frames import HDF5, check_ending
from mdsens.neighbors import Capacity, Neighbors, find_neighbors
from mdsens.precision import require_x64

LOOK = 1.0  # s: about how often the host looks


class SimulationProgress(NamedTuple):
    """What a progress callback sees about once a second; energies are means over the replicas."""

    step: int
    steps: int
    time: float  # fs
    potential: float  # eV
    total: float  # eV
    temperature: float  # K, of the kinetic energy


def nve(
    system: Any,
    positions: Any,
    *,
    steps: int,
    velocities: Any = None,
    temperature: float | None = None,
    timestep: float = 1.0,
    record_every: int = 10,
    seed: int = 0,
    masses: Any = None,
    replicas: int | None = None,
    skin: float | None = None,
    progress: Callable[[SimulationProgress], None] | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> Trajectory:
    """Move atoms at constant energy, by velocity Verlet.

    Computed in float64. Compiled once for a system and a number of replicas; importing jax-md takes seconds,
    at the first use. To go on where a run ended, pass its `Trajectory` as positions (`Trajectory.from_hdf5`
    reads one). ASE takes the same steps with `ase.md.verlet.VelocityVerlet` and `MDSens` or
    `FlowCalculator`.

    A run that ends early, by Ctrl-C or by an error (of `progress`, say), is written to `output` up to the
    last record, and is the `partial` of the exception.

    Args:
        system: any potential of mdsens; a `BoltzmannGenerator`, a reduced potential, or `Movable`, made of
            any energy function.
        positions: for a potential a `Structure`, periodic or not, or a list of them, the replicas; fixed
            coordinates are held. For the others positions (atoms, 3), or (replicas, atoms, 3) for several
            runs at once; Å. Best from an equilibrium sample. A `Trajectory` goes on from its last record,
            with its velocities, masses and temperature.
        steps: how many; a multiple of `record_every`.
        velocities: as the positions, Å/fs, used as they are. Unless given, drawn from the Maxwell
            distribution, with the center of mass at rest if no coordinate is fixed.
        temperature: of the velocities that are drawn, K; unless told that of the system, if it has one.
        timestep: fs. A bond to hydrogen swings in 9 fs: take 1 fs at most.
        record_every: steps between records.
        seed: of the velocities. What a replica draws does not depend on how many there are.
        masses: (atoms,), u; unless told those of the structure, or the standard atomic weights.
        replicas: runs from one start, each with velocities of its own.
        skin: extra reach of the neighbor list, Å; unless told a tenth of the cutoff.
        progress: called about once a second.
        output: a file for the trajectory, as `Trajectory.write` names them; written when the run ends, in
            whatever way.
        overwrite: replace the file if it exists.
    Returns:
        `Trajectory`, the start included; `drift()` tells how well the energy was conserved.
    Raises:
        InputError: shapes or numbers that do not fit, atoms without parameters.
        NonFiniteError: energy or forces became NaN or infinite, or atoms fly apart. `partial` is the
            trajectory up to the record before.
        OutputExistsError: there is a file `output`, and `overwrite` is False.
        PrecisionError: float64 is off.
    """
    require_x64()
    choices = Choices(steps, record_every, timestep, temperature, velocities, masses, replicas, skin, seed)
    setup = prepare(system, positions, choices, Coupling())
    return _Simulation(setup, Keep(output, overwrite)).run(progress)


def langevin(
    system: Any,
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
    replicas: int | None = None,
    skin: float | None = None,
    progress: Callable[[SimulationProgress], None] | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> Trajectory:
    """Move atoms in a bath, by Langevin's equation: in the long run a sample of the Boltzmann distribution.

    Arguments, result and errors are those of `nve`, except:

    Args:
        friction: 1/fs; 1e-3 is one per ps. The center of mass feels bath and friction too: the molecule
            diffuses.
        temperature: of the bath, K; unless told that of the system, if it has one.
        seed: of velocities and noise. A run that goes on from another one needs another seed, and is refused
            with the same.
    Source: the splitting BAOAB of Leimkuhler and Matthews, Appl. Math. Res. eXpress 2013, 34 (2013), as
    jax-md has it.
    """
    require_x64()
    friction = number("friction", friction, "1/fs; without friction use nve", above=0.0)
    choices = Choices(steps, record_every, timestep, temperature, velocities, masses, replicas, skin, seed)
    setup = prepare(system, positions, choices, Coupling(friction))
    if setup.run.temperature is None:
        number("temperature", None, "K, of the bath")
    return _Simulation(setup, Keep(output, overwrite)).run(progress)


class Keep(NamedTuple):
    """Where a trajectory is written; nowhere if there is no path."""

    path: str | Path | None
    overwrite: bool

    def check(self, replicas: int) -> None:
        """Raise before the work, if its result could not be written."""
        if self.path is None:
            return
        check_free(self.path, self.overwrite)
        if check_ending(self.path) not in HDF5 and replicas > 1:
            raise InputError(
                f"{replicas} runs into '{self.path}': only .h5 holds several. Name FILE.h5, or run one."
            )

    def write(self, trajectory: Trajectory) -> None:
        """Write, if there is a place for it."""
        if self.path is not None:
            trajectory.write(self.path, overwrite=self.overwrite)


@dataclasses.dataclass
class _Simulation:
    """The host's part: how far to go next, lists of neighbors, and what was recorded."""

    setup: Setup
    keep: Keep

    def __post_init__(self) -> None:
        self.keep.check(len(self.setup.positions))
        self.skin = self.setup.run.skin
        self.records: list[Record] = []
        self.done = 0  # steps

    def run(self, progress: Callable[[SimulationProgress], None] | None) -> Trajectory:
        """From beginning to end, and into the file."""
        try:
            trajectory = self._run(progress)
        except BaseException as error:  # Ctrl-C as well
            self._keep_what_was_reached(error)
            raise
        self.keep.write(trajectory)
        return trajectory

    def _keep_what_was_reached(self, error: BaseException) -> None:
        if not self.done:
            return
        trajectory = self.trajectory()
        if getattr(error, "partial", None) is None:
            error.partial = trajectory  # pyright: ignore[reportAttributeAccessIssue]
        self.keep.write(trajectory)
        where = "`partial` of this exception holds" if self.keep.path is None else f"'{self.keep.path}' holds"
        error.add_note(
            f"{where} the run up to {trajectory.time[-1]:g} fs; pass that trajectory as positions to go on."
        )

    def _run(self, progress: Callable[[SimulationProgress], None] | None) -> Trajectory:
        setup, steps = self.setup, self.setup.run.steps
        neighbors = self._neighbors(setup.positions, setup.cells, None)
        flows = setup.cell_velocities * setup.run.timestep
        reached = start(setup.system, setup.scales, setup.rest, setup.momenta, flows, neighbors)
        self.records.append(_first(reached.records, 1))
        if not reached.good:
            raise NonFiniteError(self._what_is_wrong(reached))
        reached, size = reached._replace(left=jnp.asarray(setup.run.every)), 1
        while self.done < steps:
            began = clock.monotonic()
            reached, complete = self._advance(reached, neighbors, size)
            if reached.stale:
                neighbors = self._renewed(reached, neighbors)
            elif not complete:
                raise NonFiniteError(self._what_is_wrong(reached), self.trajectory())
            elif progress is not None:
                progress(self._report())
            size = self._next_size(size, clock.monotonic() - began)
        return self.trajectory()

    def _advance(self, reached: Reached, neighbors: Neighbors | None, size: int) -> tuple[Reached, bool]:
        """Some records further; whether all of them were reached."""
        setup, every = self.setup, self.setup.run.every
        begun = every - int(reached.left)  # steps since the last record
        wanted = min(size, (setup.run.steps - self.done + begun) // every)
        reached = advance(
            setup.system,
            setup.scales,
            reached.state,
            reached.heat,
            neighbors,
            reached.left,
            jnp.asarray(every),
            jnp.asarray(wanted),
        )
        good = int(reached.good)
        if good:
            self.records.append(_first(reached.records, good))
        self.done += int(reached.steps)
        return reached, good == wanted

    def _next_size(self, size: int, duration: float) -> int:
        """Records until the host looks again: about a second's worth."""
        if duration < LOOK / 2:
            return min(2 * size, room(*self.setup.positions.shape[:2]))
        return max(size // 2, 1) if duration > 2 * LOOK else size

    # --- lists of neighbors

    def _neighbors(
        self, positions: np.ndarray, cells: np.ndarray, capacity: Capacity | None
    ) -> Neighbors | None:
        """A list for each replica, all of one shape, stacked; None for an energy that does not look at it."""
        if not self.setup.uses_neighbors:
            return None
        structure, potential = self.setup.system.structure, self.setup.system.potential
        cutoff, shortest = float(potential.cutoff), getattr(potential, "shortest_wave", np.inf)

        def find(capacity: Capacity | None) -> list[Neighbors]:
            places = zip(jnp.asarray(positions), jnp.asarray(cells), strict=True)
            frames = [structure.at(*place) for place in places]
            options = {"skin": self.skin, "capacity": capacity, "shortest_wave": shortest}
            return [find_neighbors(frame, cutoff, **options) for frame in frames]

        lists = find(capacity)
        shapes = {one.capacity for one in lists}
        if len(shapes) > 1:
            lists = find(Capacity(*(max(sizes) for sizes in zip(*shapes, strict=True))))
        return jax.tree.map(lambda *parts: jnp.stack(parts), *lists)

    def _renewed(self, reached: Reached, old: Neighbors | None) -> Neighbors | None:
        """Lists where the atoms are now, of the old shape if possible; a wider skin if a step uses it up."""
        assert old is not None
        if int(reached.steps) == 0:
            self._widen_skin(reached)
        waves = 0 if old.waves is None else old.waves.shape[1]
        shape = Capacity(old.i.shape[1], old.width, old.owner.shape[1], waves)
        cells = getattr(reached.state, "cell", self.setup.cells)
        return self._neighbors(np.asarray(reached.state.position), np.asarray(cells), shape)

    def _widen_skin(self, reached: Reached) -> None:
        cutoff = float(self.setup.system.potential.cutoff)
        if self.skin > cutoff:
            velocities = np.asarray(reached.state.momentum / reached.state.mass)
            v = np.linalg.norm(velocities, axis=-1)
            replica, atom = np.unravel_index(np.argmax(v), v.shape)
            timestep = self.setup.run.timestep
            raise NonFiniteError(
                f"atom {atom}{self.setup.of(int(replica))} moves {v[replica, atom]:.3g} Å in a step of "
                f"{timestep:g} fs, beyond its neighbors: take a smaller timestep, or start from a relaxed or "
                "equilibrated structure. `partial` of this error is the trajectory up to the record before.",
                self.trajectory(),
            )
        self.skin *= 2

    # --- results

    def trajectory(self) -> Trajectory:
        """What was recorded until now."""
        return self._trajectory(self.records, range(sum(len(part.potential) for part in self.records)))

    def _trajectory(self, parts: list[Record], numbers: range) -> Trajectory:
        setup, run = self.setup, self.setup.run
        record = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
        # kinetic energy: sum_a p_a² / 2 m_a, in u Å² / timestep²
        squares = record.momenta**2
        kinetic = 0.5 * np.einsum("...ac,a->...", squares, 1 / setup.masses) / setup.electronvolt
        structure = setup.system.structure
        fixed, cell = np.asarray(structure.fixed), setup.cells[0]
        flow = record.cell_velocity
        measured = {
            "positions": record.positions,
            "velocities": record.momenta / setup.masses[:, None] / run.timestep,
            "potential": record.potential,
            "kinetic": kinetic,
            "forces": record.forces / setup.electronvolt,
            "conserved": record.conserved,
            "stress": record.stress,
            "cell_velocity": None if flow is None else flow / run.timestep,
            "cell": record.cell,
        }
        replica = (slice(None), 0) if setup.single else slice(None)
        there = {name: value[replica] for name, value in measured.items() if value is not None}
        if record.cell is None and cell.any():
            there["cell"] = cell
        return Trajectory(
            **there,
            time=run.begun + np.asarray(numbers) * (run.every * run.timestep),
            masses=setup.masses,
            species=setup.species,
            temperature=run.temperature,
            timestep=run.timestep,
            friction=run.coupling.friction,
            seed=run.seed,
            pbc=structure.pbc,
            fixed=fixed if fixed.any() else None,
            topology=setup.topology,
            pressure=run.coupling.pressure,
            thermostat_time=run.coupling.thermostat_time,
        )

    def _report(self) -> SimulationProgress:
        last = jax.tree.map(lambda array: array[-1:], self.records[-1])
        now = self._trajectory([last], range(1))
        means = [float(value.mean()) for value in (now.potential, now.total, now.temperatures)]
        run = self.setup.run
        now_at = run.begun + self.done * run.timestep
        return SimulationProgress(self.done, run.steps, now_at, *means)

    def _what_is_wrong(self, reached: Reached) -> str:
        potential = np.asarray(reached.records.potential)[int(reached.good)]
        force = np.asarray(reached.state.force)
        lost = ~(np.isfinite(potential) & np.isfinite(force).all((1, 2)))
        replica = int(np.argmax(lost))
        of = self.setup.of(replica)
        atoms = np.flatnonzero(~np.isfinite(force[replica]).all(1)).tolist()
        if atoms:
            what = f"the force on atom {atoms[0]}{of} is not finite"
        else:
            what = f"the energy{of} is {potential[replica]}"
        timestep = self.setup.run.timestep
        if self.done == 0:
            return (
                f"{what} at the start. Start from an equilibrium frame: Å, atoms in the order of the "
                "training data, the molecule whole."
            )
        return (
            f"{what} at step {self.done} ({self.done * timestep:g} fs). Take a smaller timestep than "
            f"{timestep:g} fs, or start from an equilibrium frame. If neither helps, the atoms have left the "
            "region that the system was made for: look at `partial` of this error, the trajectory up to the "
            "record before."
        )


def _first(records: Record, n: int) -> Record:
    """n records, on the host."""
    return jax.tree.map(lambda array: np.array(array[:n]), records)
