"""How a packing of soft discs answers to the size of its small discs.

Implicit derivative against unrolled optimizer.

128 discs in a periodic square box, half of diameter 1 and half of diameter D = 0.6, repel each other with

    U = sum_{i<j} 1/2 (1 - r_ij / s_ij)^2   for r_ij < s_ij = (d_i + d_j) / 2.

From each random start, FIRE walks to a minimum x*(D). The question is dx*/dD. The force vanishes at x* for
every D, so

    dx*/dD = -H^+ d2U/dx dD,     H = d2U/dx2,

with H^+ on the complement of uniform shifts and of discs without contacts.

`ms.relax` gives this. The alternative is to differentiate the steps of FIRE themselves. Both are compared,
after the same numbers of steps, with the derivative at the minimum which that walk leads to.

Source: the system of Blondel et al., "Efficient and Modular Implicit Differentiation", arXiv:2105.15183.
Lengths are in large diameters, energies in units of the stiffness.

    python workflows/soft_sphere_packing.py --starts 40 --steps 300 500 700 1000 3000 --output
    results/soft_sphere_packing
"""

import argparse
import dataclasses
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from rich.console import Console
from rich.progress import track
from rich.table import Table

import mdsens as ms

matplotlib.use("Agg")
jax.config.update("jax_enable_x64", True)

