"""How far first order reaches, and whether it is right: differences between states of changed parameters.

Second differences along each parameter give the range within which first order is good to 10 %. The state is
followed by Newton steps, so they see the branch and never another minimum. A branch ends where its lowest
curvature vanishes: near such a fold the curvature goes as the root of the distance, so

    lambda(t) = lambda_0 sqrt(1 - t / t_fold),    t_fold = lambda_0 / (2 |d lambda / dt|),    t = ln(theta),

and no range and no step goes beyond it.
"""

import dataclasses
from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.ghosts import padded
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import replace_parameters
from mdsens.quantities import neighbors_of
from mdsens.relaxation.equilibrium import Equilibrium, default_skin
from mdsens.relaxation.landscape import Landscape, Vector
from mdsens.relaxation.relax import Relaxed, follow
from mdsens.sensitivity.first_order import pull_parameters
from mdsens.sensitivity.problem import Selection, SensitivityProblem, View, observe
from mdsens.sensitivity.report import ReRelaxation
from mdsens.structure import Structure

STEP = 2e-3  # in ln(theta), of the second differences behind the range of validity
# In ln(theta), of the re-relaxed differences: truncation ~1e-8, rounding ~1e-9 of the value
CHECK_STEP = 1e-4
LARGEST_STEP = 0.3  # in ln(theta): larger ranges are not tried
FOLD_SHARE = 0.1  # of the distance to a fold that a step may go
SOFT_MODE = 0.02  # of the highest curvature: with a softer mode a fold may be near

Matrix = Float[np.ndarray, "numbers parameters"]


@dataclasses.dataclass(frozen=True)
class Steps:
    """What differences are made of.

    Attributes:
        problem: what is differentiated. values: its numbers at the states.
        derivative: dO/dtheta. moves: dx/dtheta of each state, (parameters, atoms, 3).
        folds: |ln(theta)| to the end of the branch, for each parameter; inf where none is near.
        fmax: eV/Å.
    """

    problem: SensitivityProblem
    values: np.ndarray
    derivative: Matrix
    moves: dict[str, np.ndarray]
    folds: np.ndarray
    fmax: float

    @property
    def theta(self) -> np.ndarray:
        """Parameter values."""
        return np.asarray(self.problem.theta)

    @property
    def scales(self) -> np.ndarray:
        """Parameters change in proportion to themselves; one that is zero changes by absolute steps."""
        return np.where(self.theta == 0, 1.0, np.abs(self.theta))

    def changed(self, k: int, step: float) -> tuple[Potential, np.ndarray]:
        """The potential with parameter k changed by a step in ln(theta), and all values."""
        theta = np.array(self.theta)
        theta[k] += step * self.scales[k]
        name = self.problem.selection.names[k]
        return replace_parameters(self.problem.potential, {name: float(theta[k])}), theta

    def predicted(self, key: str, k: int, step: float) -> Structure:
        """The state of a changed parameter, to first order; where it is, if its cell moves too."""
        state = self.problem.states[key]
        if key not in self.moves or state.landscape.n_strains:
            return state.structure  # the atoms follow the strain in the first Newton step
        move = step * self.scales[k] * self.moves[key][k]
        return state.structure.at(state.structure.positions + move)

    def observed(
        self, states: Mapping[str, Structure], potential: Potential, theta: np.ndarray
    ) -> np.ndarray:
        """All numbers at other structures, with the compiled shapes of the states."""
        p = self.problem
        views = {key: _seen(p.views[key], structure, potential) for key, structure in states.items()}
        origin = {key: jnp.zeros_like(state.w) for key, state in p.states.items()}
        what = p.observables, p.selection, p.potential
        return np.asarray(observe(*what, views, jnp.asarray(theta), origin))


def _seen(old: View, structure: Structure, potential: Potential) -> View:
    structure = padded(potential, structure)
    neighbors = neighbors_of(potential, structure, default_skin(potential), old.neighbors.capacity)
    return old._replace(
        coordinates=dataclasses.replace(old.coordinates, reference=structure), neighbors=neighbors
    )


# --- the range of first order ---------------------------------------------------------------------


def second_differences(steps: Steps) -> tuple[Matrix, np.ndarray]:
    """d2O/dln(theta)2 by second differences along the branch, and the step of each parameter."""
    second = np.zeros(steps.derivative.shape)
    lengths = np.minimum(STEP, FOLD_SHARE * steps.folds)
    for k, length in enumerate(lengths):
        ends = [_along_branch(steps, k, step) for step in (length, -length)]
        bend = ends[0] - 2 * steps.values + ends[1]
        second[:, k] = bend / length**2
    return second, lengths


def _along_branch(steps: Steps, k: int, step: float) -> np.ndarray:
    potential, theta = steps.changed(k, step)
    structures = {}
    for key, state in steps.problem.states.items():
        start = steps.predicted(key, k, step)
        structures[key] = follow(state, potential, start, steps.fmax).equilibrium.structure
    return steps.observed(structures, potential, theta)


def fold_distances(problem: SensitivityProblem) -> np.ndarray:
    """|ln(theta)| to where the softest mode of some state loses its curvature, as its slope predicts.

    Inf if not near.
    """
    distance = np.full(len(problem.selection.names), np.inf)
    theta = np.asarray(problem.theta)
    scales = np.where(theta == 0, 1.0, np.abs(theta))
    for state in problem.states.values():
        if state.gauge.rank == 0 or not state.symmetric:
            continue
        lowest, highest = float(state.spectrum.lowest), float(state.spectrum.highest)
        if abs(lowest) < SOFT_MODE * abs(highest):
            slope = _curvature_slope(problem, state) * scales
            with np.errstate(divide="ignore"):
                distance = np.minimum(distance, np.abs(lowest) / (2 * np.abs(slope)))
    return distance


