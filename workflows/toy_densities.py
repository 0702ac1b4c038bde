"""Smooth flows against splines on two densities in the plane, learned from samples without and with forces.

A flow z = F(x) has the density p(x) = |det dF/dx| on the unit square, hence the energy u = -log p (in kT) and
the forces -grad u. Rational-quadratic splines are once continuously differentiable: log F' has a kink at
every knot of every layer, and the forces jump there. Mixtures of smooth ramps have all derivatives. What does
this do to forces, where one looks at them, and where one trains on them?

    rings   u = -log sum_k w_k exp(-(r - R_k)² / 2 s²),  r = |X|,  on the square
    torus   the same of r = sqrt(2 + cos h(X_1) + cos h(X_2)),  h(X) = (pi²/4) (1 - cos X),  periodic

with X = 2 pi x - pi in both directions, R = 1, 1.5, 2, 2.5, w = 1, 0.6, 0.8, 0.4, s = 0.06 and 0.05. Samples
are exact (rejection), so are their forces; the normalization is a sum over a fine grid, so the
Kullback-Leibler divergence of the flow from the target is known, not only estimated.

Source: Köhler, Krämer, Noé, Smooth Normalizing Flows, arXiv:2110.00351, the toy examples and the notebooks
published with them. There h(X) = X²/2, whose slope jumps where the torus closes; `--densities
torus_with_seam` is that one.

    python workflows/toy_densities.py --output results/toy_densities
"""

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

jax.config.update("jax_enable_x64", True)

import equinox as eqx  # noqa: E402  (float64 first)

from mdsens.errors import OutputExistsError  # noqa: E402
from mdsens.flows.coupling import Coupling  # noqa: E402
from mdsens.flows.data import ForceData  # noqa: E402
from mdsens.flows.files import save  # noqa: E402
from mdsens.flows.flow import Flow, Uniform  # noqa: E402
from mdsens.flows.layers import AbstractLayer, Inverted, Name, Split  # noqa: E402
from mdsens.flows.losses import Loss  # noqa: E402
from mdsens.flows.splines import CircularSpline, IntervalSpline  # noqa: E402
from mdsens.flows.train import Schedule, TrainingProgress, train  # noqa: E402
from mdsens.flows.transforms import AbstractFamily, CircleMixture, IntervalMixture  # noqa: E402

# points in each direction; the densities vary over 0.01 and more, so midpoint sums are exact to many digits
GRID = 400
AT_ONCE = 4000  # points evaluated together: one shape, compiled once for each kind of flow
HALVINGS = 26  # of the intervals in which jumps are looked for
RELEVANT = 1e-2  # of the highest density: where the largest jump is looked for


# --- the targets ----------------------------------------------------------------------------------------


def shells(r, width: float):
    """Energy of a sum of Gaussian shells of the radius r."""
    radii, weights = np.array([1.0, 1.5, 2.0, 2.5]), np.array([1.0, 0.6, 0.8, 0.4])
    return -jax.scipy.special.logsumexp(-((r - radii) ** 2) / (2 * width**2), b=weights)


def rings(x):
    return shells(jnp.linalg.norm(2 * jnp.pi * x - jnp.pi), 0.06)


def torus(x):
    return shells(jnp.sqrt(jnp.sum(1 + jnp.cos(jnp.pi**2 / 4 * (1 + jnp.cos(2 * jnp.pi * x))))), 0.05)


def torus_with_seam(x):
    X = 2 * jnp.pi * (x - jnp.floor(x)) - jnp.pi
    return shells(jnp.sqrt(jnp.sum(1 + jnp.cos(X**2 / 2))), 0.05)


@dataclass(frozen=True)
class Target:
    """A density on the unit square.

    Attributes:
        energy: u(x) in kT, up to a constant.
        periodic: whether the square closes to a torus.
        cut: height of the horizontal line along which forces are shown.
    """

    energy: Callable[[Any], Any]
    periodic: bool
    cut: float

    def sample(self, n: int, seed: int) -> np.ndarray:
        """Independent exact samples (n, 2)."""
        # Rejection from the uniform density: exp(-u) is at most the highest weight, 1, and what other shells
        # add there
        rng, found, bound = np.random.default_rng(seed), [], 1.01
        while sum(map(len, found)) < n:
            x = rng.random((AT_ONCE * 10, 2))
            found.append(x[rng.random(len(x)) * bound < np.exp(-fields(self.energy, x)[0])])
        return np.concatenate(found)[:n]


