"""`mdsens flow evaluate`: how good a flow is, on data it has not seen and on its own samples."""

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from mdsens.cli import options
from mdsens.cli.flow import inputs

if TYPE_CHECKING:
    from mdsens.flows.evaluate import OnData, OnSamples


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
    generator = inputs.read_generator(model)
    frames = inputs.read_frames(data, generator, temperature, length_unit, energy_unit, stride)
    target = None if force_field is None else inputs.target_energy(generator, force_field, "")
    console = Console()
    with console.status("evaluating"):
        on_data = evaluate_on_data(generator, frames)
        drawn, _ = generator.flow.sample(jax.random.key(seed), samples)
        on_samples = None if target is None else evaluate_on_samples(generator, target, drawn)
    rows = evaluation_rows(on_data, on_samples)
    table = Table("", "value", "unit", title=f"{model} against {data}: {frames.n_frames} frames")
    for name, value, unit in rows:
        table.add_row(name, value, unit)
    console.print(table)
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
    rows = [
        ("negative log-likelihood", f"{data.nll:.4f} ± {data.nll_error:.4f}", "kT"),
        ("force RMSE on data", f"{data.force_rmse:.3f}", "kT/nm"),
        ("RMS of the reference forces", f"{data.force_rms:.3f}", "kT/nm"),
        ("standard deviation of -log p - u on data", f"{data.energy_std:.4f}", "kT"),
    ]
    if samples is not None:
        rows += [
            (f"force RMSE on {samples.n_samples} samples", f"{samples.force_rmse:.3f}", "kT/nm"),
            ("the same without the worst 1 %", f"{samples.force_rmse_clipped:.3f}", "kT/nm"),
            ("reverse KL divergence", f"{samples.reverse_kl:.4f}", "kT"),
            ("effective sample size", f"{100 * samples.ess:.2f}", "% of samples"),
            ("the same, largest 1 % of weights clipped", f"{100 * samples.ess_clipped:.2f}", "% of samples"),
            (
                "free energy of the force field",
                f"{samples.free_energy.value:.4f} ± {samples.free_energy.error:.4f}",
                "kT",
            ),
        ]
    return [row for row in rows if not math.isnan(float(row[1].split()[0]))]


def write_rows(path: Path, rows: list[tuple[str, str, str]], overwrite: bool) -> None:
    """The table as CSV: quantity, value, standard error, unit."""
    from mdsens.io.files import new_file

    with new_file(path, overwrite) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("quantity", "value", "error", "unit"))
        for name, text, unit in rows:
            value, _, error = text.partition(" ± ")
            writer.writerow((name, value, error, unit))
