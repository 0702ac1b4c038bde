"""Uphill along one mode, downhill along all others: from somewhere near a saddle point to the point itself.

In the eigenvectors v_i of the Hessian, with the curvatures c_i, Newton's step to the stationary point is
-(g . v_i) / c_i along each. With the signs of the curvatures chosen,

    step = + (g . v_k) / |c_k|  v_k  -  sum over i != k of (g . v_i) / |c_i|  v_i,

it climbs along the mode k and descends along all others, whatever the curvatures are where it stands. Where
c_k is the only negative one it is Newton's step itself: the end of the walk is quadratic, on the same root.

Beyond the size of dense Hessians, k is the lowest mode m (LOBPCG) and the step solves a positive system,

    (H + 2 |c| m m^T) step = -(g - 2 (m . g) m).

Source: Cerjan, Miller, J. Chem. Phys. 75, 2800 (1981); Henkelman, Jónsson, J. Chem. Phys. 111, 7010 (1999).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import NotConvergedError
from mdsens.gauge import Gauge
from mdsens.implicit.linear import GMRES, AbstractLinearSolver, conjugate_gradient
from mdsens.potentials.base import Potential
from mdsens.quantities import neighbors_of
from mdsens.relaxation.coordinates import Coordinates
from mdsens.relaxation.equilibrium import Deflated, Equilibrium, default_skin, structure_at
from mdsens.relaxation.landscape import Landscape, Vector
from mdsens.relaxation.precondition import ElasticPreconditioner
from mdsens.relaxation.walk import Found, RelaxationProgress, Status

LONGEST = 0.15  # Å: no atom moves farther in one step
LEAVE = 0.05  # Å: as long as its mode has a positive curvature a climb goes at least this far
FLOOR = 1e-3  # of the highest curvature: softer modes are stepped along as if they were this stiff
CLOSE = 1e-3  # eV/Å: below this the walk is Newton's, and ends when rounding lets nothing more be gained


class SaddleEquilibrium(Equilibrium):
    """A stationary point that is meant to have one negative mode."""

    @property
    def _iterative(self) -> AbstractLinearSolver:
        return GMRES()  # conjugate gradients need a positive Hessian

    def require(self, name: str = "the saddle point", partial: object = None) -> None:
        """Raise unless the energy falls along exactly one mode.

        Raises:
            SaddlePointError: a minimum, or a saddle point of higher order.
        """
        self.certificate.require_transition_state(name, partial)


class ClimbStep(NamedTuple):
    """A step.

    Attributes:
        move: in the unknowns.
        mode: that it climbs along.
        is_newton: the energy falls along this mode and rises along all others: the step is Newton's.
    """

    move: np.ndarray
    mode: np.ndarray
    is_newton: bool


def climb(
    potential: Potential,
    coordinates: Coordinates,
    target: Float[Array, "3 3"],
    w: Vector,
    *,
    direction: np.ndarray | None = None,
    fmax: float = 1e-10,
    max_steps: int = 200,
    skin: float | None = None,
    progress: Callable[[RelaxationProgress], None] | None = None,
) -> Found:
    """Walk to a saddle point; plain numbers only.

    Args:
        w: where to start.
        direction: climb along the mode most like this, in the unknowns; by default along the lowest.
        fmax: largest force at the end, eV/Å.
        skin: of the neighbor lists, Å; default a tenth of the cutoff.
    Returns:
        the state and how the walk ended; whether it has one negative mode, its certificate says.
    """
    skin = default_skin(potential) if skin is None else skin
    structure = structure_at(coordinates, w)
    landscape = Landscape(potential, coordinates, target, neighbors_of(potential, structure, skin))
    state = SaddleEquilibrium.settled(landscape, w)
    best, failures, newton = state, 0, False
    for steps in range(max_steps + 1):
        if progress is not None:
            energy = float(_energy(state.landscape, state.w))
            progress(RelaxationProgress(steps, energy, state.fmax, state.stress_error))
        step = _step(state, direction)
        if state.fmax <= fmax and (step.is_newton or direction is None):
            return _found(state, Status.CONVERGED, steps)
        # Newton's steps that gain nothing have come to where rounding is
        gained = state.fmax < best.fmax or not newton
        failures = 0 if gained or state.fmax > CLOSE else failures + 1
        best = state if gained else best
        if failures > 3:
            return _found(best, Status.STUCK, steps)
        newton = step.is_newton
        direction = None if direction is None else step.mode
        w = state.w + jnp.asarray(_shortened(state, step.move))
        landscape = _listed(state.landscape, w, skin)
        state = SaddleEquilibrium.settled(landscape, w)
    return _found(best, Status.MAX_STEPS, max_steps)


def follow_saddle(
    state: Equilibrium, potential: Potential, coordinates: Coordinates, fmax: float, max_steps: int
) -> Found:
    """The saddle point of another potential that lies at w = 0 of these coordinates, or nearby.

    Raises:
        NotConvergedError: there is none nearby, or it cannot be reached to `fmax` (eV/Å).
    """
    start = jnp.zeros(coordinates.size)
    direction = np.asarray(state.spectrum.mode)
    found = climb(
        potential,
        coordinates,
        state.landscape.target,
        start,
        direction=direction,
        fmax=fmax,
        max_steps=max_steps,
    )
    if found.status is not Status.CONVERGED:
        raise not_converged(found, fmax)
    return found


def not_converged(found: Found, fmax: float, partial: object = None) -> NotConvergedError:
    """What to say where a walk to a saddle point did not arrive."""
    return NotConvergedError(
        f"the walk to the saddle point {found.status.value}, after {found.steps} steps: the largest force is "
        f"{found.fmax:.1e} eV/Å, above fmax = {fmax:.1e} eV/Å. If that is close, it is as far as rounding "
        "allows: accept a larger fmax. Otherwise start closer to the saddle point: more images, a smaller "
        "band_fmax, or another direction.",
        found.equilibrium if partial is None else partial,
    )


def _found(state: Equilibrium, status: Status, steps: int) -> Found:
    return Found(state, status, steps, state.fmax, state.stress_error)


def _listed(landscape: Landscape, w: Vector, skin: float) -> Landscape:
    """The landscape with a list that is complete around w; the same one where it still is."""
    structure = structure_at(landscape.coordinates, w)
    old = landscape.neighbors
    if float(old.slack(structure, landscape.potential.cutoff)) > 0:
        return landscape
    neighbors = neighbors_of(landscape.potential, structure, skin, old.capacity)
    return dataclasses.replace(landscape, neighbors=neighbors)


def _step(state: Equilibrium, direction: np.ndarray | None) -> ClimbStep:
    if state.hessian is None:
        return _iterative_step(state)
    return _dense_step(state, *state.hessian, direction)


def _dense_step(
    state: Equilibrium, matrix: np.ndarray, projector: np.ndarray, direction: np.ndarray | None
) -> ClimbStep:
    # what the gauge removes is moved to the top of the spectrum, and nothing is stepped along it
    symmetric = (matrix + matrix.T) / 2
    size = np.linalg.norm(symmetric)
    shifted = symmetric + 2 * (size + 1.0) * (np.eye(len(projector)) - projector)
    curvatures, modes = np.linalg.eigh(shifted)
    rank = state.gauge.rank
    curvatures, modes = curvatures[:rank], modes[:, :rank]
    climbed = 0 if direction is None else int(np.argmax(np.abs(direction @ modes)))
    slopes = np.asarray(state.gradient) @ modes
    stiffness = np.maximum(np.abs(curvatures), FLOOR * np.abs(curvatures).max())
    along = -slopes / stiffness
    along[climbed] *= -1
    mode = modes[:, climbed]
    if curvatures[climbed] > 0:
        along[climbed] = _uphill(along[climbed], 1.0 if direction is None else float(direction @ mode))
    others = np.delete(curvatures, climbed)
    is_newton = curvatures[climbed] < 0 and bool(np.all(others > 0))
    return ClimbStep(modes @ along, mode * np.sign(along[climbed] or 1.0), is_newton)


def _uphill(move: float, along: float) -> float:
    """A move out of a minimum: the way that the slope says, or that one asked for where there is no slope."""
    if abs(move) > LEAVE / 10:
        return np.sign(move) * max(abs(move), LEAVE)
    return np.sign(along) * LEAVE


def _iterative_step(state: Equilibrium) -> ClimbStep:
    ends = state.spectrum
    mode = jnp.asarray(ends.mode)
    raised = 2 * abs(float(ends.lowest))
    # where the lowest curvature is positive already the system is: nothing is raised
    shift = jnp.asarray(raised if float(ends.lowest) < 0 else 0.0)
    product = Deflated(state._product, mode, shift)
    move = _reflected(product, state.gauge, state.preconditioner, state.gradient)
    return ClimbStep(np.asarray(move), np.asarray(mode), float(ends.lowest) < 0)


@eqx.filter_jit
def _reflected(
    product: Deflated, gauge: Gauge, preconditioner: ElasticPreconditioner, gradient: Vector
) -> Vector:
    mode = product.mode
    turned = gradient - 2 * (mode @ gradient) * mode
    solved = conjugate_gradient(product, -turned, gauge.project, preconditioner, rtol=1e-8, max_steps=1000)
    return solved.solution


@eqx.filter_jit
def _energy(landscape: Landscape, w: Vector) -> Float[Array, ""]:
    return landscape.value_and_gradient(w)[0]


def _shortened(state: Equilibrium, move: np.ndarray) -> np.ndarray:
    n = 3 * state.landscape.coordinates.reference.n_atoms
    longest = np.linalg.norm(move[:n].reshape(-1, 3), axis=1).max(initial=0.0)
    strain = np.abs(move[n:]).max(initial=0.0) / np.sqrt(state.n_atoms)
    longest = max(longest, strain)
    return move * min(1.0, LONGEST / max(longest, 1e-300))
