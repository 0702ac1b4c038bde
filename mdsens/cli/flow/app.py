"""The verbs of `mdsens flow`."""

import typer

from mdsens.cli.flow.evaluate import evaluate
from mdsens.cli.flow.md import md
from mdsens.cli.flow.sample import sample
from mdsens.cli.flow.train import train
from mdsens.cli.outcome import EPILOG, Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Normalizing flows: densities of a molecule with exact forces.",
)
for verb in (train, evaluate, sample, md):
    app.command(epilog=EPILOG)(verb)
