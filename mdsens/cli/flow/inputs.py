"""What the verbs of `mdsens flow` read: data, molecules, models, force fields; and their shared options."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdsens.errors import FileFormatError, InputError

if TYPE_CHECKING:
    from mdsens.flows.boltzmann import BoltzmannGenerator
    from mdsens.flows.data import ForceData

Model = Annotated[
    Path, typer.Argument(metavar="MODEL.h5", help="A model of `mdsens flow train`.", show_default=False)
]
Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA.h5",
        help="Frames with forces: HDF5 with datasets positions, forces, potential_energy (attribute unit), or any trajectory ASE reads.",
        show_default=False,
    ),
]
Temperature = Annotated[
    float | None, typer.Option(metavar="K", help="Of the data, if the file does not say.", show_default=False)
]
LengthUnit = Annotated[
    str | None,
    typer.Option(metavar="UNIT", help="nm or angstrom, if the file does not say.", show_default=False),
]
EnergyUnit = Annotated[
    str | None,
    typer.Option(
        metavar="UNIT", help="kJ/mol, kcal/mol, eV or kT, if the file does not say.", show_default=False
    ),
]
Stride = Annotated[int, typer.Option(min=1, metavar="N", help="Read every so many frames.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Of everything random.")]
ForceField = Annotated[
    str | None,
    typer.Option(
        metavar="FILES",
        help="OpenMM force field (amber99sbildn.xml,amber99_obc.xml): compares the flow's own samples with it. Needs openmm.",
        show_default=False,
    ),
]
Samples = Annotated[int, typer.Option(min=2, metavar="N", help="Samples drawn from the flow.")]


def read_generator(path: Path) -> "BoltzmannGenerator":
    """A model of `mdsens flow train`.

    Raises:
        FileFormatError: another file, or a flow of something that is no molecule.
    """
    from mdsens.flows.boltzmann import BoltzmannGenerator
    from mdsens.flows.files import load

    model = load(path)
    if not isinstance(model, BoltzmannGenerator):
        raise FileFormatError(
            f"'{path}' holds a {type(model).__name__}, not the BoltzmannGenerator of a molecule."
        )
    return model


def read_frames(
    path: Path,
    generator: "BoltzmannGenerator",
    temperature: float | None,
    length_unit: str | None,
    energy_unit: str | None,
    stride: int,
) -> "ForceData":
    """Frames of the molecule that a model is of; at its temperature unless they say otherwise.

    Raises:
        FileFormatError: no data.
        InputError: units not known, another molecule, Å taken for nm.
    """
    from mdsens.flows.data import read_force_data

    fallback = generator.temperature if temperature is None else temperature
    frames = read_force_data(
        path,
        temperature=temperature,
        default_temperature=fallback,
        length_unit=length_unit,
        energy_unit=energy_unit,
        stride=stride,
    )
    generator.coordinates.check(frames.positions)
    return frames


def target_energy(
    generator: "BoltzmannGenerator", force_field: str | None, asked_by: str
) -> Callable[[Any], Any]:
    """Reduced energy of the force field, for the model's molecule.

    Raises:
        InputError: no force field named, no topology in the model, OpenMM not installed, or a file it does
        not have.
    """
    import io

    from mdsens.calculators.reduced import reduced_openmm

    if force_field is None:
        raise InputError(
            f"{asked_by} compares with an energy: name the OpenMM force field with --force-field "
            "amber99sbildn.xml,amber99_obc.xml."
        )
    if not generator.topology:
        raise InputError(
            "the model knows no residues, which a force field needs: train with --topology FILE.pdb."
        )
    try:
        from openmm import app
    except ImportError as error:
        raise InputError("--force-field needs OpenMM: pip install openmm.") from error
    try:
        field = app.ForceField(*(name.strip() for name in force_field.split(",")))
        topology = app.PDBFile(io.StringIO(generator.topology)).topology
        system = field.createSystem(topology, nonbondedMethod=app.NoCutoff, constraints=None)
    except Exception as error:  # OpenMM raises what its parts raise
        raise InputError(f"--force-field {force_field}: {error}") from error
    return reduced_openmm(system, generator.temperature)


def hidden_sizes(text: str) -> tuple[int, ...]:
    """Sizes of hidden layers.

    Raises:
        InputError: not a list of positive integers.
    """
    sizes = text.split(",")
    if not all(size.strip().isdigit() and int(size) > 0 for size in sizes):
        raise InputError(f"--hidden {text}: a list of positive numbers such as 128,128 is needed.")
    return tuple(int(size) for size in sizes)
