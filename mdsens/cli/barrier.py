"""`mdsens barrier`: the saddle point between two structures, its barrier and rate, what they depend on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mdsens.cli import options
from mdsens.cli.progress import LiveLine

if TYPE_CHECKING:
    from mdsens.potentials.base import Potential
    from mdsens.saddles import Barrier
    from mdsens.saddles.band import BandProgress
    from mdsens.sensitivity.report import SensitivityReport
    from mdsens.structure import Structure

MOST_PARAMETERS = 60  # of which derivatives are shown when none are named


def barrier(
    start: Annotated[
        Path, typer.Argument(metavar="START", help="Structure in one minimum.", show_default=False)
    ],
    end: Annotated[
        Path,
        typer.Argument(metavar="END", help="The same atoms, in one order, in another.", show_default=False),
    ],
    potential: options.PotentialName,
    images: Annotated[int, options.count("Images between the ends.")] = 5,
    band_fmax: Annotated[
        float, typer.Option(metavar="EV/Å", help="Force at which the band ends and Newton steps begin.")
    ] = 0.05,
    band_steps: Annotated[int, options.count("Steps of the band allowed.")] = 1000,
    spring: Annotated[float, typer.Option(metavar="EV/Å²", help="Between images.")] = 5.0,
    straight: Annotated[
        bool, typer.Option("--straight", help="Begin on the straight line, not with interpolated distances.")
    ] = False,
    match: Annotated[
        bool, typer.Option("--match", help="Sort the atoms of END so that they move least.")
    ] = False,
    temperature: Annotated[float, typer.Option(metavar="K", help="Of the rate.")] = 300.0,
    fmax: Annotated[
        float, typer.Option(metavar="EV/Å", help="Tolerance at the saddle point: the largest force.")
    ] = 1e-10,
    differentiated: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            metavar="NAME",
            help="Differentiate w.r.t. these only; repeat for more. Default: all, if they are few.",
            show_default=False,
        ),
    ] = None,
    derivatives: Annotated[
        bool, typer.Option("--derivatives/--no-derivatives", help="What barrier and rate depend on.")
    ] = True,
    fix: options.Fixed = None,
    parameters: options.Parameters = None,
    format: options.Format = None,
    species: options.Species = None,
    output: options.Output = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the path in PREFIX.h5, as a run cut off left it.")
    ] = False,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Find the saddle point between two minima.

    Relaxes both ends, lets a band of images settle with the highest one climbing, and goes on by Newton steps
    to the saddle point. The cell is held. Writes PREFIX.h5 (everything; while it runs, the path as it
    stands), PREFIX.png (the profile) and PREFIX.extxyz (the images, the saddle point among them).
    """
    options.turn_on_float64()
    from mdsens.io.files import check_free
    from mdsens.io.trajectory import write_trajectory
    from mdsens.potentials.parameters import parameter_values
    from mdsens.saddles import barrier as find_barrier
    from mdsens.saddles import in_order
    from mdsens.saddles.files import read_path, write_barrier, write_path

    prefix = options.output_prefix(output, start, "barrier")
    files = options.structure_files(prefix, ("h5", "png"), None)
    for file in files.values():
        check_free(file, overwrite or resume)
    form = options.potential_option(potential, parameters)
    first, last = (_read(file, form, format, species, fix) for file in (start, end))
    last = in_order(first, last) if match else last
    settings = {"potential": potential, **parameter_values(form)}
    path = read_path(files["h5"], settings=settings) if resume else None

    console = Console()
    with LiveLine(console, f"relaxing both ends ({first.n_atoms} atoms): compiling") as line:

        def keep(progress: "BandProgress") -> None:
            line(_progress_text(progress))
            write_path(files["h5"], progress.path, settings=settings, overwrite=True)

        found = find_barrier(
            form,
            first,
            last,
            images=images,
            path=path,
            straight=straight,
            spring=spring,
            band_fmax=band_fmax,
            band_steps=band_steps,
            fmax=fmax,
            progress=keep,
        )
        line("measuring")
        values = _measured(found, temperature)
        report = _report(found, form, temperature, differentiated, line) if derivatives else None
    slopes = {} if report is None else {"derivatives": _slopes(report)}
    content: dict[str, Any] = {"settings": settings, "values": values, **slopes}
    write_barrier(files["h5"], found, overwrite=True, **content)
    found.path.plot(files["png"], overwrite=True)
    frames = found.path.images
    frames[found.path.highest] = found.saddle.structure
    write_trajectory(files["structure"], frames, overwrite=True)
    console.print(summary(found, values, f"{start.name} to {end.name}"))
    if report is not None:
        console.print(report.table())
    for k in found.path.intermediate_minima:
        console.print(f"image {k} is near another minimum: the path has more barriers than the highest one")
    options.say_files(console, files)


