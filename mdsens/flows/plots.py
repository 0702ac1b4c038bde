"""Pictures of a training, and of a flow beside the molecular dynamics it learned from."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mdsens.flows.internal_coordinates import measure
from mdsens.io.files import new_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DATA, FLOW = "#1b6ca8", "#c8553d"


def plot_training(path: str | Path, history: Mapping[str, np.ndarray], *, overwrite: bool = False) -> None:
    """Loss terms on training and held-out frames over the steps.

    Args:
        path: a new image file.
        history: of `mdsens.flows.train.Trained`.
        overwrite: replace the file if it exists.
    """
    names = {
        "nll": "negative log-likelihood (kT)",
        "force_rmse": "force RMSE (kT/nm)",
        "reverse_kl": "log p + u (kT)",
    }
    present = [name for name in names if f"train/{name}" in history]
    with _figure(path, overwrite, columns=len(present), width=4.2 * len(present)) as axes:
        for ax, name in zip(axes, present, strict=True):
            ax.plot(history["step"], history[f"train/{name}"], color=DATA, label="training")
            if f"held_out/{name}" in history:
                ax.plot(history["step"], history[f"held_out/{name}"], color=FLOW, label="held out")
            if name == "force_rmse":
                ax.set_yscale("log")
            else:  # the first looks are far above the rest
                values = np.concatenate([history[key] for key in history if key.endswith(f"/{name}")])
                ax.set_ylim(values.min() - 0.1, np.quantile(values, 0.9) + 0.3)
            ax.set_xlabel("step")
            ax.set_ylabel(names[name])
            ax.legend(frameon=False)


def plot_comparison(
    path: str | Path,
    *,
    data: Float[np.ndarray, "frames atoms 3"],
    samples: Float[np.ndarray, "samples atoms 3"],
    torsions: tuple[tuple[int, int, int, int], ...],
    forces: tuple[np.ndarray, np.ndarray] | None = None,
    energies: tuple[np.ndarray, np.ndarray] | None = None,
    overwrite: bool = False,
) -> None:
    """Torsions of molecular dynamics beside those of the flow; forces and energies against each other.

    Args:
        path: a new image file.
        data: frames, nm.
        samples: of the flow, nm.
        torsions: atoms of the rotatable torsions; the first two become a map, a single one a histogram.
        forces: of the data and of the flow at the data, kT/nm.
        energies: u and -log p, in kT, at the same frames; compared up to a constant.
        overwrite: replace the file if it exists.
    """
    maps = min(len(torsions), 2)  # one histogram, or two maps
    columns = maps + (forces is not None) + (energies is not None)
    with _figure(path, overwrite, columns=max(1, columns), width=3.9 * max(1, columns)) as axes:
        left = list(axes)
        if len(torsions) > 1:
            for frames, title in ((data, "molecular dynamics"), (samples, "flow")):
                _ramachandran(left.pop(0), _angles(frames, torsions[:2]), title)
        elif torsions:
            ax = left.pop(0)
            for frames, label, color in ((data, "molecular dynamics", DATA), (samples, "flow", FLOW)):
                ax.hist(
                    _angles(frames, torsions)[:, 0],
                    np.linspace(-180, 180, 73).tolist(),
                    density=True,
                    histtype="step",
                    color=color,
                    label=label,
                )
            ax.set_xlabel(f"torsion {'-'.join(str(atom) for atom in torsions[0])} (°)")
            ax.legend(frameon=False)
        if forces is not None:
            _against(
                left.pop(0),
                forces[0].ravel(),
                forces[1].ravel(),
                "force, reference (kT/nm)",
                "force, flow (kT/nm)",
            )
        if energies is not None:
            reference, own = (part - part.mean() for part in energies)
            _against(left.pop(0), reference, own, "energy, reference (kT)", "-log p, flow (kT)")


def _ramachandran(ax: "Axes", angles: Float[np.ndarray, "frames 2"], title: str) -> None:
    around = [[-180, 180]] * 2
    counts, x, y = np.histogram2d(angles[:, 0], angles[:, 1], bins=72, range=around)
    with np.errstate(divide="ignore"):
        free_energy = -np.log(counts / counts.max())
    shown = np.where(counts > 0, free_energy, np.nan).T
    image = ax.pcolormesh(x, y, shown, vmin=0, vmax=7, cmap="viridis_r")
    ax.figure.colorbar(image, ax=ax, label="free energy (kT)")
    ax.set_title(title)
    ax.set_xlabel("first torsion, φ (°)")
    ax.set_ylabel("second torsion, ψ (°)")
    ax.set_xticks([-180, -90, 0, 90, 180])
    ax.set_yticks([-180, -90, 0, 90, 180])


def _against(ax: "Axes", reference: np.ndarray, own: np.ndarray, x: str, y: str) -> None:
    shown = np.random.default_rng(0).permutation(len(reference))[:20_000]
    low = float(reference[shown].min())
    high = float(reference[shown].max())
    ax.plot(reference[shown], own[shown], ".", markersize=2, alpha=0.3, color=FLOW, rasterized=True)
    ax.plot([low, high], [low, high], color="black", linewidth=0.8)
    ax.set_xlabel(x)
    ax.set_ylabel(y)


def _angles(frames: np.ndarray, torsions: tuple[tuple[int, int, int, int], ...]) -> np.ndarray:
    import jax

    def torsions_of(frame: jax.Array) -> jax.Array:
        return measure(frame, np.array(torsions))["torsions"]

    return np.degrees(np.asarray(jax.jit(jax.vmap(torsions_of))(np.asarray(frames))))


@contextmanager
def _figure(path: str | Path, overwrite: bool, columns: int, width: float) -> "Iterator[list[Axes]]":
    """A row of axes that becomes a file when the block ends without an error."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    yield list(np.atleast_1d(figure.subplots(1, columns)))
    with new_file(path, overwrite) as unfinished:
        figure.savefig(unfinished, dpi=150)
