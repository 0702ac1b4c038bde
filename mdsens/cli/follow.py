"""`mdsens follow`: a minimum along a parameter, the pressure or a strain, as far as it exists."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mdsens.cli import options
from mdsens.cli.progress import LiveLine

if TYPE_CHECKING:
    from mdsens.continuation import Branch, BranchProgress


def follow(
    structure: options.StructureFile,
    potential: options.PotentialName,
    along: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What is turned: a parameter of the potential, pressure, strain (isotropic), or strain_xx "
            "... strain_xy.",
            show_default=False,
        ),
    ],
    to: Annotated[
        float,
        typer.Option(metavar="X", help="Its value at the end; a pressure in GPa.", show_default=False),
    ],
    observables: Annotated[
        list[str] | None,
        typer.Option(
            "--observable",
            "-O",
            metavar="NAME",
            help="Measured at each point, as of `mdsens sensitivity`; repeat for more. Default: energy.",
            show_default=False,
        ),
    ] = None,
    largest_step: Annotated[
        float | None,
        typer.Option(
            metavar="X", help="In what is turned; default: an eighth of the way.", show_default=False
        ),
    ] = None,
    switch: Annotated[
        bool, typer.Option("--switch", help="Go on in the minimum that is fallen into beyond a fold.")
    ] = False,
    max_points: Annotated[int, options.count("Points of the branch.", 2)] = 500,
    cell: options.Cell = "none",
    pressure: options.Pressure = 0.0,
    fmax: options.ForceTolerance = 1e-10,
    fix: options.Fixed = None,
    parameters: options.Parameters = None,
    format: options.Format = None,
    species: options.Species = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Follow a minimum while one number is turned, up to a value or to where the minimum is gone.

    Prints the points, and what happened on the way: folds and bifurcations with their critical value, pairs
    that came into reach, other minima. Writes PREFIX.h5 (everything), PREFIX.png (observables beside what
    first and second order predict) and PREFIX.extxyz (the structures).
    """
    options.turn_on_float64()
    from mdsens.continuation import follow as follow_branch
    from mdsens.errors import NotConvergedError
    from mdsens.io.files import check_free
    from mdsens.units import GPA

    prefix = options.output_prefix(output, structure, "branch")
    files = options.structure_files(prefix, ("h5", "png"), None)
    for file in files.values():
        check_free(file, overwrite)
    form = options.potential_option(potential, parameters)
    start = options.start_option(structure, form, format, options.species_option(species), fix)
    settings: dict[str, Any] = {
        "observables": observables or ["energy"],
        "largest_step": largest_step,
        "switch": switch,
        "max_points": max_points,
        "fmax": fmax,
        "cell": options.cell_option(cell),
        "pressure": pressure / GPA,
    }
    if along == "pressure":
        to = to / GPA
        settings["largest_step"] = None if largest_step is None else largest_step / GPA

    console = Console()
    with LiveLine(console, f"relaxing {start.n_atoms} atoms: compiling") as line:
        try:
            branch = follow_branch(
                form, start, along, to, progress=lambda p: line(_progress_text(p, along)), **settings
            )
        except NotConvergedError as error:
            _keep(error.partial, files, console, overwrite)
            raise
    _keep(branch, files, console, overwrite)


def _progress_text(progress: "BranchProgress", along: str) -> str:
    return (
        f"point {progress.points}   {along} {progress.s:.6g} (to {progress.end:.6g})   lowest curvature "
        f"{progress.lowest:.3g} eV/Å²"
    )


def _keep(branch: Any, files: dict[str, Path], console: Console, overwrite: bool) -> None:
    """Write and print a branch, whole or in part."""
    from mdsens.continuation import Branch
    from mdsens.io.trajectory import write_trajectory

    if not isinstance(branch, Branch):
        return  # the first relaxation did not arrive: there is no branch
    branch.to_hdf5(files["h5"], overwrite=overwrite)
    branch.plot(files["png"], overwrite=overwrite)
    write_trajectory(files["structure"], [point.structure for point in branch.points], overwrite=overwrite)
    console.print(branch.table())
    _say_events(branch, console)
    options.say_files(console, files)


def _say_events(branch: "Branch", console: Console) -> None:
    for event in branch.events:
        console.print(f"{event.kind}: {event.text}", markup=False, soft_wrap=True)
