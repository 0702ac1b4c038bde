"""Sensitivities of observables of relaxed states, with error bars, range of validity, and checks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mdsens.errors import InputError
from mdsens.implicit.linear import AbstractLinearSolver
from mdsens.observables.observable import Observable
from mdsens.potentials.base import Potential, require_potential
from mdsens.potentials.parameters import find_entries
from mdsens.relaxation.certificate import Certificate
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.relaxation.landscape import Vector
from mdsens.relaxation.relax import Relaxed, relax
from mdsens.saddles.saddle import Saddle
from mdsens.sensitivity.finite_steps import Steps, fold_distances, largest_range, re_relax, second_differences
from mdsens.sensitivity.first_order import (
    Parts,
    cartesian,
    checked_derivative,
    chosen_mode,
    differentiate,
)
from mdsens.sensitivity.problem import SensitivityProblem, chosen_observables, select
from mdsens.sensitivity.report import SensitivityReport
from mdsens.structure import Structure, require_structure

# times the estimate of an error, which falls short by up to 2.4 where states are relaxed to 1e-3 eV/Å only
SAFETY = 4


def sensitivities(
    observables: Sequence[Observable | str],
    potential: Potential,
    structure: Structure | Relaxed | Mapping[str, Structure | Relaxed],
    *,
    cell: Any = None,
    pressure: float = 0.0,
    parameters: Sequence[str] | None = None,
    fmax: float = 1e-10,
    mode: str | None = None,
    linear_solver: AbstractLinearSolver | None = None,
    second_order: bool = True,
    check: bool = False,
    progress: Callable[[str], None] | None = None,
    **relax_options: Any,
) -> SensitivityReport:
    """Derivatives of observables w.r.t.

    The potential's parameters, along the relaxed states they are measured on.

    Args:
        observables: `Observable` objects, or names (`mdsens.observables.named`), measured on "structure", or
            on "bulk" where there are several.
        structure: one structure (its state is called "structure"), or several by name, e.g. "defect" and
            "bulk". A state that is `Relaxed` already with this potential is taken as it is.
        cell: as for `relax`; one for all, or by name.
        pressure: eV/Å³.
        parameters: flat names; default all parameters of the potential.
        fmax: tolerance of the relaxations, eV/Å; the error of a sensitivity is proportional to it.
        mode: "forward" (one solve a parameter), "reverse" (one solve a number); default the smaller number.
        second_order: also the range of each parameter within which first order is good to 10 %.
        check: relax again from the given structures with every parameter changed up and down, compare, and
            say whether that fell into another minimum.
        progress: called with a line of text before each stage.
        relax_options: further options of `relax`.
    Returns:
        `SensitivityReport`: values, derivatives (clamped and relaxation part), error bars, certificates.
    Raises:
        SaddlePointError: a state is no minimum. InputError: unknown names, an observable without meaning on
        its state.
        NonFiniteError: a value or a derivative that is not finite. And what `relax` raises.
    """
    say = progress or (lambda line: None)
    require_potential(potential)
    starts = _starts(structure)
    cells = _cells(cell, starts)
    options: dict[str, Any] = dict(pressure=pressure, fmax=fmax, **relax_options)
    unchecked: dict[str, Any] = options | {"check_minimum": False}

    def again(key: str, changed: Potential) -> Relaxed:
        given = relaxed[key]
        if isinstance(given, Saddle):
            return given.again(changed, fmax=fmax)
        return relax(changed, starts[key], cell=cells[key], check_structure=False, **unchecked)

    # mistakes in what is asked for are found before anything is relaxed
    select(potential, parameters)
    chosen_observables(observables, tuple(starts))

    relaxed: dict[str, Relaxed] = {}
    for key, start in starts.items():
        say(f"relaxing {key} ({start.n_atoms} atoms)")
        given = structure[key] if isinstance(structure, Mapping) else structure
        known = isinstance(given, Relaxed)
        relaxed[key] = given if known else relax(potential, start, cell=cells[key], **unchecked)
        relaxed[key].equilibrium.require(key)

    say("differentiating")
    problem = SensitivityProblem.of(relaxed, observables, parameters, linear_solver)
    mode = chosen_mode(problem, mode)
    values = problem.values()
    first = differentiate(problem, mode, problem.origin, None)
    derivative = checked_derivative(problem, first)

    say("estimating errors")
    newton = {key: state.w - _newton_step(problem, state) for key, state in problem.states.items()}
    errors, residuals = _errors(problem, mode, first, derivative, newton)
    moves = {key: _cartesian_moves(problem.states[key], rows) for key, rows in first.moves.items()}
    units = [entry.unit for entry in find_entries(potential, problem.selection.names)]
    certificates = {
        key: _with_residual(state.certificate, residuals[key]) for key, state in problem.states.items()
    }
    report = SensitivityReport(
        observables=problem.names,
        units=problem.units,
        parameters=problem.selection.names,
        parameter_units=tuple(units),
        theta=np.asarray(problem.theta),
        values=values,
        value_errors=_value_errors(problem, values, newton),
        clamped=first.clamped,
        relaxation=first.relaxation,
        errors=errors,
        mode=mode,
        certificate=certificates,
        relaxed=relaxed,
        moves=moves,
    )
    if not (second_order or check):
        return report
    steps = Steps(problem, values, derivative, moves, fold_distances(problem), fmax)
    if second_order:
        say("second differences along each parameter")
        report = _with_ranges(report, steps)
    if check:
        say("checking by re-relaxation")
        report = dataclasses.replace(report, check=re_relax(steps, starts, again, report.radius))
    return report


def _starts(structure: Any) -> dict[str, Structure]:
    by_name = dict(structure) if isinstance(structure, Mapping) else {"structure": structure}
    if not by_name:
        raise InputError(
            'no structures are given: pass one, or several by name, {"defect": ..., "bulk": ...}.'
        )
    start = lambda key, given: (
        given.structure if isinstance(given, Relaxed) else require_structure(given, key)
    )
    return {key: start(key, given) for key, given in by_name.items()}


def _cells(cell: Any, starts: Mapping[str, Structure]) -> dict[str, Any]:
    if not isinstance(cell, Mapping):
        return dict.fromkeys(starts, cell)
    missing = sorted(set(starts) - set(cell))
    if missing:
        raise InputError(f"cell has no entry for {', '.join(missing)}: give one for every structure.")
    return dict(cell)


def _errors(
    problem: SensitivityProblem,
    mode: str,
    first: Parts,
    derivative: np.ndarray,
    newton: Mapping[str, Vector],
) -> tuple[np.ndarray, dict[str, float]]:
    """Error bars of dO/dtheta, and the residual of the solves of each state.

    Args:
        newton: the states, one Newton step closer to the minimum.
    """
    # A-posteriori: the same derivative there, with one correction of its linear solves. The difference holds
    # what the residual force and the residual of the solves leave undone, up to second order.
    second = differentiate(problem, mode, newton, first)
    change = np.abs(second.clamped + second.relaxation - derivative)
    conditions = [state.certificate.condition for state in problem.states.values()]
    condition = max([abs(c) for c in conditions if np.isfinite(c)], default=1.0)
    through_solves = condition * np.abs(first.relaxation)
    sizes = through_solves + np.abs(first.clamped) + np.abs(derivative)
    return SAFETY * change + np.finfo(float).eps * sizes, second.residuals


def _value_errors(
    problem: SensitivityProblem, values: np.ndarray, newton: Mapping[str, Vector]
) -> np.ndarray:
    """Error bars of the values: what residual forces, and the rounding of positions, leave.

    An observable that is zero by symmetry is what rounding makes of it, and another number where all
    positions are rounded otherwise. Nothing else says how small a number its zero is.
    """
    random = np.random.default_rng(0)
    change = np.zeros_like(values)
    for _ in range(2):
        nearby = {key: w + _rounding(problem.states[key], random) for key, w in newton.items()}
        change = np.maximum(change, np.abs(problem.values(nearby) - values))
    return SAFETY * change


def _rounding(state: Equilibrium, random: np.random.Generator) -> np.ndarray:
    """Motions as large as the last digits of the positions, Å."""
    structure = state.structure
    extent = max(np.abs(structure.positions).max(), np.abs(structure.cell).max())
    return 4 * np.finfo(float).eps * extent * random.standard_normal(len(state.w))


def _newton_step(problem: SensitivityProblem, state: Equilibrium):
    return state.solve(state.gradient[None], linear_solver=problem.linear_solver)[0]


def _cartesian_moves(state: Equilibrium, rows: Any) -> np.ndarray:
    moves = cartesian(state.landscape.coordinates, state.w, rows)
    return np.asarray(moves)[:, : state.n_atoms]


def _with_residual(certificate: Certificate, residual: float) -> Certificate:
    return dataclasses.replace(certificate, linear_residual=residual)


def _with_ranges(report: SensitivityReport, steps: Steps) -> SensitivityReport:
    second, lengths = second_differences(steps)
    first = report.derivative * steps.scales
    errors = report.errors * steps.scales
    radius = largest_range(first, errors, second, report.values, lengths, steps.folds)
    return dataclasses.replace(report, second=second, radius=radius)
