"""Derivatives of observables w.r.t. the functions inside a potential: phi(r), rho(r), F(rho) as curves.

A small change df(x) of one function changes an observable O, through the relaxation too, by

    dO = int S(x) df(x) dx,        S(x) = dO/df(x), the functional derivative.

Of a table, df enters through the knots alone, dO = sum_k g_k df(x_k) with g_k = dO/df_k, and we take

    S(x_k) = g_k / h,              h the spacing of the knots,

the density for which the sum over the knots, h sum_k S(x_k) df(x_k), is exact whatever df is. (The other
usual choice, the mass matrix of the spline's basis, gives the density for which the integral of two splines
is; both agree for a df that is smooth over some spacings.) The atoms of a crystal stand at few distances, so
S is a comb of narrow peaks and of their slopes. To look at it one asks for the response to a bump of a
certain width,

    S_w(x) = int S(x') exp(-(x - x')² / 2 w²) / (w sqrt(2 pi)) dx',

which is the change of O by a bump at x of area one.

Source: for pair potentials and averages of simulations, Reeve, Strachan, J. Comput. Phys. 334, 207 (2017).
Here the derivative goes through relaxation, and embedding and density are functions like the pair energy.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from mdsens.checks import nearest, number
from mdsens.errors import InputError
from mdsens.implicit.linear import AbstractLinearSolver
from mdsens.io.files import new_file
from mdsens.observables.observable import Observable
from mdsens.potentials.base import Potential, require_potential
from mdsens.potentials.curves import Curve, curves
from mdsens.potentials.parameters import parameter_values, replace_by_vector
from mdsens.sensitivity.first_order import checked_derivative, differentiate
from mdsens.sensitivity.problem import AnyState, SensitivityProblem

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

FunctionOfX = Callable[[np.ndarray], Any]
WIDTH_IN_RANGE = 1 / 150  # of the bumps shown, by default: of the part of the axis where something is felt


@dataclasses.dataclass(frozen=True)
class FunctionSensitivity:
    """Derivatives of all observables w.r.t. one function.

    Attributes:
        curve: which function, and where its knots stand.
        by_value: dO/df_k, the derivative by the function's value at each knot, (numbers, knots).
    """

    curve: Curve
    by_value: np.ndarray

    @property
    def density(self) -> np.ndarray:
        """S at the knots, (numbers, knots), in the unit of O per unit of the function and of its argument."""
        return self.by_value / self.curve.spacing

    def along(self, change: FunctionOfX) -> np.ndarray:
        """First-order change of each observable by a change of the function, (numbers,)."""
        return self.by_value @ _values(change, self.curve)

    def smoothed(self, width: float, at: np.ndarray | None = None) -> np.ndarray:
        """S_w, the response to bumps of the area one and this width, (numbers, points).

        Args:
            width: standard deviation of the bump, in the unit of the argument; two spacings or more to see
                no knots.
            at: middle of the bumps; by default the knots.
        """
        number("width", width, self.curve.argument_unit, above=0)
        x = self.curve.x if at is None else np.asarray(at)
        felt = np.flatnonzero(np.any(self.by_value != 0, axis=0))
        offset = (x[:, None] - self.curve.x[felt]) / width
        area = width * np.sqrt(2 * np.pi)
        bumps = np.exp(-0.5 * offset**2) / area
        return self.by_value[:, felt] @ bumps.T

    def felt(self) -> tuple[float, float]:
        """The part of the axis within which some observable feels the function."""
        x = self.curve.x[np.any(self.by_value != 0, axis=0)]
        x = x if len(x) else self.curve.x
        return float(x[0]), float(x[-1])


@dataclasses.dataclass(frozen=True)
class FunctionalReport:
    """Functional derivatives of observables, one entry a function.

    Attributes:
        observables, units, values: of each number.
        functions: by name, such as "phi[Ni-Cu]".
    """

    observables: tuple[str, ...]
    units: tuple[str, ...]
    values: np.ndarray
    functions: dict[str, FunctionSensitivity]

    def along(self, changes: Mapping[str, FunctionOfX]) -> np.ndarray:
        """First-order change of each observable by changes of functions, (numbers,).

        Args:
            changes: name of a function -> df(x), called with an array.
        Raises:
            InputError: an unknown function, or a change that gives no finite number a knot.
        """
        for name in changes:
            _known(name, self.functions)
        parts = [self.functions[name].along(change) for name, change in changes.items()]
        return np.sum([np.zeros(len(self.values)), *parts], axis=0)

    def table(self) -> "Table":
        """How much each observable feels of each function, and where most of it."""
        from rich.table import Table

        table = Table(title="functional derivatives S = δO/δf, in the unit of O per unit of f and of x")
        for header in ("observable", "value", "function", "felt from", "to", "∫ |S_w| dx", "largest at"):
            table.add_column(header, justify="left" if header in ("observable", "function") else "right")
        for f in self.functions.values():
            for i, name in enumerate(self.observables):
                cells = _summary(f, i)
                value = f"{self.values[i]:.6g} {self.units[i]}"
                table.add_row(name, value, f.curve.name.replace("[", r"\["), *cells)
        return table

    def to_csv(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write x, derivative by the value at the knot and density, of every knot that is felt."""
        import csv

        with new_file(path, overwrite) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("observable", "function", "x", "dO_df_k", "density"))
            for f in self.functions.values():
                for i, k in np.argwhere(f.by_value != 0):
                    numbers = (f.curve.x[k], f.by_value[i, k], f.density[i, k])
                    texts = [repr(float(number)) for number in numbers]
                    writer.writerow((self.observables[i], f.curve.name, *texts))

    def plot(
        self, path: str | Path | None = None, *, width: float | None = None, overwrite: bool = False
    ) -> "Figure":
        """Curves S_w(x), a row for each observable and a column for each function.

        Args:
            width: of the bumps, as a part of the axis shown; by default 1/150.
        """
        from matplotlib.figure import Figure

        rows, columns = len(self.observables), len(self.functions)
        size = (1.0 + 3.0 * columns, 0.8 + 2.1 * rows)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharex="col")
        for k, f in enumerate(self.functions.values()):
            _draw(axes[:, k], f, self.observables, self.units, width or WIDTH_IN_RANGE)
        if path is not None:
            with new_file(path, overwrite) as unfinished:
                figure.savefig(unfinished, dpi=150)
        return figure