def _curvature_slope(problem: SensitivityProblem, state: Equilibrium) -> np.ndarray:
    """d lambda / dtheta of the softest mode m along the state: lambda = m .

    H m, and m itself counts in second order only.
    """
    # in reverse: one gradient of m . H m by w and theta, one solve, one product
    mode = state.gauge.project(jnp.asarray(state.spectrum.mode))
    by_w, by_theta = _curvature_gradient(state.landscape, state.w, problem.selection, problem.theta, mode)
    adjoint = state.solve(by_w[None], transposed=True, linear_solver=problem.linear_solver)
    moving = pull_parameters(state.landscape, state.w, problem.selection, problem.theta, adjoint)[0]
    return np.asarray(by_theta) - np.asarray(moving)


@eqx.filter_jit
def _curvature_gradient(
    landscape: Landscape, w: Vector, selection: Selection, theta: Array, mode: Vector
) -> tuple[Vector, Array]:
    def curvature(w: Vector, theta: Array) -> Array:
        changed = dataclasses.replace(landscape, potential=selection.replaced(landscape.potential, theta))
        return mode @ changed.product(w, mode)

    return jax.grad(curvature, argnums=(0, 1))(w, theta)


# --- the check by relaxing again ------------------------------------------------------------------


def re_relax(
    steps: Steps,
    starts: Mapping[str, Structure],
    again: Callable[[str, Potential], Relaxed],
    radius: Matrix | None,
) -> ReRelaxation:
    """Relax again with each parameter changed up and down, and compare.

    Args:
        starts: where the relaxations began, for the message. again: relaxes one of them with another
            potential.
        radius: range of first order, to be tried too; None if it is not known.
    """
    derivative = np.zeros(steps.derivative.shape)
    at_range = np.full(steps.derivative.shape, np.nan)
    elsewhere: list[str] = []
    names = steps.problem.selection.names

    def relaxed_with(k: int, step: float) -> np.ndarray:
        potential, theta = steps.changed(k, step)
        found = {key: again(key, potential) for key in starts}
        for key, state in found.items():
            off = _off_branch(steps, key, state, k, step)
            if off:
                change = f"{names[k]} changed by {100 * step:+.2g} %"
                elsewhere.append(f"{change}: {key} relaxed into another minimum, {off:.2f} Å away")
        return steps.observed({key: state.structure for key, state in found.items()}, potential, theta)

    log = steps.derivative * steps.scales
    for k, name in enumerate(names):
        step = min(CHECK_STEP, FOLD_SHARE * float(steps.folds[k]))
        if step < CHECK_STEP:
            fold = 100 * steps.folds[k]
            elsewhere.append(
                f"{name}: the minimum is gone when it changes by about {fold:.1g} %, where its softest mode "
                f"loses its curvature; differences were taken over {100 * step:.1g} %"
            )
        difference = relaxed_with(k, step) - relaxed_with(k, -step)
        derivative[:, k] = difference / (2 * step * steps.scales[k])
        if radius is None:
            continue
        tried = _largest_step(radius[:, k])
        if tried:
            change = log[:, k] * tried
            # others do not move
            counts = radius[:, k] > 1e-4
            counts &= np.abs(change) > 1e-9 * np.abs(steps.values)
            off = np.abs(relaxed_with(k, tried) - steps.values - change)
            at_range[counts, k] = off[counts] / np.abs(change[counts])
    return ReRelaxation(derivative, CHECK_STEP, at_range, tuple(elsewhere))


def _off_branch(steps: Steps, key: str, state: Relaxed, k: int, step: float) -> float:
    """How far (Å) a state is from where first order expects it.

    Zero if that is within what first order allows.
    """
    here = np.asarray(steps.problem.states[key].structure.positions)
    expected = here
    if key in steps.moves:
        first_order = step * steps.scales[k] * steps.moves[key][k]
        expected = here + first_order
    # first order itself is off by as much as the range of validity says: a tenth of the move
    off = _distance(np.asarray(state.structure.positions), expected)
    return off if off > 0.05 + 0.2 * _distance(expected, here) else 0.0


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest distance of an atom between two structures, whatever shift lies between them, Å."""
    off = a - b
    return float(np.linalg.norm(off - off.mean(axis=0), axis=1).max(initial=0.0))


def _largest_step(radius: np.ndarray) -> float:
    """The smallest of the ranges of one parameter.

    There one number should be off by 10 %, the others by less.
    """
    meaningful = radius[(radius > 1e-4) & (radius < LARGEST_STEP)]
    return float(meaningful.min()) if len(meaningful) else 0.0


def largest_range(
    first: Matrix,
    errors: Matrix,
    second: Matrix,
    values: np.ndarray,
    lengths: np.ndarray,
    folds: np.ndarray,
) -> Matrix:
    """|change of ln(theta)| within which first order is good to 10 %.

    |O'' t² / 2| <= 0.1 |O' t|, and before any fold. A derivative that is zero within its error is good
    nowhere, unless nothing curves either.

    Args:
        first, errors, second: dO/dln(theta), its error bars, d2O/dln(theta)2. lengths: steps of the second
            differences.
    """
    # second differences of values with 15 digits: what is below this is zero
    rounding = 4e-14 * np.abs(values[:, None])
    noise = rounding / 4e-6 * (STEP / lengths) ** 2 + 1e-12
    curved = np.abs(second) > noise
    known = np.where(np.abs(first) > errors, np.abs(first), 0.0)
    slope = np.where(curved, np.abs(second), 1.0)
    reach = np.where(curved, 0.2 * known / slope, np.inf)
    return np.minimum(reach, folds)
