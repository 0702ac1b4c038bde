"""The host's part of a simulation: how far to go next, lists of neighbors, what was recorded, and files.

Steps run compiled, all replicas at once. About once a second the host fetches the records, looks whether they
make sense, and tells the caller; now and then it writes down where the run stands.
"""

import dataclasses
import time as clock
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mdsens.dynamics.energies import InElectronvolts
from mdsens.dynamics.integrate import Reached, Record, advance, room, start
from mdsens.dynamics.setup import Setup
from mdsens.dynamics.steps import state_at_rest
from mdsens.dynamics.trajectory import Trajectory
from mdsens.dynamics.unfinished import Point, Unfinished, fingerprint
from mdsens.errors import CellCollapseError, InputError, NonFiniteError, TimestepError
from mdsens.io.files import check_free
from mdsens.io.frames import HDF5, check_ending
from mdsens.neighbors import Capacity, Neighbors, find_neighbors
from mdsens.units import BOLTZMANN

LOOK = 1.0  # s: about how often the host looks
MOST_SWELLING = 20.0  # factor of the volume, either way
FLATTEST = 0.25  # of the least height that the cell began with
NS_PER_DAY = 86400e-6  # of a femtosecond a second


class SimulationProgress(NamedTuple):
    """What a progress callback sees about once a second; energies and so on are means over the replicas."""

    step: int
    steps: int
    time: float  # fs
    potential: float  # eV
    total: float  # eV
    temperature: float  # K, of the kinetic energy
    pressure: float | None = None  # eV/Å³, of motion and potential; None without a cell
    volume: float | None = None  # Å³
    ns_per_day: float = 0.0  # of one replica


Callback = Callable[[SimulationProgress], None]


class Keep(NamedTuple):
    """Where a trajectory is written; nowhere if there is no path."""

    path: str | Path | None
    overwrite: bool
    resume: bool = False
    every: float = 60.0  # s between notes on where the run stands

    def check(self, replicas: int) -> None:
        """Raise before the work, if its result could not be written."""
        if self.path is None:
            if self.resume:
                raise InputError("resume=True goes on from what stands beside the output: name output=.")
            return
        if check_ending(self.path) not in HDF5 and replicas > 1:
            raise InputError(
                f"{replicas} runs into '{self.path}': only .h5 holds several. Name FILE.h5, or run one."
            )

    def write(self, trajectory: Trajectory, overwrite: bool = False) -> None:
        """Write, if there is a place for it."""
        if self.path is not None:
            trajectory.write(self.path, overwrite=self.overwrite or overwrite)


class _Stand(NamedTuple):
    """Where the run stands, consistently, whenever Ctrl-C comes."""

    reached: Reached
    neighbors: Neighbors | None
    done: int  # steps
    records: int
    skin: float  # Å, of the lists


