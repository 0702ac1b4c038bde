"""Sensitivities as one object: to print, to plot, to write."""

import csv
import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from mdsens.errors import InputError
from mdsens.io.files import new_file
from mdsens.relaxation.relax import Relaxed
from mdsens.sensitivity.certificate import Certificate

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

Kind = Literal["elasticity", "log", "plain"]
KINDS: dict[str, str] = {"elasticity": "d ln(O) / d ln(θ)", "log": "dO / d ln(θ)", "plain": "dO / dθ"}

Matrix = Float[np.ndarray, "observables parameters"]


@dataclasses.dataclass(frozen=True)
class Check:
    """Derivatives by central differences between re-relaxed states.

    Attributes:
        derivative: dO/dtheta (observables, parameters).
        step: relative step of each parameter.
        at_range: relative error of first order at the smallest range of each parameter (should reach 10 % and
            not exceed it much); NaN where no range was tried.
        elsewhere: re-relaxations that ended in another minimum, in words.
    """

    derivative: Matrix
    step: float
    at_range: Matrix
    elsewhere: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SensitivityReport:
    """Derivatives of observables along relaxed states.

    All matrices are (observables, parameters) and hold dO/dtheta; `matrix(kind)` gives the logarithmic forms.

    Attributes:
        observables, units: names and units of the observables. parameters, parameter_units: likewise.
        theta: parameter values. values: observables at the relaxed states.
        frozen: derivative with the atoms (and cells) held. moving: the part through relaxation. Their sum is
            the derivative.
        errors: error bar of the sum: residual force, linear solves and rounding.
        mode: "forward" or "reverse".
        certificate: quality of each relaxed state. relaxed: the states themselves.
        moves: dx/dtheta of each state, (parameters, atoms, 3), Å per unit of the parameter; forward mode
            only.
        second: d2O/dln(theta)2, if asked for.
        check: comparison with re-relaxation, if asked for.
    """

    observables: tuple[str, ...]
    units: tuple[str, ...]
    parameters: tuple[str, ...]
    parameter_units: tuple[str, ...]
    theta: np.ndarray
    values: np.ndarray
    frozen: Matrix
    moving: Matrix
    errors: Matrix
    mode: str
    certificate: dict[str, Certificate]
    relaxed: dict[str, Relaxed]
    moves: dict[str, np.ndarray]
    second: Matrix | None = None
    check: Check | None = None

    @property
    def derivative(self) -> Matrix:
        """dO/dtheta, frozen and relaxation part together."""
        return self.frozen + self.moving

    def matrix(self, kind: Kind = "elasticity", part: Matrix | None = None) -> Matrix:
        """A derivative matrix in another form.

        Args:
            kind: "plain" dO/dtheta; "log" dO/dln(theta); "elasticity" dln(O)/dln(theta), a number without
                unit.
            part: which matrix; default the derivative.
        """
        part = self.derivative if part is None else part
        match kind:
            case "plain":
                return part
            case "log":
                return part * self.theta
            case "elasticity":
                return part * self.theta / self.values[:, None]
        raise InputError(f"kind '{kind}' is unknown: use {', '.join(KINDS)}.")

    @property
    def radius(self) -> Matrix | None:
        """|change of ln(theta)| within which the first order is good to 10 %; inf where it is exact, 0 where it vanishes.

        From the second order: |O'' t² / 2| <= 0.1 |O' t|. Parameters that are zero change by absolute amounts.
        """
        if self.second is None:
            return None
        first = np.abs(self.derivative * np.where(self.theta == 0, 1, self.theta))
        # second differences of values with 15 digits: what is below this is zero
        noise = 4e-14 * np.abs(self.values[:, None]) / 4e-6 + 1e-12
        curved = np.abs(self.second) > noise
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(curved, 0.2 * first / np.where(curved, np.abs(self.second), 1.0), np.inf)

    def table(self, kind: Kind = "elasticity", part: str = "total") -> "Table":
        """Rich table, one row an observable and one column a parameter.

        Args:
            part: "total", "frozen", "moving", "radius", "errors", "check" (difference from
                re-relaxation) or "at_range" (error of first order where it should be 10 %).
        """
        from rich.table import Table

        parts = {
            "total": self.derivative,
            "frozen": self.frozen,
            "moving": self.moving,
            "errors": self.errors,
        }
        titles = {
            "total": f"{KINDS[kind]} (error bars: {np.abs(self.matrix(kind, self.errors)).max():.0e} or less)",
            "frozen": f"{KINDS[kind]}, atoms and cells held",
            "moving": f"{KINDS[kind]}, through relaxation",
            "errors": f"{KINDS[kind]}, error bars",
            "radius": "change of ln(θ) within which first order is good to 10 %",
            "check": f"{KINDS[kind]}: difference from re-relaxed states (θ changed by ±{self.check.step if self.check else 0:g} θ)",
            "at_range": "relative error of first order at the smallest range of each parameter",
        }
        if part not in titles:
            raise InputError(f"part '{part}' is unknown: use {', '.join(titles)}.")
        table = Table(title=titles[part], title_justify="left")
        table.add_column("observable", no_wrap=True)
        table.add_column("value", justify="right", no_wrap=True)
        for name in self.parameters:
            table.add_column(name, justify="right", no_wrap=True)
        match part:
            case "radius":
                numbers = self._required(self.radius, "second_order=True")
                cell = lambda x: "> 100 %" if x > 1 else "-" if x < 1e-6 else f"{100 * x:.2g} %"
            case "at_range":
                numbers = self._required(self.check, "check=True").at_range
                cell = lambda x: "-" if not x < 10 else f"{100 * x:.2g} %"
            case "check":
                checked = self._required(self.check, "check=True")
                numbers = self.matrix(kind, checked.derivative - self.derivative)
                cell = lambda x: f"{x:.0e}" if abs(x) > 1e-15 else "0"
            case "errors":
                numbers = np.abs(self.matrix(kind, self.errors))
                cell = lambda x: f"{x:.0e}"
            case _:
                numbers = self.matrix(kind, parts[part])
                floor = np.abs(self.matrix(kind, self.errors)).max()
                cell = lambda x: (
                    "0" if abs(x) < max(10 * floor, 5e-6) else f"{x:.4f}" if abs(x) < 1000 else f"{x:.5g}"
                )
        for i, name in enumerate(self.observables):
            table.add_row(name, f"{self.values[i]:.6g} {self.units[i]}", *(cell(x) for x in numbers[i]))
        return table

    @staticmethod
    def _required(value: Any, option: str) -> Any:
        if value is None:
            raise InputError(f"this report was made without it: call sensitivities(..., {option}).")
        return value

    def certificate_table(self) -> "Table":
        """Rich table of the certificates, one column a state."""
        from rich.table import Table

        table = Table(title="certificate of the relaxed states", title_justify="left")
        table.add_column("")
        for name in self.certificate:
            table.add_column(name, justify="right")
        columns = [c.rows() for c in self.certificate.values()]
        for rows in zip(*columns, strict=True):
            table.add_row(rows[0][0], *(value for _, value in rows))
        return table

    def __rich__(self) -> "Table":
        return self.table()

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), width=40 + 12 * len(self.parameters))
        console.print(self.table())
        return console.file.getvalue()  # type: ignore[attr-defined]

    def to_csv(self, path: str | Path, *, overwrite: bool = False) -> None:
        """One row for each observable and parameter: values, derivatives, parts, error, range.

        Raises:
            OutputExistsError: the file is there and `overwrite` is False.
        """
        radius = self.radius
        log, elasticity = self.matrix("log"), self.matrix("elasticity")
        head = [
            "observable",
            "unit",
            "value",
            "parameter",
            "parameter_unit",
            "theta",
            "dO_dtheta",
            "dO_dln_theta",
            "dlnO_dln_theta",
        ]
        head += ["frozen", "relaxation", "error", "d2O_dln_theta2", "range_10_percent", "re_relaxed"]
        with new_file(path, overwrite) as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(head)
            for i, name in enumerate(self.observables):
                for k, parameter in enumerate(self.parameters):
                    row: list[Any] = [
                        name,
                        self.units[i],
                        self.values[i],
                        parameter,
                        self.parameter_units[k],
                        self.theta[k],
                    ]
                    row += [
                        self.derivative[i, k],
                        log[i, k],
                        elasticity[i, k],
                        self.frozen[i, k],
                        self.moving[i, k],
                        self.errors[i, k],
                    ]
                    row += [
                        "" if m is None else m[i, k]
                        for m in (self.second, radius, self.check and self.check.derivative)
                    ]
                    writer.writerow(row)

    def to_hdf5(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Everything, structures and position sensitivities included; units as attributes. Opens with h5py.

        Raises:
            OutputExistsError: the file is there and `overwrite` is False.
        """
        import h5py

        matrices = {
            "derivative": self.derivative,
            "frozen": self.frozen,
            "relaxation": self.moving,
            "errors": self.errors,
            "second_order": self.second,
            "range_10_percent": self.radius,
            "re_relaxed": self.check and self.check.derivative,
        }
        with new_file(path, overwrite) as unfinished, h5py.File(unfinished, "w") as file:
            file.attrs["format"] = "mdsens-sensitivity-1"
            file.attrs["mode"] = self.mode
            text = h5py.string_dtype()
            for name in ("observables", "units", "parameters", "parameter_units"):
                file.create_dataset(name, data=list(getattr(self, name)), dtype=text)
            file["theta"], file["values"] = self.theta, self.values
            for name, matrix in matrices.items():
                if matrix is not None:
                    file[name] = matrix
                    file[name].attrs["axes"] = "observables, parameters"
            for name, relaxed in self.relaxed.items():
                group = file.create_group(f"states/{name}")
                s = relaxed.structure
                for key, unit in (("positions", "Å"), ("cell", "Å"), ("species", "1"), ("masses", "u")):
                    group[key] = np.asarray(getattr(s, key))
                    group[key].attrs["unit"] = unit
                group.attrs["pbc"] = s.pbc
                if name in self.moves:
                    group["dx_dtheta"] = self.moves[name]
                    group["dx_dtheta"].attrs["axes"] = "parameters, atoms, xyz"
                certificate = dataclasses.asdict(self.certificate[name])
                group["softest_mode"] = certificate.pop("mode")
                group["softest_strain"] = certificate.pop("strain_mode")
                for key, value in certificate.items():
                    group.attrs[key] = value

    def plot(
        self, path: str | Path | None = None, *, kind: Kind = "elasticity", overwrite: bool = False
    ) -> "Figure":
        """Heat map of the sensitivities; written to `path` if given."""
        from matplotlib.figure import Figure

        numbers = self.matrix(kind)
        figure = Figure(
            figsize=(1.6 + 0.75 * len(self.parameters), 1.2 + 0.42 * len(self.observables)),
            layout="constrained",
        )
        axes = figure.add_subplot()
        # a signed square root keeps small entries visible beside large ones
        shade = np.sign(numbers) * np.sqrt(np.abs(numbers))
        top = float(np.abs(shade).max()) or 1.0
        axes.imshow(shade, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto")
        for (i, k), x in np.ndenumerate(numbers):
            color = "white" if abs(shade[i, k]) > 0.7 * top else "black"
            axes.text(
                k, i, f"{x:.2f}" if abs(x) >= 5e-3 else "0", ha="center", va="center", fontsize=8, color=color
            )
        axes.set_xticks(
            range(len(self.parameters)),
            self.parameters,
            rotation=30 if max(map(len, self.parameters)) > 6 else 0,
        )
        axes.set_yticks(range(len(self.observables)), [name.replace("_", " ") for name in self.observables])
        axes.set_title(KINDS[kind], fontsize=10)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if path is not None:
            with new_file(path, overwrite) as unfinished:
                figure.savefig(unfinished, dpi=150)
        return figure
