"""A relaxation in progress, as a value: where it is, what it knows, and one step of the host loop.

Steppers run on the device until the neighbor list is used up; then the host makes a new one. That gives lists
that never overflow, progress, and errors while they still help.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable
from typing import NamedTuple, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mdsens.compiling import compiled_soon
from mdsens.errors import CellCollapseError, NonFiniteError
from mdsens.neighbors import Capacity, Neighbors
from mdsens.potentials.base import Potential
from mdsens.quantities import check_finite, concrete, evaluate, neighbors_of
from mdsens.relaxation.coordinates import Coordinates
from mdsens.relaxation.equilibrium import Equilibrium, default_skin, gauge_of, preconditioner_of, structure_at
from mdsens.relaxation.landscape import LEAST_ROW, Landscape, Vector, residuals, room
from mdsens.relaxation.plan import AbstractPlan
from mdsens.relaxation.precondition import ElasticPreconditioner, grid_of
from mdsens.relaxation.scene import (
    STRIDE,
    AbstractStepper,
    Scene,
    Walker,
    advance,
    advance_on_host,
)

VOLUME_RANGE = (0.2, 5.0)  # of the starting volume; a relaxation beyond this has lost its crystal
# steps between two looks by the host; somebody who watches sees more: after 1, 2, 4, ... steps of a phase
CHUNK = 100
SMALLEST_SKIN = 0.02  # of the cutoff: less leaves no room for a step between two searches of the list
USED_UP = 0.2  # of the skin: a list with less slack than this is made anew
PATIENCE = 3  # walks in a row that may find no way down


class Status(enum.Enum):
    """How a relaxation ended; the value says it in words."""

    CONVERGED = "converged"
    SADDLE = "converged to a saddle point"
    MAX_STEPS = "stopped after max_steps"
    STUCK = "stopped: no step lowers the energy"


class RelaxationProgress(NamedTuple):
    """What a progress callback sees now and then."""

    steps: int
    energy: float  # eV (enthalpy under pressure)
    fmax: float  # eV/Å
    stress: float  # largest stress off target, eV/Å³


class Options(NamedTuple):
    """How to relax; hashable."""

    plan: AbstractPlan
    fmax: float
    max_steps: int
    skin: float | None
    check_minimum: bool


@dataclasses.dataclass(frozen=True)
class RelaxationProblem:
    """What is relaxed, and how; the same from the first step to the last.

    Attributes:
        capacity: shapes at least kept of the first neighbor list: those of an older state compile nothing.
    """

    potential: Potential
    coordinates: Coordinates
    target: Array
    options: Options
    capacity: Capacity | None = None

    @property
    def inputs(self) -> tuple[Potential, Coordinates, Array]:
        """The numbers that decide where the walk ends."""
        return self.potential, self.coordinates, self.target

    @property
    def plain(self) -> "RelaxationProblem":
        """The same of the plain numbers behind values that are being differentiated."""
        potential, coordinates, target = concrete(self.inputs)
        return RelaxationProblem(potential, coordinates, target, self.options, self.capacity)

    @functools.cached_property
    def cutoff(self) -> float:
        """Radius of the list, Å."""
        return float(self.potential.cutoff)

    @functools.cached_property
    def skin(self) -> float:
        """Extra reach of the list, Å; zero where all atoms are in it."""
        if np.isinf(self.cutoff):
            return 0.0
        chosen = default_skin(self.potential) if self.options.skin is None else self.options.skin
        return max(chosen, SMALLEST_SKIN * self.cutoff)

    def landscape(self, w: Vector, capacity: Capacity | None) -> Landscape:
        """The landscape with a list that is complete around w."""
        structure = structure_at(self.coordinates, w)
        neighbors = neighbors_of(self.potential, structure, self.skin, capacity)
        return Landscape(self.potential, self.coordinates, self.target, neighbors)

    def scene(
        self, w: Vector, capacity: Capacity | None, preconditioner: ElasticPreconditioner | None
    ) -> Scene:
        """Everything a step from w needs."""
        landscape = self.landscape(w, capacity)
        structure = structure_at(self.coordinates, w)
        # An atom that has a neighbor in the list may come into contact while walking: it must be free to
        # move.
        gauge = gauge_of(landscape, structure, settled=False)
        return Scene(landscape, gauge, preconditioner, _stride(landscape.neighbors))


@dataclasses.dataclass(frozen=True)
class Walk:
    """A relaxation in progress.

    Attributes:
        scene, walker: as compiled functions see them.
        stepper: the one walking now; None before the first step.
        steps: taken so far. look: steps until the host looks again.
        failures: walks in a row that found no way down.
        assembled_at: steps taken when the matrix of the scene was written down; outdated: it no longer leads
            on.
        fmax, stress, residual: largest force (eV/Å), largest stress off target (eV/Å³), and both as one
            number (eV/Å).
    """

    problem: RelaxationProblem
    scene: Scene
    walker: Walker
    stepper: AbstractStepper | None = None
    steps: int = 0
    look: int = CHUNK
    failures: int = 0
    assembled_at: int = 0
    outdated: bool = False
    fmax: float = np.inf
    stress: float = np.inf
    residual: float = np.inf

    @classmethod
    def begin(cls, problem: RelaxationProblem) -> Self:
        """At the start, w = 0."""
        w = jnp.zeros(problem.coordinates.size)
        scene = problem.scene(w, problem.capacity, None)
        walker = Walker(w, *scene.value_and_gradient(w), None, jnp.array(False))
        return cls(problem, scene, walker)._measured()

    @property
    def status(self) -> Status | None:
        """How the walk ended; None while it goes on."""
        options = self.problem.options
        if self.residual <= options.fmax:
            return Status.CONVERGED
        if self.steps >= options.max_steps:
            return Status.MAX_STEPS
        return Status.STUCK if self.failures > PATIENCE else None

    @property
    def progress(self) -> RelaxationProgress:
        """Where it is, for people."""
        return RelaxationProgress(self.steps, float(self.walker.value), self.fmax, self.stress)

    def step(self, watched: bool = False) -> "Walk":
        """One phase of the plan, until the host looks again, the list is used up, or no way leads down.

        Args:
            watched: somebody watches: look more often at the beginning of each phase.
        """
        aim = self.aimed(watched)
        numbers = jnp.asarray(aim.goal), jnp.asarray(aim.limit), jnp.asarray(aim.margin)
        goes = advance_on_host if aim.on_host else advance
        return aim.arrived(*goes(aim.stepper, aim.scene, aim.walker, *numbers))

    def aimed(self, watched: bool = False) -> "Aim":
        """What the device is to do next; `step` is this, `advance`, and `Aim.arrived`."""
        options = self.problem.options
        phase = options.plan.phase(self.residual, options.fmax, self.failures)
        walk = self._led_by(phase.stepper, 1 if watched else CHUNK)
        limit = min(phase.steps, walk.look, options.max_steps - walk.steps)
        return Aim(walk, self.residual, phase.stepper, phase.goal, limit, USED_UP * self.problem.skin)

    def settle(self) -> Equilibrium:
        """The state reached, with the list, rattlers and rigid motions that are found here."""
        capacity = self.scene.landscape.neighbors.capacity
        return Equilibrium.settled(self.problem.landscape(self.walker.w, capacity), self.walker.w)

    def _led_by(self, stepper: AbstractStepper, look: int) -> Self:
        no = jnp.array(False)
        walk = dataclasses.replace(self, walker=dataclasses.replace(self.walker, stuck=no, stale=no))
        if stepper == self.stepper:
            return walk._assembled(stepper) if self.outdated else walk
        walk = walk._assembled(stepper)
        scene = dataclasses.replace(walk.scene, preconditioner=walk._preconditioner(stepper))
        walker = dataclasses.replace(walk.walker, memory=stepper.start(self.walker.w))
        return dataclasses.replace(walk, stepper=stepper, scene=scene, walker=walker, look=look)

    def _assembled(self, stepper: AbstractStepper) -> Self:
        """With the Hessian of where the walk is, if the stepper wants it written down and it can be."""
        landscape = self.scene.landscape
        possible = self.problem.potential.twice_differentiable and landscape.symmetric
        wanted = stepper.wants_matrix and possible
        matrix = landscape.assembled(self.walker.w, self._least_row) if wanted else None
        scene = dataclasses.replace(self.scene, matrix=matrix)
        return dataclasses.replace(self, scene=scene, assembled_at=self.steps, outdated=False)

    @property
    def _least_row(self) -> int:
        # Where lists keep the shape that many structures need, so shall the Hessian: pairs join an atom with
        # those in its row, and neighbors of neighbors are seldom twice as many as the pairs that a list with
        # its skin holds.
        if self.problem.capacity is None:
            return LEAST_ROW
        width = self.scene.landscape.neighbors.width
        of_pairs = getattr(self.problem.potential, "reciprocal", False)
        return max(LEAST_ROW, width if of_pairs else 2 * width)

    def _preconditioner(self, stepper: AbstractStepper) -> ElasticPreconditioner | None:
        """Of the Hessian that the stepper will meet."""
        if not (stepper.wants_preconditioner and self.problem.potential.twice_differentiable):
            return None
        grid = grid_of(self.problem.coordinates.reference)
        return preconditioner_of(self.scene.landscape, self.walker.w, grid, self.scene.matrix)

    def _with_new_list(self) -> Self:
        capacity = self.scene.landscape.neighbors.capacity
        scene = self.problem.scene(self.walker.w, capacity, self.scene.preconditioner)
        scene = dataclasses.replace(scene, matrix=self.scene.matrix)
        value, gradient = scene.value_and_gradient(self.walker.w)
        walker = dataclasses.replace(self.walker, value=value, gradient=gradient, stuck=jnp.array(False))
        return dataclasses.replace(self, scene=scene, walker=walker)

    def _measured(self, margin: float = -np.inf) -> Self:
        """What the host wants to know of where the walk is; with a new list, if the old one has less room."""
        seen = _seen(self.scene, self.walker)
        _check_volume(seen)
        if seen.room <= margin:
            return self._with_new_list()._measured()
        _check_finite(seen, self.scene, self.walker)
        return dataclasses.replace(self, fmax=seen.fmax, stress=seen.stress, residual=seen.residual)


@dataclasses.dataclass(frozen=True)
class Aim:
    """A walk with its next phase: the arguments of `advance`, and what to make of its result.

    Attributes:
        walk: ready for the phase. residual: before it, eV/Å.
        stepper, goal, limit, margin: as `advance` takes them.
    """

    walk: Walk
    residual: float
    stepper: AbstractStepper
    goal: float
    limit: int
    margin: float

    @property
    def scene(self) -> Scene:
        """Of the walk."""
        return self.walk.scene

    @property
    def walker(self) -> Walker:
        """Of the walk."""
        return self.walk.walker

    @property
    def on_host(self) -> bool:
        """Whether the loops are better on the host: no step is to hold a program of a heavy potential."""
        landscape = self.scene.landscape
        # products with the Hessian, and the work of a target without energy, are programs of their own
        in_steps = self.stepper.needs_hessian and self.scene.matrix is None
        return landscape.potential.heavy and landscape.coordinates.conservative and not in_steps

    def arrived(self, walker: Walker, taken: Array) -> Walk:
        """The walk after the phase, with a new list if the old one is used up."""
        stuck = bool(walker.stuck)
        steps, look = self.walk.steps + int(taken), min(2 * self.walk.look, CHUNK)
        assembled = self.scene.matrix is not None
        # Where the matrix that led here was not that of the last point but one, a new one may lead on.
        aged = assembled and steps > self.walk.assembled_at + 1
        outdated = assembled and (stuck or bool(walker.stale))
        walk = dataclasses.replace(self.walk, walker=walker, steps=steps, look=look, outdated=outdated)
        walk = walk._measured(self.margin)
        # a walk that found no way down, or came back to where it was, has failed
        failed = stuck and not aged and not walk.residual <= 0.5 * self.residual
        return dataclasses.replace(walk, failures=self.walk.failures + 1 if failed else 0)


@dataclasses.dataclass(frozen=True)
class Found:
    """Where a walk ended.

    Attributes:
        equilibrium: the state. status: how it ended. steps: how many it took.
        fmax, stress: residuals in eV/Å and eV/Å³.
    """

    equilibrium: Equilibrium
    status: Status
    steps: int
    fmax: float
    stress: float

    @property
    def nbytes(self) -> int:
        """Memory of the state, bytes."""
        return self.equilibrium.nbytes


def run(problem: RelaxationProblem, progress: Callable[[RelaxationProgress], None] | None = None) -> Found:
    """Walk to the end."""
    walk = Walk.begin(problem)
    while True:
        if progress is not None:
            progress(walk.progress)
        if walk.status is not None:
            break
        walk = walk.step(watched=progress is not None)
    return ended(walk)


def ended(walk: Walk) -> Found:
    """What a walk that goes no further has found."""
    equilibrium, status = walk.settle(), walk.status
    assert status is not None
    looked_at = status is Status.CONVERGED and walk.problem.options.check_minimum
    if looked_at and equilibrium.is_saddle:
        status = Status.SADDLE
    return Found(equilibrium, status, walk.steps, walk.fmax, walk.stress)


@compiled_soon
def _stride(neighbors: Neighbors) -> Array:
    """Longest move of an atom in one step, Å: a share of the distance of the nearest atoms."""
    d = neighbors.positions[neighbors.j] - neighbors.positions[neighbors.i] + neighbors.shift @ neighbors.cell
    distances = jnp.where(neighbors.valid, jnp.sqrt(jnp.sum(d**2, axis=1)), jnp.inf)
    return STRIDE * jnp.min(distances, initial=jnp.inf)


class Seen(NamedTuple):
    """What the host sees of a walk, all fetched at once.

    Attributes:
        fmax, stress, residual: as `Walk` has them. room: as `Scene.room`, Å.
        volume: in units of the starting volume.
        placed: whether all unknowns are finite; finite: whether merit and gradient are.
    """

    fmax: float
    stress: float
    residual: float
    room: float
    volume: float
    placed: bool
    finite: bool


def _seen(scene: Scene, walker: Walker) -> Seen:
    landscape = scene.landscape
    numbers = _numbers(landscape, walker.w, walker.value, walker.gradient)
    fmax, stress, residual, room, volume, placed, finite = np.asarray(numbers).tolist()
    return Seen(fmax, stress, residual, room, volume, bool(placed), bool(finite))


@compiled_soon
def _numbers(landscape: Landscape, w: Vector, value: Array, gradient: Vector) -> Array:
    measures = residuals(landscape, w, gradient)
    volume = jnp.linalg.det(landscape.coordinates.split(w)[1])
    placed = jnp.all(jnp.isfinite(w))
    finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
    parts = (*measures, room(landscape, w), volume, placed, finite)
    return jnp.stack([jnp.asarray(part, float) for part in parts])


def _check_finite(seen: Seen, scene: Scene, walker: Walker) -> None:
    """Raise while it still helps.

    Raises:
        NonFiniteError: energy or forces are not finite.
    """
    if seen.finite:
        return
    structure = structure_at(scene.landscape.coordinates, walker.w)
    neighbors = scene.landscape.neighbors
    check_finite(evaluate(scene.landscape.potential, structure, neighbors), structure, neighbors)
    raise NonFiniteError("the forces along the strains of the cell are not finite: check the target stress.")


def _check_volume(seen: Seen) -> None:
    """Raise while it still helps.

    Raises:
        NonFiniteError: positions are not finite. CellCollapseError: the cell has changed beyond all measure.
    """
    if not seen.placed:
        raise NonFiniteError(
            "positions became infinite while relaxing: the forces were too large for the first steps. Start "
            "from a "
            "structure whose atoms do not overlap, or use solver=FIRE(dt=0.01, max_step=0.05)."
        )
    ratio = seen.volume
    if not VOLUME_RANGE[0] < ratio < VOLUME_RANGE[1]:
        raise CellCollapseError(
            f"the cell reached {ratio:.2f} times its starting volume (allowed {VOLUME_RANGE[0]} to "
            f"{VOLUME_RANGE[1]}): the "
            "structure is far from any crystal of this potential, or the pressure pulls it apart. Start near "
            "the right "
            "density, relax the positions with cell=None first, or check the sign of pressure (positive "
            "compresses)."
        )