N, BOX, D = 128, 8.3520, 0.6
DIAMETERS = np.repeat([1.0, D], N // 2)
FIRST, SECOND = np.triu_indices(N, 1)
SPECIES = ("Ar", "Ne")  # two labels, large and small: no chemistry
TEMPLATE = ms.Structure.create(
    np.zeros((N, 3)),
    np.repeat(SPECIES, N // 2).tolist(),
    [BOX, BOX, 4.0],
    (True, True, False),
    fixed=np.tile([False, False, True], (N, 1)),
)
ALL_PAIRS = ms.find_neighbors(dataclasses.replace(TEMPLATE, pbc=(False, False, False)), cutoff=np.inf)
OTHERS = jnp.array([[j for j in range(N) if j != i] for i in range(N)])  # (N, N - 1)
ANY = 1e9  # eV/Å: a tolerance that any positions fulfil
RIGHT = 0.01  # a derivative within 1 % counts as right


def random_start(seed: int) -> np.ndarray:
    return np.round(np.random.default_rng(seed).random((N, 2)) * BOX, 8)


def packing(xy) -> ms.Structure:
    """The discs as atoms whose z is held at 0."""
    return TEMPLATE.at(jnp.pad(xy, ((0, 0), (0, 1))))


def discs(D) -> ms.SoftSphere:
    return ms.SoftSphere(diameter=jnp.array([1.0, D]), epsilon=1.0, alpha=2.0, elements=SPECIES)


def all_pairs(structure: ms.Structure) -> ms.Neighbors:
    """Every pair at its nearest image.

    Never out of date, so an optimizer can run, and be differentiated, under jit.
    """
    x = jax.lax.stop_gradient(structure.positions)
    flat = _nearest_image(x[ALL_PAIRS.j] - x[ALL_PAIRS.i])
    # seen by atom: each of the other discs has an image of its own for each disc that looks at it
    image = _nearest_image(x[OTHERS] - x[:, None]).reshape(-1, 3)
    near = N + jnp.arange(OTHERS.size).reshape(OTHERS.shape)
    return dataclasses.replace(ALL_PAIRS, shift=flat, near=near, owner=OTHERS.reshape(-1), image=image)


def _nearest_image(d):
    return -jnp.round(d / jnp.array([BOX, BOX, jnp.inf]))


# --- two ways to dx/dD
# -------------------------------------------------------------------------------------------


@jax.jit
def unrolled(xy, steps):
    """Positions, derivative dx/dD and largest force after each number of FIRE steps.

    Forward mode through every step.
    """
    from jax_md import minimize

    def walk(D):
        energy = lambda R: discs(D).energy(packing(R), all_pairs(packing(R)))
        init, step = minimize.fire_descent(lambda R, **_: -jax.grad(energy)(R), lambda R, dR, **_: R + dR)

        def go_on(state, more):
            state = jax.lax.fori_loop(0, more, lambda _, s: step(s), state)
            return state, (state.position, jnp.max(jnp.abs(state.force)))

        return jax.lax.scan(go_on, jax.tree.map(jnp.asarray, init(xy)), jnp.diff(steps, prepend=0))[1]

    (x, fmax), (dx, _) = jax.jvp(walk, (D,), (1.0,))
    return x, dx, fmax


def implicit(xy, fmax: float) -> tuple[np.ndarray, np.ndarray]:
    """Relaxed positions, and dx/dD at them.

    Fmax = ANY takes the positions as they are, whether or not a minimum.
    """
    finish = fmax < ANY
    relaxed = lambda D: (
        ms.relax(discs(D), packing(xy), fmax=fmax, check_minimum=finish, throw=finish).structure.positions
    )
    x, dx = jax.jvp(relaxed, (jnp.asarray(D),), (1.0,))
    return np.asarray(x)[:, :2], np.asarray(dx)[:, :2]


# --- one start ------------------------------------------------------------------------------------


@jax.jit
def hessian(xy, neighbors: ms.Neighbors):
    return jax.hessian(lambda flat: discs(D).energy(packing(flat.reshape(N, 2)), neighbors))(xy.ravel())


def curvatures(xy: np.ndarray) -> np.ndarray:
    """Eigenvalues of H, ascending, without those along which nothing holds the discs."""
    values = np.linalg.eigvalsh(np.asarray(hessian(xy, ms.neighbors_of(discs(D), packing(xy)))))
    return values[np.abs(values) > 1e-9 * values[-1]]


def contacts(xy: np.ndarray) -> np.ndarray:
    d = xy[SECOND] - xy[FIRST]
    return np.linalg.norm(d - BOX * np.round(d / BOX), axis=1) < (DIAMETERS[FIRST] + DIAMETERS[SECOND]) / 2


def analyse(seed: int, steps: list[int]) -> dict[str, np.ndarray]:
    """What is kept of one start: a number for the minimum, numbers for each of `steps`.

    And the arrays behind them.
    """
    x, dx_unrolled, fmax = (
        np.asarray(a) for a in unrolled(jnp.asarray(random_start(seed)), jnp.asarray(steps))
    )
    dx_implicit = np.stack([implicit(xy, ANY)[1] for xy in x])
    # Newton finds the minimum from beside the last point: an answer of its own, not the last point itself.
    minimum, dx = implicit(x[-1] + np.random.default_rng(seed).normal(0, 1e-9, x[-1].shape), 5e-14)

    touching = contacts(minimum)
    rattlers = np.bincount(np.concatenate([FIRST[touching], SECOND[touching]]), minlength=N) == 0
    # What the energy determines: not the place of discs without contacts, nor a common shift of the others.
    held = lambda v: np.where(rattlers[:, None], 0.0, v - np.mean(v[:, ~rattlers], axis=1, keepdims=True))
    l1 = lambda v: np.sum(np.abs(v), axis=(-2, -1))
    return {
        "max_force": fmax,
        "distance": np.linalg.norm(held(x - minimum), axis=(1, 2)),
        "error_implicit": l1(held(dx_implicit) - dx) / l1(dx),
        "error_unrolled": l1(held(dx_unrolled) - dx) / l1(dx),
        "l1_implicit": l1(dx_implicit),
        "l1_unrolled": l1(dx_unrolled),  # rattlers included, as the walk has it
        "negative_modes": np.array([np.sum(curvatures(xy) < 0) for xy in x]),
        "contact_changes": np.array([np.sum(contacts(xy) != touching) for xy in x]),
        "l1_minimum": l1(dx),
        "lowest_curvature": curvatures(minimum)[0],
        "rattlers": np.sum(rattlers),
        **{
            "positions": x,
            "dx_unrolled": dx_unrolled,
            "dx_implicit": dx_implicit,
            "minimum": minimum,
            "dx_minimum": dx,
        },
    }


# --- results: one HDF5 group a start, written as soon as it is known
# ---------------------------------------------


def open_results(path: Path, steps: list[int]) -> h5py.File:
    """The results to go on with. Refuses what this script did not write, or wrote with other settings."""
    settings = {"format": "mdsens-soft-sphere-packing-1", "D": D, "box": BOX, "steps": steps}
    if path.exists() and not h5py.is_hdf5(path):
        raise ms.errors.OutputExistsError(f"'{path}' is no HDF5 file: choose another --output.")
    if not path.exists() and path.parent.exists() and any(path.parent.iterdir()):
        raise ms.errors.OutputExistsError(
            f"'{path.parent}' is not empty and holds no {path.name}: choose another --output."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    file = h5py.File(path, "a")
    if len(file) == len(file.attrs) == 0:
        file.attrs.update(settings)
    for name, value in settings.items():
        if not np.array_equal(found := file.attrs.get(name), value):
            file.close()
            raise ms.errors.OutputExistsError(
                f"'{path}' holds other data: {name} is {found}, asked for {value}. Choose another --output."
            )
    return file


def group_name(seed: int) -> str:
    return f"start-{seed:03d}"


def complete(file: h5py.File, seeds: range, steps: list[int], console: Console) -> None:
    for seed in track(seeds, description="starts", console=console):
        if group_name(seed) in file:
            continue
        result = analyse(seed, steps)
        file.pop("unfinished", None)  # of a run that was stopped while writing
        for key, value in result.items():
            file[f"unfinished/{key}"] = value
        file.move("unfinished", group_name(seed))
        file.flush()


def collect(file: h5py.File, seeds: range) -> dict[str, np.ndarray]:
    """Numbers of all starts: (starts, steps), or (starts, 1) for what belongs to the minimum."""
    groups = [file[group_name(seed)] for seed in seeds]
    keys = [key for key in groups[0] if groups[0][key].ndim < 2]
    return {key: np.array([np.atleast_1d(group[key][()]) for group in groups]) for key in keys}


def write_csv(path: Path, data: dict[str, np.ndarray], seeds: range, steps: list[int]) -> None:
    columns = {"start": np.array(seeds)[:, None], "steps": np.array(steps)[None], **data}
    flat = [np.broadcast_to(values, (len(seeds), len(steps))).ravel() for values in columns.values()]
    np.savetxt(path, np.stack(flat, axis=1), "%.8g", ",", header=",".join(columns), comments="")


def summary(data: dict[str, np.ndarray], steps: list[int]) -> Table:
    table = Table(
        title=f"dx/dD of {len(data['rattlers'])} packings against the minimum: median (quartiles); "
        "wrong: off by more than 1 %"
    )
    spreads = {
        "max_force": "largest force",
        "distance": "|x - x*|",
        "error_implicit": "implicit error",
        "error_unrolled": "unrolled error",
    }
    for title in ("steps", *spreads.values(), "implicit wrong", "unrolled wrong", "H indefinite"):
        table.add_column(title, justify="right")
    for k, n in enumerate(steps):
        quartiles = [np.percentile(data[key][:, k], (50, 25, 75)) for key in spreads]
        wrong = [np.sum(~(data[key][:, k] < RIGHT)) for key in ("error_implicit", "error_unrolled")]
        counts = [*wrong, np.sum(data["negative_modes"][:, k] > 0)]
        table.add_row(str(n), *("{:.0e} ({:.0e}, {:.0e})".format(*q) for q in quartiles), *map(str, counts))
    return table


# --- pictures -------------------------------------------------------------------------------------

BLUE, RED, GRAY = "#0072B2", "#D55E00", "#555555"
PALE = ["#f7f6ee", "#a9d6cf", "#3a93bd"]


def draw_packing(path: Path, group: h5py.Group) -> None:
    """Discs, contacts, and where each disc goes when the small ones grow."""
    xy, dx = group["minimum"][()] % BOX, group["dx_minimum"][()]
    speed, touching = np.linalg.norm(dx, axis=1), contacts(xy)
    d = (xy[SECOND] - xy[FIRST])[touching]
    bonds = np.stack([xy[FIRST[touching]], xy[FIRST[touching]] + d - BOX * np.round(d / BOX)], axis=1)
    fig, ax = plt.subplots(figsize=(5.6, 4.8), layout="constrained")
    colors = plt.cm.ScalarMappable(
        plt.Normalize(0, speed.max()), LinearSegmentedColormap.from_list("pale", PALE)
    )
    for shift in BOX * np.array([(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]):
        for k in range(N):
            ax.add_patch(
                plt.Circle(xy[k] + shift, DIAMETERS[k] / 2, fc=colors.to_rgba(speed[k]), ec="#888888", lw=0.5)
            )
        ax.add_collection(LineCollection(bonds + shift, colors="white", linewidths=1.0))
        ax.quiver(
            *(xy + shift).T,
            *dx.T,
            angles="xy",
            scale_units="xy",
            scale=5,
            width=0.004,
            color="#222222",
            zorder=3,
        )
    ax.set(xlim=(0, BOX), ylim=(0, BOX), aspect="equal", xticks=[], yticks=[])
    ax.set_title(r"arrows: $\mathrm{d}x^*/\mathrm{d}D \times 0.2$", fontsize=9, loc="right")
    fig.colorbar(colors, ax=ax, shrink=0.85, pad=0.02, label=r"$|\mathrm{d}x^*/\mathrm{d}D|$")
    fig.savefig(path, dpi=200)
    plt.close(fig)


def draw_spread(ax, at: np.ndarray, values: np.ndarray, rattlers: np.ndarray, color: str, label: str) -> None:
    """Quartiles and median, and every start: a dot, or a ring if the packing has rattlers."""
    jitter = np.random.default_rng(0).uniform(-0.09, 0.09, values.shape)
    ax.plot(
        (at + jitter)[~rattlers],
        values[~rattlers],
        ".",
        color=color,
        markersize=4,
        alpha=0.6,
        markeredgewidth=0,
    )
    ax.plot(
        (at + jitter)[rattlers],
        values[rattlers],
        "o",
        color=color,
        markersize=3,
        fillstyle="none",
        markeredgewidth=0.7,
    )
    style = {"color": color, "linewidth": 0.9}
    hidden = {"showcaps": False, "showfliers": False, "manage_ticks": False, "whiskerprops": {"linewidth": 0}}
    ax.boxplot(
        values,
        positions=at,
        widths=0.26,
        boxprops=style,
        medianprops={"color": color, "linewidth": 2},
        **hidden,
    )
    ax.plot([], [], color=color, linewidth=2, label=label)


def draw_comparison(path: Path, data: dict[str, np.ndarray], steps: list[int]) -> None:
    """L1 norms and errors of the two derivatives over all starts.

    And the law behind the implicit one's error.
    """
    fig, (norms, errors, law) = plt.subplots(1, 3, figsize=(11.5, 3.7), layout="constrained")
    at, rattlers = np.arange(len(steps)), data["rattlers"][:, 0] > 0
    for ax, key in ((norms, "l1"), (errors, "error")):
        draw_spread(ax, at, data[f"{key}_implicit"], rattlers, BLUE, "implicit")
        draw_spread(ax, at + 0.35, data[f"{key}_unrolled"], rattlers, RED, "unrolled")
        ax.set(xlabel="FIRE steps", yscale="log", xticks=at + 0.17, xticklabels=steps)
    draw_spread(norms, at[-1:] + 1, data["l1_minimum"], rattlers, GRAY, "at the minimum")
    norms.plot([], [], "o", color=GRAY, markersize=3, fillstyle="none", label="with rattlers")
    norms.set(
        ylabel=r"$\|\mathrm{d}x/\mathrm{d}D\|_1$",
        title="a   size",
        xticks=[*(at + 0.17), len(at)],
        xticklabels=[*steps, "$x^*$"],
    )
    errors.axhline(RIGHT, color=GRAY, linewidth=0.8, linestyle="--")
    errors.set(ylabel="relative error, discs with contacts", title="b   error")
    for mask, style, label in (
        (data["contact_changes"] == 0, "o", "contacts of the minimum"),
        (data["contact_changes"] > 0, "x", "other contacts"),
    ):
        law.loglog(
            data["distance"][mask],
            data["error_implicit"][mask],
            style,
            color=BLUE,
            markersize=4,
            alpha=0.6,
            label=label,
        )
    law.loglog([1e-13, 1e-2], [1e-12, 1e-1], color=GRAY, linewidth=0.8, label="slope 1")
    law.set(
        xlabel=r"distance $|x - x^*|$", ylabel="relative error, implicit", title="c   error against distance"
    )
    for ax in (norms, errors, law):
        ax.legend(frameon=False)
    fig.savefig(path, dpi=200)
    plt.close(fig)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=40, help="random starts: seeds 0, 1, ...")
    parser.add_argument(
        "--steps",
        type=int,
        nargs="+",
        default=[300, 500, 700, 1000, 3000],
        help="FIRE steps after which to look",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("results/soft_sphere_packing"),
        help="directory; a run in it is resumed",
    )
    parser.add_argument("--quick", action="store_true", help="two starts, 300 and 700 steps: half a minute")
    options = parser.parse_args(arguments)
    seeds, steps = (range(2), [300, 700]) if options.quick else (range(options.starts), sorted(options.steps))
    console = Console()
    with open_results(options.output / "packings.h5", steps) as file:
        complete(file, seeds, steps, console)
        data = collect(file, seeds)
        draw_packing(options.output / "packing.png", file[group_name(0)])
    write_csv(options.output / "packings.csv", data, seeds, steps)
    draw_comparison(options.output / "comparison.png", data, steps)
    console.print(
        summary(data, steps),
        f"{np.sum(data['rattlers'] > 0)} packings have rattlers. Results: {options.output}",
        sep="\n",
    )


if __name__ == "__main__":
    main()