@dataclasses.dataclass
class Simulation:
    """A run, from beginning to end."""

    setup: Setup
    keep: Keep

    def __post_init__(self) -> None:
        self.keep.check(len(self.setup.positions))
        self.skin = self.setup.run.skin
        self.records: list[Record] = []
        self.done = 0  # steps
        self.stand: _Stand | None = None
        path = self.keep.path
        self.unfinished = None if path is None else Unfinished(path, settings_of(self.setup))
        self.noted_at = self.looked_at = self.begun_at = clock.monotonic()
        self.begun_with = 0  # steps

    def run(self, progress: Callback | None) -> Trajectory:
        """From beginning to end, and into the file."""
        finished = self._finished()
        if finished is not None:
            return finished
        resumed = self._resume()
        if not resumed:
            self._check_free()
        try:
            trajectory = self._run(progress)
        except BaseException as error:  # Ctrl-C as well
            self._keep_what_was_reached(error, resumed)
            raise
        self.keep.write(trajectory, overwrite=resumed)
        if self.unfinished is not None:
            self.unfinished.remove()
        return trajectory

    # --- beginning, going on, ending early

    def _check_free(self) -> None:
        if self.keep.path is None or self.unfinished is None:
            return
        check_free(self.keep.path, self.keep.overwrite)
        self.unfinished.check_free(self.keep.overwrite)
        self.unfinished.remove()

    def _finished(self) -> Trajectory | None:
        """The trajectory, if all of this run was made before."""
        path, unfinished, run = self.keep.path, self.unfinished, self.setup.run
        if not self.keep.resume or path is None or unfinished is None or unfinished.state.exists():
            return None
        if not Path(path).exists() or check_ending(path) not in HDF5:
            return None
        there = Trajectory.from_hdf5(path)
        same = np.array_equal(
            there.positions[0], self.setup.positions[0 if self.setup.single else slice(None)]
        )
        whole = len(there.time) == run.steps // run.every + 1 and there.timestep == run.timestep
        return there if same and whole else None

    def _resume(self) -> bool:
        if not self.keep.resume or self.unfinished is None:
            return False
        state = state_at_rest(self.setup.rest, self.setup.scales)[0]
        heat = jnp.zeros(len(self.setup.positions))
        found = self.unfinished.read((state, heat, jnp.asarray(1)))
        if found is None:
            return False
        point, records = found
        if point.done > self.setup.run.steps:
            raise InputError(
                f"steps = {self.setup.run.steps}: the run in '{self.unfinished.folder}' has made "
                f"{point.done} already. Ask for more."
            )
        self.records, self.done, self.skin = [records], point.done, point.skin
        places = point.listed_positions, point.listed_cells
        neighbors = self._neighbors(*places, point.capacity)
        state, heat, left = point.parts
        zero, no = jnp.asarray(0), jnp.asarray(False)
        reached = Reached(state, heat, records, zero, left, zero, stale=no, counts=no)
        self.stand = _Stand(reached, neighbors, point.done, point.records, point.skin)
        return True

    def _note(self) -> None:
        """Write down where the run stands."""
        stand, unfinished = self.stand, self.unfinished
        if stand is None or unfinished is None:
            return
        lists = stand.neighbors
        shape = Capacity() if lists is None else _capacity(lists)
        places = (self.setup.positions, self.setup.cells) if lists is None else (lists.positions, lists.cell)
        parts = (stand.reached.state, stand.reached.heat, stand.reached.left)
        listed, cells = (np.asarray(place) for place in places)
        point = Point(parts, stand.done, stand.records, stand.skin, listed, cells, shape)
        unfinished.write(point, self._records_between(unfinished.written, stand.records))
        self.noted_at = clock.monotonic()

    def _records_between(self, first: int, last: int) -> Record | None:
        parts, passed = [], 0
        for part in self.records:
            n = len(part.potential)
            low, high = max(first - passed, 0), min(last - passed, n)
            if low < high:
                parts.append(jax.tree.map(lambda a, low=low, high=high: a[low:high], part))
            passed += n
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts) if parts else None

    def _keep_what_was_reached(self, error: BaseException, resumed: bool) -> None:
        if not self.done:
            return
        trajectory = self.trajectory()
        if getattr(error, "partial", None) is None:
            error.partial = trajectory  # pyright: ignore[reportAttributeAccessIssue]
        self.keep.write(trajectory, overwrite=resumed)
        where = "`partial` of this exception holds" if self.keep.path is None else f"'{self.keep.path}' holds"
        note = f"{where} the run up to {trajectory.time[-1]:g} fs; pass that trajectory as positions to go on"
        if isinstance(error, (NonFiniteError, CellCollapseError)):
            if self.unfinished is not None:
                self.unfinished.remove()  # what went wrong would go wrong again
        elif self.unfinished is not None:
            self._note()
            note += ", or call again with resume=True (--resume) to end with the bits of a run never cut off"
        error.add_note(f"{note}.")

    # --- steps

    def _begin(self) -> None:
        setup = self.setup
        neighbors = self._neighbors(setup.positions, setup.cells, None)
        flows = setup.cell_velocities * setup.run.timestep
        reached = start(setup.system, setup.scales, setup.rest, setup.momenta, flows, neighbors)
        self.records.append(_first(reached.records, 1))
        if not reached.good:
            raise NonFiniteError(self._what_is_wrong(reached))
        reached = reached._replace(left=jnp.asarray(setup.run.every))
        self.stand = _Stand(reached, neighbors, 0, 1, self.skin)

    def _run(self, progress: Callback | None) -> Trajectory:
        if self.stand is None:
            self._begin()
        assert self.stand is not None
        self.begun_at, self.begun_with = clock.monotonic(), self.done
        size = 1
        while self.done < self.setup.run.steps:
            began = clock.monotonic()
            complete = self._advance(size)
            reached, neighbors = self.stand.reached, self.stand.neighbors
            self._check_cell(reached)
            if reached.stale:
                neighbors = self._renewed(reached, neighbors)
                self.stand = self.stand._replace(neighbors=neighbors, skin=self.skin)
            elif not complete:
                raise NonFiniteError(self._what_is_wrong(reached), self.trajectory())
            else:
                size = self._next_size(size, clock.monotonic() - began)
            # lists may run out sooner than the records that were asked for are made
            if complete or clock.monotonic() - self.looked_at > LOOK:
                self._look(progress)
        return self.trajectory()

    def _advance(self, size: int) -> bool:
        """Some records further; whether all of them were reached."""
        assert self.stand is not None
        reached, neighbors = self.stand.reached, self.stand.neighbors
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
        good, done = int(reached.good), self.done + int(reached.steps)
        if good:
            self.records.append(_first(reached.records, good))
        self.stand = _Stand(reached, neighbors, done, self.stand.records + good, self.skin)
        self.done = done
        return good == wanted

    def _look(self, progress: Callback | None) -> None:
        """Whether all is well; tell the caller, and note where the run stands from time to time."""
        self.looked_at = clock.monotonic()
        self._check_energy()
        if progress is not None:
            progress(self._report())
        if self.unfinished is not None and clock.monotonic() - self.noted_at >= self.keep.every:
            self._note()

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
        # made where the atoms still are. How many steps the last call made is a matter of time.
        if np.array_equal(old.positions, reached.state.position):
            self._widen_skin(reached)
        cells = getattr(reached.state, "cell", self.setup.cells)
        return self._neighbors(np.asarray(reached.state.position), np.asarray(cells), _capacity(old))

    def _widen_skin(self, reached: Reached) -> None:
        cutoff = float(self.setup.system.potential.cutoff)
        if self.skin > cutoff:
            velocities = np.asarray(reached.state.momentum / reached.state.mass)
            v = np.linalg.norm(velocities, axis=-1)
            replica, atom = np.unravel_index(np.argmax(v), v.shape)
            timestep = self.setup.run.timestep
            raise TimestepError(
                f"atom {atom}{self.setup.of(int(replica))} moves {v[replica, atom]:.3g} Å in a step of "
                f"{timestep:g} fs, beyond its neighbors: take a smaller timestep, or start from a relaxed or "
                "equilibrated structure. `partial` of this error is the trajectory up to the record before.",
                self.trajectory(),
            )
        self.skin *= 2

    # --- what may go wrong

    def _check_energy(self) -> None:
        # An unstable integrator multiplies the energy at every step. What it conserves has then changed by
        # more than all the kinetic energy that there is, or was.
        setup, first, last = self.setup, self.records[0], self.records[-1]
        if isinstance(setup.system.potential, InElectronvolts):
            return  # forces that jump are one of the things that runs of flows are to show
        changed = np.abs(last.conserved[-1] - first.conserved[0])
        moving = np.maximum(self._kinetic(last)[-1], self._kinetic(first)[0])
        usual = 0.5 * max(setup.freedom, 1) * BOLTZMANN * max(setup.run.temperature or 0.0, 1.0)
        wrong = changed > np.maximum(moving, usual)
        if not wrong.any():
            return
        replica = int(np.argmax(wrong))
        timestep, hot = setup.run.timestep, self.trajectory().temperatures[-1]
        raise TimestepError(
            f"the conserved energy{setup.of(replica)} has changed by {changed[replica]:.3g} eV at step "
            f"{self.done}, more than the kinetic energy of all atoms, and the temperature is "
            f"{np.ravel(hot)[replica]:.4g} K: steps of {timestep:g} fs are too large for what moves here. "
            f"Take {timestep / 2:g} fs or less, or start from a relaxed structure; if that does not help, "
            "the energy jumps (cut=Smooth() makes a pair potential smooth). `partial` of this error is the "
            "trajectory.",
            self.trajectory(),
        )

    def _kinetic(self, record: Record) -> np.ndarray:
        """sum_a p_a² / 2 m_a of the records, eV."""
        squares = np.einsum("...ac,a->...", record.momenta**2, 1 / self.setup.masses)
        return 0.5 * squares / self.setup.electronvolt

    def _check_cell(self, reached: Reached) -> None:
        if not hasattr(reached.state, "cell"):
            return
        first, last = self.setup.cells, np.asarray(reached.state.cell)
        if not np.isfinite(last).all():
            return  # the energy is not finite either
        swelling = _volumes(last) / _volumes(first)
        flatness = _heights(last).min(1) / _heights(first).min(1)
        lost = (swelling > MOST_SWELLING) | (swelling < 1 / MOST_SWELLING)
        for replica in np.flatnonzero(lost | (flatness < FLATTEST)):
            what = (
                f"the volume{self.setup.of(int(replica))} is {swelling[replica]:.3g} times that of the start"
            )
            why = (
                "At this temperature and pressure the structure evaporates, or its potential does not hold "
                "it. Raise the pressure, lower the temperature, or hold the cell (langevin, nvt_nose_hoover)."
            )
            if not lost[replica]:
                what = f"the cell{self.setup.of(int(replica))} has become flat"
                why = (
                    "What resists no shear, as a liquid, keeps the shape of its cell with cell='isotropic' "
                    "alone."
                )
            raise CellCollapseError(
                f"{what} at step {self.done}. {why} `partial` of this error is the trajectory.",
                self.trajectory(),
            )

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

    # --- results

    def trajectory(self) -> Trajectory:
        """What was recorded until now."""
        return self._trajectory(self.records, range(sum(len(part.potential) for part in self.records)))

    def _trajectory(self, parts: list[Record], numbers: range) -> Trajectory:
        setup, run = self.setup, self.setup.run
        record = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
        structure = setup.system.structure
        fixed, cell = np.asarray(structure.fixed), setup.cells[0]
        flow = record.cell_velocity
        measured = {
            "positions": record.positions,
            "velocities": record.momenta / setup.masses[:, None] / run.timestep,
            "potential": record.potential,
            "kinetic": self._kinetic(record),
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
            friction=run.environment.friction,
            seed=run.seed,
            pbc=structure.pbc,
            fixed=fixed if fixed.any() else None,
            topology=setup.topology,
            pressure=run.environment.pressure,
            thermostat_time=run.environment.thermostat_time,
        )

    def _report(self) -> SimulationProgress:
        last = jax.tree.map(lambda array: array[-1:], self.records[-1])
        now = self._trajectory([last], range(1))
        potential, total, hot = (float(of.mean()) for of in (now.potential, now.total, now.temperatures))
        pressure = volume = None
        if now.stress is not None:
            pressure = float(np.trace(now.pressures, axis1=-2, axis2=-1).mean() / 3)
            volume = float(now.volumes.mean())
        run = self.setup.run
        now_at = run.begun + self.done * run.timestep
        passed = max(clock.monotonic() - self.begun_at, 1e-9)
        speed = (self.done - self.begun_with) * run.timestep / passed * NS_PER_DAY
        return SimulationProgress(
            self.done, run.steps, now_at, potential, total, hot, pressure, volume, speed
        )


