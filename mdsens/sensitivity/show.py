"""Sensitivity reports for people: tables, CSV, a map of the derivatives."""

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdsens.errors import InputError
from mdsens.io.files import new_file
from mdsens.relaxation.certificate import Certificate
from mdsens.sensitivity.forms import KINDS, Kind, Matrix, is_zero

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

SensitivityReport = Any  # `mdsens.sensitivity.report.SensitivityReport`, which stands on this file

DIGITS = 4  # shown of a derivative, where its error allows
UNKNOWN = "-"  # a number of which no digit is known, or that has no meaning

PARTS = ("total", "clamped", "relaxation", "errors", "radius", "check", "at_range")

COLUMNS = (
    *("observable", "unit", "value", "parameter", "parameter_unit", "theta"),
    *("dO_dtheta", "dO_dln_theta", "dlnO_dln_theta", "clamped", "relaxation", "error"),
    *("d2O_dln_theta2", "range_10_percent", "re_relaxed"),
)


def derivative_table(report: SensitivityReport, kind: Kind, part: str) -> "Table":
    """One row an observable, one column a parameter (see `SensitivityReport.table`)."""
    from rich.table import Table

    title, cells = _part(report, kind, part)
    table = Table(title=title, title_justify="left")
    table.add_column("observable", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    for name in report.parameters:
        table.add_column(_plain(name), justify="right", no_wrap=True)
    for i, name in enumerate(report.observables):
        value = f"{report.values[i]:.6g} {report.units[i]}"
        table.add_row(_plain(name), value, *cells[i])
    if kind == "elasticity":
        table.caption = _plain("\n".join(_reasons(report))) or None
        table.caption_justify = "left"
    return table


def _reasons(report: SensitivityReport) -> list[str]:
    """Why some observables have no elasticity, one line each."""
    undefined = np.isnan(report.matrix("elasticity")).any(axis=1)
    lines = []
    for i in np.flatnonzero(undefined & is_zero(report.values, report.value_errors)):
        floor = 0.0 if report.value_errors is None else report.value_errors[i]
        within = f" within its error bar, {floor:.0e} {report.units[i]}" if floor else ""
        lines.append(f"{report.observables[i]} is zero{within}: it has no elasticity")
    return lines


def _plain(text: str) -> str:
    return text.replace("[", r"\[")  # names hold brackets, rich's own mark


def _part(report: SensitivityReport, kind: Kind, part: str) -> tuple[str, list[list[str]]]:
    """Title and cells of one table."""
    name = KINDS.get(kind, "")
    errors = np.abs(report.matrix(kind, report.errors))
    match part:
        case "total":
            title = f"{name} (error bars: {_largest(errors)} or less)"
            return title, _with_errors(report.matrix(kind), errors)
        case "clamped":
            title = f"{name}, atoms and cells held"
            return title, _with_errors(report.matrix(kind, report.clamped), errors)
        case "relaxation":
            title = f"{name}, through relaxation"
            return title, _with_errors(report.matrix(kind, report.relaxation), errors)
        case "errors":
            return f"{name}, error bars", _formatted(errors, _error)
        case "radius":
            radius = _required(report.radius, "second_order=True")
            return "change of ln(θ) within which first order is good to 10 %", _formatted(radius, _range)
        case "check":
            check = _required(report.check, "check=True")
            off = report.matrix(kind, check.derivative - report.derivative)
            step = f"θ changed by ±{check.step:g} θ"
            return f"{name}: difference from re-relaxed states ({step})", _formatted(off, _difference)
        case "at_range":
            at_range = _required(report.check, "check=True").at_range
            title = "relative error of first order at the smallest range of each parameter"
            return title, _formatted(at_range, _share)
    raise InputError(f"part '{part}' is unknown: use {', '.join(PARTS)}.")


def _required(value: Any, option: str) -> Any:
    if value is None:
        raise InputError(f"this report was made without it: call sensitivities(..., {option}).")
    return value


def _largest(errors: Matrix) -> str:
    # of the cells that show a number
    known = errors[np.isfinite(errors) & (errors < 0.5)]
    return f"{known.max(initial=0.0):.0e}"


def _formatted(matrix: Matrix, cell: Callable[[float], str]) -> list[list[str]]:
    return [[cell(float(x)) for x in row] for row in matrix]


def _with_errors(numbers: Matrix, errors: Matrix) -> list[list[str]]:
    rows = zip(numbers, errors, strict=True)
    return [[_with_error(x, e) for x, e in zip(*row, strict=True)] for row in rows]


def _with_error(x: float, error: float) -> str:
    """A number to the digits that its own error allows."""
    if not np.isfinite(x) or not np.isfinite(error) or (error >= 0.5 and error >= abs(x) / 2):
        return UNKNOWN
    if abs(x) <= max(error, 0.05 * 10.0**-DIGITS):
        return "0"
    known = DIGITS if error == 0 else -np.floor(np.log10(error))
    digits = int(np.clip(known, 0, DIGITS))
    if abs(x) >= 1000:
        return f"{x:.5g}"
    return f"{x:.{digits}f}"


def _error(x: float) -> str:
    return f"{x:.0e}" if np.isfinite(x) else UNKNOWN


def _range(x: float) -> str:
    if x > 1:
        return "> 100 %"
    return UNKNOWN if x < 1e-6 else f"{100 * x:.2g} %"


def _difference(x: float) -> str:
    if not np.isfinite(x):
        return UNKNOWN
    return f"{x:.0e}" if abs(x) > 1e-15 else "0"


def _share(x: float) -> str:
    return f"{100 * x:.2g} %" if x < 10 else UNKNOWN


def certificate_table(certificates: Mapping[str, Certificate]) -> "Table":
    """One column a state."""
    from rich.table import Table

    table = Table(title="certificate of the relaxed states", title_justify="left")
    table.add_column("")
    for name in certificates:
        table.add_column(name, justify="right")
    for rows in zip(*(c.rows() for c in certificates.values()), strict=True):
        table.add_row(rows[0][0], *(value for _, value in rows))
    return table


def plain_text(table: "Table", width: int) -> str:
    """A table as text."""
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=width).print(table)
    return text.getvalue()


