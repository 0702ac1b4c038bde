"""The course of a relaxation as a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mdsens.io.files import new_file
from mdsens.units import GPA

if TYPE_CHECKING:
    from mdsens.relaxation.walk import RelaxationProgress


def plot_convergence(
    path: Path,
    course: "Sequence[RelaxationProgress]",
    fmax: float,
    *,
    with_cell: bool,
    merit: str = "energy",
    overwrite: bool = False,
) -> None:
    """Energy and residuals against steps, as a PNG.

    Args:
        course: in order. fmax: tolerance, eV/Å. with_cell: show the stress as well. merit: what goes
            downhill.
    Raises:
        OutputExistsError: the file exists, and `overwrite` is False.
    """
    from matplotlib.figure import Figure

    steps = [p.steps for p in course]
    panels = 3 if with_cell else 2
    figure = Figure(figsize=(6, 1 + 2 * panels), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True)
    axes[0].plot(steps, [p.energy for p in course], "o-", markersize=3)
    axes[0].set_ylabel(f"{merit} (eV)")
    axes[0].ticklabel_format(axis="y", useOffset=False)
    _residual(axes[1], steps, [p.fmax for p in course], "largest force (eV/Å)")
    axes[1].axhline(fmax, color="gray", linestyle="--", linewidth=1, label=f"tolerance {fmax:g} eV/Å")
    axes[1].legend()
    if with_cell:
        _residual(axes[2], steps, [GPA * p.stress for p in course], "stress off target (GPa)")
    axes[-1].set_xlabel("step")
    with new_file(path, overwrite) as unfinished:
        figure.savefig(unfinished, dpi=150, format="png")


def _residual(axes, steps, values, label: str) -> None:
    # a residual that is exactly zero has no place on a logarithmic axis
    shown = np.maximum(values, 1e-16)
    axes.semilogy(steps, shown, "o-", markersize=3)
    if len(set(shown)) < 2:  # which leaves matplotlib without a scale
        middle = shown[0] if len(shown) else 1e-8
        axes.set_ylim(middle / 1e3, middle * 1e3)
    axes.set_ylabel(label)
