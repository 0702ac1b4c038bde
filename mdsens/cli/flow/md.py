"""`mdsens flow md`: molecular dynamics with a flow as the potential."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from mdsens.cli import options
from mdsens.cli.flow import inputs
from mdsens.cli.progress import LiveLine

if TYPE_CHECKING:
    from mdsens.dynamics import Progress


def md(
    model: inputs.Model,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Steps of the integrator.")] = 10_000,
    timestep: Annotated[float, typer.Option(metavar="FS", help="Step in fs.")] = 1.0,
    friction: Annotated[float, typer.Option(metavar="1/PS", help="Langevin bath; 0 for constant energy.")] = 0.0,
    start: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Frames to start from (as DATA.h5); default: samples of the flow.", show_default=False),
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, metavar="N", help="Independent runs, side by side.")] = 1,
    record_every: Annotated[int, typer.Option(min=1, metavar="N", help="Steps between records.")] = 10,
    temperature: Annotated[
        float | None, typer.Option(metavar="K", help="Of velocities and bath; default: that of the flow.", show_default=False)
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.h5", help="The trajectory.")] = Path("md.h5"),
    seed: inputs.Seed = 0,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Run molecular dynamics with a flow as the potential, and report how well energy is conserved."""
    options.turn_on_float64()
    import jax
    import numpy as np

    from mdsens.dynamics import langevin, nve
    from mdsens.io.files import check_free

    check_free(output, overwrite)
    generator = inputs.read_generator(model)
    if start is None:
        frames, _ = generator.flow.sample(jax.random.key(seed), replicas)
    else:
        frames = inputs.read_frames(start, generator, None, None, None, 1).positions
        frames = frames[np.linspace(0, len(frames) - 1, replicas).astype(int)]
    positions = 10.0 * np.asarray(frames, float)
    positions = positions[0] if replicas == 1 else positions
    console = Console()
    with LiveLine(console, "compiling") as line:

        def show(now: "Progress") -> None:
            line(f"step {now.step} of {steps}")

        bath = None if friction == 0 else friction / 1000  # 1/fs
        move = nve if bath is None else partial(langevin, friction=bath)
        trajectory = move(
            generator,
            positions,
            steps=steps,
            timestep=timestep,
            temperature=temperature,
            record_every=record_every,
            seed=seed,
            progress=show,
        )
    trajectory.to_hdf5(output, overwrite=overwrite)
    table = Table("", "value", "unit", title=f"{steps} steps of {timestep:g} fs, {replicas} runs")
    table.add_row("mean temperature", f"{np.mean(trajectory.temperatures):.1f}", "K")
    if friction == 0:
        drift = trajectory.drift()
        for name, value in drift._asdict().items():
            table.add_row(name.replace("_", " "), f"{np.mean(value):.6g}", "")
    console.print(table)
    console.print(f"wrote {output}", soft_wrap=True, markup=False, highlight=False)
