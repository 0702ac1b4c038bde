"""Tune Lennard-Jones so that a liquid has a given energy and pressure: three ways, counted in force calls.

    nested        sample at every step of the fit, until the average is known
    reweighting   sample only where too few frames of the last ensemble count (DiffTRe)
    single loop   parameters and walkers move together (implicit diffusion)

The target is the liquid of argon's parameters itself, sampled longer than any fit may, so that the answer is
known. How far a fit is from it is told by the derivatives there: r = |J ln(theta / theta_0)|, in tolerances.

    python workflows/tune_liquid.py --output results/tune_liquid

Sources: Thaler, Zavadlav, Nat. Commun. 12, 6884 (2021); Marion et al., arXiv:2402.05468 (2024).
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402  (float64 first)
from mdsens.fitting import ParameterSpace, ThermalTarget, ThermalTargets, fit, single_loop  # noqa: E402

EPSILON, SIGMA = 0.0103, 3.4  # eV, Å: argon
DENSITY, TEMPERATURE = 0.776, 0.85  # in sigma^-3 and epsilon: a liquid near its vapor
REACH = 2.0  # sigma, where the interaction has been switched off
TOLERANCES = {"energy_per_atom": 1e-4, "pressure": 3e-3}  # eV, GPa
OFF = {"epsilon": 0.9, "sigma": 1.015}  # where the fits start, in units of the answer


class Course(NamedTuple):
    """What a fit went through: force calls, and distance from the answer in tolerances."""

    name: str
    calls: list[int]
    off: list[float]


def liquid(cells: int) -> ms.Structure:
    """An fcc crystal at the density of the liquid; it melts at once."""
    edge = (4 / DENSITY) ** (1 / 3) * SIGMA
    places = edge * np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    return ms.Structure.create(places, ["Ar"] * 4, [edge] * 3).repeat(cells)


def argon(epsilon: float = EPSILON, sigma: float = SIGMA) -> ms.LennardJones:
    return ms.LennardJones(epsilon, sigma, ("Ar",), REACH * SIGMA, ms.Smooth())


class Judge:
    """The answer: averages at the parameters that made them, and their derivatives."""

    def __init__(self, structure: ms.Structure, kelvin: float, sampling: dict[str, Any]):
        ensemble = ms.sample(argon(), structure, kelvin, seed=100, **sampling)
        self.last = ensemble.frames.at(len(ensemble.frames) - 1)
        self.found = ensemble.average(list(TOLERANCES))
        self.widths = np.array(list(TOLERANCES.values()))

    def targets(self) -> list[ThermalTarget]:
        values = {name: self.found[name].value for name in TOLERANCES}
        return [ThermalTarget(name, value, TOLERANCES[name]) for name, value in values.items()]

    def off(self, epsilon: float, sigma: float) -> float:
        """r, in tolerances."""
        change = np.log([epsilon / EPSILON, sigma / SIGMA])
        slopes = self.found.derivatives[:, :2] * np.array([EPSILON, SIGMA])
        return float(np.linalg.norm(slopes @ change / self.widths))


class Counted(ThermalTargets):
    """Thermal targets that note where a fit looks, and what it has cost."""

    def begin(self, name: str, judge: Judge) -> None:
        self.course = Course(name, [], [])
        self.judge, self.spent = judge, 0

    def evaluate(self, potential: Any, parameters: tuple[str, ...], memory: Any) -> Any:
        value = super().evaluate(potential, parameters, memory)
        if value.relaxations:
            self.spent += self.sampling["steps"] * self.sampling["replicas"]
        here = ms.parameter_values(potential)
        self.course.calls.append(self.spent)
        self.course.off.append(self.judge.off(here["epsilon"], here["sigma"]))
        return value


def by_fit(name: str, least_share: float, judge: Judge, kelvin: float, options: Any) -> Course:
    """A fit whose every step is accepted or taken back."""
    sampling = {"steps": options.steps, "record_every": 20, "replicas": 4, **MOTION}
    term = Counted(judge.last, kelvin, judge.targets(), least_share=least_share, seed=1, **sampling)
    term.begin(name, judge)
    fit(start(), term, max_steps=options.fit_steps, throw=False)
    return term.course


MOTION = {"timestep": 5.0, "friction": 5e-3}


def start() -> ParameterSpace:
    return ParameterSpace.of(argon(OFF["epsilon"] * EPSILON, OFF["sigma"] * SIGMA))


def by_loop(judge: Judge, kelvin: float, options: Any) -> tuple[Course, Any]:
    """Parameters and walkers together."""
    term = ThermalTargets(judge.last, kelvin, judge.targets())
    numbers = {"updates": options.updates, "steps_per_update": options.steps_per_update}
    numbers |= {"walkers": options.walkers, "settle": options.settle, "seed": 7, "rest": options.rest}
    found = single_loop(start(), term, rate=options.rate, **numbers, **MOTION)
    each = options.steps_per_update * options.walkers
    begun = options.settle * options.walkers
    calls = [begun + each * (k + 1) for k in range(len(found.path))]
    off = [judge.off(*values) for values in found.path]
    mean = ms.parameter_values(found.potential)
    # the answer is the mean of the last third, and comes at the end
    calls.append(calls[-1])
    off.append(judge.off(mean["epsilon"], mean["sigma"]))
    return Course("single loop", calls, off), found


def met(course: Course, limit: float) -> int | None:
    """Force calls from which on the answer stays within so many tolerances."""
    within = [value <= limit for value in course.off]
    inside = next((k for k in range(len(within)) if all(within[k:])), None)
    return None if inside is None else course.calls[inside]


def table(courses: list[Course]) -> Table:
    shown = Table("", "to 5 tolerances", "to 2", "all", "off in the end", title="force calls")
    for course in courses:
        calls = [met(course, limit) for limit in (5.0, 2.0)]
        texts = ["-" if n is None else f"{n:,}" for n in calls]
        shown.add_row(course.name, *texts, f"{course.calls[-1]:,}", f"{course.off[-1]:.2f}")
    return shown


def figure(courses: list[Course]) -> Figure:
    drawing = Figure(figsize=(6.0, 3.8), layout="constrained")
    axes = drawing.subplots()
    for course in courses:
        marker = "." if len(course.calls) > 40 else "o-"
        axes.plot(course.calls, course.off, marker, markersize=4, label=course.name)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xlabel("force calls")
    axes.set_ylabel("distance from the answer, tolerances")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    return drawing


def write(courses: list[Course], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("method", "force_calls", "off"))
        for course in courses:
            writer.writerows((course.name, *row) for row in zip(course.calls, course.off, strict=True))
    figure(courses).savefig(output.with_suffix(".png"), dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    integer: Callable[[str], int] = int
    parser.add_argument("--cells", type=integer, default=3, help="fcc cells along each edge")
    parser.add_argument("--judge-steps", type=integer, default=20_000)
    parser.add_argument("--steps", type=integer, default=4_000, help="of each replica of an ensemble")
    parser.add_argument("--fit-steps", type=integer, default=8)
    parser.add_argument("--updates", type=integer, default=200)
    parser.add_argument("--steps-per-update", type=integer, default=20)
    parser.add_argument("--walkers", type=integer, default=16)
    parser.add_argument("--settle", type=integer, default=400)
    parser.add_argument("--rest", type=integer, default=20)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--output", type=Path, default=Path("tune_liquid"))
    options = parser.parse_args()
    console = Console()
    kelvin = TEMPERATURE * EPSILON / ms.units.BOLTZMANN
    long_run = {"steps": options.judge_steps, "record_every": 20, "replicas": 4, **MOTION}
    judge = Judge(liquid(options.cells), kelvin, long_run)
    console.print(judge.found.table())
    nested = by_fit("nested", 1.0, judge, kelvin, options)
    reweighted = by_fit("reweighting", 0.3, judge, kelvin, options)
    loop, found = by_loop(judge, kelvin, options)
    courses = [nested, reweighted, loop]
    console.print(table(courses))
    console.print(f"share of the walkers that count: {found.shares.min():.2f} or more")
    for note in found.notes:
        console.print(note)
    write(courses, options.output)


if __name__ == "__main__":
    main()
