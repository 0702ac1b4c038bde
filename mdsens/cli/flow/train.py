"""`mdsens flow train`: a flow from frames of molecular dynamics with forces."""

import enum
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mdsens.cli import options
from mdsens.cli.flow import inputs

if TYPE_CHECKING:
    from mdsens.flows.data import ForceData
    from mdsens.flows.molecule import MoleculeArchitecture
    from mdsens.flows.train import Trained, TrainingProgress


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
    topology_format: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="Format of the file of --topology, if its name misleads.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="MODEL.h5", help="The model, also its checkpoint while training."
        ),
    ] = Path("flow.h5"),
    also: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DATA.h5",
            help="Frames of enhanced sampling: matched by forces, left out of the likelihood. Repeatable.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, options.count("Steps of the optimizer.")] = 1000,
    batch: Annotated[int, options.count("Frames in a step.")] = 128,
    learning_rate: Annotated[float, options.factor("The highest; it rises and falls along a cosine.")] = 1e-3,
    warmup: Annotated[int, options.count("Steps of its rise.", at_least=0)] = 100,
    final: Annotated[float, options.factor("The last one, relative to the highest.")] = 1e-2,
    clip: Annotated[float, options.factor("Norm beyond which a gradient is shortened.")] = 10.0,
    likelihood_weight: Annotated[float, options.factor("Of the negative log-likelihood.")] = 1.0,
    force_weight: Annotated[float, options.factor("Of the mean squared force error, (kT/nm)⁻².")] = 0.05,
    reverse_kl_weight: Annotated[
        float, options.factor("Of the reverse KL divergence; needs --force-field.")
    ] = 0.0,
    force_field: inputs.ForceField = None,
    block: Annotated[
        str | None,
        typer.Option(
            metavar="ATOMS",
            help="Atoms of a stiff block that carries the others, from 0 (0,1,5); default: the ring system.",
            show_default=False,
        ),
    ] = None,
    narrow: Annotated[
        float | None,
        typer.Option(
            metavar="DEG",
            help="A torsion that stays this close to its mean counts as stiff; default: 1.2 rad, 69°.",
            show_default=False,
        ),
    ] = None,
    transforms: Annotated[
        Transforms, typer.Option(help="smooth, or splines to compare with.")
    ] = Transforms.SMOOTH,
    hidden: Annotated[
        str, typer.Option(metavar="N,N,...", help="Sizes of the networks' hidden layers.")
    ] = "128,128",
    harmonics: Annotated[int, options.count("Of the torsions that the networks see.")] = 3,
    soft_layers: Annotated[int, options.count("Coupling layers among the soft torsions.", at_least=0)] = 6,
    stiff_layers: Annotated[
        int, options.count("Coupling layers among bonds, angles and stiff torsions.", at_least=0)
    ] = 6,
    circle_ramps: Annotated[int, options.count("Ramps of a smooth function of a soft torsion.")] = 12,
    line_ramps: Annotated[int, options.count("Ramps of a smooth function of a stiff coordinate.")] = 3,
    held_out: Annotated[float, options.factor("Share of the frames, the last ones, never trained on.")] = 0.1,
    drop_outliers: inputs.DropOutliers = False,
    evaluate_every: Annotated[
        int, options.count("Steps between looks at the held-out frames, and checkpoints.")
    ] = 100,
    patience: Annotated[
        int,
        options.count("Looks without a lower held-out loss after which training ends; 0: never.", at_least=0),
    ] = 10,
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

    Writes MODEL.h5 at every look at the held-out frames: the model with the lowest held-out loss so far, and
    what a run that was cut off needs to go on with --resume and to end with the same bits. MODEL.png shows
    the course of the training.
    """
    options.turn_on_float64()
    from mdsens.flows.losses import Loss
    from mdsens.flows.prepare import prepare
    from mdsens.flows.read_data import read_force_data
    from mdsens.flows.train import Schedule
    from mdsens.io.files import check_free
    from mdsens.molecules.topology import read_molecule

    picture = output.with_suffix(".png")
    if not resume:
        check_free(output, overwrite)
        check_free(picture, overwrite)
    molecule = read_molecule(topology, format=topology_format)

    def read(path: Path, kelvins: float | None) -> "ForceData":
        return read_force_data(
            path,
            molecule=molecule,
            temperature=kelvins,
            length_unit=length_unit,
            energy_unit=energy_unit,
            stride=stride,
            drop_outliers=drop_outliers,
            notice=inputs.say,
        )

    frames = read(data, temperature)
    target = None
    if reverse_kl_weight > 0 or force_field is not None:
        target = inputs.force_field_energy(
            molecule.pdb, frames.temperature, force_field, "--reverse-kl-weight"
        )
    frames = inputs.with_forces(frames, target)
    for path in also or ():
        frames = frames.join(inputs.with_forces(read(path, frames.temperature), target))
    schedule = Schedule(
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        warmup=warmup,
        final=final,
        clip=clip,
        evaluate_every=evaluate_every,
        held_out=held_out,
        seed=seed,
        patience=patience or None,
    )
    sizes = {
        "hidden": inputs.hidden_sizes(hidden),
        "harmonics": harmonics,
        "soft_layers": soft_layers,
        "stiff_layers": stiff_layers,
    }
    if narrow is not None:
        sizes["narrow"] = math.radians(narrow)
    prepared = prepare(
        frames,
        molecule,
        architecture=_architecture(transforms, circle_ramps, line_ramps, sizes),
        held_out=held_out,
        block=inputs.atoms_of("--block", block),
        seed=seed,
        drop_outliers=drop_outliers,
        notice=inputs.say,
        source=", ".join(str(path) for path in (data, *(also or ()))),
    )
    loss = Loss(
        likelihood=likelihood_weight,
        force=force_weight,
        reverse_kl=reverse_kl_weight,
        energy=target if reverse_kl_weight > 0 else None,
        n_draws=batch,
    )
    inputs.say(
        f"{frames.n_frames} frames of {prepared.generator.n_atoms} atoms at {frames.temperature:g} K, "
        f"{prepared.data.held_out.n_frames} of them held out; {_size(prepared.generator)} parameters"
    )
    for choice in prepared.choices:
        inputs.say(choice)
    _run(prepared, loss, schedule, output, picture, resume, overwrite)


def _architecture(
    transforms: Transforms, circle_ramps: int, line_ramps: int, sizes: dict[str, Any]
) -> "MoleculeArchitecture":
    from dataclasses import replace

    from mdsens.flows.molecule import MoleculeArchitecture

    plain = MoleculeArchitecture.of(transforms.value, **sizes)
    if transforms is Transforms.SPLINE:
        return plain
    circle = replace(cast("Any", plain.circle), n_components=circle_ramps)
    line = replace(cast("Any", plain.line), n_components=line_ramps)
    return replace(plain, circle=circle, line=line)


def _size(generator: Any) -> int:
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(generator) if hasattr(leaf, "size"))


def _run(
    prepared: Any, loss: Any, schedule: Any, output: Path, picture: Path, resume: bool, overwrite: bool
) -> None:
    """Train with a bar that moves at every step, write the picture, say which model was kept."""
    from mdsens.errors import NonFiniteError
    from mdsens.flows.plots import plot_training
    from mdsens.flows.train import train as train_flow

    problem: NonFiniteError | None = None
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        console=Console(),
    ) as bar:
        task = bar.add_task("compiling", total=schedule.steps)

        def step(done: int) -> None:
            bar.update(task, completed=done, description="training")

        def look(now: "TrainingProgress") -> None:
            bar.console.print(look_line(now), highlight=False, soft_wrap=True)

        try:
            done = train_flow(
                prepared.generator,
                prepared.data,
                loss=loss,
                schedule=schedule,
                checkpoint=output,
                resume=resume,
                overwrite=overwrite,
                progress=look,
                each_step=step,
            )
        except NonFiniteError as error:
            problem, done = error, cast("Trained", error.partial)
    if done.history:
        plot_training(picture, done.history, overwrite=True)
        inputs.say(kept_line(done, schedule.steps))
        inputs.say(f"wrote {output}, {picture}")
    if problem is not None:
        raise problem


def look_line(now: "TrainingProgress") -> str:
    """What a look saw, and whether the held-out loss rises."""
    terms = "  ".join(f"{name} {value:.3f}" for name, value in now.held_out.items())
    line = f"step {now.step:>6}  {now.seconds:7.0f} s  held out: {terms}  loss {now.loss:.3f}"
    return line if now.best_step == now.step else f"{line}, above that of step {now.best_step}"


def kept_line(done: "Trained", steps: int) -> str:
    """Which model was kept, and why."""
    last = int(done.history["step"][-1])
    if done.best_step == last:
        return f"kept the model of step {last}: it has the lowest held-out loss"
    ended = f", and training ended at step {last} of {steps}" if last < steps else ""
    return (
        f"the held-out loss rose after step {done.best_step}{ended}: kept the model of that step. "
        "More frames go further."
    )
