"""Uncertainty of what is measured on relaxed states, out of that of the parameters.

With theta = mean + L z, z normal, and J and H the derivatives of an observable O along its relaxed state,

    first order:    Var O = J Sigma J^T
    second order:   <O> = O + tr(A) / 2,    Cov(O_i, O_j) = J_i Sigma J_j^T + tr(A_i A_j) / 2,    A = L^T H L.

First order takes one solve a number and products with L, whatever the number of parameters. A is found where
it matters: whether it does is seen along the direction in which each observable moves most at one sigma,

    theta(t) = mean + t Sigma J^T / sqrt(J Sigma J^T),      |O''| / 2 |O'| > 0.1:   second order,

by two states that are followed there. Rows of A are differences of exact derivatives,

    A_k = (J(h L_k) - J(-h L_k)) L / 2h,

for the directions in which the observables move, and those in which parameters are least known.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mdsens.checks import instance, number, whole
from mdsens.errors import InputError
from mdsens.observables.observable import Observable
from mdsens.potentials.base import Potential, require_potential
from mdsens.potentials.parameters import find_entries
from mdsens.precision import require_x64
from mdsens.relaxation.relax import Relaxed, relax
from mdsens.sensitivity.problem import SensitivityProblem, select
from mdsens.structure import Structure, require_structure
from mdsens.uncertainty.distribution import ParameterDistribution
from mdsens.uncertainty.result import PropagatedUncertainty, SecondOrder
from mdsens.uncertainty.states import Nearby

STEP = 0.1  # of second differences, in standard errors
MATTERS = 0.1  # second order by first at one sigma, from where on it counts
MOST_ALONE = 2000  # independent parameters of which second order is asked
NOTHING = 1e-12  # of the value: an error below this is none

Say = Callable[[str], None]


def propagate(
    observables: Sequence[Observable | str] | Observable | str,
    potential: Potential,
    structure: Structure | Relaxed | Mapping[str, Structure | Relaxed],
    distribution: ParameterDistribution,
    *,
    cell: Any = None,
    pressure: float = 0.0,
    second_order: bool | None = None,
    directions: int = 12,
    samples: int = 0,
    seed: int = 0,
    fmax: float = 1e-10,
    progress: Say | None = None,
    **relax_options: Any,
) -> PropagatedUncertainty:
    """Errors and correlations of observables of relaxed states, from those of the parameters.

    Args:
        observables: `Observable` objects or names, as for `sensitivities`.
        potential: whose parameters the distribution is about; the means of it are put in.
        structure: one, or several by name, e.g. "defect" and "bulk".
        distribution: `ParameterDistribution`, of `laplace`, `from_fit`, `from_posterior`, or an array.
        cell: as for `relax`; one for all, or by name.
        pressure: eV/Å³.
        second_order: True and False choose; None looks whether it matters for any observable.
        directions: of the distribution, in which second order is found: those that move the observables, then
            those least known; the rest is left at first order (`SecondOrder.covered` says how much is in).
        samples: of the observables, drawn with the derivatives that there are; no relaxations.
        seed: of these.
        fmax: of the relaxations, eV/Å.
        progress: called with a line of text before each stage.
        relax_options: further options of `relax`.
    Returns:
        `PropagatedUncertainty`: errors, correlations, what contributes, and which order was taken.
    Raises:
        InputError: unknown names, a potential without the parameters of the distribution.
        SaddlePointError: a state is no minimum. And what `relax` raises.
    """
    say = progress or (lambda line: None)
    most = whole("directions", directions, at_least=1)
    nearby = nearby_states(
        observables,
        potential,
        structure,
        distribution,
        cell=cell,
        pressure=pressure,
        fmax=fmax,
        say=say,
        **relax_options,
    )
    say("differentiating")
    first = _first_order(nearby)
    bend = np.full(len(first.errors), np.nan)
    if second_order is not False:
        say("looking whether second order matters")
        bend = _nonlinearity(nearby, first)
    wanted = bool(np.any(bend > MATTERS)) if second_order is None else second_order
    second = _second_order(nearby, first, most, say) if wanted else None
    problem = nearby.problem
    units = tuple(entry.unit for entry in find_entries(problem.potential, distribution.names))
    found = PropagatedUncertainty(
        observables=problem.names,
        units=problem.units,
        values=nearby.values,
        distribution=distribution,
        parameter_units=units,
        jacobian=nearby.jacobian,
        first_covariance=first.covariance,
        nonlinearity=bend,
        second=second,
    )
    return found.with_samples(samples, seed) if whole("samples", samples) else found


def nearby_states(
    observables: Any,
    potential: Potential,
    structure: Any,
    distribution: ParameterDistribution,
    *,
    cell: Any = None,
    pressure: float = 0.0,
    fmax: float = 1e-10,
    say: Say = lambda line: None,
    **relax_options: Any,
) -> Nearby:
    """Relax at the means, and look at what is measured; arguments and errors as for `propagate`."""
    require_x64()
    hint = "Make one with ParameterDistribution.from_covariance(potential, matrix), laplace(...), ..."
    instance("the distribution", distribution, ParameterDistribution, hint)
    select(require_potential(potential), distribution.names)
    mean = distribution.at_mean(potential)
    fmax = number("fmax", fmax, "eV/Å", above=0.0)
    given = dict(structure) if isinstance(structure, Mapping) else {"structure": structure}
    states = {}
    for key, one in given.items():
        states[key] = one
        if not isinstance(one, Relaxed) or one.equilibrium.potential is not mean:
            say(f"relaxing {key}")
            start = one.structure if isinstance(one, Relaxed) else require_structure(one, key)
            states[key] = relax(
                mean,
                start,
                cell=_of(cell, key),
                pressure=pressure,
                fmax=fmax,
                check_minimum=False,
                check_structure=False,
                **relax_options,
            )
        states[key].equilibrium.require(key)
    return Nearby(SensitivityProblem.of(states, observables, distribution.names), distribution, fmax)


def _of(cell: Any, key: str) -> Any:
    if not isinstance(cell, Mapping):
        return cell
    if key not in cell:
        raise InputError(f"cell has no entry for {key}: give one for every structure.")
    return cell[key]


class _FirstOrder(NamedTuple):
    """Sigma J^T of each number in rows, and J Sigma J^T."""

    reach: Float[np.ndarray, "numbers parameters"]
    covariance: Float[np.ndarray, "numbers numbers"]

    @property
    def errors(self) -> Float[np.ndarray, "numbers"]:
        return np.sqrt(np.diag(self.covariance))


def _first_order(nearby: Nearby) -> _FirstOrder:
    reach = nearby.distribution.times(nearby.jacobian)
    covariance = reach @ nearby.jacobian.T
    return _FirstOrder(reach, (covariance + covariance.T) / 2)


def _nonlinearity(nearby: Nearby, first: _FirstOrder) -> Float[np.ndarray, "numbers"]:
    """|O''| / 2 |O'| of each number along the direction in which it moves most, at one sigma."""
    found = np.zeros(len(first.errors))
    for i, error in enumerate(first.errors):
        if error <= NOTHING * abs(nearby.values[i]):
            found[i] = np.inf if error > 0 else np.nan
            continue
        along = first.reach[i] / error
        ahead = nearby.values_at(STEP * along)[i]
        behind = nearby.values_at(-STEP * along)[i]
        bend = (ahead - 2 * nearby.values[i] + behind) / STEP**2
        found[i] = abs(bend) / (2 * error)
    return found


