"""The report of a fit as tables, as a text, and as a figure."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mdsens.io.files import new_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from mdsens.fitting.result import FitResult

Line = tuple[str, ...]

TARGETS: Line = ("target", "before", "after", "±", "wanted", "tolerance", "off by", "")
PARAMETERS: Line = ("parameter", "before", "after", "±", "unit", "scale")


def target_lines(result: "FitResult") -> list[Line]:
    """One line for each row of the report."""
    starts = np.cumsum([0, *(row.count for row in result.rows[:-1])])
    rows = zip(result.rows, result.before, result.row_errors(), starts, strict=True)
    lines = []
    for row, before, error, start in rows:
        # on the log scale a residual of a prior is not the difference of the values
        single = row.count == 1
        off = float(result.residuals[start]) if single else (row.value - row.target) / row.tolerance
        lines.append(_target_line(row, before.value, error, off))
    return lines


def _target_line(row: Any, before: float, error: float, off: float) -> Line:
    verdict = "met" if abs(off) <= 1 else "missed"
    unit = f" {row.unit}" if row.unit not in ("", "1") else ""
    shown = [f"{before:.6g}", f"{row.value:.6g}", _error(error), f"{row.target:.6g}{unit}"]
    return (row.name, *shown, f"{row.tolerance:.3g}", f"{off:+.2f}", verdict)


def _error(error: float) -> str:
    if np.isinf(error):
        return "not determined"
    return "" if np.isnan(error) else f"{error:.2g}"


def parameter_lines(result: "FitResult") -> list[Line]:
    """One line for each free parameter, ties spelled out."""
    space = result.space
    variables = [space.variables[k] for k in space.owner]
    columns = zip(
        space.parameters,
        space.theta(space.start),
        space.theta(result.z),
        result.errors.values(),
        variables,
        strict=True,
    )
    return [
        (name, f"{before:.8g}", f"{after:.8g}", _error(error), variable.unit, variable.scale)
        for name, before, after, error, variable in columns
    ]


def floor_lines(result: "FitResult") -> list[str]:
    """What the form cannot meet, in words."""
    missed = result.floor
    if not missed:
        return ["Every target is met within its tolerance."]
    lines = [
        f"{entry.row.name}: off by {entry.residual:+.2f} tolerances ({entry.row.value:.6g} for "
        f"{entry.row.target:.6g} {entry.row.unit}), {100 * entry.share:.0f} % of the loss"
        for entry in missed
    ]
    rest = f"The combination that is left, which no free parameter moves: {result.floor_direction}"
    return [*lines, rest]


def identifiability_lines(result: "FitResult") -> list[str]:
    """What the targets know of the parameters, in words."""
    found = result.identifiability
    values = ", ".join(f"{s:.3g}" for s in found.singular)
    pinned = ", ".join(found.pinned) or "none"
    lines = [f"singular values of d residuals / d ln(parameters): {values}", f"known to 10 %: {pinned}"]
    return lines + [f"sloppy ({value:.2g}): {direction}" for value, direction in found.sloppy]


def target_table(result: "FitResult") -> "Table":
    """Before, after and target."""
    return _table(f"fit: {result.status}, loss {result.loss:.6g}", TARGETS, target_lines(result))


def parameter_table(result: "FitResult") -> "Table":
    """Parameters before and after."""
    return _table("parameters", PARAMETERS, parameter_lines(result))


def _table(title: str, header: Line, lines: list[Line]) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for k, name in enumerate(header):
        table.add_column(name, justify="right" if 0 < k < len(header) - 1 else "left", no_wrap=k == 0)
    for line in lines:
        table.add_row(*(escape(text) for text in line))
    return table


def markdown(result: "FitResult") -> str:
    """The whole report."""
    steps = sum(record.taken for record in result.history)
    head = (
        f"The fit {result.status} after {steps} steps ({len(result.history) - steps} taken back, "
        f"{result.relaxations} relaxations); sum of squared residuals {result.loss:.8g}."
    )
    parts = [
        "# Fit",
        head,
        "## Targets",
        _markdown_table(TARGETS, target_lines(result)),
        "## What cannot be met",
        "\n".join(f"- {line}" for line in floor_lines(result)),
        "## Parameters",
        _markdown_table(PARAMETERS, parameter_lines(result)),
        "± is one standard error, if tolerances are standard errors (Laplace).",
        "## What the targets know",
        "\n".join(f"- {line}" for line in identifiability_lines(result)),
    ]
    return "\n\n".join(parts) + "\n"


def _markdown_table(header: Line, lines: list[Line]) -> str:
    rows = [header, tuple("---" for _ in header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def write_markdown(result: "FitResult", path: str | Path, overwrite: bool) -> None:
    """Write the report as a text."""
    with new_file(path, overwrite) as unfinished:
        unfinished.write_text(markdown(result), encoding="utf-8")


def figure(result: "FitResult", path: str | Path | None, overwrite: bool) -> "Figure":
    """Correlations of the parameters, and singular values."""
    from matplotlib.figure import Figure

    found = result.identifiability
    n = len(found.names)
    drawing = Figure(figsize=(4.5 + 0.8 * n, 2.2 + 0.35 * n), layout="constrained")
    left, right = drawing.subplots(1, 2, width_ratios=(2, 1))
    image = left.imshow(found.correlation, cmap="RdBu_r", vmin=-1, vmax=1)
    left.set_xticks(range(n), found.names, rotation=45, ha="right")
    left.set_yticks(range(n), found.names)
    left.set_title("correlation of the parameters")
    drawing.colorbar(image, ax=left, shrink=0.8)
    right.semilogy(range(1, n + 1), np.maximum(found.singular, 1e-16), "o-")
    right.axhline(1.0, color="0.6", lw=0.8)
    right.set(xlabel="direction", ylabel="d residuals / d ln(parameters)", title="singular values")
    right.set_xticks(range(1, n + 1))
    if path is not None:
        with new_file(path, overwrite) as unfinished:
            drawing.savefig(unfinished, dpi=150)
    return drawing
