"""`mdsens flow md`: molecular dynamics with a flow as the potential."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.table import Table

from mdsens.cli import options
from mdsens.cli.flow import inputs
from mdsens.cli.progress import LiveLine

if TYPE_CHECKING:
    from mdsens.dynamics import SimulationProgress, Trajectory


def md(
    model: inputs.Model,
    steps: Annotated[int, options.count("Steps of the integrator.")] = 10_000,
    timestep: Annotated[float, typer.Option(metavar="FS", help="Step in fs.")] = 1.0,
    friction: Annotated[
        float, typer.Option(metavar="1/PS", help="Langevin bath; 0 for constant energy.")
    ] = 0.0,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Frames to start from (as DATA.h5); default: samples of the flow.",
            show_default=False,
        ),
    ] = None,
    replicas: Annotated[int, options.count("Independent runs, side by side.")] = 1,
    record_every: Annotated[int, options.count("Steps between records.")] = 10,
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="K", help="Of velocities and bath; default: that of the flow.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The trajectory: .h5, .extxyz, .pdb, .dcd, ..."),
    ] = Path("md.h5"),
    seed: inputs.Seed = 0,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Run molecular dynamics with a flow as the potential, and report how well energy is conserved.

    A run whose energy is no longer finite, or that Ctrl-C ends, is written up to there, and says so.
    """
    options.turn_on_float64()
    import jax
    import numpy as np

    from mdsens.dynamics import langevin, nve
    from mdsens.errors import InputError, NonFiniteError
    from mdsens.io.files import check_free
    from mdsens.io.frames import HDF5, check_ending
    from mdsens.units import PS, from_nm

    check_free(output, overwrite)
    if check_ending(output) not in HDF5 and replicas > 1:
        raise InputError(
            f"--replicas {replicas} into '{output}': only .h5 holds several runs. Name FILE.h5, or run one."
        )
    generator = inputs.read_generator(model)
    if start is None:
        frames, _ = generator.flow.sample(jax.random.key(seed), replicas)
    else:
        frames = inputs.read_frames(start, generator, None, None, None, 1).positions
        frames = frames[np.linspace(0, len(frames) - 1, replicas).astype(int)]
    positions = from_nm(np.asarray(frames, float))
    positions = positions[0] if replicas == 1 else positions
    console = Console()
    with LiveLine(console, "compiling") as line:

        def show(now: "SimulationProgress") -> None:
            line(f"step {now.step} of {steps}")

        problem: NonFiniteError | None = None
        bath = None if friction == 0 else friction / PS  # 1/fs
        move = nve if bath is None else partial(langevin, friction=bath)
        try:
            trajectory = move(
                generator,
                positions,
                steps=steps,
                timestep=timestep,
                temperature=temperature,
                record_every=record_every,
                seed=seed,
                progress=show,
                output=output,
                overwrite=overwrite,
            )
        except NonFiniteError as error:
            if error.partial is None:
                raise
            problem, trajectory = error, cast("Trajectory", error.partial)
    table = Table("", "value", "unit", title=f"{steps} steps of {timestep:g} fs, {replicas} runs")
    table.add_row("mean temperature", f"{np.mean(trajectory.temperatures):.1f}", "K")
    if friction == 0 and len(trajectory.time) >= 3:  # a short run, or one that stopped early, has no drift
        drift = trajectory.drift()
        table.add_row(
            "standard deviation of the total energy per degree of freedom",
            f"{np.mean(drift.fluctuation):.6g}",
            "kJ/mol",
        )
        table.add_row("its drift per degree of freedom", f"{np.mean(drift.slope):.4g}", "kJ/mol/ns")
        table.add_row("degrees of freedom (3 per atom)", f"{drift.degrees_of_freedom}", "")
    console.print(table)
    console.print(f"wrote {output}", soft_wrap=True, markup=False, highlight=False)
    if problem is not None:
        raise problem