TARGETS = {
    "rings": Target(rings, False, 0.5 + 0.5 / np.pi),
    "torus": Target(torus, True, 0.3),
    "torus_with_seam": Target(torus_with_seam, True, 0.3),
}


# --- the flows ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """Of flows and trainings. Mixtures have 4 numbers a component and 1 more, splines 3 a bin and 1 more."""

    components: int = 9
    bins: int = 12
    couplings: int = 4
    hidden: tuple[int, ...] = (64, 64)
    harmonics: int = 3
    samples: int = 50_000
    schedule: Schedule = field(
        default_factory=lambda: Schedule(steps=2000, batch=256, learning_rate=3e-3, evaluate_every=250)
    )

    def family(self, kind: str, periodic: bool) -> AbstractFamily:
        if kind == "smooth":
            return (CircleMixture if periodic else IntervalMixture)(self.components)
        return (CircularSpline if periodic else IntervalSpline)(self.bins)

    def flow(self, kind: str, periodic: bool) -> Flow:
        """Both coordinates in turn, each given cosines and sines of the other.

        Also on the square, whose edges nothing comes near.
        """
        names, family = ("first", "second"), self.family(kind, periodic)
        split = Split((("x", 2),), (("first", (0,)), ("second", (1,))))
        layers: list[AbstractLayer] = [Name("x"), split]
        for k, key in enumerate(jax.random.split(jax.random.key(self.schedule.seed), self.couplings)):
            moved, given = names[k % 2], names[1 - k % 2]
            sizes = dict.fromkeys(names, 1)
            layers.append(
                Coupling.create(
                    moved,
                    (given,),
                    sizes,
                    family,
                    key,
                    periodic=names,
                    hidden=self.hidden,
                    harmonics=self.harmonics,
                )
            )
        return Flow((*layers, Inverted(split)), {"x": Uniform(2)}).astype(jnp.float32)


QUICK = Size(3, 4, 1, (8,), 1, 2500, Schedule(steps=20, batch=64, evaluate_every=10, held_out=0.2))
LOSSES = {"samples": Loss(likelihood=1.0, force=0.0), "samples and forces": Loss(likelihood=1.0, force=1e-4)}


# --- what is measured -----------------------------------------------------------------------------------


@eqx.filter_jit
def _fields(energy: Callable[[Any], Any], x):
    return jax.vmap(jax.value_and_grad(energy))(x)


