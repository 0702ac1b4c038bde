"""`mdsens potentials`: which parameter sets there are, and what is in one of them."""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mdsens.cli import options


def potentials(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A parameter set or a file to describe; default: list all sets.",
            show_default=False,
        ),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """List the parameter sets that come with mdsens, or describe one: values, units, bounds, source."""
    options.turn_on_float64()
    from mdsens.potentials.parameter_sets import available_potentials, load_potential, parameter_table

    console = Console()
    if name is not None:
        console.print(parameter_table(load_potential(name)))
        return
    table = Table()
    table.add_column("name", no_wrap=True)
    table.add_column("form", no_wrap=True)
    table.add_column("elements")
    table.add_column("source", overflow="fold")
    for record in available_potentials():
        elements = " ".join(record.elements) or "any"
        table.add_row(record.name, record.form, elements, escape(record.source))
    console.print(table)
    console.print("`mdsens potentials NAME` describes one of them.")
