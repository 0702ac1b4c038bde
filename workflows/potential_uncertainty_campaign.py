"""The ± of a fitted potential, by two ways: derivatives at the optimum, and a campaign of draws.

    python workflows/potential_uncertainty_campaign.py                    # 200 draws, ten minutes on one core
    python workflows/potential_uncertainty_campaign.py --draws 20 --executor local

Silicon by Stillinger and Weber is fitted to forces and energies of Tersoff's silicon, as one fits to density
functional theory. What the data leave open is a distribution of the parameters. Eight observables are then
measured: the crystal's lattice constant, cohesion and elastic constants, the vacancy's formation energy, the
barrier and the attempt frequency of its hop to the next site.

1. A task for each of three states at the optimum gives derivatives J: errors are J Sigma J^T.
2. For each draw of the parameters three tasks relax everything again: errors are standard deviations.

All of it is one campaign: run the script again after it was cut off, and it goes on. Where the two differ by
more than the error of the draws, an observable bends within the error of the parameters.

Writes, in the folder of --output: prepared.h5 and potential.toml (the fit, and where tasks begin), campaign/
(every result), draws.csv, uncertainty.csv and potential_uncertainty.png.
"""

import argparse
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ase.build
import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402
from mdsens.campaign import Task, collect, local, run, status  # noqa: E402
from mdsens.datasets import generate  # noqa: E402
from mdsens.datasets.generate import Rattle  # noqa: E402
from mdsens.fitting import ForceMatching, LabelTolerances, ParameterSpace, fit  # noqa: E402
from mdsens.io.files import new_file  # noqa: E402
from mdsens.uncertainty import MonteCarlo, ParameterDistribution, PropagatedUncertainty, from_fit  # noqa: E402

EDGE = 5.431  # Å
FREE = ("epsilon", "sigma", "B", "lambda", "gamma")
TOLERANCES = LabelTolerances(energy=0.02, forces=0.2, stress=None)  # what the form misses, eV and eV/Å
BULK = ("lattice_constant", "energy_per_atom", "C11", "C12", "C44")
HOP = ("barrier", "attempt_frequency")
FMAX = 1e-9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("results/potential_uncertainty"), help="folder")
    parser.add_argument("--draws", type=int, default=200, help="of the parameters")
    parser.add_argument("--frames", type=int, default=4, help="structures of the data")
    parser.add_argument("--cells", type=int, default=2, help="cubic cells along an edge of the vacancy")
    parser.add_argument("--executor", choices=["local"], help="Dask on this machine; default: this process")
    parser.add_argument("--overwrite", action="store_true", help="replace tables and figure")
    options = parser.parse_args()
    out, overwrite, console = options.output, options.overwrite, Console(width=120)

    potential, distribution, states = prepared(out, options.frames, options.cells)
    console.print(parameter_table(distribution))
    tasks = list(all_tasks(potential, distribution, states, options.draws))
    with Progress(console=console) as bar, engine(options.executor) as executor:
        line = bar.add_task("campaign", total=len(tasks))
        report = run(tasks, out / "campaign", executor, on_receipt=lambda _: bar.advance(line))
    console.print(str(report), status(out / "campaign").table())

    table = collect(out / "campaign")
    found = propagated(table, potential, distribution)
    drawn = by_draws(table, found)
    console.print(found.table(), comparison(found, drawn))
    found.to_csv(out / "uncertainty.csv", overwrite=overwrite)
    table.write(out / "draws.csv", overwrite=overwrite)
    with new_file(out / "potential_uncertainty.png", overwrite) as unfinished:
        draw(found, drawn).savefig(unfinished, dpi=150)
    console.print(f"wrote {out}/potential.toml, uncertainty.csv, draws.csv, potential_uncertainty.png")


# --- a potential with a distribution


def prepared(out: Path, frames: int, cells: int) -> tuple[ms.Potential, ParameterDistribution, Any]:
    """The fit and the states where all tasks begin; from files, if the script has run before.

    The last bits of a fit or a relaxation may differ from run to run, and a task that differs in a bit is
    another one. So what tasks are made of is kept, and a campaign that was cut off goes on.
    """
    kept, file = out / "prepared.h5", out / "potential.toml"
    if not kept.is_file():
        potential, distribution = fitted(frames)
        bulk, vacancy, hop = states_at_rest(potential, cells)
        of_draws = {
            "names": list(distribution.names),
            "mean": distribution.mean,
            "factor": distribution.factor,
        }
        states = {"bulk": bulk, "vacancy": vacancy, "hop": hop}
        ms.save_potential(potential, file, overwrite=True)
        ms.write_hdf5(kept, {"distribution": of_draws, "states": states})
    content = ms.read_hdf5(kept)
    potential = ms.load_potential(file)
    of_draws, states = content["distribution"], content["states"]
    names = [str(name) for name in of_draws["names"]]
    distribution = ParameterDistribution.from_factor(
        potential, of_draws["factor"], names, mean=of_draws["mean"]
    )
    return potential, distribution, (states["bulk"], states["vacancy"], states["hop"])