def _second_order(nearby: Nearby, first: _FirstOrder, most: int, say: Say) -> SecondOrder:
    """A = L^T H L of each number, in the directions in which the numbers move most."""
    L, covered = _directions(nearby, first, most)
    A = np.zeros((len(first.errors), L.shape[1], L.shape[1]))
    for k, column in enumerate(L.T):
        say(f"second order: direction {k + 1} of {L.shape[1]}")
        ends = [nearby.jacobian_at(step * column) @ L for step in (STEP, -STEP)]
        A[:, k] = (ends[0] - ends[1]) / (2 * STEP)
    A = (A + np.swapaxes(A, 1, 2)) / 2
    return SecondOrder(L, A, covered)


def _directions(nearby: Nearby, first: _FirstOrder, most: int) -> tuple[np.ndarray, float]:
    """Directions L' = L Q, Q orthonormal, so that z' = Q^T z is normal; their share of the variances."""
    L = _whole_factor(nearby.distribution)
    sizes = np.where(nearby.distribution.mean == 0, 1.0, np.abs(nearby.distribution.mean))
    relative = L / sizes[:, None]
    # what moves the numbers comes first, then what is least known
    moves = nearby.jacobian @ L / _scale(first.errors)
    _, moved, moving = np.linalg.svd(moves, full_matrices=False)
    moving = moving[moved > 1e-9 * moved.max(initial=0.0)]
    _, unknown = np.linalg.eigh(relative.T @ relative)
    columns = np.concatenate([moving.T, unknown[:, ::-1]], axis=1)
    Q = np.linalg.qr(columns)[0][:, :most]
    total = float(np.sum(relative**2))
    covered = float(np.sum((relative @ Q) ** 2)) / total if total else 1.0
    return L @ Q, covered


def _scale(errors: np.ndarray) -> np.ndarray:
    return np.where(errors > 0, errors, 1.0)[:, None]


def _whole_factor(distribution: ParameterDistribution) -> Float[np.ndarray, "parameters directions"]:
    """L, with what is independent as directions of its own."""
    alone = np.flatnonzero(distribution.errors)
    if len(alone) > MOST_ALONE:
        raise InputError(
            f"second order of {len(alone)} independent parameters needs as many directions: the limit is "
            f"{MOST_ALONE}. Give the few that matter (ParameterDistribution.from_factor), or "
            "second_order=False."
        )
    spread = np.zeros((len(distribution.names), len(alone)))
    spread[alone, range(len(alone))] = distribution.errors[alone]
    return np.concatenate([distribution.factor, spread], axis=1)
