"""`mdsens flow train`: a flow from frames of molecular dynamics with forces."""

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mdsens.cli import options
from mdsens.cli.flow import inputs

if TYPE_CHECKING:
    from mdsens.flows.train import Trained


class Transforms(enum.StrEnum):
    """Kinds of functions a flow is made of."""

    SMOOTH = "smooth"
    SPLINE = "spline"


def train(
    data: inputs.Data,
    topology: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The molecule, atoms in the order of the data: PDB, or anything mdtraj or ASE reads.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="MODEL.h5", help="The model, also its checkpoint while training."
        ),
    ] = Path("flow.h5"),
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Steps of the optimizer.")] = 20_000,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Frames in a step.")] = 128,
    learning_rate: Annotated[
        float, typer.Option(metavar="X", help="The highest; it rises and falls along a cosine.")
    ] = 1e-3,
    clip: Annotated[
        float, typer.Option(metavar="X", help="Norm beyond which a gradient is shortened.")
    ] = 10.0,
    likelihood_weight: Annotated[
        float, typer.Option(metavar="X", help="Of the negative log-likelihood.")
    ] = 1.0,
    force_weight: Annotated[
        float, typer.Option(metavar="X", help="Of the mean squared force error, (kT/nm)⁻².")
    ] = 1e-3,
    reverse_kl_weight: Annotated[
        float, typer.Option(metavar="X", help="Of the reverse KL divergence; needs --force-field.")
    ] = 0.0,
    force_field: inputs.ForceField = None,
    transforms: Annotated[
        Transforms, typer.Option(help="smooth, or splines to compare with.")
    ] = Transforms.SMOOTH,
    hidden: Annotated[
        str, typer.Option(metavar="N,N,...", help="Sizes of the networks' hidden layers.")
    ] = "128,128",
    soft_layers: Annotated[
        int, typer.Option(min=0, metavar="N", help="Coupling layers among the soft torsions.")
    ] = 6,
    stiff_layers: Annotated[
        int, typer.Option(min=0, metavar="N", help="Coupling layers among bonds, angles and stiff torsions.")
    ] = 6,
    held_out: Annotated[
        float, typer.Option(metavar="X", help="Share of the frames, the last ones, never trained on.")
    ] = 0.1,
    evaluate_every: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Steps between looks at the held-out frames, and checkpoints."),
    ] = 500,
    stride: inputs.Stride = 1,
    temperature: inputs.Temperature = None,
    length_unit: inputs.LengthUnit = None,
    energy_unit: inputs.EnergyUnit = None,
    seed: inputs.Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the model file if it is there.")
    ] = False,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Train a flow on frames of molecular dynamics with forces.

    Writes MODEL.h5 at every look at the held-out frames (model, optimizer, history: a run that was cut off
    goes on with --resume and ends with the same bits), and MODEL.png, the course of the training.
    """
    options.turn_on_float64()
    import jax
    import jax.numpy as jnp

    from mdsens.errors import NonFiniteError
    from mdsens.flows.boltzmann import BoltzmannGenerator
    from mdsens.flows.data import read_force_data
    from mdsens.flows.losses import Loss
    from mdsens.flows.molecule import MoleculeArchitecture, choose_coordinates
    from mdsens.flows.plots import plot_training
    from mdsens.flows.train import Schedule
    from mdsens.flows.train import train as train_flow
    from mdsens.io.files import check_free
    from mdsens.molecules.topology import read_molecule

    picture = output.with_suffix(".png")
    if not resume:
        check_free(output, overwrite)
        check_free(picture, overwrite)
    molecule = read_molecule(topology)
    frames = read_force_data(
        data, temperature=temperature, length_unit=length_unit, energy_unit=energy_unit, stride=stride
    )
    coordinates = choose_coordinates(molecule.topology, frames.positions)
    schedule = Schedule(
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        clip=clip,
        evaluate_every=evaluate_every,
        held_out=held_out,
        seed=seed,
    )
    architecture = MoleculeArchitecture.of(
        transforms.value,
        hidden=inputs.hidden_sizes(hidden),
        soft_layers=soft_layers,
        stiff_layers=stiff_layers,
    )
    seen, _ = frames.split(held_out)
    built = architecture.build(
        coordinates,
        seen.rows(slice(None, None, max(1, seen.n_frames // 5000))).positions,
        jax.random.key(seed),
    )
    generator = BoltzmannGenerator(built, molecule.species, frames.temperature, molecule.pdb).astype(
        jnp.float32
    )
    energy = (
        None
        if reverse_kl_weight == 0
        else inputs.target_energy(generator, force_field, "--reverse-kl-weight")
    )
    loss = Loss(
        likelihood=likelihood_weight,
        force=force_weight,
        reverse_kl=reverse_kl_weight,
        energy=energy,
        n_draws=batch,
    )

    console = Console()
    parameters = sum(leaf.size for leaf in jax.tree.leaves(generator) if hasattr(leaf, "size"))
    console.print(
        f"{frames.n_frames} frames of {generator.n_atoms} atoms at {frames.temperature:g} K; {parameters} "
        "parameters; compiling"
    )
    problem = None
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("training", total=steps)

        def show(now: Any) -> None:
            bar.update(task, completed=now.step)
            terms = "  ".join(f"{name} {value:.3f}" for name, value in now.held_out.items())
            bar.console.print(f"step {now.step:>6}  {now.seconds:7.0f} s  held out: {terms}", highlight=False)

        try:
            done = train_flow(
                generator,
                frames,
                loss=loss,
                schedule=schedule,
                checkpoint=output,
                resume=resume,
                overwrite=overwrite,
                progress=show,
            )
        except NonFiniteError as error:
            problem, done = error, cast("Trained", error.partial)
    if done.history:
        plot_training(picture, done.history, overwrite=True)
        console.print(f"wrote {output}, {picture}", soft_wrap=True, markup=False, highlight=False)
    if problem is not None:
        raise problem
