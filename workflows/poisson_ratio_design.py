"""Inverse design: a packing of discs with the Poisson ratio one wants, and a vacancy of the size one wants.

Packing. Soft discs (Hertzian) in a periodic cell under a fixed pressure; atoms whose z is held, in layers too
far apart to touch, are two-dimensional. Discs have diameters of their own, and all of them are free. Of the
elastic constants of the relaxed packing, with discs that settle under the strain,

    B = (C11 + C22 + 2 C12) / 4,    G = (C11 + C22 - 2 C12 + 4 C66) / 8,    nu = (B - G) / (B + G),

and a fit changes the diameters, as little as it can, until nu is on target: the packing is relaxed at each
step, and nu is differentiated through the relaxation.

Vacancy. The atoms around a vacancy in copper stand nearer to it, or farther, than they would in the perfect
crystal. How much, relative to the distance of neighbors, is put on target in two ways: by the width of the
Morse potential, and by a pressure. Both use the same derivative of the relaxed structure.

    python workflows/poisson_ratio_design.py --discs 32 --poisson 0.5 --output results/poisson_ratio_design

Source: the question is that of the notebook "Designing disordered solids" of jax-md and of Goodrich et al.,
Proc. Natl. Acad. Sci. 118, e2024083118 (2021).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ase.build
import ase.data
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402  (float64 first)
from mdsens.fitting import (  # noqa: E402
    FitProgress,
    FitResult,
    ParameterSpace,
    RelaxedTargets,
    Target,
    TargetStructure,
    fit,
)
from mdsens.io.files import check_free, new_file  # noqa: E402
from mdsens.observables import elastic  # noqa: E402

LAYER = 4.0  # Å between layers: more than any diameter
IN_PLANE = [True, True, False, False, False, True]  # strains xx, yy and xy are free
CONSTANTS = ("C11", "C22", "C12", "C66")
SPREAD = 0.2  # how far a diameter may reasonably go, relative: what is left free is decided by this


def main(arguments: list[str] | None = None) -> None:
    """Run the workflow; `arguments` as on the command line."""
    options = parsed(arguments)
    console = Console(width=120)
    folder: Path = options.output
    check_free(folder / "design.h5", options.overwrite)
    packing = random_packing(options.discs, options.seed, options.pressure)
    result = design(packing, options.poisson, options.steps, console)
    console.print(in_words(result, packing))
    by_form, by_pressure = vacancy(options.cells, options.vacancy)
    console.print(*by_form.lines, *by_pressure.lines, sep="\n")
    write(folder, packing, result, (by_form, by_pressure), options.overwrite)
    console.print(f"wrote {folder}/design.h5 and {folder}/design.png")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("results/poisson_ratio_design"), help="folder")
    parser.add_argument("--discs", type=int, default=32, help="discs in the packing, at most 100")
    parser.add_argument("--seed", type=int, default=0, help="of the random start")
    parser.add_argument("--pressure", type=float, default=0.01, help="on the packing, eV/Å³")
    parser.add_argument("--poisson", type=float, default=0.5, help="wanted Poisson ratio")
    parser.add_argument("--steps", type=int, default=60, help="of the fit, at most")
    parser.add_argument("--cells", type=int, default=2, help="cubic cells along an edge of the vacancy")
    parser.add_argument("--vacancy", type=float, default=-0.015, help="wanted move of its neighbors")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    return parser.parse_args(arguments)


# --- the packing ----------------------------------------------------------------------------------


class Packing(NamedTuple):
    """Discs at rest under a pressure (eV/Å³)."""

    potential: ms.SoftSphere
    structure: ms.Structure
    pressure: float


def discs(diameters: Any) -> ms.SoftSphere:
    """Hertzian discs; each is a species, with the name of some element."""
    names = tuple(ase.data.chemical_symbols[1 : len(diameters) + 1])
    return ms.SoftSphere(diameter=jnp.asarray(diameters), epsilon=1.0, alpha=2.5, elements=names)


def random_packing(n: int, seed: int, pressure: float) -> Packing:
    """Half small and half large discs from random places, relaxed in their cell and then with it."""
    rng = np.random.default_rng(seed)
    diameters = np.repeat([1.0, 1.4], [n - n // 2, n // 2])
    edge = np.sqrt(np.sum(np.pi * diameters**2 / 4) / 0.95)
    places = np.column_stack([rng.random((n, 2)) * edge, np.zeros(n)])
    potential = discs(diameters)
    structure = flat(places, np.diag([edge, edge, LAYER]), potential)
    at_rest = ms.relax(potential, structure, solver=ms.FIRE(), fmax=1e-4, check_minimum=False)
    settled = ms.relax(potential, at_rest.structure, cell=IN_PLANE, pressure=pressure)
    return Packing(potential, settled.structure, pressure)


def flat(places: np.ndarray, cell: np.ndarray, potential: ms.SoftSphere) -> ms.Structure:
    """Atoms whose z is held."""
    fixed = np.tile([False, False, True], (len(places), 1))
    return ms.Structure.create(places, list(potential.elements), cell=cell, fixed=fixed)


def poisson(potential: ms.Potential, states: Any) -> tuple[jax.Array]:
    """The Poisson ratio in the plane, averaged over directions."""
    C11, C22, C12, C66 = elastic(CONSTANTS).function(potential, states)
    B = (C11 + C22 + 2 * C12) / 4
    G = (C11 + C22 - 2 * C12 + 4 * C66) / 8
    return ((B - G) / (B + G),)


POISSON = ms.Observable(("poisson_ratio",), ("1",), poisson, ghosts=True)


def design(packing: Packing, wanted: float, steps: int, console: Console) -> FitResult:
    """Diameters that give the ratio."""
    setup = TargetStructure(packing.structure, cell=IN_PLANE, pressure=packing.pressure)
    targets = RelaxedTargets(setup, [Target(POISSON, wanted, 0.002)])
    space = ParameterSpace.of(packing.potential, ["diameter"], priors={"diameter": (None, SPREAD)})

    def say(now: FitProgress) -> None:
        console.print(f"step {now.step:2d}   loss {now.loss:12.5f}   {now.note[:80]}")

    return fit(space, targets, max_steps=steps, tolerance=1e-4, throw=False, progress=say)


def relaxed(packing: Packing, potential: ms.SoftSphere) -> ms.Structure:
    """The packing of other diameters."""
    found = ms.relax(potential, packing.structure, cell=IN_PLANE, pressure=packing.pressure)
    return found.structure


def in_words(result: FitResult, packing: Packing) -> str:
    """What became of the ratio and of the diameters."""
    before, after = result.before[0], result.rows[0]
    change = np.log(result.potential.diameter / packing.potential.diameter)
    mean, most = 100 * float(np.sqrt(np.mean(change**2))), 100 * float(np.abs(change).max())
    return (
        f"Poisson ratio {before.value:.4f} -> {after.value:.4f} (wanted {after.target:.4f}); diameters "
        f"changed by {mean:.1f} % on the average, {most:.1f} % at most. The fit {result.status} after "
        f"{len(result.history)} steps, {result.relaxations} relaxations."
    )


# --- the vacancy ----------------------------------------------------------------------------------


class VacancyDesign(NamedTuple):
    """One way to the wanted move: name and unit of what was changed, its values, and moves at each step."""

    name: str
    unit: str
    values: list[float]
    moves: list[float]

    @property
    def lines(self) -> list[str]:
        """In words."""
        moves = f"{100 * self.moves[0]:+.3f} % -> {100 * self.moves[-1]:+.3f} %"
        values = f"{self.values[0]:.6g} -> {self.values[-1]:.6g} {self.unit}"
        return [f"vacancy: neighbors at {moves} by {self.name} {values}, {len(self.moves) - 1} Newton steps"]


def vacancy(cells: int, wanted: float) -> tuple[VacancyDesign, VacancyDesign]:
    """The same move by the width of the potential, and by a pressure."""
    copper = ms.load_potential("cu-morse")
    crystal = ase.build.bulk("Cu", cubic=True) * cells
    del crystal[0]
    structure = ms.Structure.from_ase(crystal)
    alpha = ms.parameter_values(copper)["alpha"]

    def by_form(value: Any) -> jax.Array:
        return move(ms.replace_parameters(copper, {"alpha": value}), structure, 0.0)

    def by_pressure(value: Any) -> jax.Array:
        return move(copper, structure, value / ms.units.GPA)

    first = VacancyDesign("alpha", "1/Å", *newton(by_form, alpha, wanted))
    return first, VacancyDesign("pressure", "GPa", *newton(by_pressure, 0.0, wanted))


def move(potential: ms.Potential, structure: ms.Structure, pressure: Any) -> jax.Array:
    """How far the twelve neighbors of the vacancy moved away from it, relative to their distance before."""
    relaxed = ms.relax(potential, structure, cell="isotropic", pressure=pressure, fmax=1e-9).structure
    edge = jnp.linalg.norm(relaxed.cell[0])
    # the hole is where the first atom was; a common shift is taken out by the farthest atoms' mean
    x = relaxed.positions - jnp.mean(relaxed.positions - ideal(structure, relaxed), axis=0)
    x = x - edge * jnp.round(x / edge)
    squares = jnp.sort(jnp.sum(x**2, axis=1))[:12]
    bond = edge / np.linalg.norm(np.asarray(structure.cell)[0]) * nearest_distance(structure)
    return jnp.mean(jnp.sqrt(squares)) / bond - 1


def ideal(structure: ms.Structure, relaxed: ms.Structure) -> jax.Array:
    """Places of the perfect crystal in the relaxed cell."""
    inside = np.linalg.solve(np.asarray(structure.cell).T, np.asarray(structure.positions).T).T
    return inside @ relaxed.cell


def nearest_distance(structure: ms.Structure) -> float:
    """Distance of neighbors in the crystal as given, Å."""
    x = np.asarray(structure.positions)
    edge = np.linalg.norm(np.asarray(structure.cell)[0])
    d = x[1:] - x[0]
    d -= edge * np.round(d / edge)
    return float(np.linalg.norm(d, axis=1).min())


def newton(function: Any, start: float, wanted: float, tolerance: float = 1e-9) -> tuple[list, list]:
    """Values on the way to function(value) = wanted, and what the function is there."""
    slope = jax.value_and_grad(function)
    values, found = [start], []
    for _ in range(20):
        value, derivative = slope(jnp.asarray(values[-1]))
        found.append(float(value))
        if abs(found[-1] - wanted) <= tolerance:
            return values, found
        values.append(values[-1] - (found[-1] - wanted) / float(derivative))
    raise ms.errors.NotConvergedError(
        f"20 Newton steps did not lead to {wanted:g}, the last value is {found[-1]:g}: ask for less.", None
    )


# --- files ----------------------------------------------------------------------------------------


def write(
    folder: Path, packing: Packing, result: FitResult, designs: Sequence[VacancyDesign], overwrite: bool
) -> None:
    """Numbers and figure."""
    after = relaxed(packing, result.potential)
    content: dict[str, Any] = {
        "poisson_ratio": [result.before[0].value, result.rows[0].value, result.rows[0].target],
        "diameters": np.asarray([packing.potential.diameter, result.potential.diameter]),
        "before": {"positions": packing.structure.positions, "cell": packing.structure.cell},
        "after": {"positions": after.positions, "cell": after.cell},
        "loss": [record.loss for record in result.history],
    }
    for one in designs:
        content[one.name] = {"values": one.values, "moves": one.moves}
    ms.write_hdf5(folder / "design.h5", content, kind="inverse design", overwrite=overwrite)
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, 3)
    draw_packing(panels[0], packing.structure, packing.potential, result.before[0].value)
    draw_packing(panels[1], after, result.potential, result.rows[0].value)
    draw_vacancy(panels[2], designs)
    with new_file(folder / "design.png", overwrite) as unfinished:
        figure.savefig(unfinished, dpi=150)


def draw_packing(axes: Any, structure: ms.Structure, potential: ms.SoftSphere, ratio: float) -> None:
    """Discs and the cell; colors are diameters."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle

    cell = np.asarray(structure.cell)[:2, :2]
    inside = np.asarray(structure.positions)[:, :2] @ np.linalg.inv(cell) % 1.0
    shifts = np.array([(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)])
    diameters = np.asarray(potential.diameter)
    circles, colors = [], []
    for shift in shifts:
        for xy, d in zip((inside + shift) @ cell, diameters, strict=True):
            circles.append(Circle(xy, d / 2))
            colors.append(d)
    patches = PatchCollection(circles, cmap="viridis", edgecolor="white", linewidth=0.5)
    patches.set_array(np.array(colors))
    patches.set_clim(0.8, 1.6)
    axes.add_collection(patches)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) @ cell
    axes.plot(*corners.T, "k-", lw=1)
    low, high = corners.min(axis=0) - 0.3, corners.max(axis=0) + 0.3
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal", xticks=[], yticks=[])
    axes.set_title(f"Poisson ratio {ratio:.3f}")


def draw_vacancy(axes: Any, designs: Sequence[VacancyDesign]) -> None:
    """Newton's way to the wanted move."""
    for one in designs:
        label = f"by {one.name}: {one.values[0]:.4g} to {one.values[-1]:.4g} {one.unit}"
        axes.plot(range(len(one.moves)), [100 * m for m in one.moves], "o-", label=label)
    axes.set(xlabel="Newton step", ylabel="neighbors of the vacancy (%)", title="a vacancy in copper")
    axes.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