def write_csv(report: SensitivityReport, path: str | Path, overwrite: bool) -> None:
    """One row for each observable and parameter (see `SensitivityReport.to_csv`)."""
    with new_file(path, overwrite) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i in range(len(report.observables)):
            writer.writerows(_rows(report, i))


def _rows(report: SensitivityReport, i: int) -> list[list[Any]]:
    log, elasticity = report.matrix("log"), report.matrix("elasticity")
    optional = (report.second, report.radius, report.check and report.check.derivative)
    rows = []
    for k, parameter in enumerate(report.parameters):
        at = (i, k)
        row: list[Any] = [report.observables[i], report.units[i], report.values[i]]
        row += [parameter, report.parameter_units[k], report.theta[k]]
        row += [report.derivative[at], log[at]]
        row.append("" if np.isnan(elasticity[at]) else elasticity[at])
        row += [report.clamped[at], report.relaxation[at], report.errors[at]]
        row += ["" if matrix is None else matrix[at] for matrix in optional]
        rows.append(row)
    return rows


def heat_map(report: SensitivityReport, path: str | Path | None, kind: Kind, overwrite: bool) -> "Figure":
    """Map of the derivatives (see `SensitivityReport.plot`)."""
    from matplotlib.figure import Figure

    numbers = report.matrix(kind)
    errors = np.abs(report.matrix(kind, report.errors))
    accurate = errors < np.maximum(0.5, np.abs(numbers) / 2)
    known = np.isfinite(numbers) & np.isfinite(errors) & accurate
    shown = np.where(known, numbers, 0.0)
    width, height = len(report.parameters), len(report.observables)
    figure = Figure(figsize=(1.6 + 0.75 * width, 1.2 + 0.42 * height), layout="constrained")
    axes = figure.add_subplot()
    # a signed square root keeps small entries visible beside large ones
    shade = np.sign(shown) * np.sqrt(np.abs(shown))
    top = float(np.abs(shade).max(initial=0.0)) or 1.0
    axes.imshow(shade, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto")
    for (i, k), x in np.ndenumerate(shown):
        color = "white" if abs(shade[i, k]) > 0.7 * top else "black"
        number = f"{x:.2f}" if abs(x) >= 5e-3 else "0"
        text = number if known[i, k] else UNKNOWN
        axes.text(k, i, text, ha="center", va="center", fontsize=8, color=color)
    rotation = 30 if max(map(len, report.parameters)) > 6 else 0
    axes.set_xticks(range(width), report.parameters, rotation=rotation)
    axes.set_yticks(range(height), [name.replace("_", " ") for name in report.observables])
    axes.set_title(KINDS[kind], fontsize=10)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if path is not None:
        with new_file(path, overwrite) as unfinished:
            figure.savefig(unfinished, dpi=150)
    return figure
