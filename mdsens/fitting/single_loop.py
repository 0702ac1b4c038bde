"""Parameters and walkers that move together: a fit to averages without ever waiting for an ensemble.

Fits to averages nest two loops: parameters, and for each of them a sampling that settles. Here both take
small steps in turn. Walkers x_i follow Langevin's equation under the parameters of the moment, and the
parameters follow the gradient that the walkers show, by fluctuations,

    <O> = mean O(x_i),      J = <dO/dtheta> - cov(O, dU/dtheta) / kT.

Both means are kept with a memory, m <- m + (now - m) / min(t, horizon), for a hundred walkers are few. The
step is that of Gauss and Newton on the residuals r = (<O> - target) / tolerance, a share `rate` of it,

    z <- z - rate (J^T J + damping)^(-1) J^T r.

What walkers show belongs to the parameters of a while ago. How far they lag is seen in two numbers: the share
of the walkers of the last updates that would count if they were reweighted to the parameters of now, and the
change of <O> when the parameters rest at the end and the walkers go on (the hysteresis).

Source: Implicit Diffusion, Marion, Korba, Bartlett, Blondel, De Bortoli, Doucet, Llinares-López, Paquette,
    Berthet, arXiv:2402.05468 (2024); the step in place of their gradient descent is Gauss's and Newton's.
"""

import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mdsens.checks import number, whole
from mdsens.dynamics import Trajectory, langevin, npt
from mdsens.ensembles.correlation import standard_errors
from mdsens.errors import InputError
from mdsens.fitting.space import ParameterSpace
from mdsens.fitting.thermal_targets import ThermalTargets
from mdsens.potentials.base import Potential
from mdsens.precision import require_x64
from mdsens.thermal.ensemble import Ensemble
from mdsens.thermal.frames import Frames

DAMPING = 1e-3  # of the largest eigenvalue of J^T J: directions that walkers do not see stay where they are
LONGEST = 0.1  # change of a variable in one update, about that of ln(theta)
LAGGING = 0.5  # share of the walkers below which they lag


class LoopProgress(NamedTuple):
    """What a callback sees after each update.

    Attributes:
        update: how many were made. updates: of how many.
        values: averages with their memory, in the order of the targets.
        parameters: values by flat name.
        share: of the walkers of the last updates that count at these parameters.
    """

    update: int
    updates: int
    values: Float[np.ndarray, " targets"]
    parameters: dict[str, float]
    share: float


class SingleLoop(NamedTuple):
    """What parameters and walkers came to.

    Attributes:
        potential: with the mean parameters of the last third of the updates.
        names: of the variables; path: their values after each update.
        averages: after each update, with memory, in the order of the targets.
        shares: of the walkers of the last updates that count, after each update.
        settled: averages while the parameters rested at the end; settled_errors: their standard errors.
        hysteresis: settled less moving averages, in tolerances.
        force_calls: energies with forces of one structure, all walkers.
        targets: names of the numbers.
    """

    potential: Potential
    names: tuple[str, ...]
    path: Float[np.ndarray, "updates variables"]
    averages: Float[np.ndarray, "updates targets"]
    shares: Float[np.ndarray, " updates"]
    settled: Float[np.ndarray, " targets"]
    settled_errors: Float[np.ndarray, " targets"]
    hysteresis: Float[np.ndarray, " targets"]
    force_calls: int
    targets: tuple[str, ...]

    @property
    def lags(self) -> bool:
        """Whether walkers could not follow: the parameters moved too fast."""
        return bool(self.shares.min() < LAGGING)

    @property
    def notes(self) -> list[str]:
        """What to know about it, in words."""
        lines = []
        if self.lags:
            k = int(self.shares.argmin())
            lines.append(
                f"walkers lag: after update {k + 1} only {100 * self.shares[k]:.0f} % of those of the last "
                f"updates count (wanted: {100 * LAGGING:.0f} %). Lower rate, or raise steps_per_update."
            )
        far = np.abs(self.hysteresis)
        if far.max() > 1:
            j = int(far.argmax())
            lines.append(
                f"when the parameters rest, {self.targets[j]} moves on by {self.hysteresis[j]:.1f} "
                "tolerances: the loop had not settled. Make more updates, or lower rate."
            )
        return lines


