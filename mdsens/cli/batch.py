"""`mdsens batch`: many structures relaxed, measured and differentiated; one table of all."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from mdsens.cli import options
from mdsens.cli.progress import counting_bar
from mdsens.errors import InputError

if TYPE_CHECKING:
    from mdsens.batches.results import MeasuredBatch
    from mdsens.batches.work import BatchProgress
    from mdsens.structure import Structure

MOST_ROWS = 20  # of the table that is printed; the CSV has all
MOST_COLUMNS = 6


def batch(
    structures: Annotated[
        list[Path],
        typer.Argument(
            metavar="STRUCTURE...",
            help="Files to read: any that ASE or mdtraj reads. Each frame of a trajectory is a system.",
            show_default=False,
        ),
    ],
    potential: options.PotentialName,
    observables: Annotated[
        list[str] | None,
        typer.Option(
            "--observable",
            "-O",
            metavar="NAME",
            help="energy, energy_per_atom, volume, C11 ..., as of `mdsens sensitivity`. Repeat for more. "
            "Default: energy, volume.",
            show_default=False,
        ),
    ] = None,
    derivatives: Annotated[
        bool, typer.Option("--derivatives", help="Differentiate w.r.t. the parameters of the potential.")
    ] = False,
    differentiated: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            metavar="NAME",
            help="Differentiate w.r.t. these only; repeat for more.",
            show_default=False,
        ),
    ] = None,
    cell: options.Cell = "none",
    pressure: options.Pressure = 0.0,
    fmax: options.ForceTolerance = 1e-8,
    solver: options.SolverName = options.Solver.AUTO,
    max_steps: options.MaxSteps = 10_000,
    parameters: options.Parameters = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE.h5", help="All results; a table of them goes to FILE.csv."
        ),
    ] = Path("batch.h5"),
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Relax many structures, and measure each; with derivatives, if asked for.

    A system that fails is named with the reason, and the others go on. A batch that is cut off goes on where
    it was when the same command is given again.
    """
    options.turn_on_float64()
    from mdsens.batches import observables_batch, sensitivity_batch
    from mdsens.io.files import check_free
    from mdsens.units import GPA

    table = output.with_suffix(".csv")
    if output.suffix == ".csv":
        raise InputError(f"--output {output}: name the HDF5 file, the table goes beside it.")
    for file in (output, table):
        check_free(file, overwrite)
    form = options.potential_option(potential, parameters)
    systems = _systems(structures, form.columns)
    names = tuple(observables or ("energy", "volume"))
    how: dict[str, Any] = {
        "cell": options.cell_option(cell),
        "pressure": pressure / GPA,
        "fmax": fmax,
        "solver": options.solver_option(solver),
        "max_steps": max_steps,
    }
    keep: dict[str, Any] = {"output": output, "overwrite": overwrite}
    console = Console()
    with counting_bar(console) as bar:
        watch = _Watch(bar, len(systems))
        if derivatives or differentiated:
            found = sensitivity_batch(form, systems, names, differentiated, progress=watch, **keep, **how)
        else:
            found = observables_batch(form, systems, names, progress=watch, **keep, **how)
    found.to_csv(table, overwrite=overwrite)
    console.print(_shown(found))
    for name, reason in found.failures.items():
        console.print(f"[red]failed[/] {escape(name)}: {escape(reason)}")
    options.say_files(console, {"h5": output, "csv": table})
    if len(found.failures) == len(found.systems):
        raise InputError("every system of the batch failed, see above.")


def _systems(paths: Sequence[Path], columns: Sequence[str]) -> "dict[str, Structure]":
    """All structures by name: the file's name, and the number of the frame where there are several."""
    from mdsens.io.structures import read_trajectory

    systems: dict[str, Structure] = {}
    for path in paths:
        frames = read_trajectory(path, columns=columns)
        for k, frame in enumerate(frames):
            name = path.stem if len(frames) == 1 else f"{path.stem}-{k}"
            if name in systems:
                raise InputError(f"two structures are called '{name}' ('{path}' is one): rename a file.")
            systems[name] = frame
    return systems


class _Watch:
    """Shows the progress of a batch on a bar."""

    def __init__(self, bar: Progress, total: int):
        self.bar, self.task = bar, bar.add_task("compiling", total=total)

    def __call__(self, progress: "BatchProgress") -> None:
        """One system more."""
        text = f"{progress.rate:.2g} systems/s"
        if progress.failed:
            text += f", {progress.failed} failed"
        self.bar.update(self.task, completed=progress.done, description=text)


def _shown(found: "MeasuredBatch") -> Table:
    """The first systems and numbers."""
    names = found.names[:MOST_COLUMNS]
    table = Table(title=f"{len(found.systems)} systems, {len(found.failures)} failed", title_justify="left")
    table.add_column("system")
    for name, unit in zip(names, found.units, strict=False):
        table.add_column(f"{name} ({unit})" if unit else name, justify="right")
    for k, system in enumerate(found.systems[:MOST_ROWS]):
        numbers = found.values[k, : len(names)]
        table.add_row(escape(system), *(f"{value:.8g}" for value in numbers))
    if len(found.systems) > MOST_ROWS:
        table.add_row(f"and {len(found.systems) - MOST_ROWS} more", *("" for _ in names))
    return table