def _shown_range(f: FunctionSensitivity) -> np.ndarray:
    low, high = f.felt()
    room = 0.05 * (high - low) + 5 * f.curve.spacing
    first, last = f.curve.x[0], f.curve.x[-1]
    return np.linspace(max(low - room, first), min(high + room, last), 800)


def _shown_width(f: FunctionSensitivity, x: np.ndarray, part: float) -> float:
    extent = x[-1] - x[0]
    return max(part * extent, 2 * f.curve.spacing)


def _summary(f: FunctionSensitivity, i: int) -> list[str]:
    low, high = f.felt()
    x = _shown_range(f)
    s = np.abs(f.smoothed(_shown_width(f, x, WIDTH_IN_RANGE), x)[i])
    total = float(np.sum(s) * (x[1] - x[0]))
    strongest = f"{x[np.argmax(s)]:.4g}" if total else ""
    return [f"{low:.4g}", f"{high:.4g}", f"{total:.4g}", strongest]


def _draw(axes: Any, f: FunctionSensitivity, names: Sequence[str], units: Sequence[str], part: float) -> None:
    x = _shown_range(f)
    width = _shown_width(f, x, part)
    for ax, name, unit, s in zip(axes, names, units, f.smoothed(width, x), strict=True):
        ax.axhline(0, color="0.7", lw=0.8)
        ax.plot(x, s, lw=1.2, color="#1f4e79")
        ax.fill_between(x, s, color="#1f4e79", alpha=0.15, lw=0)
        ax.set_ylabel(f"{name.replace('_', ' ')}\n({_per(unit, f.curve)})", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    argument, unit = f.curve.argument, f.curve.argument_unit
    unit = "" if unit == "1" else unit
    axes[-1].set_xlabel(f"{argument} ({unit})" if unit else argument, fontsize=9)
    title = f"by {f.curve.name}({argument}), bumps of {width:.2g} {unit}"
    axes[0].set_title(title.rstrip(), fontsize=9)


def _per(unit: str, curve: Curve) -> str:
    # of an observable, per unit of the function and of its argument
    below = [u for u in (curve.unit, curve.argument_unit) if u != "1"]
    if not below:
        return unit
    product = " ".join(below)
    return f"{unit} / ({product})" if below[1:] else f"{unit} / {product}"


def functional_sensitivities(
    states: AnyState | Mapping[str, AnyState],
    observables: Sequence[Observable | str] | Observable | str,
    functions: Sequence[str] | None = None,
    *,
    linear_solver: AbstractLinearSolver | None = None,
) -> FunctionalReport:
    """Functional derivatives of observables, along the relaxed states they are measured on.

    One linear solve for each number, however many knots there are.

    Args:
        states: `Relaxed` or `Equilibrium`; one (called "structure"), or several by name.
        observables: `Observable` objects, or names (`mdsens.observables.named`).
        functions: names such as "phi[Ni-Cu]"; by default all tabulated functions of the potential.
        linear_solver: by default the factor up to 1200 unknowns, conjugate gradients beyond.
    Raises:
        InputError: a potential without tabulated functions, unknown names. NonFiniteError: a value or a
            derivative that is not finite. SaddlePointError: a state with a mode that has no curvature.
    """
    problem = SensitivityProblem.of(states, observables, None, linear_solver)
    chosen = chosen_curves(problem.potential, functions)
    knots = [name for curve in chosen for name in curve.knots]
    problem = SensitivityProblem.of(states, observables, knots, linear_solver)
    for key, state in problem.states.items():
        if state.is_singular:
            raise state.certificate.error(key)
    slopes = checked_derivative(problem, differentiate(problem, "reverse", problem.origin, None))
    ends = np.cumsum([len(curve.knots) for curve in chosen])[:-1]
    found = {}
    for curve, by_knot in zip(chosen, np.split(slopes, ends, axis=1), strict=True):
        found[curve.name] = FunctionSensitivity(curve, by_knot * curve.factor)
    return FunctionalReport(problem.names, problem.units, problem.values(), found)


def change_function(potential: Potential, name: str, change: FunctionOfX) -> Potential:
    """The potential with one of its tabulated functions changed: f(x) + change(x).

    Args:
        name: such as "phi[Ni-Cu]". change: called with an array of x.
    Raises:
        InputError: an unknown function, or a change that gives no finite number a knot.
    """
    known = {curve.name: curve for curve in chosen_curves(require_potential(potential), None)}
    curve = known[_known(name, known)]
    before = parameter_values(potential)
    old = np.array([before[name] for name in curve.knots])
    knots = old + curve.factor * _values(change, curve)
    return replace_by_vector(potential, curve.knots, jnp.asarray(knots))


def _values(change: FunctionOfX, curve: Curve) -> np.ndarray:
    with np.errstate(all="ignore"):  # a pole at r = 0 of phi(r) does not matter: there the knot is r phi(r)
        values = np.asarray(change(curve.x))
    if values.shape == curve.x.shape and values.dtype.kind == "f":
        values = np.where(curve.factor == 0, 0.0, values)
    if values.shape != curve.x.shape or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise InputError(
            f"the change of {curve.name} gives {values.dtype} of the shape {values.shape} for {len(curve.x)} "
            f"values of {curve.argument}: it must give a finite number for each."
        )
    return values


def chosen_curves(potential: Potential, names: Sequence[str] | None) -> list[Curve]:
    """The tabulated functions asked for, by default all of a potential.

    Raises:
        InputError: it has none, or none of that name.
    """
    known = {curve.name: curve for curve in curves(potential)}
    if not known:
        raise InputError(
            f"{type(potential).__name__} has no tabulated functions to differentiate by. Those of embedded-"
            "atom files have (.eam.alloy, .eam.fs, .eam); for other forms use mdsens.sensitivities."
        )
    if isinstance(names, str) or (names is not None and not names):
        raise InputError(f"functions = {names!r}: give a list of names out of {', '.join(known)}.")
    return [known[_known(name, known)] for name in dict.fromkeys(names or known)]


def _known(name: str, known: Mapping[str, Any]) -> str:
    if name not in known:
        hint = nearest(str(name), known)
        raise InputError(f"there is no function '{name}'.{hint} There are {', '.join(known)}.")
    return name
