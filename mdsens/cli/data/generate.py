"""`mdsens data generate`: structures around a given one, labelled by a potential."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mdsens.cli import options
from mdsens.cli.progress import LiveLine
from mdsens.errors import InputError

if TYPE_CHECKING:
    from mdsens.datasets import GenerationProgress, Heat, Rattle


def generate(
    structure: options.StructureFile,
    potential: options.PotentialName,
    count: Annotated[int, options.count("Structures for each temperature or amplitude.")] = 100,
    temperature: Annotated[
        str | None,
        typer.Option(metavar="K,...", help="Molecular dynamics at these temperatures.", show_default=False),
    ] = None,
    rattle: Annotated[
        str | None,
        typer.Option(
            metavar="Å,...", help="Shake the atoms: standard deviations of a coordinate.", show_default=False
        ),
    ] = None,
    strain: Annotated[float, options.factor("Standard deviation of the strains of rattled cells.")] = 0.0,
    repeat: Annotated[str, typer.Option(metavar="N[,N,N]", help="Copies along the cell vectors.")] = "1",
    every: Annotated[int, options.count("Steps between two structures of a simulation.")] = 100,
    equilibrate: Annotated[int, options.count("Steps before the first.")] = 500,
    timestep: Annotated[float, typer.Option(metavar="FS", help="Step of the simulation in fs.")] = 1.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Of all random numbers.")] = 0,
    parameters: options.Parameters = None,
    format: options.Format = None,
    species: options.Species = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.h5", help="Written as the work goes on.")
    ] = Path("data.h5"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from FILE.h5 if it is there.")] = False,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Sample structures by molecular dynamics or by shaking, and label them with a potential.

    A run that was cut off loses at most half a minute, and goes on with --resume to the same bits.
    """
    options.turn_on_float64()
    from mdsens import datasets
    from mdsens.cli.data.info import show
    from mdsens.io.structures import read_structure

    moves = _moves(temperature, rattle, strain, every, equilibrate, timestep)
    start = read_structure(structure, format=format, species=options.species_option(species))
    form = options.potential_option(potential, parameters)
    console = Console()
    with LiveLine(console, "compiling") as line:

        def report(now: "GenerationProgress") -> None:
            line(
                f"{now.done} of {now.wanted} structures   {now.group}   {now.energy_per_atom:.6f} eV an atom"
            )

        data = datasets.generate(
            form,
            start.repeat(_copies(repeat)),
            moves,
            count=count,
            output=output,
            resume=resume,
            overwrite=overwrite,
            seed=seed,
            progress=report,
        )
    show(console, data, output.name)
    options.say_files(console, {"data": output})


def _moves(
    temperature: str | None, rattle: str | None, strain: float, every: int, equilibrate: int, timestep: float
) -> "list[Rattle | Heat]":
    from mdsens.datasets import Heat, Rattle

    heats = [Heat(t, every, equilibrate, timestep) for t in _numbers("--temperature", temperature)]
    rattles = [Rattle(amplitude, strain) for amplitude in _numbers("--rattle", rattle)]
    if not heats and not rattles:
        raise InputError("nothing moves the atoms: give --temperature 300,600 or --rattle 0.05,0.1.")
    return [*heats, *rattles]


def _numbers(option: str, text: str | None) -> list[float]:
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise InputError(f"{option} {text}: give numbers with commas between them.") from error


def _copies(text: str) -> int | list[int]:
    try:
        parts = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--repeat {text}: give a whole number, or three with commas.") from error
    return parts[0] if len(parts) == 1 else parts
