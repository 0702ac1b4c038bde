"""The host loop of a relaxation: neighbor lists, compiled walks, early errors, and a memory of what was found.

Walks run on the device until the neighbor list is used up; then the host rebuilds it. That gives lists that
never overflow, progress, and errors while they still help.
"""

import dataclasses
import enum
import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mdsens.errors import CellCollapseError, NonFiniteError
from mdsens.gauge import Gauge, find_gauge
from mdsens.implicit.linear import AbstractLinearSolver, ConjugateGradient, Factorized, NearlySymmetric
from mdsens.implicit.spectrum import Spectrum, dense_spectrum, iterative_spectrum
from mdsens.neighbors import Capacity, Neighbors, find_neighbors
from mdsens.potentials.base import Potential, check_elements
from mdsens.potentials.parameters import check_parameters
from mdsens.precision import require_x64
from mdsens.quantities import check_finite, evaluate
from mdsens.relaxation.coordinates import Coordinates, Landscape
from mdsens.relaxation.precondition import (
    ElasticPreconditioner,
    Frame,
    build_preconditioner,
    grid_of,
    test_vectors,
)
from mdsens.relaxation.walk import (
    AbstractRelaxer,
    Scene,
    Vector,
    Walker,
    advance,
    look_around,
    measure,
    products,
)
from mdsens.structure import Structure

VOLUME_RANGE = (0.2, 5.0)  # of the starting volume; a relaxation beyond this has lost its crystal
# steps between two looks by the host; somebody who watches sees more: after 1, 2, 4, ... steps of a phase
CHUNK = 100
DENSE_LIMIT = 1200  # unknowns up to which the Hessian is built and factorised
BLOCK = 64  # vectors the Hessian is applied to at once
SMALL_BLOCK = 16  # the same for large systems, where memory counts


class Status(enum.Enum):
    """How a relaxation ended; the value says it in words."""

    CONVERGED = "converged"
    SADDLE = "converged to a saddle point"
    MAX_STEPS = "stopped after max_steps"
    STUCK = "stopped: no step lowers the energy"


class Progress(NamedTuple):
    """What a progress callback sees now and then."""

    steps: int
    energy: float  # eV (enthalpy under pressure)
    fmax: float  # eV/Å
    stress: float  # largest stress off target, eV/Å³


class Options(NamedTuple):
    """How to relax; hashable."""

    solver: AbstractRelaxer
    fmax: float
    max_steps: int
    skin: float | None
    check_minimum: bool


@dataclasses.dataclass
class Found:
    """A stationary point. What its derivative needs is made when asked for, once."""

    w: Vector
    scene: Scene  # list, gauge and preconditioner of the solution itself
    status: Status
    steps: int
    fmax: float
    stress: float

    @functools.cached_property
    def hessian(self) -> tuple[Array, Array] | None:
        """P H P and P as matrices, up to DENSE_LIMIT unknowns; None beyond."""
        return dense_hessian(self.scene, self.w) if len(self.w) <= DENSE_LIMIT else None

    @functools.cached_property
    def factor(self) -> Factorized | None:
        """The Hessian factorised, for small systems."""
        return _factorize(*self.hessian) if self.hessian else None

    @functools.cached_property
    def spectrum(self) -> Spectrum:
        """Lowest and highest curvature, eV/Å²."""
        if self.hessian:
            return _dense_spectrum(*self.hessian, self.scene.gauge.rank)
        return _iterative_spectrum(self.scene, self.w, len(self.w))

    def linear_solver(self, chosen: AbstractLinearSolver | None = None) -> AbstractLinearSolver:
        """The solver asked for; by default the factorised Hessian, and conjugate gradients for large systems."""
        method = chosen or self.factor or ConjugateGradient()
        strains, target = (
            self.scene.landscape.coordinates.basis.shape[0],
            np.asarray(self.scene.landscape.target),
        )
        sheared = np.any(
            target != target[0, 0] * np.eye(3)
        )  # such a stress has no energy: the strain block is not symmetric
        return (
            NearlySymmetric(method, strains)
            if strains and sheared and isinstance(method, ConjugateGradient)
            else method
        )


_memory: OrderedDict[Any, Found] = OrderedDict()
_MEMORY_SIZE = 16


