"""The host's part of a simulation: how far the device goes next, and when lists of neighbors are made anew.

Steps run compiled, all replicas at once. About once a second the host fetches the records, looks whether they
make sense (`soundness`), and tells the caller; now and then it writes down where the run stands (`notes`).
"""

import time as clock

import jax.numpy as jnp
import numpy as np

from mdsens.dynamics.integrate import Reached, advance, room, start
from mdsens.dynamics.lists import shape_of, stacked_lists
from mdsens.dynamics.notes import Keep, Notes, Stand
from mdsens.dynamics.recorded import Callback, Recorded
from mdsens.dynamics.setup import Setup
from mdsens.dynamics.soundness import check_cell, check_energy, flies_apart, not_finite
from mdsens.dynamics.trajectory import Trajectory
from mdsens.neighbors import Capacity, Neighbors

LOOK = 1.0  # s: about how often the host looks


class Simulation:
    """A run, from beginning to end.

    Args:
        setup: what it starts from.
        keep: where its trajectory goes.
    """

    def __init__(self, setup: Setup, keep: Keep):
        self.setup = setup
        self.notes = Notes(setup, keep)
        self.recorded = Recorded(setup)
        self.stand: Stand | None = None
        self.looked_at = self.begun_at = clock.monotonic()
        self.begun_with = 0  # steps

    @property
    def done(self) -> int:
        """Steps."""
        return 0 if self.stand is None else self.stand.done

    def run(self, progress: Callback | None) -> Trajectory:
        """From beginning to end, and into the file."""
        finished = self.notes.finished()
        if finished is not None:
            return finished
        self.stand = self.notes.begin(self.recorded)
        try:
            trajectory = self._run(progress)
        except BaseException as error:  # Ctrl-C as well
            self.notes.cut_off(error, self.stand, self.recorded)
            raise
        self.notes.end(trajectory)
        return trajectory

    def _begin(self) -> Stand:
        setup, skin = self.setup, self.setup.run.skin
        neighbors = self._neighbors(setup.positions, setup.cells, skin, None)
        flows = setup.cell_velocities * setup.run.timestep
        reached = start(setup.system, setup.scales, setup.rest, setup.momenta, flows, neighbors)
        if not reached.good:
            raise not_finite(self.recorded, reached, 0)
        self.recorded.add(reached.records, 1)
        reached = reached._replace(left=jnp.asarray(setup.run.every))
        return Stand(reached, neighbors, 0, 1, skin)

    def _run(self, progress: Callback | None) -> Trajectory:
        stand = self._begin() if self.stand is None else self.stand
        self.stand = stand
        self.begun_at, self.begun_with = clock.monotonic(), stand.done
        size = 1
        while stand.done < self.setup.run.steps:
            began = clock.monotonic()
            stand, complete = self._advanced(stand, size)
            self.stand = stand
            check_cell(self.recorded, stand.reached, stand.done)
            if stand.reached.stale:
                stand = self._renewed(stand)
                self.stand = stand
            elif not complete:
                raise not_finite(self.recorded, stand.reached, stand.done)
            else:
                size = self._next_size(size, clock.monotonic() - began)
            # lists may run out sooner than the records that were asked for are made
            if complete or clock.monotonic() - self.looked_at > LOOK:
                self._look(stand, progress)
        return self.recorded.trajectory()

    def _advanced(self, stand: Stand, size: int) -> tuple[Stand, bool]:
        """Some records further; whether all of them were reached."""
        setup, every = self.setup, self.setup.run.every
        before = stand.reached
        begun = every - int(before.left)  # steps since the last record
        wanted = min(size, (setup.run.steps - stand.done + begun) // every)
        reached = advance(
            setup.system,
            setup.scales,
            before.state,
            before.heat,
            stand.neighbors,
            before.left,
            jnp.asarray(every),
            jnp.asarray(wanted),
        )
        good = int(reached.good)
        done = stand.done + int(reached.steps)
        self.recorded.add(reached.records, good)
        after = stand._replace(reached=reached, done=done, records=stand.records + good)
        return after, good == wanted

    def _look(self, stand: Stand, progress: Callback | None) -> None:
        """Whether all is well; tell the caller, and note where the run stands from time to time."""
        self.looked_at = clock.monotonic()
        check_energy(self.recorded, stand.done)
        if progress is not None:
            progress(self.recorded.progress(stand.done, self.begun_with, self.begun_at))
        self.notes.now_and_then(stand, self.recorded)

    def _next_size(self, size: int, duration: float) -> int:
        """Records until the host looks again: about a second's worth."""
        if duration < LOOK / 2:
            replicas, atoms, _ = self.setup.positions.shape
            return min(2 * size, room(replicas, atoms))
        return max(size // 2, 1) if duration > 2 * LOOK else size

    # --- lists of neighbors

    def _neighbors(
        self, positions: np.ndarray, cells: np.ndarray, skin: float, capacity: Capacity | None
    ) -> Neighbors | None:
        return stacked_lists(self.setup, positions, cells, skin, capacity)

    def _renewed(self, stand: Stand) -> Stand:
        """Lists where the atoms are now, of the old shape if possible; a wider skin if a step uses it up."""
        old, reached, skin = stand.neighbors, stand.reached, stand.skin
        assert old is not None
        # made where the atoms still are. How many steps the last call made is a matter of time.
        if np.array_equal(old.positions, reached.state.position):
            skin = self._wider_skin(skin, reached)
        cells = getattr(reached.state, "cell", self.setup.cells)
        positions = np.asarray(reached.state.position)
        neighbors = self._neighbors(positions, np.asarray(cells), skin, shape_of(old))
        return stand._replace(neighbors=neighbors, skin=skin)

    def _wider_skin(self, skin: float, reached: Reached) -> float:
        cutoff = float(self.setup.system.potential.cutoff)
        if skin > cutoff:
            raise flies_apart(self.recorded, reached)
        return 2 * skin
