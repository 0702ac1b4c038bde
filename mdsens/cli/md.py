"""`mdsens md`: molecular dynamics of a structure under a potential."""

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from mdsens.cli import options
from mdsens.cli.progress import LiveLine
from mdsens.errors import CellCollapseError, FileFormatError, InputError, NonFiniteError

if TYPE_CHECKING:
    from mdsens.dynamics import SimulationProgress, Trajectory


class Precision(enum.StrEnum):
    """In which forces are computed."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"


class SimulationKind(enum.StrEnum):
    """What is held constant, by the name of how it is done."""

    NVE = "nve"
    LANGEVIN = "langevin"
    NOSE_HOOVER = "nose-hoover"
    NPT = "npt"


def md(
    structure: Annotated[
        Path,
        typer.Argument(
            metavar="STRUCTURE",
            help="Any structure file ASE reads, or a trajectory of this command (.h5) to go on from.",
            show_default=False,
        ),
    ],
    potential: options.PotentialName,
    ensemble: Annotated[
        SimulationKind, typer.Option(help="What the atoms are coupled to.")
    ] = SimulationKind.NVE,
    temperature: Annotated[
        float | None,
        typer.Option(metavar="K", help="Of the velocities drawn, and of the bath.", show_default=False),
    ] = None,
    steps: Annotated[int, options.count("Steps of the integrator.")] = 10_000,
    timestep: Annotated[float, typer.Option(metavar="FS", help="Step in fs.")] = 1.0,
    pressure: Annotated[
        float, typer.Option(metavar="GPA", help="Of npt, in GPa; positive compresses.")
    ] = 0.0,
    cell: Annotated[
        str, typer.Option(help="How the cell of npt moves: isotropic, full, or some of xx,yy,zz,yz,xz,xy.")
    ] = "isotropic",
    friction: Annotated[float, typer.Option(metavar="1/PS", help="Of langevin and npt.")] = 1.0,
    thermostat_time: Annotated[
        float, typer.Option(metavar="FS", help="In which the chain of nose-hoover acts.")
    ] = 100.0,
    barostat_time: Annotated[
        float, typer.Option(metavar="FS", help="In which the cell of npt answers.")
    ] = 500.0,
    record_every: Annotated[int, options.count("Steps between records.")] = 10,
    replicas: Annotated[int, options.count("Independent runs, side by side.")] = 1,
    seed: Annotated[int, typer.Option(metavar="N", help="Of velocities and noise.")] = 0,
    precision: Annotated[
        Precision, typer.Option(help="Of energy and forces; all else is in float64.")
    ] = Precision.FLOAT64,
    fix: options.Fixed = None,
    parameters: options.Parameters = None,
    format: options.Format = None,
    species: options.Species = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The trajectory: .h5 (everything), .extxyz, .dcd, ..."
        ),
    ] = Path("md.h5"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was cut off, to the same bits.")
    ] = False,
    note_every: Annotated[
        float, typer.Option(metavar="S", help="Seconds between notes on where the run stands.")
    ] = 60.0,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Run molecular dynamics of a structure.

    A run that Ctrl-C or an error ends is written up to there; one that was killed left notes beside the
    output (FILE.unfinished). The same command with --resume goes on, to the bits of a run never cut off.
    """
    options.turn_on_float64()
    from mdsens.units import GPA, PS

    form = options.potential_option(potential, parameters)
    start = _start(structure, fix, format, species, form.columns)
    system: Any = form
    if precision is Precision.FLOAT32:
        from mdsens.dynamics import SinglePrecision

        system = SinglePrecision(form)
    common: dict[str, Any] = {
        "steps": steps,
        "timestep": timestep,
        "temperature": temperature,
        "record_every": record_every,
        "replicas": None if replicas == 1 else replicas,
        "seed": seed,
        "output": output,
        "overwrite": overwrite,
        "resume": resume,
        "note_every": note_every,
    }
    own: dict[SimulationKind, dict[str, Any]] = {
        SimulationKind.NVE: {},
        SimulationKind.LANGEVIN: {"friction": friction / PS},
        SimulationKind.NOSE_HOOVER: {"thermostat_time": thermostat_time},
        SimulationKind.NPT: {
            "friction": friction / PS,
            "barostat_time": barostat_time,
            "pressure": pressure / GPA,
            "cell": options.cell_option(cell),
        },
    }
    if pressure and ensemble is not SimulationKind.NPT:
        raise InputError(f"--pressure {pressure:g} acts on a cell that moves: add --ensemble npt.")
    console = Console()
    problem: Any = None
    with LiveLine(console, "compiling") as line:

        def show(now: "SimulationProgress") -> None:
            line(_shown(now))

        try:
            trajectory = _mover(ensemble)(system, *start, progress=show, **common, **own[ensemble])
        except (NonFiniteError, CellCollapseError) as error:
            if error.partial is None:
                raise
            problem, trajectory = error, cast("Trajectory", error.partial)
    console.print(_summary(trajectory, f"{ensemble.value}, {steps} steps of {timestep:g} fs"))
    options.say_files(console, {"trajectory": output})
    if problem is not None:
        raise problem


