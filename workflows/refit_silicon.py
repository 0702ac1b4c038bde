"""Refit the potential of Stillinger and Weber to measured properties of silicon.

All nine parameters of the form are free. The targets are relaxed properties: the lattice constant, the
cohesive energy, three elastic constants, the formation energy of the vacancy, and the optical phonon. Each
step relaxes the crystal and the vacancy once and differentiates through both relaxations; --differences fits
a second time with Jacobians from forward differences, which relax both again for every parameter.

A vacancy has more than one minimum. With the published set, the one above a cut crystal keeps all atoms at
their places and costs two bonds; where the four neighbors start nearer to each other, they stay there, and
the energy is 1.8 eV lower. What was measured is the lowest: it is looked for before the fit, and again after.

    python workflows/refit_silicon.py --differences --output results/refit_silicon

With --angle another fit is made, and its price is printed. Two parameters, epsilon and lambda, cannot meet
three elastic constants; with sigma and the angle free, all three and the lattice constant are met exactly.
But the angle of tetrahedra, cos(theta) = -1/3, was in the form for a reason: what has become of the cohesive
energy, the vacancy, the optical phonon, the distance to the beta-tin structure, and the lowest curvature?

    python workflows/refit_silicon.py --angle

Source of those elastic constants: Gangan, Cubuk, Schoenholz, Bauchy, Krishnan, J. Chem. Theory Comput. 21,
5867 (2025), arXiv:2409.13844.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402  (float64 first)
from mdsens.fitting import (  # noqa: E402
    FitProgress,
    FitResult,
    ParameterSpace,
    RelaxedTargets,
    Target,
    TargetStructure,
    TermValue,
    fit,
)
from mdsens.fitting.show import floor_lines, identifiability_lines  # noqa: E402
from mdsens.io.files import new_file  # noqa: E402

# Measured at room temperature; the form is fitted as if at rest, zero-point motion and heat are left in.
#     lattice constant     5.43102 Å at 22.5 °C (CODATA)
#     elastic constants    at 25 °C: McSkimin, Andreatch, J. Appl. Phys. 35, 2161 (1964)
#     optical phonon       520.2 +- 0.5 / cm at 300 K: Parker, Feldman, Ashkin, Phys. Rev. 155, 712 (1967)
#     cohesive energy      at 0 K: Kittel, Introduction to Solid State Physics (2005); known to 0.08 eV, says
#                          Farid, Godby, Phys. Rev. B 43, 14248 (1991), who find 4.62
#     vacancy              3.6 +- 0.2 eV: Dannefaer, Mascher, Kerr, Phys. Rev. Lett. 56, 2195 (1986)
# Tolerances are weights: what a form of nine parameters should be held to.
TARGETS = [
    Target("lattice_constant", 5.431, 0.005, on="bulk"),
    Target("energy_per_atom", -4.63, 0.02, on="bulk"),
    Target("C11", 165.8, 2.0, on="bulk"),
    Target("C12", 63.9, 2.0, on="bulk"),
    Target("C44", 79.6, 2.0, on="bulk"),
    Target("gamma_phonon", 15.60, 0.2, on="bulk"),
    Target("formation_energy", 3.6, 0.2, on="vacancy", bulk="bulk"),
]
FREE = [
    "epsilon",
    "sigma",
    "a",
    "lambda",
    "gamma",
    "costheta0",
    "A",
    "B",
    "p",
]  # q is zero
# GPa; of density functional theory, in the paper above
STIFFNESS = {"C11": 153.21414, "C12": 56.79690, "C44": 74.83264}
ANGLE_FREE = ["epsilon", "sigma", "lambda", "costheta0"]
TOLERANCE = 1e-3  # of a parameter: a fit has converged when no step would change one by more
STEP = 1e-4  # of a parameter, of the forward differences
INWARD = 0.45  # Å, of the neighbors of a vacancy before it is relaxed
RATTLE = 0.05  # Å
SAME = 1e-4  # eV: two energies that differ by less are of one minimum


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("results/refit_silicon"), help="folder")
    parser.add_argument("--cells", type=int, default=2, help="cubic cells along an edge of the vacancy")
    parser.add_argument("--differences", action="store_true", help="fit again with differences")
    parser.add_argument("--angle", action="store_true", help="free the angle, and print its price")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    options = parser.parse_args()
    console = Console(width=150)
    if options.angle:
        free_the_angle(console, options.cells)
        return

    space = free_parameters()
    setups = structures(options.cells, space.potential)
    targets = RelaxedTargets(setups, TARGETS)
    result, course = timed_fit(console, "exact derivatives", space, targets)
    console.print(result.table())
    console.print(result.parameter_table())
    console.print(still_the_lowest(result, options.cells))
    for line in [*floor_lines(result), *identifiability_lines(result)]:
        console.print(line)
    courses = {"exact derivatives": course}
    if options.differences:
        _, courses["forward differences"] = timed_fit(
            console, "forward differences", space, DifferencedTargets(targets)
        )
        compare(console, *courses.values())

    out, overwrite = options.output, options.overwrite
    result.to_hdf5(out / "fit.h5", overwrite=overwrite)
    result.to_markdown(out / "fit.md", overwrite=overwrite)
    result.plot(out / "correlation.png", overwrite=overwrite)
    ms.save_potential(result.potential, out / "silicon.toml", overwrite=overwrite)
    ms.save_potential(result.potential, out / "silicon.sw", overwrite=overwrite)
    with new_file(out / "refit_silicon.png", overwrite) as unfinished:
        draw(result, courses).savefig(unfinished, dpi=150)
    console.print(f"wrote {out}/fit.h5, fit.md, correlation.png, silicon.toml, silicon.sw, refit_silicon.png")


def free_parameters() -> ParameterSpace:
    """All nine on the log scale, each known to a factor of 1.6 before: some directions no target knows.

    sigma a ends before the second neighbors, 3.84 Å away: there the form rises from nothing with all its
    derivatives zero, and a linear model says nothing about what lies beyond.
    """
    return ParameterSpace.of(
        ms.load_potential("si-stillinger-weber-1985"),
        FREE,
        scale="log",
        bounds={"a": (1.5, 1.82)},
        priors=dict.fromkeys(FREE, (None, 0.5)),
    )


def structures(cells: int, potential: ms.Potential | None = None) -> dict[str, TargetStructure]:
    """The crystal (two atoms), and a repeated cubic cell without one of its atoms.

    The vacancy is as it is cut, or starts where the lowest minimum of a potential is found from.
    """
    edge = 5.431
    basis = np.array([[0, 0, 0], [1, 1, 1]]) * edge / 4
    primitive = edge / 2 * (1 - np.eye(3))
    cubic = (basis[:, None] + np.array([[0, 0, 0], *primitive])).reshape(-1, 3)
    bulk = ms.Structure.create(basis, ["Si"] * 2, cell=primitive)
    whole = ms.Structure.create(cubic, ["Si"] * 8, cell=[edge] * 3).repeat(cells)
    vacancy = ms.Structure.create(
        np.asarray(whole.positions)[1:], ["Si"] * (whole.n_atoms - 1), cell=whole.cell
    )
    if potential is not None:
        vacancy, _ = lowest_vacancy(potential, vacancy)
    return {
        "bulk": TargetStructure(bulk, cell="isotropic"),
        "vacancy": TargetStructure(vacancy, cell="isotropic"),
    }


def vacancy_starts(vacancy: ms.Structure) -> dict[str, ms.Structure]:
    """As cut; with the four neighbors moved in; moved together in two pairs; and all with noise on top."""
    x, cell = np.asarray(vacancy.positions), np.asarray(vacancy.cell)
    inside = x @ np.linalg.inv(cell)
    from_hole = (inside - np.round(inside)) @ cell
    distance = np.linalg.norm(from_hole, axis=1)
    a, b, c, d = near = np.argsort(distance)[:4]
    moves = {name: np.zeros(x.shape) for name in ("as cut", "moved in", "in pairs")}
    moves["moved in"][near] = -INWARD * from_hole[near] / distance[near][:, None]
    for one, other in ((a, b), (c, d)):
        apart = from_hole[other] - from_hole[one]
        along = INWARD * apart / np.linalg.norm(apart)
        moves["in pairs"][[one, other]] = [along, -along]
    noise = RATTLE * np.random.default_rng(0).normal(size=x.shape)
    moves["in pairs"] += noise
    moves["moved in, rattled"] = moves["moved in"] + noise
    return {name: vacancy.at(jnp.asarray(x + move)) for name, move in moves.items()}


def lowest_vacancy(potential: ms.Potential, vacancy: ms.Structure) -> tuple[ms.Structure, float]:
    """The start that leads to the lowest minimum, and its energy (eV)."""
    found = []
    for start in vacancy_starts(vacancy).values():
        energy = float(ms.relax(potential, start, cell="isotropic", check_minimum=False).energy)
        if not found or energy < found[-1][1] - SAME:
            found.append((start, energy))
    return found[-1]


def still_the_lowest(result: FitResult, cells: int) -> str:
    """Whether the vacancy that was followed is the lowest of the fitted potential, in words."""
    setups = structures(cells)
    crystal = ms.relax(result.potential, setups["bulk"].structure, cell="isotropic")
    vacancy = setups["vacancy"].structure
    _, energy = lowest_vacancy(result.potential, vacancy)
    lowest = energy - vacancy.n_atoms / 2 * float(crystal.energy)
    followed = next(row.value for row in result.rows if row.name.startswith("formation_energy"))
    if lowest > followed - SAME:
        return f"the vacancy is the lowest found: {followed:.4f} eV"
    return f"[bold]another vacancy of this potential is lower: {lowest:.4f} eV, not {followed:.4f} eV[/bold]"


class DifferencedTargets:
    """The same targets with a Jacobian by forward differences: what one does without derivatives."""

    name = "relaxed properties"

    def __init__(self, targets: RelaxedTargets):
        self.targets = targets

    def evaluate(
        self, potential: ms.Potential, parameters: tuple[str, ...], memory: Mapping[str, Any]
    ) -> TermValue:
        """Residuals, and differences of them."""
        value = self.targets.evaluate(potential, parameters, memory)
        here = {key: without_motion(kept) for key, kept in value.memory.items()}
        columns = []
        for name in parameters:
            start = ms.parameter_values(potential)[name]
            changed = ms.replace_parameters(potential, {name: start * (1 + STEP)})
            residuals = self.targets.residuals(changed, parameters, here)
            columns.append((residuals - value.residuals) / (start * STEP))
        count = len(here) * (1 + len(parameters))
        return value._replace(jacobian=np.transpose(columns), memory=here, relaxations=count)


def without_motion(kept: Mapping[str, Any]) -> dict[str, Any]:
    """A relaxed state from which the next relaxation starts as it is."""
    still = {name: np.zeros_like(kept[name]) for name in ("dpositions", "dcell")}
    return {**kept, **still}


def timed_fit(
    console: Console, title: str, space: ParameterSpace, term: Any
) -> tuple[FitResult, list[FitProgress]]:
    """Two steps to compile, then the fit that is measured, and its course."""
    console.print(f"[bold]{title}[/bold]")
    start = time.perf_counter()
    fit(space, term, tolerance=TOLERANCE, max_steps=2, throw=False)
    console.print(f"with compiling: {time.perf_counter() - start:.1f} s")
    forget()
    course: list[FitProgress] = []

    def say(now: FitProgress) -> None:
        course.append(now)
        console.print(
            f"step {now.step:2d}   loss {now.loss:12.6f}   radius {now.radius:.3f}   relaxations "
            f"{now.relaxations:4d}   {now.seconds:6.2f} s   {now.note[:60]}"
        )

    return fit(space, term, tolerance=TOLERANCE, progress=say, throw=False), course


def free_the_angle(console: Console, cells: int) -> None:
    """Fit the elastic constants and the lattice constant by four parameters, and print what that does."""
    published = ms.load_potential("si-stillinger-weber-1985")
    wanted = [Target(name, value, 0.1) for name, value in STIFFNESS.items()]
    term = RelaxedTargets(structures(cells)["bulk"], [*wanted, Target("lattice_constant", 5.431, 0.001)])
    result = fit(ParameterSpace.of(published, ANGLE_FREE), term)
    console.print(f"{len(result.history)} steps", result.table(), result.parameter_table())
    before, after = (properties(potential, cells) for potential in (published, result.potential))
    console.print(price_table(before, after))


def properties(potential: ms.Potential, cells: int) -> dict[str, float]:
    """What the fit of the angle does not look at, in the units of the names."""
    setups = structures(cells, potential)
    names = {"energy_per_atom": "bulk", "gamma_phonon": "bulk", "formation_energy": "vacancy"}
    # a target of zero with a tolerance of one: the residual is the value
    looks = [Target(name, 0.0, 1.0, on=state, bulk="bulk") for name, state in names.items()]
    energy, phonon, vacancy = RelaxedTargets(setups, looks).residuals(potential, ("epsilon",), {})
    crystal = ms.relax(potential, setups["bulk"].structure, cell="full")
    tin = ms.relax(potential, beta_tin(), cell="isotropic", check_minimum=False)
    return {
        "cohesive energy (eV)": -float(energy),
        "vacancy (eV)": float(vacancy),
        "optical phonon (THz)": float(phonon),
        "beta-tin above diamond (eV per atom)": float(tin.energy) / 4 - float(energy),
        "lowest curvature (eV/Å²)": crystal.equilibrium.certificate.lowest_curvature,
    }


def beta_tin() -> ms.Structure:
    """Four atoms of the high-pressure structure of silicon, tetragonal, with c/a = 0.551.

    The ratio is held: free, it may run down to diamond, as it does with the freed angle.
    """
    a, c = 4.9, 2.7
    places = np.array([[0, 0, 0], [0, 0.5, 0.25], [0.5, 0.5, 0.5], [0.5, 0, 0.75]])
    return ms.Structure.create(places * [a, a, c], ["Si"] * 4, cell=[a, a, c])


def price_table(before: Mapping[str, float], after: Mapping[str, float]) -> Table:
    """What freeing the angle does to each property."""
    table = Table(title="the price of the freed angle")
    for title in ("property", "published", "angle free", "change"):
        table.add_column(title, justify="left" if title == "property" else "right")
    for name, old in before.items():
        new = after[name]
        table.add_row(name, f"{old:.4f}", f"{new:.4f}", f"{100 * (new / old - 1):+.1f} %")
    return table


def forget() -> None:
    """Relaxations are remembered by their inputs: to time them, forget them."""
    from mdsens.relaxation import memory

    memory.forget()


def compare(console: Console, exact: list[FitProgress], differences: list[FitProgress]) -> None:
    """Relaxations and seconds of both until they have the same loss."""
    loss = 1.001 * max(exact[-1].loss, differences[-1].loss)
    first = [next(now for now in course if now.loss <= loss) for course in (exact, differences)]
    console.print(
        f"to a loss of {loss:.4f}: {first[0].relaxations} relaxations and {first[0].seconds:.2f} s with "
        f"exact derivatives, {first[1].relaxations} and {first[1].seconds:.2f} s with differences "
        f"({first[1].relaxations / first[0].relaxations:.1f} times as many, "
        f"{first[1].seconds / first[0].seconds:.1f} times as long)"
    )


def draw(result: FitResult, courses: Mapping[str, list[FitProgress]]) -> Figure:
    """Targets before and after, and the loss over the relaxations that it took."""
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    pairs = [
        (after, before)
        for after, before in zip(result.rows, result.before, strict=True)
        if not after.name.startswith("prior")
    ]
    y = np.arange(len(pairs))[::-1]
    off = lambda row: 100 * (row.value / row.target - 1)
    left.axvline(0, color="0.5", lw=0.8)
    left.barh(y + 0.2, [off(before) for _, before in pairs], 0.38, color="0.7", label="published")
    left.barh(y - 0.2, [off(after) for after, _ in pairs], 0.38, color="C0", label="refitted")
    left.set_yticks(y, [after.name for after, _ in pairs])
    left.set(xlabel="off the measured value (%)", title="Stillinger-Weber silicon, nine parameters")
    left.legend(frameon=False)
    start = float(np.sum([((row.value - row.target) / row.tolerance) ** 2 for row in result.before]))
    for name, course in courses.items():
        right.semilogy(
            [1, *(now.relaxations for now in course)],
            [start, *(now.loss for now in course)],
            "o-",
            label=name,
        )
    right.set(xlabel="relaxations after the first", ylabel="sum of squared residuals", xscale="log")
    right.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
