"""What may go wrong in a run: energies that run away, cells that collapse, numbers that are not finite.

Each check says what happened, to which atom or replica, and at which step; the trajectory up to there goes
with the error.
"""

import numpy as np
from jaxtyping import Float

from mdsens.dynamics.energies import InElectronvolts
from mdsens.dynamics.integrate import Reached
from mdsens.dynamics.recorded import Recorded
from mdsens.dynamics.setup import Setup
from mdsens.errors import CellCollapseError, NonFiniteError, TimestepError
from mdsens.structure import complete_cell
from mdsens.units import BOLTZMANN

MOST_SWELLING = 20.0  # factor of the volume, either way
FLATTEST = 0.25  # of the least height that the cell began with


def check_energy(recorded: Recorded, done: int) -> None:
    """Raise where the conserved energy runs away.

    Args:
        done: steps.
    Raises:
        TimestepError: it has changed by more than all the kinetic energy that there is, or was.
    """
    # An unstable integrator multiplies the energy at every step.
    setup, first, last = recorded.setup, recorded.first, recorded.last
    if isinstance(setup.system.potential, InElectronvolts):
        return  # forces that jump are one of the things that runs of flows are to show
    changed = np.abs(last.conserved[-1] - first.conserved[0])
    moving = np.maximum(recorded.kinetic(last)[-1], recorded.kinetic(first)[0])
    wrong = changed > np.maximum(moving, _usual_kinetic(setup))
    if not wrong.any():
        return
    replica = int(np.argmax(wrong))
    timestep = setup.run.timestep
    trajectory = recorded.trajectory()
    hot = np.ravel(trajectory.temperatures[-1])[replica]
    raise TimestepError(
        f"the conserved energy{setup.of(replica)} has changed by {changed[replica]:.3g} eV at step "
        f"{done}, more than the kinetic energy of all atoms, and the temperature is "
        f"{hot:.4g} K: steps of {timestep:g} fs are too large for what moves here. "
        f"Take {timestep / 2:g} fs or less, or start from a relaxed structure; if that does not help, "
        "the energy jumps (cut=Smooth() makes a pair potential smooth). `partial` of this error is the "
        "trajectory.",
        trajectory,
    )


def _usual_kinetic(setup: Setup) -> float:
    temperature = max(setup.run.temperature or 0.0, 1.0)
    return 0.5 * max(setup.freedom, 1) * BOLTZMANN * temperature


def check_cell(recorded: Recorded, reached: Reached, done: int) -> None:
    """Raise where a cell that moves is lost.

    Raises:
        CellCollapseError: its volume is many times larger or smaller than it began, or it is flat.
    """
    setup = recorded.setup
    if not hasattr(reached.state, "cell"):
        return
    first, last = setup.cells, np.asarray(reached.state.cell)
    if not np.isfinite(last).all():
        return  # the energy is not finite either
    swelling = _volumes(last) / _volumes(first)
    flatness = _heights(last).min(1) / _heights(first).min(1)
    lost = (swelling > MOST_SWELLING) | (swelling < 1 / MOST_SWELLING)
    wrong = np.flatnonzero(lost | (flatness < FLATTEST))
    if not len(wrong):
        return
    replica = int(wrong[0])
    what, why = _flat(setup, replica)
    if lost[replica]:
        what, why = _swollen(setup, replica, swelling[replica])
    raise CellCollapseError(
        f"{what} at step {done}. {why} `partial` of this error is the trajectory.", recorded.trajectory()
    )


def _swollen(setup: Setup, replica: int, swelling: float) -> tuple[str, str]:
    what = f"the volume{setup.of(replica)} is {swelling:.3g} times that of the start"
    why = (
        "At this temperature and pressure the structure evaporates, or its potential does not hold "
        "it. Raise the pressure, lower the temperature, or hold the cell (langevin, nvt_nose_hoover)."
    )
    return what, why


def _flat(setup: Setup, replica: int) -> tuple[str, str]:
    what = f"the cell{setup.of(replica)} has become flat"
    why = "What resists no shear, as a liquid, keeps the shape of its cell with cell='isotropic' alone."
    return what, why


def flies_apart(recorded: Recorded, reached: Reached) -> TimestepError:
    """The error of a step that leads an atom beyond its neighbors, however wide the skin of the list."""
    setup, timestep = recorded.setup, recorded.setup.run.timestep
    velocities = np.asarray(reached.state.momentum / reached.state.mass)
    v = np.linalg.norm(velocities, axis=-1)
    replica, atom = np.unravel_index(np.argmax(v), v.shape)
    return TimestepError(
        f"atom {atom}{setup.of(int(replica))} moves {v[replica, atom]:.3g} Å in a step of "
        f"{timestep:g} fs, beyond its neighbors: take a smaller timestep, or start from a relaxed or "
        "equilibrated structure. `partial` of this error is the trajectory up to the record before.",
        recorded.trajectory(),
    )


def not_finite(recorded: Recorded, reached: Reached, done: int) -> NonFiniteError:
    """The error of a run whose energy or forces are no numbers any more."""
    what, timestep = _what_is_not_finite(recorded.setup, reached), recorded.setup.run.timestep
    if done == 0:
        message = (
            f"{what} at the start. Start from an equilibrium frame: Å, atoms in the order of the "
            "training data, the molecule whole."
        )
        # where the start itself failed there is nothing else to show
        return NonFiniteError(message, recorded.trajectory() if len(recorded) else None)
    return NonFiniteError(
        f"{what} at step {done} ({done * timestep:g} fs). Take a smaller timestep than "
        f"{timestep:g} fs, or start from an equilibrium frame. If neither helps, the atoms have left the "
        "region that the system was made for: look at `partial` of this error, the trajectory up to the "
        "record before.",
        recorded.trajectory(),
    )


def _what_is_not_finite(setup: Setup, reached: Reached) -> str:
    potential = np.asarray(reached.records.potential)[int(reached.good)]
    force = np.asarray(reached.state.force)
    lost = ~(np.isfinite(potential) & np.isfinite(force).all((1, 2)))
    replica = int(np.argmax(lost))
    of = setup.of(replica)
    atoms = np.flatnonzero(~np.isfinite(force[replica]).all(1))
    if len(atoms):
        return f"the force on atom {atoms[0]}{of} is not finite"
    return f"the energy{of} is {potential[replica]}"


def _volumes(cells: Float[np.ndarray, "replicas 3 3"]) -> Float[np.ndarray, "replicas"]:
    return np.abs(np.linalg.det(_filled(cells)))


def _heights(cells: Float[np.ndarray, "replicas 3 3"]) -> Float[np.ndarray, "replicas 3"]:
    return 1 / np.linalg.norm(np.linalg.inv(_filled(cells)), axis=1)


def _filled(cells: np.ndarray) -> np.ndarray:
    """Cells with a vector in the place of each one that is missing."""
    return np.stack([complete_cell(cell) for cell in cells])
