"""`mdsens average`: averages at a temperature, their derivatives by the parameters, and error bars."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mdsens.cli import options
from mdsens.cli.progress import LiveLine
from mdsens.errors import InputError

if TYPE_CHECKING:
    from mdsens.dynamics import SimulationProgress
    from mdsens.thermal import Ensemble

ENSEMBLE_FILES = (".h5", ".hdf5")
DEFAULT = ["energy_per_atom", "heat_capacity"]

Observables = Annotated[
    list[str] | None,
    typer.Option(
        "--observable",
        "-O",
        metavar="NAME",
        help="What to average: energy_per_atom, pressure, volume, heat_capacity, bulk_modulus, "
        "thermal_expansion, C11, 'rdf(r_max=6)', ...; repeat for more. Default: what has a meaning.",
        show_default=False,
    ),
]
Temperature = Annotated[float | None, typer.Option(metavar="K", help="Of the bath.", show_default=False)]
By = Annotated[
    list[str] | None,
    typer.Option(
        "--by",
        metavar="NAME",
        help="Parameter to differentiate by; repeat for more. Default: all.",
        show_default=False,
    ),
]


def average(
    structure: Annotated[
        Path,
        typer.Argument(
            metavar="STRUCTURE",
            help="Any structure file ASE reads, to sample; or an ensemble of this command (.h5).",
            show_default=False,
        ),
    ],
    potential: options.PotentialName,
    temperature: Temperature = None,
    pressure: Annotated[
        float | None,
        typer.Option(
            metavar="GPA", help="Moves the cell under this pressure; else it is held.", show_default=False
        ),
    ] = None,
    cell: Annotated[
        str, typer.Option(help="How the cell moves: isotropic, full, or some of xx,yy,zz,yz,xz,xy.")
    ] = "isotropic",
    observables: Observables = None,
    by: By = None,
    steps: Annotated[int, options.count("Steps of each replica.")] = 10_000,
    record_every: Annotated[int, options.count("Steps between frames.")] = 20,
    replicas: Annotated[int, options.count("Independent runs, side by side.")] = 4,
    timestep: Annotated[float, typer.Option(metavar="FS", help="Step in fs.")] = 1.0,
    friction: Annotated[float, typer.Option(metavar="1/PS", help="Of the bath.")] = 5.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Of velocities and noise.")] = 0,
    fix: options.Fixed = None,
    parameters: options.Parameters = None,
    format: options.Format = None,
    species: options.Species = None,
    output: options.Output = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was cut off, to the same bits.")
    ] = False,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Sample a structure at a temperature, and average over the frames.

    Prints averages and their derivatives by every parameter, by temperature and pressure, with ± one standard
    error. Writes PREFIX-ensemble.h5 (the frames, for another call of this command), PREFIX.h5 (everything
    printed), PREFIX.csv and PREFIX.png.
    """
    options.turn_on_float64()
    from mdsens.io.files import check_free
    from mdsens.thermal.averages import request

    form = options.potential_option(potential, parameters)
    prefix = options.output_prefix(output, structure, "average")
    files = {ending: prefix.with_name(f"{prefix.name}.{ending}") for ending in ("h5", "csv", "png")}
    for file in files.values():
        check_free(file, overwrite or resume)
    frames = prefix.with_name(f"{prefix.name}-ensemble.h5")
    console = Console()
    with LiveLine(console, "compiling") as line:
        if structure.suffix.lower() in ENSEMBLE_FILES:
            ensemble = _read(structure, form, temperature, pressure, fix)
        else:
            start = options.start_option(structure, form, format, options.species_option(species), fix)
            names = observables or _default(start, pressure)
            request(form, start, pressure, names, by)  # what is refused is refused before the work
            sampled: dict[str, Any] = {
                "steps": steps,
                "record_every": record_every,
                "replicas": replicas,
                "timestep": timestep,
                "friction": friction / 1000,
                "seed": seed,
                "output": frames,
                "overwrite": overwrite,
                "resume": resume,
            }
            ensemble = _sampled(form, start, temperature, pressure, cell, line, sampled)
            files = {"ensemble": frames, **files}
        names = observables or _default(ensemble.frames.structure, ensemble.pressure)

        def show(done: int, total: int) -> None:
            line(f"frame {done} of {total}")

        found = ensemble.average(names, parameters=by, progress=show)
    console.print(found.table())
    console.print(found.derivative_table())
    replace = overwrite or resume
    found.to_hdf5(files["h5"], overwrite=replace)
    found.to_csv(files["csv"], overwrite=replace)
    found.plot(files["png"], overwrite=replace)
    options.say_files(console, files)


def _default(structure: Any, pressure: float | None) -> list[str]:
    """What has a meaning for these atoms."""
    if not all(structure.pbc):
        return DEFAULT
    return [*DEFAULT, "pressure"] if pressure is None else [*DEFAULT, "volume", "thermal_expansion"]


def _read(path: Path, form: Any, temperature: float | None, pressure: float | None, fix: Any) -> "Ensemble":
    from mdsens.thermal import Ensemble
    from mdsens.units import GPA

    if fix:
        raise InputError(f"'{path}' is an ensemble, which knows what was held: leave out --fix.")
    found = Ensemble.from_hdf5(path, form)
    if temperature is None and pressure is None:
        return found
    # weights for the other state
    return found.reweighted(temperature=temperature, pressure=None if pressure is None else pressure / GPA)


def _sampled(
    form: Any,
    start: Any,
    temperature: float | None,
    pressure: float | None,
    cell: str,
    line: Any,
    sampled: dict[str, Any],
) -> "Ensemble":
    from mdsens.thermal import sample
    from mdsens.units import GPA

    if temperature is None:
        raise InputError("a temperature is needed to sample a structure: add --temperature 300.")

    def show(now: "SimulationProgress") -> None:
        line(f"step {now.step} of {now.steps}   {now.temperature:.1f} K   {now.ns_per_day:.3g} ns/day")

    under = None if pressure is None else pressure / GPA
    shape = options.cell_option(cell)
    return sample(form, start, temperature, pressure=under, cell=shape, progress=show, **sampled)
