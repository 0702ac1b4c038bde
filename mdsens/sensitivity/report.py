"""Sensitivities as data: values, derivatives in two parts, error bars, ranges; written and read back."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdsens.errors import FileFormatError
from mdsens.io.hdf5 import Quantity, read_hdf5, write_hdf5
from mdsens.relaxation.certificate import Certificate
from mdsens.relaxation.relax import Relaxed
from mdsens.sensitivity import show
from mdsens.sensitivity.forms import Kind, Matrix, in_form
from mdsens.structure import Structure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

FORMAT = "mdsens-sensitivity-2"


@dataclasses.dataclass(frozen=True)
class ReRelaxation:
    """Derivatives by central differences between states that were relaxed again.

    Attributes:
        derivative: dO/dtheta (observables, parameters).
        step: relative step of each parameter; smaller where the minimum would be gone.
        at_range: relative error of first order at the smallest range of each parameter (should reach 10 % and
            not exceed it much); NaN where no range was tried.
        elsewhere: re-relaxations that ended in another minimum, and minima that are gone, in words.
    """

    derivative: Matrix
    step: float
    at_range: Matrix
    elsewhere: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SensitivityReport:
    """Derivatives of observables along relaxed states.

    All matrices are (observables, parameters) and hold dO/dtheta; `matrix(kind)` gives the logarithmic forms.
    Arrays among the observables have a row for each of their numbers.

    Attributes:
        observables, units: names and units of the observables. parameters, parameter_units: likewise.
        theta: parameter values. values: observables at the relaxed states.
        clamped: derivative with the atoms (and cells) held. relaxation: the part through their motion. Their
            sum is the derivative.
        errors: error bar of the sum: an estimate of what residual forces, linear solves and rounding leave,
            times 4. Measured on 300 derivatives of states relaxed to 1e-2 ... 1e-6 eV/Å (a cluster, and a
            crystal with its cell), it covered the true error of all of them, by a factor of 2.6 or more.
        mode: "forward" or "reverse".
        certificate: quality of each relaxed state. relaxed: the states themselves; none in a report that was
            read.
        moves: dx/dtheta of each state, (parameters, atoms, 3), Å per unit of the parameter; forward mode
            only.
        second: d2O/dln(theta)2, if asked for.
        radius: |change of ln(theta)| within which first order is good to 10 %, if asked for; inf where it is
            exact, 0 where it vanishes, and no more than the distance to where the minimum disappears.
            Parameters that are zero change by absolute amounts.
        check: comparison with re-relaxation, if asked for.
        structures: the relaxed structures.
        value_errors: error bars of the values: what residual forces and the rounding of positions leave,
            times 4. None in a report of an older version.
    """

    observables: tuple[str, ...]
    units: tuple[str, ...]
    parameters: tuple[str, ...]
    parameter_units: tuple[str, ...]
    theta: np.ndarray
    values: np.ndarray
    clamped: Matrix
    relaxation: Matrix
    errors: Matrix
    mode: str
    certificate: dict[str, Certificate]
    relaxed: dict[str, Relaxed]
    moves: dict[str, np.ndarray]
    second: Matrix | None = None
    radius: Matrix | None = None
    check: ReRelaxation | None = None
    structures: dict[str, Structure] = dataclasses.field(default_factory=dict)
    value_errors: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.structures:
            structures = {key: state.structure for key, state in self.relaxed.items()}
            object.__setattr__(self, "structures", structures)

    @property
    def derivative(self) -> Matrix:
        """dO/dtheta, clamped and relaxation part together."""
        return self.clamped + self.relaxation

    def matrix(self, kind: Kind = "elasticity", part: Matrix | None = None) -> Matrix:
        """A derivative matrix in another form.

        Args:
            kind: "plain" dO/dtheta; "log" dO/dln(theta); "elasticity" dln(O)/dln(theta), a number without
                unit. An observable that is zero, or lies within its own error bar, has no elasticity: NaN,
                and 0 where its derivative is 0 as well.
            part: which matrix; default the derivative.
        Raises:
            InputError: another kind.
        """
        matrix = self.derivative if part is None else part
        return in_form(kind, matrix, self.theta, self.values, self.value_errors)

    # --- to look at -----------------------------------------------------------------------------------

    def table(self, kind: Kind = "elasticity", part: str = "total") -> "Table":
        """Rich table, one row an observable and one column a parameter.

        Args:
            part: "total", "clamped", "relaxation", "radius", "errors", "check" (difference from
                re-relaxation) or "at_range" (error of first order where it should be 10 %).
        Raises:
            InputError: another part, or one that this report was made without.
        """
        return show.derivative_table(self, kind, part)

    def certificate_table(self) -> "Table":
        """Rich table of the certificates, one column a state."""
        return show.certificate_table(self.certificate)

    def plot(
        self, path: str | Path | None = None, *, kind: Kind = "elasticity", overwrite: bool = False
    ) -> "Figure":
        """Heat map of the sensitivities; written to `path` if given."""
        return show.heat_map(self, path, kind, overwrite)

    def __rich__(self) -> "Table":
        return self.table()

    def __str__(self) -> str:
        return show.plain_text(self.table(), 40 + 12 * len(self.parameters))

    # --- to keep --------------------------------------------------------------------------------------

    def to_csv(self, path: str | Path, *, overwrite: bool = False) -> None:
        """One row for each observable and parameter: values, derivatives, parts, error, range.

        Raises:
            OutputExistsError: the file is there and `overwrite` is False.
        """
        show.write_csv(self, path, overwrite)

    def to_hdf5(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Everything, structures and position sensitivities included, with units; `from_hdf5` reads it back.

        Raises:
            OutputExistsError: the file is there and `overwrite` is False.
        """
        axes = "observables, parameters"
        matrices = {
            "derivative": self.derivative,
            "clamped": self.clamped,
            "relaxation": self.relaxation,
            "errors": self.errors,
            "second_order": self.second,
            "range_10_percent": self.radius,
        }
        content: dict[str, Any] = {name: list(getattr(self, name)) for name in TEXTS}
        content |= {"kind": FORMAT, "mode": self.mode, "theta": self.theta, "values": self.values}
        content["value_errors"] = self.value_errors
        for name, matrix in matrices.items():
            content[name] = None if matrix is None else Quantity(matrix, "1", axes)
        content["check"] = None if self.check is None else _fields(self.check)
        content["states"] = {name: self._state(name) for name in self.structures}
        write_hdf5(path, content, overwrite=overwrite)

    def _state(self, name: str) -> dict[str, Any]:
        moves = self.moves.get(name)
        return {
            "structure": self.structures[name],
            "certificate": _fields(self.certificate[name]),
            "dx_dtheta": None if moves is None else Quantity(moves, "Å", "parameters, atoms, xyz"),
        }

    @classmethod
    def from_hdf5(cls, path: str | Path) -> "SensitivityReport":
        """A report that `to_hdf5` wrote: all but the relaxed states, of which the structures remain.

        Raises:
            FileFormatError: no such file, or no report.
        """
        content = read_hdf5(path)
        if content.get("kind") not in (FORMAT, FORMAT.encode()):
            raise FileFormatError(
                f"'{path}' is no sensitivity report of this version: SensitivityReport.to_hdf5 writes one."
            )
        plain = lambda value: value.value if isinstance(value, Quantity) else value
        matrix = lambda name: plain(content.get(name))
        states = content["states"]
        return cls(
            **{name: tuple(str(text) for text in content[name]) for name in TEXTS},
            mode=str(content["mode"]),
            theta=content["theta"],
            values=content["values"],
            value_errors=content.get("value_errors"),
            clamped=matrix("clamped"),
            relaxation=matrix("relaxation"),
            errors=matrix("errors"),
            second=matrix("second_order"),
            radius=matrix("range_10_percent"),
            check=_re_relaxation(content.get("check")),
            certificate={name: _certificate(state["certificate"]) for name, state in states.items()},
            relaxed={},
            moves={name: plain(state["dx_dtheta"]) for name, state in states.items() if "dx_dtheta" in state},
            structures={name: state["structure"] for name, state in states.items()},
        )


TEXTS = ("observables", "units", "parameters", "parameter_units")


def _fields(data: Any) -> dict[str, Any]:
    return {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}


def _certificate(content: dict[str, Any]) -> Certificate:
    kinds: dict[str, Any] = {"unknowns": int, "gauge": int, "mode": np.asarray, "strain_mode": np.asarray}
    numbers: dict[str, Any] = {name: kinds.get(name, float)(value) for name, value in content.items()}
    return Certificate(**numbers)


def _re_relaxation(content: dict[str, Any] | None) -> ReRelaxation | None:
    if content is None:
        return None
    elsewhere = tuple(str(text) for text in np.atleast_1d(content.get("elsewhere", ())))
    return ReRelaxation(content["derivative"], float(content["step"]), content["at_range"], elsewhere)
