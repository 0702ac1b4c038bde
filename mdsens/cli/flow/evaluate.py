"""`mdsens flow evaluate`: how good a flow is, on data it has not seen and on its own samples."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mdsens.cli import options
from mdsens.cli.flow import inputs
from mdsens.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from mdsens.ensembles import FreeEnergy
    from mdsens.flows.boltzmann import BoltzmannGenerator
    from mdsens.flows.data import ForceData
    from mdsens.flows.evaluate import OnData, OnSamples


UNKNOWN = "unknown"


def evaluate(
    model: inputs.Model,
    data: inputs.Data,
    samples: inputs.Samples = 2000,
    force_field: inputs.ForceField = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR_OR_PREFIX",
            help="Where PREFIX.csv and PREFIX.png go.",
            show_default=False,
        ),
    ] = None,
    all_frames: Annotated[
        bool, typer.Option("--all", help="Use the frames that the model was trained on as well.")
    ] = False,
    check_md: Annotated[
        int,
        options.count(
            "Steps of dynamics with the force field, from samples of the flow: a basin it lacks shows.",
            at_least=0,
        ),
    ] = 0,
    drop_outliers: inputs.DropOutliers = False,
    stride: inputs.Stride = 1,
    temperature: inputs.Temperature = None,
    length_unit: inputs.LengthUnit = None,
    energy_unit: inputs.EnergyUnit = None,
    seed: inputs.Seed = 0,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Compare a flow with molecular dynamics it has not seen, and its samples with the force field.

    Frames that the model was trained on are left out, wherever they are read from (--all keeps them).
    Prints negative log-likelihood and force error on the data; with --force-field also reverse KL, effective
    sample size and free energy difference. Writes PREFIX.csv (the table) and PREFIX.png (torsions beside
    those of the data, forces and energies against each other).
    """
    options.turn_on_float64()
    import jax

    from mdsens.flows.evaluate import evaluate_on_data, evaluate_on_samples, in_pieces
    from mdsens.flows.plots import plot_comparison
    from mdsens.io.files import check_free

    prefix = options.output_prefix(output, model, "evaluation")
    table_file, picture = (prefix.with_name(f"{prefix.name}.{ending}") for ending in ("csv", "png"))
    for file in (table_file, picture):
        check_free(file, overwrite)
    if check_md and force_field is None:
        raise InputError("--check-md moves atoms with a force field: name it with --force-field.")
    generator = inputs.read_generator(model)
    frames = inputs.read_frames(data, generator, temperature, length_unit, energy_unit, stride, drop_outliers)
    if drop_outliers:
        frames = without_mirror_images(frames, generator)
    if not all_frames:
        frames = unseen_frames(model, frames)
    target = None if force_field is None else inputs.target_energy(generator, force_field, "")
    frames = inputs.with_forces(frames, target)
    if frames.weights is not None:
        inputs.say("frames count in the likelihood with the weights of the file")
    console = Console()
    with console.status("evaluating"):
        on_data = evaluate_on_data(generator, frames)
        drawn, _ = generator.flow.sample(jax.random.key(seed), samples)
        on_samples = None if target is None else evaluate_on_samples(generator, target, drawn)
    rows = evaluation_rows(on_data, on_samples)
    if check_md and target is not None:
        rows.append(row_of_dynamics(generator, target, drawn, check_md, seed))
    table = Table("", "value", "unit", title=f"{model} against {data}: {frames.n_frames} frames")
    for name, value, unit in rows:
        table.add_row(name, value, unit)
    console.print(table)
    if on_samples is not None:
        inputs.say(
            "Effective samples and errors count what the flow draws: they do not see a basin it never visits"
            + ("." if check_md else " (--check-md 2000 looks for one).")
        )
    write_rows(table_file, rows, overwrite)
    few = frames.rows(slice(None, None, max(1, frames.n_frames // 500)))
    energies, forces = in_pieces(generator, few.positions)
    plot_comparison(
        picture,
        data=frames.positions,
        samples=drawn,
        torsions=generator.rotatable,
        forces=None if few.forces is None else (few.forces, forces),
        energies=None if few.energies is None else (few.energies, energies),
        overwrite=overwrite,
    )
    console.print(f"wrote {table_file}, {picture}", soft_wrap=True, markup=False, highlight=False)


def evaluation_rows(data: "OnData", samples: "OnSamples | None") -> list[tuple[str, str, str]]:
    """Names, numbers and units of what was measured."""
    from mdsens.flows.evaluate import MISSED

    rows = [("negative log-likelihood", f"{data.nll:.4f} ± {data.nll_error:.4f}", "kT")]
    if not math.isnan(data.force_rmse):
        rows += [
            ("force RMSE on data", f"{data.force_rmse:.3f}", "kT/nm"),
            ("RMS of the reference forces", f"{data.force_rms:.3f}", "kT/nm"),
        ]
    if not math.isnan(data.energy_std):
        rows.append(("standard deviation of -log p - u on data", f"{data.energy_std:.4f}", "kT"))
        rows.append((f"frames more than {MISSED:g} kT too unlikely", f"{data.missed}", ""))
    if samples is not None:
        free_energy = f"{samples.free_energy.value:.4f} ± {samples.free_energy.error:.4f}"
        rows += [
            (f"force RMSE on {samples.n_samples} samples", f"{samples.force_rmse:.3f}", "kT/nm"),
            ("the same without the worst 1 %", f"{samples.force_rmse_clipped:.3f}", "kT/nm"),
            ("reverse KL divergence", trusted(f"{samples.reverse_kl:.4f}", samples.free_energy), "kT"),
            ("effective sample size", f"{100 * samples.ess:.2f}", "% of samples"),
            ("the same, largest 1 % of weights clipped", f"{100 * samples.ess_clipped:.2f}", "% of samples"),
            ("free energy of the force field", trusted(free_energy, samples.free_energy), "kT"),
        ]
    return rows


RUNS = 16  # of the check by dynamics, each from a sample of its own
RECORDS = 20  # frames of each run that are looked at
STEP = 0.5  # fs
FRICTION = 1e-3  # 1/fs


def row_of_dynamics(
    generator: "BoltzmannGenerator",
    energy: "Callable[[Any], Any]",
    samples: "np.ndarray",
    steps: int,
    seed: int,
) -> tuple[str, str, str]:
    """Frames of Langevin dynamics with the force field, from samples of the flow, that the flow misses.

    Args:
        energy: reduced energy in kT of positions in nm.
        samples: of the flow, nm; runs start from those that weigh most, which have no clashes.
        steps: of each run; rounded up to a multiple of RECORDS.
    """
    import numpy as np

    from mdsens.dynamics import Movable, langevin
    from mdsens.flows.evaluate import MISSED, evaluate_on_samples, frames_missed
    from mdsens.units import from_nm, to_nm

    weights = evaluate_on_samples(generator, energy, samples).log_weights
    starts = samples[np.argsort(-weights)[:RUNS]]
    moved = Movable(energy, generator.species, generator.temperature)
    every = -(-steps // RECORDS)
    run = langevin(
        moved,
        from_nm(np.asarray(starts, float)),
        steps=every * RECORDS,
        record_every=every,
        timestep=STEP,
        friction=FRICTION,
        seed=seed,
    )
    frames = to_nm(np.asarray(run.positions)[1:]).reshape(-1, *starts.shape[1:])
    missed = frames_missed(generator, energy, samples, frames)
    name = (
        f"frames of {len(starts)} runs of {every * RECORDS * STEP / 1000:g} ps > {MISSED:g} kT too unlikely"
    )
    return name, f"{missed.sum()} of {len(missed)}", ""


def trusted(text: str, found: "FreeEnergy") -> str:
    """A number that depends on the free energy; words where there are too few effective samples for it."""
    from mdsens.ensembles import MIN_EFFECTIVE

    if found.effective_samples >= MIN_EFFECTIVE:
        return text
    return f"{UNKNOWN}: {found.effective_samples:.1f} effective samples, {MIN_EFFECTIVE:g} are needed"


def without_mirror_images(frames: "ForceData", generator: "BoltzmannGenerator") -> "ForceData":
    """The frames that are no mirror images of the others; says how many were left out."""
    from mdsens.flows.outliers import inverted_frames, tree_of

    rows = getattr(generator.coordinates, "rows", ())
    wrong = inverted_frames(tree_of(rows, generator.n_atoms), frames.positions)
    if wrong.any():
        inputs.say(f"{wrong.sum()} of {frames.n_frames} frames are mirror images: they are left out.")
    return frames.rows(~wrong)


def unseen_frames(model: Path, frames: "ForceData") -> "ForceData":
    """The frames that the model was not trained on; says which ones are used.

    Raises:
        InputError: it was trained on all of them.
    """
    import numpy as np

    from mdsens.flows.data import known_again
    from mdsens.flows.files import read_notes, read_record

    record = read_record(model)
    if record is None:
        note = read_notes(model).get("trained_on")
        known = f"its note says: {note}" if note else "nor is there a note"
        inputs.say(
            f"'{model}' does not say frame by frame what it was trained on, {known}. All {frames.n_frames} "
            "frames are used."
        )
        return frames
    seen = known_again(frames.signatures(), record.trained_on)
    if seen.all():
        raise InputError(
            f"the model was trained on all {frames.n_frames} frames (of '{record.source}'): give others, or "
            "--all to use them nevertheless."
        )
    if not seen.any():
        inputs.say(f"the model was trained on none of these {frames.n_frames} frames: all are used.")
        return frames
    inputs.say(
        f"the model was trained on {seen.sum()} of these {frames.n_frames} frames: the other "
        f"{np.sum(~seen)} are used (--all uses all)."
    )
    return frames.rows(~seen)


def write_rows(path: Path, rows: list[tuple[str, str, str]], overwrite: bool) -> None:
    """The table as CSV: quantity, value, standard error, unit."""
    from mdsens.io.files import new_file

    with new_file(path, overwrite) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("quantity", "value", "error", "unit"))
        for name, text, unit in rows:
            value, _, error = ("", "", "") if text.startswith(UNKNOWN) else text.partition(" ± ")
            writer.writerow((name, value, error, unit))
