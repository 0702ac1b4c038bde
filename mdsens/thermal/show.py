"""Averages for people: tables, CSV, figures."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdsens.io.files import new_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

ThermalAverages = Any  # `mdsens.thermal.result.ThermalAverages`, which stands on this file
FEW = 6  # numbers of an array that a table still shows
COLUMNS = ("observable", "unit", "value", "error", "variable", "variable_unit", "derivative", "error")


def with_error(value: float, error: float) -> tuple[str, str]:
    """A value to the digit of its error, and the error with two digits."""
    if not np.isfinite(error) or error <= 0:
        return f"{value:.6g}", "0" if error == 0 else "-"
    power = int(np.floor(np.log10(error)))
    if power < -6 or power > 4:
        digits = max(1, int(np.floor(np.log10(max(abs(value), error)))) - power + 2)
        return f"{value:.{digits}g}", f"{error:.1e}"
    digits = max(1 - power, 0)
    return f"{value:.{digits}f}", f"{error:.2g}"


def _title(found: ThermalAverages) -> str:
    T = found.variable_values[found.variables.index("temperature")]
    at = f"{T:g} K"
    if found.variables[-1] == "pressure":
        at += f", {found.variable_values[-1]:g} GPa"
    return (
        f"{at}: {found.frames} frames, {found.effective_samples:.0f} effective samples; ± one standard error"
    )


def average_table(found: ThermalAverages) -> "Table":
    """One number a line; arrays are left to the figure and the files."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=_title(found), title_justify="left")
    for header in ("observable", "value", "±", "unit"):
        table.add_column(header, justify="right" if header in ("value", "±") else "left", no_wrap=True)
    for k in _shown(found):
        name, unit = found.rows[k]
        table.add_row(escape(name), *with_error(found.values[k], found.errors[k]), unit)
    return table


def derivative_table(found: ThermalAverages) -> "Table":
    """One observable and variable a line."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="derivatives; ± one standard error", title_justify="left")
    for header in ("observable", "by", "dO/dz", "±", "unit", "d ln / d ln"):
        right = header in ("dO/dz", "±", "d ln / d ln")
        table.add_column(header, justify="right" if right else "left", no_wrap=True)
    relative = elasticities(found)[0]
    for k in _shown(found):
        name, unit = found.rows[k]
        for j, variable in enumerate(found.variables):
            numbers = with_error(found.derivatives[k, j], found.derivative_errors[k, j])
            share = f"{relative[k, j]:.3g}" if np.isfinite(relative[k, j]) else "-"
            units = _quotient(unit, found.variable_units[j])
            table.add_row(escape(name) if j == 0 else "", escape(variable), *numbers, units, share)
    return table


def _quotient(unit: str, by: str) -> str:
    if by in ("", "1"):
        return unit
    below = f"({by})" if " " in by or "/" in by else by
    return f"{unit or '1'} / {below}"


def _shown(found: ThermalAverages) -> list[int]:
    """Rows that a table shows: numbers, and arrays of a few."""
    rows, start = [], 0
    for shape in found.shapes:
        size = int(np.prod(shape))
        if size <= FEW:
            rows += range(start, start + size)
        start += size
    return rows


def elasticities(found: ThermalAverages) -> tuple[np.ndarray, np.ndarray]:
    """d ln O / d ln z and errors; NaN where the observable is zero."""
    values = np.where(found.values == 0, np.nan, found.values)[:, None]
    scale = found.variable_values / values
    return scale * found.derivatives, np.abs(scale) * found.derivative_errors


def write_csv(found: ThermalAverages, path: str | Path, overwrite: bool) -> None:
    """One number and variable a line."""
    with new_file(path, overwrite) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for k, (name, unit) in enumerate(found.rows):
            head = (name, unit, repr(float(found.values[k])), repr(float(found.errors[k])))
            for j, variable in enumerate(found.variables):
                slope = repr(float(found.derivatives[k, j]))
                error = repr(float(found.derivative_errors[k, j]))
                writer.writerow((*head, variable, found.variable_units[j], slope, error))


def figure(found: ThermalAverages, path: str | Path | None, overwrite: bool) -> "Figure":
    """Numbers: relative derivatives as bars. Arrays: a curve each, with its error."""
    from matplotlib.figure import Figure

    curves = [name for name, shape in zip(found.names, found.shapes, strict=True) if len(shape) == 1]
    numbers = [name for name, shape in zip(found.names, found.shapes, strict=True) if shape == ()]
    parts = [*(["bars"] if numbers else []), *curves] or ["bars"]
    width = 1.6 + 0.9 * max(len(found.variables), 4)
    drawing = Figure(figsize=(max(width, 5.0), 3.2 * len(parts)), layout="constrained")
    axes = np.atleast_1d(drawing.subplots(len(parts), 1))
    for part, name in zip(axes, parts, strict=True):
        if name == "bars":
            _bars(part, found, numbers)
        else:
            _curve(part, found, name)
    if path is not None:
        with new_file(path, overwrite) as unfinished:
            drawing.savefig(unfinished, dpi=150)
    return drawing


def _bars(axes: Any, found: ThermalAverages, names: list[str]) -> None:
    relative, errors = elasticities(found)
    rows = [name for name, _ in found.rows]
    places = np.arange(len(found.variables))
    width = 0.8 / max(len(names), 1)
    for k, name in enumerate(names):
        row = rows.index(name)
        shifted = places + (k - (len(names) - 1) / 2) * width
        axes.bar(shifted, relative[row], width, yerr=errors[row], label=name, capsize=2)
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xticks(places, found.variables, rotation=45, ha="right")
    axes.set_ylabel("d ln O / d ln z")
    axes.legend(frameon=False, fontsize="small")


def _curve(axes: Any, found: ThermalAverages, name: str) -> None:
    value, error = found[name]
    grid = found.grids.get(name)
    places = np.arange(len(value)) if grid is None else grid.places
    axes.plot(places, value, color="C0")
    axes.fill_between(places, value - error, value + error, color="C0", alpha=0.3)
    axes.set_xlabel("number" if grid is None else f"place, {grid.unit}")
    axes.set_ylabel(name)