def fitted(frames: int) -> tuple[ms.Potential, ParameterDistribution]:
    """Stillinger and Weber's form, fitted to Tersoff's silicon; what the residuals leave open."""
    crystal = ms.Structure.from_ase(ase.build.bulk("Si", "diamond", a=EDGE, cubic=True))
    truth = ms.load_potential("si-tersoff-1988-t3")
    data = generate(truth, crystal, [Rattle(0.05, 0.02), Rattle(0.15, 0.03)], count=frames)
    start = ms.load_potential("si-stillinger-weber-1985")
    terms = ForceMatching(data, tolerances=TOLERANCES, shift_energies=False)
    result = fit(ParameterSpace.of(start, FREE), terms, max_steps=100)
    return result.potential, from_fit(result)


def parameter_table(distribution: ParameterDistribution) -> Table:
    table = Table("parameter", "fitted", "error", title="Stillinger-Weber fitted to Tersoff")
    for name, mean, error in zip(
        distribution.names, distribution.mean, distribution.standard_errors, strict=True
    ):
        table.add_row(name, f"{mean:.5g}", f"{error:.2g}")
    return table


# --- tasks


def all_tasks(
    potential: ms.Potential,
    distribution: ParameterDistribution,
    states: tuple[ms.Structure, dict, dict],
    draws: int,
) -> Iterator[Task]:
    """Three with derivatives at the optimum, and three for each draw."""
    bulk, vacancy, hop = states
    names = {"parameters": list(FREE), "fmax": FMAX}
    mean = {"tags": {"part": "mean"}}
    yield bulk_task(potential, bulk, {}, kind="sensitivity", options=names, name="mean/bulk", **mean)
    yield vacancy_task(potential, vacancy, {}, kind="sensitivity", options=names, name="mean/vacancy", **mean)
    yield hop_task(potential, hop, {}, options={"parameters": list(FREE)}, name="mean/hop", **mean)
    for k, values in enumerate(distribution.draw(draws, seed=1)):
        params = dict(zip(distribution.names, values.tolist(), strict=True))
        drawn: dict[str, Any] = {"tags": {"part": "draw", "draw": k}}
        options = {"fmax": FMAX}
        yield bulk_task(potential, bulk, params, options=options, name=f"{k}/bulk", **drawn)
        yield vacancy_task(potential, vacancy, params, options=options, name=f"{k}/vacancy", **drawn)
        yield hop_task(potential, hop, params, options={}, name=f"{k}/hop", **drawn)


def bulk_task(potential, bulk, params, kind="observables", options=None, **more) -> Task:
    chosen = {"cell": "isotropic", "observables": list(BULK), **(options or {})}
    return Task(bulk, potential, params, chosen, kind, **more)


def vacancy_task(potential, vacancy, params, kind="observables", options=None, **more) -> Task:
    chosen = {"observables": ["formation"], **(options or {})}
    return Task(vacancy, potential, params, chosen, kind, **more)


def hop_task(potential, hop, params, options=None, **more) -> Task:
    chosen = {"observables": list(HOP), "images": 3, **(options or {})}
    return Task(hop, potential, params, chosen, "barrier", **more)


def states_at_rest(potential: ms.Potential, cells: int) -> tuple[ms.Structure, dict, dict]:
    """The crystal, a vacancy beside it, and the two ends of a hop, at the optimum: where all draws begin."""
    crystal = ms.Structure.from_ase(ase.build.bulk("Si", "diamond", a=EDGE, cubic=True))
    bulk = ms.relax(potential, crystal, cell="isotropic").structure
    host = bulk.to_ase().repeat(cells)
    ends = [ms.relax(potential, end).structure for end in vacancy_ends(host)]
    perfect = ms.Structure.from_ase(host)
    return bulk, {"structure": perfect, "defect": ends[0]}, {"start": ends[0], "end": ends[1]}


def vacancy_ends(host: ase.Atoms) -> list[ms.Structure]:
    """A vacancy at atom 0 and at its neighbor, atoms in one order; the four around it drawn in."""
    hopping = int(np.argsort(host.get_all_distances(mic=True)[0])[1])
    start, end = host.copy(), host.copy()
    end.positions[hopping] = host.positions[0]
    del start[0], end[0]
    holes = host.positions[0], host.positions[hopping]
    return [drawn_in(atoms, hole) for atoms, hole in zip((start, end), holes, strict=True)]


