"""Alanine dipeptide as a smooth flow: trained on forces, compared with splines and OpenMM, and run.

Trains a flow on molecular dynamics in implicit solvent, and one of splines of the same size beside it;
measures both on frames held out and, where OpenMM is installed, on their own samples; runs both and the force
field at constant energy from the same frames. The default is the quick run on the 2 000 frames of data/; the
full one, for which workflows/alanine_dipeptide_data.py makes frames, is

    python workflows/alanine_dipeptide.py --data FRAMES.h5 --steps 13000 --force-weight 2e-3

A training that was cut off goes on with --resume.
"""

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402  (float64 first)

DATA = Path(__file__).parents[1] / "data"
FORCE_FIELD = ("amber99sbildn.xml", "amber99_obc.xml")
KINDS = ("smooth", "spline")
HELD_OUT = 0.1  # share of the frames that neither coordinates nor training see


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA / "alanine-dipeptide.h5", help="frames with forces")
    parser.add_argument("--steps", type=int, default=1000, help="of training")
    parser.add_argument("--force-weight", type=float, default=0.05, help="of the squared force error")
    parser.add_argument("--size", type=int, default=128, help="of the networks' two hidden layers")
    parser.add_argument("--layers", type=int, default=6, help="coupling layers of each kind")
    parser.add_argument("--samples", type=int, default=2000, help="drawn from each flow")
    parser.add_argument("--md-steps", type=int, default=5000, help="of 1 fs, at constant energy")
    parser.add_argument(
        "--replicas", type=int, default=8, help="runs at constant energy, from held-out frames"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="which flows")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("results/alanine_dipeptide"),
        help="folder for models, tables and figures",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the models that are there")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    options = parser.parse_args()
    console, start = Console(width=150), time.perf_counter()

    def say(line: str) -> None:
        console.print(f"[dim]{time.perf_counter() - start:7.1f} s[/dim]  {line}")

    frames = ms.flows.read_force_data(options.data, default_temperature=300.0)
    table_file = options.output / "table.csv"
    if table_file.exists() and not options.overwrite:
        parser.error(f"{table_file} exists: choose another --output, or --overwrite")
    models = {kind: train(kind, frames, options, say) for kind in options.kinds}
    _, held_out = frames.split(HELD_OUT)
    rows: dict[str, dict[str, Any]] = {kind: measure(model, held_out) for kind, model in models.items()}
    starts = ms.units.NM * held_out.positions[
        np.linspace(0, held_out.n_frames - 1, options.replicas).astype(int)
    ].astype(float)
    first = next(iter(models.values()))
    target = openmm_energy(first.temperature)
    if target is None:
        say("OpenMM is not installed: no comparison of samples with the force field")
    for kind, model in models.items():
        samples, _ = model.flow.sample(jax.random.key(1), options.samples)
        if target is not None:
            rows[kind] |= measure_samples(model, target, samples)
        say(f"{kind}: drawn and weighed {options.samples} samples")
        rows[kind] |= conservation(model, starts, options.md_steps)
        say(f"{kind}: {options.md_steps} steps at constant energy")
        energies, forces = ms.flows.in_pieces(model, held_out.positions[::10])
        ms.flows.plot_comparison(
            options.output / f"{kind}.png",
            data=frames.positions,
            samples=samples,
            torsions=model.rotatable,
            forces=None if held_out.forces is None else (held_out.forces[::10], forces),
            energies=None if held_out.energies is None else (held_out.energies[::10], energies),
            overwrite=options.overwrite,
        )
    if target is not None:
        system = ms.dynamics.Movable(target, first.species, first.temperature)
        rows["force field"] = conservation(system, starts, options.md_steps)
        say("force field: the same")
    show(console, rows)
    write(table_file, rows)
    say(f"wrote models, figures and table.csv to {options.output}")


def train(
    kind: str, frames: ms.flows.ForceData, options: argparse.Namespace, say: Any
) -> ms.flows.BoltzmannGenerator:
    """A trained model, kept in the output folder."""
    molecule = ms.flows.read_molecule(DATA / "alanine-dipeptide.pdb")
    architecture = ms.flows.MoleculeArchitecture.of(
        kind, hidden=(options.size, options.size), soft_layers=options.layers, stiff_layers=options.layers
    )
    prepared = ms.flows.prepare(
        frames, molecule, architecture=architecture, held_out=HELD_OUT, source=str(options.data)
    )
    schedule = ms.flows.Schedule(steps=options.steps, evaluate_every=max(1, options.steps // 20))
    path = options.output / f"{kind}.h5"

    def progress(now: Any) -> None:
        terms = "  ".join(f"{name} {value:.3f}" for name, value in now.held_out.items())
        say(f"{kind} {now.step:6d}: {terms}")

    done = ms.flows.train(
        prepared.generator,
        prepared.data,
        loss=ms.flows.Loss(force=options.force_weight),
        schedule=schedule,
        checkpoint=path,
        resume=options.resume,
        overwrite=options.overwrite,
        progress=progress,
    )
    ms.flows.plot_training(path.with_name(f"{kind}-training.png"), done.history, overwrite=True)
    say(f"{kind}: kept the model of step {done.best_step}, of the lowest held-out loss")
    return done.model


def measure(model: ms.flows.BoltzmannGenerator, held_out: ms.flows.ForceData) -> dict[str, float]:
    """On frames that were not trained on."""
    found = ms.flows.evaluate_on_data(model, held_out)
    return {
        "NLL (kT)": found.nll,
        "force RMSE on data (kT/nm)": found.force_rmse,
        "std of -log p - u (kT)": found.energy_std,
    }


def measure_samples(model: ms.flows.BoltzmannGenerator, target: Any, samples: np.ndarray) -> dict[str, float]:
    """On the flow's own samples, against the force field."""
    found = ms.flows.evaluate_on_samples(model, target, samples)
    return {
        "force RMSE on samples (kT/nm)": found.force_rmse,
        "reverse KL (kT)": found.reverse_kl,
        "ESS (%)": 100 * found.ess,
        "ESS, 1 % clipped (%)": 100 * found.ess_clipped,
        "free energy (kT)": float(found.free_energy.value),
        "its error (kT)": float(found.free_energy.error),
    }


def conservation(system: Any, starts: np.ndarray, steps: int) -> dict[str, float]:
    """How well velocity Verlet conserves the energy: 1 fs, the same frames and velocities for all."""
    drift = ms.dynamics.nve(system, starts, steps=steps, record_every=1, seed=0).drift()
    return {
        "std of total energy per d.o.f. (kJ/mol)": float(np.mean(drift.fluctuation)),
        "slope (kJ/mol/ns)": float(np.mean(drift.slope)),
    }


def openmm_energy(temperature: float) -> Any:
    """Reduced energy of the force field that the data come from; None without OpenMM."""
    try:
        from openmm import app
    except ImportError:
        return None
    pdb = app.PDBFile(str(DATA / "alanine-dipeptide.pdb"))
    system = app.ForceField(*FORCE_FIELD).createSystem(
        pdb.topology, nonbondedMethod=app.NoCutoff, constraints=None
    )
    return ms.calculators.reduced_openmm(system, temperature)


def show(console: Console, rows: dict[str, dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = Table("", *rows, title="alanine dipeptide in implicit solvent, 300 K")
    for name in names:
        table.add_row(name, *(f"{row[name]:.5g}" if name in row else "" for row in rows.values()))
    console.print(table)


def write(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("quantity", *rows))
        for name in dict.fromkeys(name for row in rows.values() for name in row):
            writer.writerow((name, *(row.get(name, "") for row in rows.values())))


if __name__ == "__main__":
    main()
