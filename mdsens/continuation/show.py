"""A branch as a table and as a figure."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mdsens.continuation.branch import Branch
from mdsens.io.files import new_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table


def branch_table(branch: Branch) -> "Table":
    """One row a point; events below the last one before them."""
    from rich.markup import escape
    from rich.table import Table

    ending = "" if branch.finished else ": it ends"
    table = Table(title=escape(f"states along {branch.control}{ending}"), title_justify="left")
    unit = f" ({branch.unit})" if branch.unit else ""
    table.add_column(escape(branch.control + unit), justify="right")
    for name, unit in zip(branch.observables, branch.units, strict=True):
        table.add_column(escape(f"{name} ({unit})"), justify="right")
    for title in ("lowest curvature (eV/Å²)", "first order holds for"):
        table.add_column(title, justify="right")
    for point in branch.points:
        values = [f"{value:.6f}" for value in point.values]
        table.add_row(f"{point.s:.6g}", *values, f"{point.lowest:.4g}", f"{point.radius:.2g}")
    return table


def plot_branch(branch: Branch, path: str | Path | None = None, *, overwrite: bool = False) -> "Figure":
    """Each observable along the branch, with both predictions from its first point.

    Raises:
        OutputExistsError: the file is there, and `overwrite` is False.
    """
    from matplotlib.figure import Figure

    panels = len(branch.observables) + 1
    figure = Figure(figsize=(5, 1 + 2.2 * panels), layout="constrained")
    axes = np.atleast_1d(figure.subplots(panels, 1, sharex=True))
    for k, name in enumerate(branch.observables):
        _plot_observable(axes[k], branch, k)
        axes[k].set_ylabel(f"{name} ({branch.units[k]})")
    axes[0].legend()
    axes[-1].plot(branch.s, [point.lowest for point in branch.points], "o-", markersize=3)
    axes[-1].axhline(0, color="gray", linewidth=0.8)
    axes[-1].set_ylabel("lowest curvature (eV/Å²)")
    axes[-1].set_xlabel(f"{branch.control} ({branch.unit})" if branch.unit else branch.control)
    axes[-1].locator_params(axis="x", nbins=5)
    for event in branch.events:
        if event.kind in ("fold", "bifurcation"):
            for one in axes:
                one.axvline(event.s, color="C3", linestyle=":")
    if path is not None:
        with new_file(Path(path), overwrite) as unfinished:
            figure.savefig(unfinished, dpi=150, format="png")
    return figure


def _plot_observable(axes: "Axes", branch: Branch, k: int) -> None:
    s, values = branch.s, branch.values[:, k]
    axes.plot(s, values, "o", color="black", markersize=4, label="relaxed")
    fine = np.linspace(s.min(), s.max(), 100)
    for order, style in ((1, "--"), (2, "-")):
        predicted = [branch.points[0].predicted(x, order)[k] for x in fine]
        axes.plot(fine, predicted, style, label=f"order {order} from the start")
    room = 0.15 * max(float(np.ptp(values)), 1e-12)
    axes.set_ylim(values.min() - room, values.max() + room)
