"""The profile of a path, as a figure."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mdsens.io.files import check_free
from mdsens.saddles.path import ReactionPath

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_profile(path: ReactionPath, file: str | Path | None = None, *, overwrite: bool = False) -> "Figure":
    """Energy of each image over the distance along the path; written to `file` if given.

    Raises:
        OutputExistsError: the file is there, and `overwrite` is False.
    """
    from matplotlib.figure import Figure

    if file is not None:
        check_free(Path(file), overwrite)
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    distance = path.distances
    energy = path.energies - path.energies[0]
    axes.plot(distance, energy, "o-", color="C0")
    top = path.highest
    axes.plot(distance[top], energy[top], "o", color="C3")
    axes.annotate(
        f"{energy[top]:.3f} eV", (distance[top], energy[top]), (0, 6), textcoords="offset points", ha="center"
    )
    axes.set(xlabel="distance along the path (Å)", ylabel="energy (eV)")
    axes.set_ylim(top=float(np.max(energy)) + 0.12 * float(np.ptp(energy)))
    if file is not None:
        figure.savefig(Path(file), dpi=150)
    return figure