def _mover(ensemble: SimulationKind) -> Any:
    from mdsens.dynamics import langevin, npt, nve, nvt_nose_hoover

    return {
        SimulationKind.NVE: nve,
        SimulationKind.LANGEVIN: langevin,
        SimulationKind.NOSE_HOOVER: nvt_nose_hoover,
        SimulationKind.NPT: npt,
    }[ensemble]


def _start(
    path: Path, fix: Any, form: str | None, species: str | None, columns: tuple[str, ...]
) -> tuple[Any]:
    """A structure, or the trajectory to go on from."""
    from mdsens.dynamics import Trajectory
    from mdsens.io.structures import read_atoms
    from mdsens.structure import Structure

    if path.suffix.lower() in (".h5", ".hdf5") and form is None:
        if fix:
            raise FileFormatError(f"'{path}' is a trajectory, which knows what it holds: leave out --fix.")
        return (Trajectory.from_hdf5(path),)
    atoms = read_atoms(path, format=form, species=options.species_option(species))
    return (options.fix_option(Structure.from_ase(atoms, columns), fix),)


def _shown(now: "SimulationProgress") -> str:
    """What the live line says."""
    from mdsens.units import GPA

    parts = [f"step {now.step} of {now.steps}", f"{now.temperature:.1f} K"]
    if now.pressure is not None:
        parts.append(f"{GPA * now.pressure:.3g} GPa")
    if now.volume is not None:
        parts.append(f"{now.volume:.1f} Å³")
    return "   ".join([*parts, f"{now.ns_per_day:.3g} ns/day"])


def _summary(trajectory: "Trajectory", title: str) -> Table:
    """What a run did, as a table; means and standard deviations over all records."""
    import numpy as np

    from mdsens.units import GPA

    def spread(values: Any, digits: int) -> str:
        return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"

    table = Table("", "value", "unit", title=title)
    table.add_row("time", f"{trajectory.time[-1] - trajectory.time[0]:g}", "fs")
    table.add_row("temperature", spread(trajectory.temperatures, 1), "K")
    if trajectory.stress is not None:
        pressure = GPA * np.trace(trajectory.pressures, axis1=-2, axis2=-1) / 3
        table.add_row("pressure", spread(pressure, 4), "GPa")
    if trajectory.cell_velocity is not None:
        table.add_row("volume", spread(trajectory.volumes, 2), "Å³")
    if len(trajectory.time) >= 3:
        drift = trajectory.drift()
        table.add_row("fluctuation of the conserved energy", f"{np.mean(drift.fluctuation):.3g}", "kJ/mol")
        table.add_row("its drift", f"{np.mean(drift.slope):.3g}", "kJ/mol/ns")
        table.add_row("both per degree of freedom, of which there are", f"{drift.degrees_of_freedom}", "")
    return table