def settings_of(setup: Setup) -> dict[str, Any]:
    """What decides how a run goes, as numbers and texts."""
    run, structure = setup.run, setup.system.structure
    environment = {name: value for name, value in vars(run.environment).items() if name != "cell"}
    fixed = np.asarray(structure.fixed)
    atoms = (structure.species, setup.masses, fixed, setup.positions, setup.velocities, setup.cells)
    potential = setup.system.potential
    numbers = jax.tree.leaves(eqx.filter(potential, eqx.is_array))
    return {
        "timestep": run.timestep,
        "record_every": run.every,
        "temperature": run.temperature,
        **environment,
        "seed": run.seed,
        "skin": run.skin,
        "replicas": None if setup.single else len(setup.positions),
        "strains": fingerprint(setup.strains),
        "start": fingerprint(*atoms),
        "potential": f"{type(potential).__name__} {fingerprint(*numbers)}",
    }


def _first(records: Record, n: int) -> Record:
    """n records, on the host."""
    return jax.tree.map(lambda array: np.array(array[:n]), records)


def _capacity(lists: Neighbors) -> Capacity:
    """Shapes of stacked lists."""
    waves = 0 if lists.waves is None else lists.waves.shape[1]
    return Capacity(lists.i.shape[1], lists.width, lists.owner.shape[1], waves)


def _volumes(cells: np.ndarray) -> np.ndarray:
    return np.abs(np.linalg.det(_filled(cells)))


def _heights(cells: np.ndarray) -> np.ndarray:
    return 1 / np.linalg.norm(np.linalg.inv(_filled(cells)), axis=1)


def _filled(cells: np.ndarray) -> np.ndarray:
    """Cells with a vector in the place of each one that is missing."""
    from mdsens.structure import complete_cell

    return np.stack([complete_cell(cell) for cell in cells])