def fields(energy: Callable[[Any], Any], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energies (n,) in kT and forces (n, 2) at points (n, 2), in float64."""
    padded = np.pad(x, ((0, -len(x) % AT_ONCE), (0, 0)), mode="edge")
    parts = [_fields(energy, padded[k : k + AT_ONCE]) for k in range(0, len(padded), AT_ONCE)]
    u, gradient = (
        np.concatenate([np.asarray(part) for part in each])[: len(x)] for each in zip(*parts, strict=True)
    )
    return u, -gradient


def grid() -> np.ndarray:
    """Midpoints of GRID x GRID squares."""
    at = (np.arange(GRID) + 0.5) / GRID
    return np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)


def line(height: float, n: int = AT_ONCE) -> np.ndarray:
    """Points of a horizontal line across the square."""
    return np.stack([(np.arange(n) + 0.5) / n, np.full(n, height)], -1)


def jumps(force: Callable[[np.ndarray], np.ndarray], points: np.ndarray) -> np.ndarray:
    """How much the force jumps between neighboring points of a line.

    Each interval is halved again and again, and the half kept in which the force changes more. What changes
    over an interval of length 1e-11 is a jump: a smooth force changes by its slope, some 1e5, times that.
    """
    a, b = points[:-1].copy(), points[1:].copy()
    fa, fb = force(a), force(b)

    def size(df):
        return np.linalg.norm(df, axis=1)

    for _ in range(HALVINGS):
        m = (a + b) / 2
        fm = force(m)
        left = (size(fm - fa) > size(fb - fm))[:, None]
        a, fa = np.where(left, a, m), np.where(left, fa, fm)
        b, fb = np.where(left, m, b), np.where(left, fm, fb)
    return size(fb - fa)


@dataclass
class Truth:
    """A target with all that is computed of it once. Energies of the data are -log p."""

    name: str
    target: Target
    data: ForceData
    held_out: ForceData
    log_p: np.ndarray
    forces: np.ndarray
    cut: np.ndarray
    cut_forces: np.ndarray
    relevant: np.ndarray

    @classmethod
    def of(cls, name: str, size: Size) -> "Truth":
        target = TARGETS[name]
        u, forces = fields(target.energy, grid())
        log_z = np.log(np.mean(np.exp(-u)))  # the square has area 1: integrals are means
        log_p = -u - log_z
        x = target.sample(size.samples, size.schedule.seed)
        u, sampled_forces = fields(target.energy, x)
        data = ForceData(x, sampled_forces, u + log_z, 1.0)  # temperature 1: energies are in kT already
        held_out = data.split(size.schedule.held_out)[1]
        cut = line(target.cut)
        u, cut_forces = fields(target.energy, cut)
        relevant = np.exp(-u - log_z) > RELEVANT * np.exp(log_p.max())
        return cls(name, target, data, held_out, log_p, forces, cut, cut_forces, relevant)

    def measure(self, flow: Flow) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Numbers for the table, and arrays for the pictures: the flow in float64 against the target."""
        flow = flow.astype(jnp.float64)
        u, forces = fields(flow.energy, grid())
        held_u, held_forces = fields(flow.energy, self.held_out.positions)
        jump = jumps(lambda x: fields(flow.energy, x)[1], self.cut)
        numbers = {
            "kl": float(np.mean(np.exp(self.log_p) * (self.log_p + u))),
            "kl_of_samples": float(np.mean(held_u - self.held_out.energies)),
            "nll": float(held_u.mean()),
            "force_rmse": float(np.sqrt(np.mean((held_forces - self.held_out.forces) ** 2))),
            "force_rms": float(np.sqrt(np.mean(self.held_out.forces**2))),
            "largest_jump": float(jump[self.relevant[:-1] & self.relevant[1:]].max()),
        }
        return numbers, {"log_density": -u, "forces": forces, "cut_forces": fields(flow.energy, self.cut)[1]}


# --- training and tables --------------------------------------------------------------------------------


class Clock:
    """Time of a training step, without compilation: from the first look at held-out frames to the last."""

    def __init__(self, say: Callable[[str], None], label: str):
        self.say, self.label, self.looks = say, label, list[TrainingProgress]()

    def __call__(self, progress: TrainingProgress) -> None:
        self.looks.append(progress)
        terms = ", ".join(f"{name} {value:.3f}" for name, value in progress.held_out.items())
        self.say(f"{self.label}: step {progress.step} of {progress.steps}, held out: {terms}")

    @property
    def milliseconds(self) -> float:
        first, last = self.looks[0], self.looks[-1]
        return 1e3 * (last.seconds - first.seconds) / max(1, last.step - first.step)


def run(
    truth: Truth,
    size: Size,
    losses: dict[str, Loss],
    folder: Path,
    overwrite: bool,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Train and measure the flows of one target. Rows of the table, with the arrays of the pictures."""
    rows = []
    for kind in ("smooth", "spline"):
        for trained_on, loss in losses.items():
            name = f"{truth.name}-{kind}-{'forces' if loss.force else 'samples'}"
            clock = Clock(say, name)
            flow = size.flow(kind, truth.target.periodic)
            checkpoint = folder / f"{name}-training.h5"
            trained = train(
                flow,
                truth.data,
                loss=loss,
                schedule=size.schedule,
                checkpoint=checkpoint,
                overwrite=overwrite,
                progress=clock,
            )
            numbers, arrays = truth.measure(trained.last)
            numbers["ms_per_step"] = clock.milliseconds
            numbers["parameters"] = sum(
                leaf.size for leaf in jax.tree.leaves(eqx.filter(flow, eqx.is_inexact_array))
            )
            save(folder / f"{name}.h5", trained.last, overwrite=overwrite, **numbers)
            labels = {"density": truth.name, "flow": kind, "trained_on": trained_on}
            rows.append(labels | numbers | {"history": trained.history, "arrays": arrays})
    return rows


COLUMNS = {
    "density": "density",
    "flow": "flow",
    "trained_on": "trained on",
    "parameters": "parameters",
    "kl": "KL, kT",
    "kl_of_samples": "of samples",
    "nll": "NLL, kT",
    "force_rmse": "force RMSE",
    "force_rms": "of RMS",
    "largest_jump": "largest jump",
    "ms_per_step": "ms a step",
}
FORMATS = {
    "kl": ".4f",
    "kl_of_samples": ".4f",
    "nll": ".3f",
    "force_rmse": ".1f",
    "force_rms": ".1f",
    "largest_jump": ".1e",
    "ms_per_step": ".1f",
}


def summary(rows: list[dict[str, Any]]) -> Table:
    table = Table(
        title="flows against their targets; forces in kT per edge of the square, held-out samples; "
        "KL by quadrature"
    )
    for title in COLUMNS.values():
        table.add_column(title, justify="left" if title in ("density", "flow", "trained on") else "right")
    for row in rows:
        table.add_row(*(format(row[name], FORMATS.get(name, "")) for name in COLUMNS))
    return table


def write(folder: Path, truths: list[Truth], rows: list[dict[str, Any]]) -> None:
    """The table as CSV; fields, cuts and courses of the trainings as HDF5, a group for each."""
    with (folder / "toy_densities.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    with h5py.File(folder / "toy_densities.h5", "w") as file:
        file.attrs["units"] = "energies in kT, lengths in edges of the unit square"
        for truth in truths:
            group = file.create_group(truth.name)
            group["grid"], group["log_density"], group["forces"] = grid(), truth.log_p, truth.forces
            group["cut"], group["cut_forces"] = truth.cut, truth.cut_forces
            group["held_out/positions"], group["held_out/forces"] = (
                truth.held_out.positions,
                truth.held_out.forces,
            )
        for row in rows:
            group = file.create_group(f"{row['density']}/{row['flow']}, {row['trained_on']}")
            group.attrs.update({name: row[name] for name in COLUMNS})
            for name, values in row["arrays"].items():
                group[name] = values
            for name, values in row["history"].items():
                group[f"history/{name}"] = values


# --- pictures -------------------------------------------------------------------------------------------

BLUE, RED, BLACK = "#0072B2", "#D55E00", "#222222"
COLORS = {"smooth": BLUE, "spline": RED}


def draw_fields(path: Path, truth: Truth, rows: list[dict[str, Any]]) -> None:
    """Densities above, forces below: size as color where the density counts, direction as arrows."""
    shape, extent = (GRID, GRID), (0, 1, 0, 1)
    columns = [("target", truth.log_p, truth.forces)]
    columns += [
        (f"{row['flow']}, {row['trained_on']}", row["arrays"]["log_density"], row["arrays"]["forces"])
        for row in rows
    ]
    highest = np.exp(truth.log_p.max())
    # elsewhere nobody has been: forces are what networks make up
    shown = truth.log_p > np.log(1e-3 * highest)
    strongest = np.percentile(np.linalg.norm(truth.forces[shown], axis=1), 99)
    fig = Figure(figsize=(12.5, 5.2), layout="constrained")
    axes = fig.subplots(2, len(columns))
    for (density, forces), (title, log_p, f) in zip(axes.T, columns, strict=True):
        above = density.imshow(
            np.exp(log_p).reshape(shape).T, origin="lower", extent=extent, cmap="magma", vmin=0, vmax=highest
        )
        size = np.where(shown, np.linalg.norm(f, axis=1), np.nan)
        below = forces.imshow(
            size.reshape(shape).T, origin="lower", extent=extent, cmap="viridis", vmin=0, vmax=strongest
        )
        every = np.zeros(shape, bool)
        every[GRID // 60 :: GRID // 30, GRID // 60 :: GRID // 30] = True
        arrows = every.ravel() & shown
        x = grid()[arrows]
        direction = f[arrows] / np.linalg.norm(f[arrows], axis=1, keepdims=True)
        forces.quiver(
            *x.T, *direction.T, color="white", scale=40, width=0.004, headwidth=4, headlength=4, pivot="mid"
        )
        density.set_title(title, fontsize=9)
        for ax in (density, forces):
            ax.set(xticks=[], yticks=[])
    axes[0, 0].axhline(truth.target.cut, color="white", linewidth=0.6, linestyle="--")
    fig.colorbar(above, ax=axes[0], shrink=0.9, pad=0.01, label="density")
    fig.colorbar(below, ax=axes[1], shrink=0.9, pad=0.01, label="|force|, kT / edge")
    fig.savefig(path, dpi=120)


def draw_cut(path: Path, truth: Truth, rows: list[dict[str, Any]]) -> None:
    """The horizontal force along the cut, without and with forces in the training; below, the error."""
    fig = Figure(figsize=(11.5, 5.0), layout="constrained")
    trainings = list(dict.fromkeys(row["trained_on"] for row in rows))
    axes = fig.subplots(2, len(trainings), sharex=True, sharey="row", squeeze=False)
    x = truth.cut[:, 0]

    def blank(values):
        return np.where(truth.relevant, values, np.nan)

    for (force, error), trained_on in zip(axes.T, trainings, strict=True):
        force.plot(x, blank(truth.cut_forces[:, 0]), color=BLACK, linewidth=2.5, alpha=0.35, label="target")
        for row in (row for row in rows if row["trained_on"] == trained_on):
            style = {"color": COLORS[row["flow"]], "linewidth": 0.9, "label": row["flow"]}
            force.plot(x, blank(row["arrays"]["cut_forces"][:, 0]), **style)
            error.plot(x, blank(row["arrays"]["cut_forces"][:, 0] - truth.cut_forces[:, 0]), **style)
        force.set(title=f"trained on {trained_on}")
        error.set(xlabel=f"x, at y = {truth.target.cut:.3f}", xlim=(0, 1))
    widest = 1.3 * np.nanmax(np.abs(blank(truth.cut_forces[:, 0])))
    axes[0, 0].set(ylabel="force in x, kT / edge", ylim=(-widest, widest))
    axes[1, 0].set(ylabel="error, kT / edge", ylim=(-widest / 2, widest / 2))
    axes[0, 0].legend(frameon=False, ncols=3)
    fig.savefig(path, dpi=150)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("results/toy_densities"),
        help="folder for tables, flows and figures",
    )
    parser.add_argument(
        "--densities", nargs="+", choices=list(TARGETS), default=["rings", "torus"], help="which targets"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small flows of the torus, hardly trained, with forces only: do all parts run?",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    options = parser.parse_args(arguments)
    folder: Path = options.output
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not options.overwrite:
        raise OutputExistsError(
            f"'{folder}' exists and is not empty. Choose another --output, or pass --overwrite."
        )
    folder.mkdir(parents=True, exist_ok=True)
    size, names = (QUICK, ["torus"]) if options.quick else (Size(), options.densities)
    losses = {name: loss for name, loss in LOSSES.items() if loss.force > 0 or not options.quick}
    console, truths, rows = Console(width=150), [], []
    for name in names:
        truth = Truth.of(name, size)
        own = run(truth, size, losses, folder, options.overwrite, console.print)
        draw_fields(folder / f"{name}.png", truth, own)
        draw_cut(folder / f"{name}-cut.png", truth, own)
        truths, rows = [*truths, truth], [*rows, *own]
        write(folder, truths, rows)
    console.print(summary(rows), f"Results: {folder}", sep="\n")


if __name__ == "__main__":
    main()