def find(
    landscape_of: Callable[[Neighbors], Landscape],
    options: Options,
    progress: Callable[[Progress], None] | None,
) -> Found:
    """Relax, or remember: the same inputs are relaxed once, whatever is differentiated and how often."""
    # `landscape_of` is called with None to see the inputs alone
    inputs = landscape_of(None)  # type: ignore[arg-type]
    leaves, tree = jax.tree.flatten(inputs)
    digest = hashlib.sha256()
    for leaf in leaves:
        array = np.asarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    key = (tree, options, digest.digest())
    if key in _memory:
        _memory.move_to_end(key)
        return _memory[key]
    found = _search(landscape_of, inputs, options, progress)
    _memory[key] = found
    while len(_memory) > _MEMORY_SIZE:
        _memory.popitem(last=False)
    return found


def forget() -> None:
    """Empty the memory of relaxations (for timing them)."""
    _memory.clear()


def _search(landscape_of, inputs: Landscape, options: Options, progress) -> Found:
    require_x64()
    potential, coordinates = inputs.potential, inputs.coordinates
    start = coordinates.reference
    check_elements(potential, start)
    check_parameters(potential)
    cutoff = float(potential.cutoff)
    skin = default_skin(potential) if options.skin is None or np.isinf(cutoff) else options.skin
    w = jnp.zeros(coordinates.size)

    def survey(w: Vector, capacity: Capacity | None) -> tuple[Scene, Walker]:
        scene = make_scene(landscape_of, coordinates, w, cutoff, skin, capacity, grid, preconditioner)
        value, gradient = look_around(scene, w)
        return scene, Walker(w, value, gradient, None, jnp.array(False))

    grid = grid_of(start)
    preconditioner: ElasticPreconditioner | None = None  # where set, it survives rebuilds of the list
    scene, walker = survey(w, None)
    _check(scene, walker)
    fmax, stress, residual = (float(x) for x in measure(scene, walker.w, walker.gradient))
    steps, failures, look = 0, 0, CHUNK
    relaxer: AbstractRelaxer | None = None
    status = Status.CONVERGED
    if progress is not None:
        progress(Progress(steps, float(walker.value), fmax, stress))
    while residual > options.fmax:
        if steps >= options.max_steps:
            status = Status.MAX_STEPS
            break
        if failures > 3:
            status = Status.STUCK
            break
        phase = options.solver.phase(residual, options.fmax, failures)
        if relaxer is None or phase.relaxer != relaxer:
            relaxer, look = phase.relaxer, CHUNK if progress is None else 1
            # the Hessian here is what the new relaxer will meet
            preconditioner = _preconditioner(scene.landscape, walker.w, grid)
            scene = eqx.tree_at(lambda s: s.preconditioner, scene, preconditioner)
            walker = Walker(
                walker.w, walker.value, walker.gradient, relaxer.start(walker.w), jnp.array(False)
            )
        elif failures:
            walker = eqx.tree_at(lambda s: s.stuck, walker, jnp.array(False))
        limit = min(phase.steps, look, options.max_steps - steps)
        look = min(2 * look, CHUNK)
        before = residual
        walker, taken = advance(
            relaxer, scene, walker, jnp.asarray(phase.goal), jnp.asarray(limit), jnp.asarray(0.2 * skin)
        )
        steps += int(taken)
        stuck = bool(walker.stuck)
        if float(_room(scene, walker.w)) <= 0.2 * skin:
            _check(scene, walker, before_rebuild=True)
            memory = walker.memory
            scene, walker = survey(walker.w, scene.landscape.neighbors.capacity)
            walker = Walker(walker.w, walker.value, walker.gradient, memory, jnp.array(False))
        _check(scene, walker)
        fmax, stress, residual = (float(x) for x in measure(scene, walker.w, walker.gradient))
        failures = failures + 1 if stuck and residual > 0.5 * before else 0
        if progress is not None:
            progress(Progress(steps, float(walker.value), fmax, stress))
    # The list, gauge and preconditioner of the solution itself: rattlers and rigid motions are those found
    # here.
    preconditioner = None
    scene, walker = survey(walker.w, scene.landscape.neighbors.capacity)
    settled = _gauge(
        scene.landscape, _structure(coordinates, walker.w), coordinates.basis.shape[0], settled=True
    )
    scene = eqx.tree_at(lambda s: s.gauge, scene, settled)
    found = Found(walker.w, scene, status, steps, fmax, stress)
    if options.check_minimum and status is Status.CONVERGED and scene.gauge.rank > 0:
        ends = found.spectrum
        if float(ends.lowest) < -1e-7 * abs(float(ends.highest)):
            found.status = Status.SADDLE
    return found


def default_skin(potential: Potential) -> float:
    """Extra reach of neighbor lists, Å: a tenth of the cutoff."""
    cutoff = float(potential.cutoff)
    return 0.0 if np.isinf(cutoff) else 0.1 * cutoff


