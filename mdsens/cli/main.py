"""The command line `mdsens`: one verb a file, all of them over the public Python functions."""

from typing import Annotated

import typer

from mdsens.cli.average import average
from mdsens.cli.barrier import barrier
from mdsens.cli.batch import batch
from mdsens.cli.campaign import campaign, campaign_collect, campaign_status
from mdsens.cli.data.app import app as data
from mdsens.cli.fit import fit
from mdsens.cli.flow.app import app as flow
from mdsens.cli.follow import follow
from mdsens.cli.gaussian import gaussian
from mdsens.cli.md import md
from mdsens.cli.outcome import EPILOG, Commands
from mdsens.cli.phonons import phonons
from mdsens.cli.potentials import potentials
from mdsens.cli.relax import relax
from mdsens.cli.sensitivity import sensitivity
from mdsens.cli.uncertainty import uncertainty

app = typer.Typer(
    name="mdsens",
    cls=Commands,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
)
app.command(epilog=EPILOG)(relax)
app.command(epilog=EPILOG)(sensitivity)
app.command(epilog=EPILOG)(uncertainty)
app.command(epilog=EPILOG)(barrier)
app.command(epilog=EPILOG)(follow)
app.command(epilog=EPILOG)(batch)
app.command(epilog=EPILOG)(campaign)
app.command(name="campaign-status", epilog=EPILOG)(campaign_status)
app.command(name="campaign-collect", epilog=EPILOG)(campaign_collect)
app.command(epilog=EPILOG)(fit)
app.command(epilog=EPILOG)(md)
app.command(epilog=EPILOG)(average)
app.command(epilog=EPILOG)(phonons)
app.command(epilog=EPILOG)(gaussian)
app.command(epilog=EPILOG)(potentials)
app.add_typer(data, name="data")
app.add_typer(flow, name="flow")


def _version(wanted: bool) -> None:
    if wanted:
        from mdsens import __version__

        typer.echo(f"mdsens {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Relax structures, and see how relaxed states move with the parameters of the potential."""
