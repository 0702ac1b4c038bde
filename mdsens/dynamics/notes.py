"""What a run leaves on disk: its trajectory in the end, and notes on where it stands until then.

A run that was cut off goes on from its notes, and ends with the bits of one that never was.
"""

import time as clock
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from mdsens.arrays import fingerprint
from mdsens.dynamics.integrate import Reached
from mdsens.dynamics.lists import shape_of, stacked_lists
from mdsens.dynamics.recorded import Recorded
from mdsens.dynamics.setup import Setup
from mdsens.dynamics.steps import state_at_rest
from mdsens.dynamics.trajectory import Trajectory
from mdsens.dynamics.unfinished import Point, Unfinished
from mdsens.errors import CellCollapseError, InputError, NonFiniteError
from mdsens.io.files import check_free
from mdsens.io.frames import HDF5, check_ending
from mdsens.neighbors import Neighbors


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


class Stand(NamedTuple):
    """Where the run stands, consistently, whenever Ctrl-C comes."""

    reached: Reached
    neighbors: Neighbors | None
    done: int  # steps
    records: int
    skin: float  # Å, of the lists


class Notes:
    """The files of one run; none of its methods does anything where nothing is to be kept.

    Args:
        setup: what the run starts from.
        keep: where its files are.
    """

    def __init__(self, setup: Setup, keep: Keep):
        keep.check(len(setup.positions))
        self.setup, self.keep = setup, keep
        self.resumed = False
        self.unfinished = None if keep.path is None else Unfinished(keep.path, settings_of(setup))
        self.written_at = clock.monotonic()

    # --- before the run

    def finished(self) -> Trajectory | None:
        """The trajectory, if all of this run was made before."""
        path, unfinished, run = self.keep.path, self.unfinished, self.setup.run
        if not self.keep.resume or path is None or unfinished is None or unfinished.state.exists():
            return None
        if not Path(path).exists() or check_ending(path) not in HDF5:
            return None
        there = Trajectory.from_hdf5(path)
        start = self.setup.positions[0] if self.setup.single else self.setup.positions
        same = np.array_equal(there.positions[0], start) and there.timestep == run.timestep
        whole = len(there.time) == run.steps // run.every + 1
        return there if same and whole else None

    def begin(self, recorded: Recorded) -> Stand | None:
        """Where to go on, its records put into `recorded`; None for a run that begins here.

        Raises:
            InputError: another run stands here, or this one has gone further than it is to go.
            OutputExistsError: there is a file, or a run that was cut off, and neither is to be replaced.
            FileFormatError: the notes are damaged.
        """
        stand = self._read(recorded) if self.keep.resume else None
        self.resumed = stand is not None
        if stand is None and self.keep.path is not None and self.unfinished is not None:
            check_free(self.keep.path, self.keep.overwrite)
            self.unfinished.check_free(self.keep.overwrite)
            self.unfinished.remove()
        return stand

    def _read(self, recorded: Recorded) -> Stand | None:
        unfinished, setup = self.unfinished, self.setup
        if unfinished is None:
            return None
        state, _ = state_at_rest(setup.rest, setup.scales)
        heat, one = jnp.zeros(len(setup.positions)), jnp.asarray(1)
        found = unfinished.read((state, heat, one))
        if found is None:
            return None
        point, records = found
        if point.done > setup.run.steps:
            raise InputError(
                f"steps = {setup.run.steps}: the run in '{unfinished.folder}' has made "
                f"{point.done} already. Ask for more."
            )
        recorded.parts = [records]
        lists = stacked_lists(setup, point.listed_positions, point.listed_cells, point.skin, point.capacity)
        state, heat, left = point.parts
        zero, no = jnp.asarray(0), jnp.asarray(False)
        reached = Reached(state, heat, records, zero, left, zero, stale=no, counts=no)
        return Stand(reached, lists, point.done, point.records, point.skin)

    # --- meanwhile

    def now_and_then(self, stand: Stand, recorded: Recorded) -> None:
        """Write down where the run stands, if the last time was long ago."""
        if clock.monotonic() - self.written_at >= self.keep.every:
            self.write(stand, recorded)

    def write(self, stand: Stand, recorded: Recorded) -> None:
        """Write down where the run stands."""
        unfinished, lists = self.unfinished, stand.neighbors
        if unfinished is None:
            return
        places = self.setup.positions, self.setup.cells
        if lists is not None:
            places = lists.positions, lists.cell
        reached = stand.reached
        parts = (reached.state, reached.heat, reached.left)
        listed, cells = (np.asarray(place) for place in places)
        point = Point(parts, stand.done, stand.records, stand.skin, listed, cells, shape_of(lists))
        unfinished.write(point, recorded.between(unfinished.written, stand.records))
        self.written_at = clock.monotonic()

    # --- in the end

    def end(self, trajectory: Trajectory) -> None:
        """Write the whole run, and leave no notes."""
        self.keep.write(trajectory, overwrite=self.resumed)
        if self.unfinished is not None:
            self.unfinished.remove()

    def cut_off(self, error: BaseException, stand: Stand | None, recorded: Recorded) -> None:
        """Keep what was reached when the run ended early, in the file and with the error."""
        if stand is None or not stand.done:
            return
        trajectory = recorded.trajectory()
        if getattr(error, "partial", None) is None:
            error.partial = trajectory  # pyright: ignore[reportAttributeAccessIssue]
        self.keep.write(trajectory, overwrite=self.resumed)
        where = "`partial` of this exception holds" if self.keep.path is None else f"'{self.keep.path}' holds"
        note = f"{where} the run up to {trajectory.time[-1]:g} fs; pass that trajectory as positions to go on"
        if self.unfinished is not None:
            if isinstance(error, (NonFiniteError, CellCollapseError)):
                self.unfinished.remove()  # what went wrong would go wrong again
            else:
                self.write(stand, recorded)
                note += (
                    ", or call again with resume=True (--resume) to end with the bits of a run never cut off"
                )
        error.add_note(f"{note}.")


def settings_of(setup: Setup) -> dict[str, Any]:
    """What decides how a run goes, as numbers and texts."""
    run, structure = setup.run, setup.system.structure
    environment = {name: value for name, value in vars(run.environment).items() if name != "cell"}
    settings: dict[str, Any] = {
        "timestep": run.timestep,
        "record_every": run.every,
        "temperature": run.temperature,
        **environment,
        "seed": run.seed,
        "skin": run.skin,
    }
    settings["replicas"] = None if setup.single else len(setup.positions)
    settings["strains"] = _mark(setup.strains)
    fixed = np.asarray(structure.fixed)
    moving = (setup.positions, setup.velocities, setup.cells)
    # those without charges and columns are told apart as ever, and go on with runs that were cut off before
    charges = () if structure.charges is None else (structure.charges,)
    carried = (*charges, *structure.columns.values())
    settings["start"] = _mark(structure.species, setup.masses, fixed, *moving, *carried)
    potential = setup.system.potential
    numbers = jax.tree.leaves(eqx.filter(potential, eqx.is_array))
    settings["potential"] = f"{type(potential).__name__} {_mark(*numbers)}"
    return settings


def _mark(*arrays: Any) -> str:
    return fingerprint(arrays)[:16]