def _read(
    file: Path, form: "Potential", format: str | None, species: str | None, fix: list[str] | None
) -> "Structure":
    return options.start_option(file, form, format, options.species_of(file, format, species), fix)


def _progress_text(progress: "BandProgress") -> str:
    path = progress.path
    height = path.energies[path.highest] - path.energies[0]
    climbing = "climbing" if progress.climbing else "settling"
    return (
        f"{climbing}, step {path.steps}   force {path.fmax:.3f} eV/Å (to {progress.goal:g})   "
        f"barrier {height:.4f} eV"
    )


def _names(found: "Barrier", temperature: float) -> list[str]:
    from mdsens.relaxation.equilibrium import DENSE_LIMIT

    whole = ["barrier", "attempt_frequency", f"rate_{temperature:g}K"]
    names = whole if 3 * found.path.start.n_atoms <= DENSE_LIMIT else whole[:1]
    return [*names, *(f"backward_{name}" for name in names)]


def _measured(found: "Barrier", temperature: float) -> dict[str, float]:
    from mdsens.sensitivity.problem import SensitivityProblem

    problem = SensitivityProblem.of(found.states, _names(found, temperature), None)
    return dict(zip(problem.names, problem.values().tolist(), strict=True))


def _report(
    found: "Barrier", form: "Potential", temperature: float, names: list[str] | None, line: "LiveLine"
) -> "SensitivityReport | None":
    from mdsens.potentials.parameters import parameter_entries
    from mdsens.sensitivity.analysis import sensitivities

    if names is None and len(parameter_entries(form)) > MOST_PARAMETERS:
        return None
    forward = [name for name in _names(found, temperature) if not name.startswith("backward")]
    return sensitivities(forward, form, found.states, parameters=names, second_order=False, progress=line)


def _slopes(report: "SensitivityReport") -> dict[str, Any]:
    from mdsens.io.hdf5 import Quantity

    return {
        "observables": list(report.observables),
        "parameters": list(report.parameters),
        "derivative": Quantity(report.derivative, "1", "observables, parameters"),
        "errors": Quantity(report.errors, "1", "observables, parameters"),
    }


def summary(found: "Barrier", values: dict[str, float], title: str) -> Table:
    """What was found, as a table."""
    from rich.markup import escape

    certificate = found.saddle.equilibrium.certificate
    table = Table(title=escape(f"{title}: saddle point found"), title_justify="left", show_header=False)
    units = {"barrier": "eV", "frequency": "THz", "K": "1/s"}
    for name, value in values.items():
        unit = next(unit for ending, unit in units.items() if name.endswith(ending))
        number = f"{value:.6e}" if unit == "1/s" else f"{value:.6f}"
        table.add_row(name.replace("_", " "), number, unit)
    table.add_row("negative curvature", f"{certificate.lowest_curvature:.4f}", "eV/Å²")
    table.add_row("next curvature", f"{certificate.next_curvature:.4f}", "eV/Å²")
    table.add_row("largest force", f"{certificate.fmax:.1e}", "eV/Å")
    table.add_row("steps of the band", f"{found.path.steps}", "")
    table.columns[1].justify = "right"
    return table
