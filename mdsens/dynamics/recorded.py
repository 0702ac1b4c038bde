"""What a run recorded, in pieces as the device gave them: as a trajectory, and as progress."""

import time as clock
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from mdsens.dynamics.integrate import Record
from mdsens.dynamics.setup import Setup
from mdsens.dynamics.trajectory import Trajectory

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


class Recorded:
    """The records of one run, on the host.

    Args:
        setup: what the run started from.
    """

    def __init__(self, setup: Setup):
        self.setup = setup
        self.parts: list[Record] = []

    def __len__(self) -> int:
        return sum(len(part.potential) for part in self.parts)

    @property
    def first(self) -> Record:
        """The piece that begins with the start."""
        return self.parts[0]

    @property
    def last(self) -> Record:
        """The piece that ends with the latest record."""
        return self.parts[-1]

    def add(self, records: Record, n: int) -> None:
        """Take the first n over from the device."""
        if n:
            first = _cut(records, 0, n)
            self.parts.append(jax.tree.map(np.array, first))

    def between(self, first: int, last: int) -> Record | None:
        """Records from `first` up to `last`, without it; None if there are none."""
        found, passed = [], 0
        for part in self.parts:
            n = len(part.potential)
            low = max(first - passed, 0)
            high = min(last - passed, n)
            if low < high:
                found.append(_cut(part, low, high))
            passed += n
        return _joined(found) if found else None

    def kinetic(self, record: Record) -> Float[np.ndarray, "records replicas"]:
        """sum_a p_a² / 2 m_a, eV."""
        squares = np.einsum("...ac,a->...", record.momenta**2, 1 / self.setup.masses)
        return 0.5 * squares / self.setup.electronvolt

    def trajectory(self) -> Trajectory:
        """What was recorded until now."""
        return self._trajectory(_joined(self.parts), range(len(self)))

    def latest(self) -> Trajectory:
        """The last record alone; its time is not known."""
        last = self.last
        n = len(last.potential)
        return self._trajectory(_cut(last, n - 1, n), range(1))

    def progress(self, done: int, begun_with: int, begun_at: float) -> SimulationProgress:
        """What a caller sees.

        Args:
            done: steps. begun_with: of them, those made before this process.
            begun_at: seconds of the clock when it began.
        """
        now, run = self.latest(), self.setup.run
        passed = max(clock.monotonic() - begun_at, 1e-9)
        fs_per_second = (done - begun_with) * run.timestep / passed
        pressure = volume = None
        if now.stress is not None:
            pressure = float(np.trace(now.pressures, axis1=-2, axis2=-1).mean() / 3)
            volume = float(now.volumes.mean())
        return SimulationProgress(
            step=done,
            steps=run.steps,
            time=run.begun + done * run.timestep,
            potential=float(now.potential.mean()),
            total=float(now.total.mean()),
            temperature=float(now.temperatures.mean()),
            pressure=pressure,
            volume=volume,
            ns_per_day=fs_per_second * NS_PER_DAY,
        )

    def _trajectory(self, record: Record, numbers: range) -> Trajectory:
        setup, run = self.setup, self.setup.run
        environment, structure = run.environment, setup.system.structure
        fixed = np.asarray(structure.fixed)
        interval = run.every * run.timestep
        return Trajectory(
            **self._measured(record),
            time=run.begun + np.asarray(numbers) * interval,
            masses=setup.masses,
            species=setup.species,
            temperature=run.temperature,
            timestep=run.timestep,
            friction=environment.friction,
            seed=run.seed,
            pbc=structure.pbc,
            fixed=fixed if fixed.any() else None,
            topology=setup.topology,
            pressure=environment.pressure,
            thermostat_time=environment.thermostat_time,
            charges=None if structure.charges is None else np.asarray(structure.charges),
            columns={name: np.asarray(values) for name, values in structure.columns.items()},
        )

    def _measured(self, record: Record) -> dict[str, np.ndarray]:
        """The records in eV, Å and fs; without an axis of replicas where there is one run."""
        setup, timestep = self.setup, self.setup.run.timestep
        flow, cell = record.cell_velocity, setup.cells[0]
        measured = {
            "positions": record.positions,
            "velocities": record.momenta / setup.masses[:, None] / timestep,
            "potential": record.potential,
            "kinetic": self.kinetic(record),
            "forces": record.forces / setup.electronvolt,
            "conserved": record.conserved,
            "stress": record.stress,
            "cell_velocity": None if flow is None else flow / timestep,
            "cell": record.cell,
        }
        replica = (slice(None), 0) if setup.single else slice(None)
        there = {name: value[replica] for name, value in measured.items() if value is not None}
        if record.cell is None and cell.any():
            there["cell"] = cell
        return there


def _cut(record: Record, low: int, high: int) -> Record:
    return jax.tree.map(lambda array: array[low:high], record)


def _joined(parts: list[Record]) -> Record:
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
