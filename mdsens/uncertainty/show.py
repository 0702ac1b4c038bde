"""Errors of observables for people: tables, CSV, figures."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdsens.io.files import new_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

STRAIGHT = 1e-6  # second order by first that is rounding

PropagatedUncertainty = Any  # `mdsens.uncertainty.result.PropagatedUncertainty`, which stands on this file


def with_error(value: float, error: float) -> tuple[str, str]:
    """A value to the digit of its error, and the error with two digits."""
    if not np.isfinite(error) or error <= 0:
        return f"{value:.8g}", "0" if error == 0 else "-"
    digits = int(np.clip(1 - np.floor(np.log10(error)), 0, 12))
    return f"{value:.{digits}f}", f"{error:.2g}"


def error_table(found: PropagatedUncertainty) -> "Table":
    """One observable a line."""
    from rich.markup import escape
    from rich.table import Table

    title = f"± one standard deviation, {found.order}; parameters: {found.distribution.source}"
    table = Table(title=escape(title), title_justify="left")
    for header in ("observable", "mean", "±", "unit", "2nd / 1st", "most of it from"):
        side = "right" if header in ("mean", "±", "2nd / 1st") else "left"
        table.add_column(header, justify=side, no_wrap=header == "observable")
    for i, name in enumerate(found.observables):
        value, error = with_error(found.means[i], found.errors[i])
        source = escape(_largest(found, i))
        table.add_row(escape(name), value, error, found.units[i], _bend(found, i), source)
    return table


def _bend(found: PropagatedUncertainty, i: int) -> str:
    bend = found.nonlinearity[i]
    if np.isnan(bend):
        return "-"
    return f"{bend:.1g}" if bend > STRAIGHT else "0"


def _largest(found: PropagatedUncertainty, i: int, most: int = 3) -> str:
    shares = found.contributions[i]
    if not np.isfinite(shares).all():
        return ""
    order = np.argsort(-np.abs(shares))[:most]
    names = found.distribution.names
    return ", ".join(f"{names[k]} {100 * shares[k]:.0f} %" for k in order if abs(shares[k]) > 0.005)


def contribution_table(found: PropagatedUncertainty, most: int) -> "Table":
    """One observable a line, one parameter a column."""
    from rich.markup import escape
    from rich.table import Table

    order = _foremost(found, most)
    table = Table(title="share of the variance (first order), %", title_justify="left")
    table.add_column("observable", no_wrap=True)
    for k in order:
        table.add_column(escape(found.distribution.names[k]), justify="right")
    for i, name in enumerate(found.observables):
        shares = 100 * found.contributions[i, order]
        table.add_row(escape(name), *(f"{share:.1f}" for share in shares))
    return table


def _foremost(found: PropagatedUncertainty, most: int) -> np.ndarray:
    """The parameters with the largest shares, in their order."""
    largest = np.abs(np.nan_to_num(found.contributions)).max(0)
    return np.sort(np.argsort(-largest)[:most])


def write_csv(found: PropagatedUncertainty, path: str | Path, overwrite: bool) -> None:
    """One observable a line."""
    names = found.distribution.names
    head = ("observable", "unit", "value", "mean", "error", "nonlinearity", *(f"share {n}" for n in names))
    columns = (found.values, found.means, found.errors, found.nonlinearity, *found.contributions.T)
    with new_file(path, overwrite) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for i, name in enumerate(found.observables):
            numbers = [repr(float(column[i])) for column in columns]
            writer.writerow((name, found.units[i], *numbers))


def figure(found: PropagatedUncertainty, path: str | Path | None, overwrite: bool) -> "Figure":
    """Correlations on the left, shares on the right."""
    from matplotlib.figure import Figure

    order, n = _foremost(found, 12), len(found.observables)
    width, height = 6.0 + 0.5 * n + 0.3 * len(order), 2.4 + 0.35 * n
    drawing = Figure(figsize=(width, height), layout="constrained")
    left, right = drawing.subplots(1, 2, width_ratios=(n + 3, len(order) + 3))
    image = left.imshow(found.correlation, cmap="RdBu_r", vmin=-1, vmax=1)
    _label(left, found.observables, found.observables, "correlation of the errors")
    drawing.colorbar(image, ax=left, shrink=0.8)
    shares = 100 * found.contributions[:, order]
    largest = np.abs(np.nan_to_num(shares)).max(initial=1.0)
    image = right.imshow(shares, cmap="PuOr_r", vmin=-largest, vmax=largest, aspect="auto")
    _label(right, [found.distribution.names[k] for k in order], found.observables, "share of the variance, %")
    drawing.colorbar(image, ax=right, shrink=0.8)
    if path is not None:
        with new_file(path, overwrite) as unfinished:
            drawing.savefig(unfinished, dpi=150)
    return drawing


def _label(axes: Any, across: Any, down: Any, title: str) -> None:
    axes.set_xticks(range(len(across)), across, rotation=45, ha="right")
    axes.set_yticks(range(len(down)), down)
    axes.set_title(title)