def single_loop(
    start: Potential | ParameterSpace,
    targets: ThermalTargets,
    *,
    updates: int = 200,
    steps_per_update: int = 20,
    rate: float = 0.1,
    horizon: int = 20,
    walkers: int = 16,
    settle: int = 500,
    rest: int = 50,
    timestep: float = 1.0,
    friction: float = 5e-3,
    seed: int = 0,
    progress: Callable[[LoopProgress], None] | None = None,
) -> SingleLoop:
    """Fit parameters to averages while the walkers move.

    Args:
        start: a parameter space, or a potential, of which all parameters are then free.
        targets: structure, temperature, pressure and what the averages should be.
        updates: of the parameters.
        steps_per_update: steps of the walkers between two updates.
        rate: share of a step of Gauss and Newton that each update takes.
        horizon: updates that the averages remember.
        walkers: replicas of the structure.
        settle: steps before the first update.
        rest: updates' worth of steps at the end, in which the parameters stay.
        timestep: fs. friction: 1/fs.
        seed: of velocities and noise.
        progress: called after each update.
    Raises:
        InputError: numbers that do not fit, unknown observables.
        NonFiniteError, TimestepError, CellCollapseError: as of `mdsens.dynamics`.
    """
    require_x64()
    space = start if isinstance(start, ParameterSpace) else ParameterSpace.of(start)
    if not isinstance(targets, ThermalTargets):
        raise InputError("targets of a single loop are ThermalTargets(structure, temperature, [...]).")
    targets.check(space.potential)
    count = whole("updates", updates, at_least=3)
    rate = number("rate", rate, above=0.0, at_most=1.0)
    numbers = {
        "steps": whole("steps_per_update", steps_per_update, at_least=1),
        "timestep": timestep,
        "friction": friction,
    }
    crowd = _Crowd(targets, whole("walkers", walkers, at_least=4), numbers, whole("seed", seed))
    potential = space.potential
    crowd.walk(potential, whole("settle", settle, at_least=1))
    loop = _Loop(space, targets, rate, whole("horizon", horizon, at_least=1))
    for t in range(count):
        crowd.walk(potential)
        potential = loop.update(crowd.ensemble(potential))
        if progress is not None:
            progress(loop.progress(t + 1, count))
    return _finish(loop, crowd, whole("rest", rest, at_least=4))


class _Crowd:
    """The walkers, and how many force calls they made."""

    def __init__(self, targets: ThermalTargets, walkers: int, numbers: dict[str, Any], seed: int):
        self.targets, self.walkers = targets, walkers
        self.numbers, self.seed = numbers, seed
        self.force_calls = 0
        self.run: Trajectory | None = None

    def walk(self, potential: Potential, steps: int | None = None) -> None:
        """Some steps further, with noise of their own."""
        targets = self.targets
        options: dict[str, Any] = {**self.numbers, "temperature": targets.temperature}
        if steps is not None:
            options["steps"] = steps
        options["record_every"] = options["steps"]
        options["seed"], self.seed = self.seed, self.seed + 1
        begin: Any = self.run
        if begin is None:
            begin, options["replicas"] = targets.structure, self.walkers
        if targets.pressure is None:
            self.run = langevin(potential, begin, **options)
        else:
            self.run = npt(potential, begin, pressure=targets.pressure, cell=targets.cell, **options)
        self.force_calls += options["steps"] * self.walkers

    def ensemble(self, potential: Potential) -> Ensemble:
        """The walkers where they are: independent of each other, but not of where they were."""
        run, targets = self.run, self.targets
        assert run is not None
        cells = np.asarray(targets.structure.cell)
        if run.cell is not None and run.cell.ndim == 4:
            cells = run.cell[-1]
        frames = Frames(targets.structure, run.positions[-1], cells)
        energies = run.potential[-1]
        state = targets.temperature, targets.pressure, 0
        return Ensemble(potential, frames, energies, *state, np.zeros(self.walkers))


