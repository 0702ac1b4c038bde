"""`mdsens data info` and `convert`: what is in a data file, and the same in another format."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mdsens.cli import options
from mdsens.cli.data import inputs

if TYPE_CHECKING:
    from mdsens.datasets import Dataset

MOST = 20  # lines about what looks wrong


@inputs.with_labels
def info(
    file: inputs.DataFile,
    labels: dict[str, Any],
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Say what is in a data file: structures, labels, reference energies, duplicates and outliers."""
    options.turn_on_float64()
    console = Console()
    show(console, inputs.read(console, file, **labels), file.name)


def show(console: Console, data: "Dataset", title: str) -> None:
    """The table, and what looks wrong."""
    from mdsens.datasets import describe, in_words, inspect

    table = Table(title=escape(title), title_justify="left", show_header=False)
    for row in describe(data):
        table.add_row(*(escape(text) for text in row))
    report = inspect(data)
    table.add_row("duplicates", f"{len(report.duplicates)}")
    table.add_row("outliers", f"{len(report.outliers)}")
    console.print(table)
    found = [*report.duplicates, *report.outliers]
    for one in found[:MOST]:
        console.print(in_words(one, data), soft_wrap=True, markup=False, highlight=False)
    if len(found) > MOST:
        console.print(f"and {len(found) - MOST} more")


@inputs.with_labels
def convert(
    file: inputs.DataFile,
    output: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT", help="A .h5 file, which keeps everything, or .extxyz."),
    ],
    labels: dict[str, Any],
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Write a data file in another format, in eV, Å and eV/Å³ with stress positive in tension."""
    options.turn_on_float64()
    from mdsens.datasets import write_dataset
    from mdsens.io.files import check_free

    check_free(output, overwrite)
    console = Console()
    data = inputs.read(console, file, **labels)
    write_dataset(output, data, overwrite=overwrite)
    options.say_files(console, {"data": output})
