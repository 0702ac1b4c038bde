"""The silicon vacancy: how lattice.

Elastic constants and defect move with every parameter of Stillinger-Weber.

Relaxes 215 atoms and their cell, differentiates a0, cohesive energy, elastic constants (ions clamped and
relaxed) and the vacancy's formation energy and volume w.r.t. all parameters, compares each number with
re-relaxation (--check), and draws how the atoms around the vacancy move with the parameter that its formation
energy depends on most.

    python workflows/silicon_vacancy.py --check --output results/silicon_vacancy
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402  (float64 first)
from mdsens.observables import elastic, energy_per_atom, formation, lattice_constant  # noqa: E402

DATA = Path(__file__).parents[1] / "data"
PARAMETERS = [
    "epsilon",
    "sigma",
    "a",
    "lambda",
    "gamma",
    "costheta0",
    "A",
    "B",
    "p",
]  # q is zero: it has no logarithm
CONSTANTS = ["C11", "C12", "C44", "C11_clamped", "C12_clamped", "C44_clamped"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, default=Path("results/silicon_vacancy"), help="folder for tables and figures"
    )
    parser.add_argument("--check", action="store_true", help="compare with re-relaxation for every parameter")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    options = parser.parse_args()
    console, start = Console(width=150), time.perf_counter()

    def say(line: str) -> None:
        console.print(f"[dim]{time.perf_counter() - start:6.1f} s[/dim]  {line}")

    potential = ms.load_potential("si-stillinger-weber-1985")
    report = ms.sensitivities(
        [
            lattice_constant("bulk"),
            energy_per_atom("bulk"),
            elastic(CONSTANTS, "bulk"),
            formation("defect", "bulk"),
        ],
        potential,
        {
            "defect": ms.read_structure(DATA / "si-vacancy.extxyz"),
            "bulk": ms.read_structure(DATA / "si-diamond.extxyz"),
        },
        cell="full",
        parameters=PARAMETERS,
        check=options.check,
        progress=say,
    )
    say("done")
    console.print(report.table())
    console.print(report.table(part="relaxation"))
    console.print(report.table(part="errors"))
    console.print(report.table(part="radius"))
    if report.check:
        console.print(report.table(part="check"))
        console.print(report.table(part="at_range"))
        for line in report.check.elsewhere or ("every re-relaxation came back to the same minimum",):
            console.print(line)
    console.print(report.certificate_table())

    out, overwrite = options.output, options.overwrite
    report.to_hdf5(out / "sensitivity.h5", overwrite=overwrite)
    report.to_csv(out / "sensitivity.csv", overwrite=overwrite)
    report.plot(out / "sensitivity.png", overwrite=overwrite)
    draw_vacancy(report).savefig(out / "vacancy.png", dpi=150)
    say(f"wrote {out}/sensitivity.h5, sensitivity.csv, sensitivity.png, vacancy.png")


def draw_vacancy(report: ms.SensitivityReport) -> Figure:
    """Motion of the atoms with the most influential parameter.

    Arrows in a (110) slab, and radially by distance.
    """
    row = report.matrix("elasticity")[report.observables.index("formation_energy")]
    k = int(np.argmax(np.abs(row)))
    name = report.parameters[k]
    structure = report.relaxed["defect"].structure
    cell = np.asarray(structure.cell)
    # dx / d ln(theta), Å, less the uniform strain the cell imposes: what remains belongs to the defect
    move = report.moves["defect"][k] * report.theta[k]
    # positions about the vacancy: the empty site is where the four neighbors point, the box centre folded
    # onto the lattice
    x = np.asarray(structure.positions)
    centre = vacant_site(x, cell)
    fractional = (x - centre) @ np.linalg.inv(cell)
    d = (fractional - np.round(fractional)) @ cell
    gradient = np.linalg.lstsq(
        d[np.linalg.norm(d, axis=1) > 6], move[np.linalg.norm(d, axis=1) > 6], rcond=None
    )[0]
    move = move - d @ gradient
    move -= move[np.linalg.norm(d, axis=1) > 6].mean(0)
    r = np.linalg.norm(d, axis=1)
    radial = np.sum(d * move, axis=1) / r

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    # the (110) plane through the vacancy holds two of its neighbors and the zigzag chains of the crystal
    across, up, out = (np.array(v) / np.linalg.norm(v) for v in ([1, -1, 0], [0, 0, 1], [1, 1, 0]))
    slab = np.abs(d @ out) < 1.2
    p, q = d[slab] @ across, d[slab] @ up
    top = float(np.abs(radial).max())
    # arrows drawn so that the longest is one bond
    scale = 2.35 / np.linalg.norm(move, axis=1).max()
    dots = left.scatter(
        p,
        q,
        c=radial[slab],
        cmap="RdBu_r",
        vmin=-top,
        vmax=top,
        s=90,
        edgecolors="0.3",
        linewidths=0.6,
        zorder=2,
    )
    arrows = scale * (move[slab] @ across), scale * (move[slab] @ up)
    left.quiver(p, q, *arrows, angles="xy", scale_units="xy", scale=1, width=0.004, zorder=3)
    left.plot(0, 0, marker="s", ms=13, mfc="none", mec="0.2")
    left.annotate("vacancy", (0, -0.6), ha="center", va="top", fontsize=8)
    left.set(xlabel="along [1$\\bar1$0] (Å)", ylabel="along [001] (Å)", aspect="equal")
    left.set_title(f"(110) slab, arrows: dx / d ln({name}) × {scale:.2g}")
    figure.colorbar(dots, ax=left, label=f"radial part of dx / d ln({name}) (Å)", shrink=0.85)

    right.axhline(0, color="0.7", lw=0.8)
    right.scatter(
        r, radial, c=radial, cmap="RdBu_r", vmin=-top, vmax=top, s=36, edgecolors="0.3", linewidths=0.6
    )
    right.set(xlabel="distance from the vacancy (Å)", ylabel=f"radial motion per unit of ln({name}) (Å)")
    right.set_title(f"d ln(formation energy) / d ln({name}) = {row[k]:.2f}")
    return figure


def vacant_site(x: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """The empty site: the point of the ideal lattice with no atom near it."""
    sites = (
        np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0], [1, 1, 1], [1, 3, 3], [3, 1, 3], [3, 3, 1]])
        / 12
    )
    lattice = (sites[:, None] + np.stack(np.meshgrid(*3 * [np.arange(3) / 3]), -1).reshape(-1, 3)).reshape(
        -1, 3
    )
    offset = (
        np.median((x @ np.linalg.inv(cell) * 12 + 0.5) % 1 - 0.5, axis=0) / 12
    )  # the relaxed crystal may have shifted
    d = (lattice + offset)[:, None] - x @ np.linalg.inv(cell)
    nearest = np.linalg.norm((d - np.round(d)) @ cell, axis=-1).min(1)
    return (lattice + offset)[np.argmax(nearest)] @ cell


if __name__ == "__main__":
    main()