def drawn_in(atoms: ase.Atoms, hole: np.ndarray) -> ms.Structure:
    """The four neighbors of a hole a fifth of the way into it, and all a little off their symmetry."""
    probe = atoms.copy()
    probe.append(ase.Atom("Si", hole))
    vectors = probe.get_distances(len(atoms), range(len(atoms)), mic=True, vector=True)
    near = np.argsort(np.linalg.norm(vectors, axis=1))[:4]
    atoms.positions[near] -= 0.2 * vectors[near]
    atoms.rattle(0.02, seed=1)
    return ms.Structure.from_ase(atoms)


def engine(name: str | None) -> Any:
    return local() if name == "local" else nullcontext(None)


# --- two ways to the errors


def propagated(table, potential: ms.Potential, distribution: ParameterDistribution) -> PropagatedUncertainty:
    """J Sigma J^T of the derivatives at the optimum, as the uncertainty room shows it."""
    at_mean = table.column("tag part") == "mean"
    names = [name for name in table.units if np.isfinite(numbers(table, name)[at_mean]).any()]
    names = [name for name in names if name != "formation_volume"]
    pick = lambda column: last(numbers(table, column)[at_mean])
    values = np.array([pick(name) for name in names])
    jacobian = np.array([[pick(f"d {name} / d {by}") for by in distribution.names] for name in names])
    units = tuple(entry.unit for name in distribution.names for entry in entries(potential, name))
    return PropagatedUncertainty(
        observables=tuple(names),
        units=tuple(table.units[name] for name in names),
        values=values,
        distribution=distribution,
        parameter_units=units,
        jacobian=jacobian,
        first_covariance=distribution.times(jacobian) @ jacobian.T,
        nonlinearity=np.full(len(names), np.nan),
    )


def entries(potential: ms.Potential, name: str) -> list[Any]:
    return [entry for entry in ms.parameter_entries(potential) if entry.name == name]


def numbers(table, name: str) -> np.ndarray:
    return np.asarray(table.column(name), float)


def last(values: np.ndarray) -> float:
    """The one number of a column that one task has."""
    return float(values[np.isfinite(values)][-1])


def by_draws(table, found: PropagatedUncertainty) -> MonteCarlo:
    """Observables of the draws all of whose tasks have a result."""
    draws = np.asarray(table.column("tag draw"), float)
    count = int(np.nanmax(draws)) + 1
    values = np.full((count, len(found.observables)), np.nan)
    for i, name in enumerate(found.observables):
        column = numbers(table, name)
        there = np.isfinite(draws) & np.isfinite(column)
        values[draws[there].astype(int), i] = column[there]
    whole = np.isfinite(values).all(axis=1)
    lost = dict.fromkeys(np.flatnonzero(~whole).tolist(), "a task of it failed, or is not done")
    return MonteCarlo(found.observables, found.units, values[whole], lost)


def comparison(found: PropagatedUncertainty, drawn: MonteCarlo) -> Table:
    title = f"{len(drawn.values)} draws relaxed again, {len(drawn.lost)} lost"
    table = Table("observable", "at the optimum", "J Σ Jᵀ", "draws: mean", "draws: error", "off", title=title)
    _, off = drawn.against(found)
    for i, name in enumerate(found.observables):
        unit = found.units[i]
        table.add_row(
            f"{name} ({unit})",
            f"{found.values[i]:.5g}",
            f"{found.errors[i]:.2g}",
            f"{drawn.means[i]:.5g} ± {drawn.mean_errors[i]:.1g}",
            f"{drawn.errors[i]:.2g} ± {drawn.error_errors[i]:.1g}",
            f"{off[i]:+.1f} σ",
        )
    return table


def draw(found: PropagatedUncertainty, drawn: MonteCarlo) -> Figure:
    """Each observable: draws as a histogram, the normal distribution of first order over them."""
    drawing = Figure(figsize=(11.0, 5.0), layout="constrained")
    axes = drawing.subplots(2, 4).ravel()
    for i, ax in enumerate(axes[: len(found.observables)]):
        mean, error = found.values[i], found.errors[i]
        samples = drawn.values[:, i]
        width = 4 * max(error, samples.std())
        x = np.linspace(mean - width, mean + width, 200)
        inside = samples[abs(samples - mean) < width]
        ax.hist(inside, bins=24, density=True, color="0.8", label="draws, relaxed again")
        density = np.exp(-(((x - mean) / error) ** 2) / 2) / (error * np.sqrt(2 * np.pi))
        ax.plot(x, density, color="C0", label="J Σ Jᵀ")
        ax.set(xlabel=f"{found.observables[i].replace('_', ' ')} ({found.units[i]})", yticks=[])
    axes[0].set_ylim(top=1.35 * axes[0].get_ylim()[1])  # room for the legend
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    return drawing


if __name__ == "__main__":
    main()