@dataclasses.dataclass
class _Loop:
    """The parameters, and what is remembered of the walkers."""

    space: ParameterSpace
    targets: ThermalTargets
    rate: float
    horizon: int

    def __post_init__(self) -> None:
        self.z = self.space.start
        n = len(self.targets.targets)
        self.mean = np.zeros(n)
        self.slope = np.zeros((n, len(self.space.parameters)))
        self.path: list[np.ndarray] = []
        self.averages: list[np.ndarray] = []
        self.shares: list[float] = []
        self.recent: deque[Ensemble] = deque(maxlen=self.horizon)

    def update(self, ensemble: Ensemble) -> Potential:
        """Take in what the walkers show, and move the parameters."""
        values, slopes = self.shown(ensemble)
        weight = 1 / min(len(self.path) + 1, self.horizon)
        self.mean = self.mean + weight * (values - self.mean)
        self.slope = self.slope + weight * (slopes - self.slope)
        self.z = self._moved()
        potential = self.space.at(self.z)
        self.recent.append(ensemble)
        self.path.append(self.z)
        self.averages.append(self.mean)
        self.shares.append(self._share(potential))
        return potential

    def shown(self, ensemble: Ensemble) -> tuple[np.ndarray, np.ndarray]:
        """Averages of the targets over the walkers, and derivatives by the parameters."""
        found = ensemble.average(self.targets.observables, parameters=self.space.parameters, min_effective=0)
        places = self.targets.places(found)
        n = len(self.space.parameters)
        return found.values[places], found.derivatives[places, :n]

    def _moved(self) -> np.ndarray:
        tolerances = self.targets.tolerances
        r = (self.mean - self.targets.values) / tolerances
        J = self.space.pull(self.z, self.slope / tolerances[:, None])
        A = J.T @ J
        largest = np.linalg.eigvalsh(A)[-1]
        A += DAMPING * largest * np.eye(len(A))
        step = -self.rate * np.linalg.solve(A, J.T @ r)
        lower, upper = self.space.bounds
        short = np.clip(step, -LONGEST, LONGEST)
        return np.clip(self.z + short, lower, upper)

    def _share(self, potential: Potential) -> float:
        """Of the walkers of the oldest update that is remembered, that count at these parameters."""
        there = self.recent[0].reweighted(potential, min_effective=0)
        return there.effective.share

    def progress(self, update: int, updates: int) -> LoopProgress:
        """What a caller sees."""
        now = self.space.values(self.z).tolist()
        values = dict(zip(self.space.names, now, strict=True))
        return LoopProgress(update, updates, self.mean, values, self.shares[-1])


def _finish(loop: _Loop, crowd: _Crowd, rest: int) -> SingleLoop:
    """Parameters at their mean over the last third, and averages while they rest."""
    third = max(1, len(loop.path) // 3)
    z = np.mean(loop.path[-third:], axis=0)
    potential = loop.space.at(z)
    shown = []
    for _ in range(rest):
        crowd.walk(potential)
        shown.append(loop.shown(crowd.ensemble(potential))[0])
    # the first half is still on its way from the moving parameters
    half = np.array(shown[rest // 2 :])
    settled, errors = half.mean(0), standard_errors(half, 1)
    return SingleLoop(
        potential=potential,
        names=loop.space.names,
        path=np.array([loop.space.values(z) for z in loop.path]),
        averages=np.array(loop.averages),
        shares=np.array(loop.shares),
        settled=settled,
        settled_errors=errors,
        hysteresis=(settled - loop.averages[-1]) / loop.targets.tolerances,
        force_calls=crowd.force_calls,
        targets=tuple(target.title for target in loop.targets.targets),
    )
