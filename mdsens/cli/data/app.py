"""The verbs of `mdsens data`."""

import typer

from mdsens.cli.data.generate import generate
from mdsens.cli.data.info import convert, info
from mdsens.cli.outcome import EPILOG, Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Structures with energies, forces and stresses: look at them, convert them, generate them.",
)
for verb in (info, convert, generate):
    app.command(epilog=EPILOG)(verb)
