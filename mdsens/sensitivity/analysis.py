"""Sensitivities of observables of relaxed states, with error bars, range of validity, and checks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mdsens.errors import InputError
from mdsens.implicit.linear import AbstractLinearSolver
from mdsens.observables.named import Observable, named
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import parameter_entries, parameter_values, replace_parameters
from mdsens.quantities import neighbors_of
from mdsens.relaxation.newton import NewtonCG
from mdsens.relaxation.relax import Relaxed, relax
from mdsens.relaxation.search import Found, default_skin, hessian_times
from mdsens.relaxation.walk import look_around
from mdsens.sensitivity.certificate import around, certificate_of
from mdsens.sensitivity.linearize import (
    Names,
    View,
    cartesian,
    force_change,
    observe,
    pull_back,
    pull_observables,
    push_forward,
    remainder,
    solve_block,
    view,
)
from mdsens.sensitivity.report import Check, SensitivityReport
from mdsens.structure import Structure

STEP = 2e-3  # in ln(theta), of the second differences behind the range of validity
# In ln(theta), of the re-relaxed differences: truncation ~1e-8, rounding ~1e-9 of the value
CHECK_STEP = 1e-4
LARGEST_STEP = 0.3  # in ln(theta): larger ranges are not tried


def sensitivities(
    observables: Sequence[Observable | str],
    potential: Potential,
    structure: Structure | Mapping[str, Structure],
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
    """Derivatives of observables w.r.t. the potential's parameters, along the relaxed states they are measured on.

    Args:
        observables: `Observable` objects, or names (`mdsens.observables.named`).
        structure: one structure (its state is called "structure"), or several by name, e.g. "defect" and
            "bulk".
        cell: as for `relax`; one for all, or by name.
        pressure: eV/Å³.
        parameters: flat names; default all parameters of the potential.
        fmax: tolerance of the relaxations, eV/Å; the error of a sensitivity is proportional to it.
        mode: "forward" (one solve a parameter), "reverse" (one solve an observable); default the smaller
            number.
        second_order: also the range of each parameter within which first order is good to 10 %.
        check: relax again from the given structures with every parameter changed up and down, compare, and
            say whether that fell into another minimum.
        progress: called with a line of text before each stage.
        relax_options: further options of `relax`.
    Returns:
        `SensitivityReport`: values, derivatives (frozen and relaxation part), error bars, certificates.
    Raises:
        SaddlePointError: a state is no minimum. InputError: unknown names. And what `relax` raises.
    """
    say = progress or (lambda line: None)
    structures = {"structure": structure} if isinstance(structure, Structure) else dict(structure)
    cells = cell if isinstance(cell, Mapping) else dict.fromkeys(structures, cell)
    if missing := set(structures) - set(cells):
        raise InputError(f"cell has no entry for {', '.join(sorted(missing))}: give one for every structure.")
    chosen = tuple(o for item in observables for o in (named([item]) if isinstance(item, str) else [item]))
    entries = {e.name: e for e in parameter_entries(potential)}
    names = Names(tuple(entries) if parameters is None else tuple(parameters))
    base = {name: _value(potential, name, entries) for name in names.names}
    theta = jnp.array(list(base.values()))
    options: dict[str, Any] = dict(pressure=pressure, fmax=fmax, **relax_options)

    relaxed: dict[str, Relaxed] = {}
    found: dict[str, Found] = {}
    certificates = {}
    for key, start in structures.items():
        say(f"relaxing {key} ({start.n_atoms} atoms)")
        relaxed[key] = relax(potential, start, cell=cells[key], check_minimum=False, **options)
        found[key] = around(relaxed[key])
        certificates[key] = certificate_of(found[key])
        certificates[key].require_minimum(key)
    solvers = {key: f.linear_solver(linear_solver) for key, f in found.items()}
    views = {key: view(f.scene.landscape) for key, f in found.items()}
    origin = {key: f.w for key, f in found.items()}

    say("differentiating")
    values = np.asarray(observe(chosen, names, potential, views, theta, origin))
    if mode is None:
        mode = "forward" if theta.size <= values.size else "reverse"
    if mode not in ("forward", "reverse"):
        raise InputError(f"mode '{mode}' is unknown: use 'forward', 'reverse' or None.")
    differentiate = _forward if mode == "forward" else _reverse
    problem = _Problem(chosen, names, potential, views, theta, found, solvers)
    first = differentiate(problem, origin, None)

    # A-posteriori error: the same derivative one Newton step closer to the minimum, with one correction of
    # its linear solves. The difference holds what the residual force and the residual of the solves leave
    # undone.
    say("estimating errors")
    newton = {
        key: -_solve(problem, key, look_around(f.scene, f.w)[1][None], False)[0] for key, f in found.items()
    }
    second = differentiate(problem, newton, first)
    derivative = first.frozen + first.moving
    condition = max([c.condition for c in certificates.values() if np.isfinite(c.condition)], default=1.0)
    rounding = np.finfo(float).eps * (
        condition * np.abs(first.moving) + np.abs(first.frozen) + np.abs(derivative)
    )
    errors = np.abs(second.frozen + second.moving - derivative) + rounding
    for key, residual in second.residuals.items():
        certificates[key] = dataclasses.replace(certificates[key], linear_residual=residual)

    report = SensitivityReport(
        observables=tuple(name for o in chosen for name in o.names),
        units=tuple(unit for o in chosen for unit in o.units),
        parameters=names.names,
        parameter_units=tuple(entries[name].unit for name in names.names),
        theta=np.asarray(theta),
        values=values,
        frozen=first.frozen,
        moving=first.moving,
        errors=errors,
        mode=mode,
        certificate=certificates,
        relaxed=relaxed,
        moves={
            key: np.asarray(cartesian(found[key].scene.landscape.coordinates, rows))
            for key, rows in first.moves.items()
        },
    )
    if second_order:
        say("second differences along each parameter")
        report = dataclasses.replace(report, second=_second_order(report, problem, cells, options, values))
    if check:
        say("checking by re-relaxation")
        report = dataclasses.replace(report, check=_check(report, problem, structures, cells, options))
    return report


@dataclasses.dataclass(frozen=True)
class _Problem:
    observables: tuple[Observable, ...]
    names: Names
    potential: Potential
    views: dict
    theta: jax.Array
    found: dict[str, Found]
    solvers: dict[str, AbstractLinearSolver]


@dataclasses.dataclass(frozen=True)
class _First:
    """frozen, moving: (observables, parameters). rows: solutions of the linear solves of each state, to correct."""

    frozen: np.ndarray
    moving: np.ndarray
    rows: dict[str, jax.Array]
    residuals: dict[str, float]
    moves: dict[str, jax.Array]  # dW (parameters, unknowns), forward mode only


def _solve(problem: _Problem, key: str, rows, transposed: bool):
    found = problem.found[key]
    return solve_block(problem.solvers[key], found.scene, found.w, rows, transposed)


def _corrected(problem: _Problem, key: str, w, right, previous, transposed: bool):
    """Rows with H rows = right; the previous solution, corrected once, at a point nearby. And the residual before."""
    if previous is None:
        return _solve(problem, key, right, transposed), float("nan")
    scene = problem.found[key].scene
    vectors = np.asarray(previous)
    product = hessian_times(scene.landscape, w, vectors)
    strains = scene.landscape.coordinates.basis.shape[0]
    if transposed and strains:
        # under a target stress with shear the strain block of H is not symmetric: rows H e_k of unit strains
        # show by how much
        block = hessian_times(scene.landscape, w, np.eye(len(w))[-strains:])[:, -strains:]
        product[:, -strains:] += vectors[:, -strains:] @ (block.T - block)
    off, residual = remainder(scene.gauge, right, jnp.asarray(product))
    return previous + _solve(problem, key, off, transposed), float(residual)


def _forward(problem: _Problem, ws, previous: _First | None) -> _First:
    rows, residuals = {}, {}
    for key, f in problem.found.items():
        B = force_change(f.scene, ws[key], problem.names, problem.theta)
        rows[key], residuals[key] = _corrected(
            problem, key, ws[key], -B, previous and previous.rows[key], False
        )
    frozen, moving = push_forward(
        problem.observables, problem.names, problem.potential, problem.views, problem.theta, ws, rows
    )
    return _First(np.asarray(frozen).T, np.asarray(moving).T, rows, residuals, rows)


def _reverse(problem: _Problem, ws, previous: _First | None) -> _First:
    frozen, slopes = pull_observables(
        problem.observables, problem.names, problem.potential, problem.views, problem.theta, ws
    )
    rows, residuals = {}, {}
    moving = np.zeros(frozen.shape)
    for key, f in problem.found.items():
        rows[key], residuals[key] = _corrected(
            problem, key, ws[key], slopes[key], previous and previous.rows[key], True
        )
        moving -= np.asarray(pull_back(f.scene, ws[key], problem.names, problem.theta, rows[key]))
    return _First(np.asarray(frozen), moving, rows, residuals, {})


def _value(potential: Potential, name: str, entries: Mapping[str, Any]) -> float:
    if name not in entries:
        replace_parameters(potential, {name: 1.0})  # raises, with the nearest name
    return parameter_values(potential)[name]


def _scales(theta: np.ndarray) -> np.ndarray:
    """Parameters change in proportion to themselves; one that is zero changes by absolute steps."""
    return np.where(theta == 0, 1.0, np.abs(theta))


def _observe_at(problem: _Problem, states: Mapping[str, Relaxed], theta: np.ndarray) -> np.ndarray:
    views = {key: _seen(problem.views[key], state) for key, state in states.items()}
    origin = {key: f.w for key, f in problem.found.items()}
    return np.asarray(
        observe(problem.observables, problem.names, problem.potential, views, jnp.asarray(theta), origin)
    )


def _seen(old: View, state: Relaxed) -> View:
    """A state as the observables see it, in the shapes already compiled."""
    neighbors = neighbors_of(
        state.potential, state.structure, default_skin(state.potential), old.neighbors.capacity
    )
    return View(dataclasses.replace(old.coordinates, reference=state.structure), neighbors)


def _shifted(problem: _Problem, k: int, step: float) -> tuple[Potential, np.ndarray]:
    theta = np.array(problem.theta)
    theta[k] += step * _scales(theta)[k]
    return replace_parameters(problem.potential, {problem.names.names[k]: float(theta[k])}), theta


def _second_order(report: SensitivityReport, problem: _Problem, cells, options, values) -> np.ndarray:
    """d2O/dln(theta)2 (observables, parameters), by second differences along the branch.

    The branch is followed: from the relaxed state, moved to first order, Newton steps lead to the state of
    the changed parameter, and never to another minimum.
    """
    second = np.zeros(report.frozen.shape)
    options = {**options, "solver": NewtonCG(), "check_minimum": False}
    for k in range(len(problem.theta)):
        ends = []
        for step in (STEP, -STEP):
            potential, theta = _shifted(problem, k, step)
            states = {
                key: relax(potential, _predicted(report, key, k, step), cell=cells[key], **options)
                for key in problem.found
            }
            ends.append(_observe_at(problem, states, theta))
        second[:, k] = (ends[0] - 2 * values + ends[1]) / STEP**2
    return second


def _predicted(report: SensitivityReport, key: str, k: int, step: float) -> Structure:
    structure = report.relaxed[key].structure
    if key not in report.moves or report.relaxed[key].basis.shape[0]:
        return structure  # with a moving cell the atoms follow the strain in the first Newton step
    return structure.at(structure.positions + step * _scales(report.theta)[k] * report.moves[key][k])


def _check(report: SensitivityReport, problem: _Problem, structures, cells, options) -> Check:
    """Relax from the starting structures with each parameter changed, and compare."""
    derivative, at_range = np.zeros(report.frozen.shape), np.full(report.frozen.shape, np.nan)
    elsewhere: list[str] = []
    options = {**options, "check_minimum": False}

    def re_relaxed(k: int, step: float) -> np.ndarray:
        potential, theta = _shifted(problem, k, step)
        states = {
            key: relax(potential, start, cell=cells[key], **options) for key, start in structures.items()
        }
        for key, state in states.items():
            expected = np.asarray(report.relaxed[key].structure.positions)
            if key in report.moves:
                expected = expected + step * _scales(report.theta)[k] * report.moves[key][k]
            # first order itself is off by as much as the range of validity says: a tenth of the move
            off = _distance(np.asarray(state.structure.positions), expected)
            if off > 0.05 + 0.2 * _distance(expected, np.asarray(report.relaxed[key].structure.positions)):
                change = f"{problem.names.names[k]} changed by {100 * step:+.2g} %"
                elsewhere.append(f"{change}: {key} relaxed into another minimum, {off:.2f} Å away")
        return _observe_at(problem, states, theta)

    log = report.derivative * _scales(report.theta)
    for k in range(len(problem.theta)):
        derivative[:, k] = (re_relaxed(k, CHECK_STEP) - re_relaxed(k, -CHECK_STEP)) / (
            2 * CHECK_STEP * _scales(report.theta)[k]
        )
        if report.radius is not None and (step := _largest_step(report.radius[:, k])):
            first_order = log[:, k] * step
            counts = (report.radius[:, k] > 1e-4) & (
                np.abs(first_order) > 1e-9 * np.abs(report.values)
            )  # others do not move
            off = np.abs(re_relaxed(k, step) - report.values - first_order)
            at_range[counts, k] = off[counts] / np.abs(first_order[counts])
    return Check(derivative, CHECK_STEP, at_range, tuple(elsewhere))


def _largest_step(radius: np.ndarray) -> float:
    """The smallest of the ranges of one parameter: there one observable should be off by 10 %, the others by less."""
    meaningful = radius[(radius > 1e-4) & (radius < LARGEST_STEP)]
    return float(meaningful.min()) if len(meaningful) else 0.0


def _distance(x: np.ndarray, y: np.ndarray) -> float:
    d = x - y
    d = d - d.mean(0)
    return float(np.linalg.norm(d, axis=1).max())