def dense_hessian(scene: Scene, w: Vector) -> tuple[Array, Array]:
    """P H P and P as matrices."""
    projector = np.asarray(_project_all(scene.gauge, np.eye(len(w))))
    return jnp.asarray(projector @ hessian_times(scene.landscape, w, projector).T), jnp.asarray(projector)


def hessian_times(landscape: Landscape, w: Vector, vectors: np.ndarray) -> np.ndarray:
    """Hessian at w times each row, in blocks of one size: one compiled product serves all callers."""
    block = BLOCK if len(w) <= DENSE_LIMIT else SMALL_BLOCK
    rows = np.pad(vectors, ((0, -len(vectors) % block), (0, 0)))
    results = [
        np.asarray(products(landscape, w, jnp.asarray(rows[k : k + block])))
        for k in range(0, len(rows), block)
    ]
    return np.concatenate(results)[: len(vectors)]


def make_scene(
    landscape_of,
    coordinates: Coordinates,
    w: Vector,
    cutoff: float,
    skin: float,
    capacity: Capacity | None,
    grid,
    preconditioner: ElasticPreconditioner | None = None,
    settled: bool = False,
) -> Scene:
    """List, gauge and (unless given) preconditioner at w; `settled`: w is a solution, where rattlers stay put."""
    structure = _structure(coordinates, w)
    landscape = landscape_of(find_neighbors(structure, cutoff, skin, capacity))
    # An atom that has a neighbor in the list may come into contact while walking: it must be free to move.
    gauge = _gauge(landscape, structure, coordinates.basis.shape[0], settled)
    return Scene(landscape, gauge, preconditioner or _preconditioner(landscape, w, grid))


@eqx.filter_jit
def _structure(coordinates: Coordinates, w: Vector) -> Structure:
    return coordinates.structure(w)


def _preconditioner(landscape: Landscape, w: Vector, grid) -> ElasticPreconditioner:
    structure = _structure(landscape.coordinates, w)
    frame = Frame.around(structure)
    tests = test_vectors(structure, frame, landscape.coordinates.basis.shape[0])
    return build_preconditioner(structure, frame, grid, tests, hessian_times(landscape, w, np.asarray(tests)))


_dense_spectrum = eqx.filter_jit(dense_spectrum)
_factorize = eqx.filter_jit(Factorized.of)


@eqx.filter_jit
def _project_all(gauge: Gauge, vectors):
    return jax.vmap(gauge.project)(vectors)


@eqx.filter_jit
def _iterative_spectrum(scene: Scene, w: Vector, size: int) -> Spectrum:
    return iterative_spectrum(
        lambda v: scene.landscape.product(w, v), size, scene.gauge.project, scene.preconditioner
    )


@eqx.filter_jit
def _gauge(landscape: Landscape, structure: Structure, strains: int, settled: bool) -> Gauge:
    return find_gauge(landscape.potential, structure, landscape.neighbors, strains, settled=settled)


@eqx.filter_jit
def _volume_ratio(coordinates: Coordinates, w: Vector):
    return jnp.linalg.det(coordinates.split(w)[1])


@eqx.filter_jit
def _room(scene: Scene, w: Vector):
    return scene.room(w)


def _check(scene: Scene, walker: Walker, before_rebuild: bool = False) -> None:
    coordinates = scene.landscape.coordinates
    w = np.asarray(walker.w)
    if not np.isfinite(w).all():
        raise NonFiniteError(
            "positions became infinite while relaxing: the forces were too large for the first steps. Start "
            "from a "
            "structure whose atoms do not overlap, or use solver=FIRE(dt=0.01, max_step=0.05)."
        )
    if coordinates.basis.shape[0]:
        ratio = float(_volume_ratio(coordinates, walker.w))
        if not VOLUME_RANGE[0] < ratio < VOLUME_RANGE[1]:
            raise CellCollapseError(
                f"the cell reached {ratio:.2f} times its starting volume (allowed {VOLUME_RANGE[0]} to "
                f"{VOLUME_RANGE[1]}): the "
                "structure is far from any crystal of this potential, or the pressure pulls it apart. Start "
                "near the right density, "
                "relax the positions with cell=None first, or check the sign of pressure (positive "
                "compresses)."
            )
    if not before_rebuild and not (
        bool(jnp.isfinite(walker.value)) and bool(jnp.all(jnp.isfinite(walker.gradient)))
    ):
        structure = coordinates.structure(walker.w)
        neighbors = scene.landscape.neighbors
        check_finite(evaluate(scene.landscape.potential, structure, neighbors), structure, neighbors)
