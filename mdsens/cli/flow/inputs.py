"""What the verbs of `mdsens flow` read: data, molecules, models, force fields; and their shared options."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

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
        help="Frames with forces: HDF5 with datasets positions, forces, potential_energy (attribute unit), "
        "files of `mdsens flow sample` and `md`, .xtc, .trr, .dcd, .nc, .pdb, or any trajectory ASE reads.",
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
        help="OpenMM force field (amber99sbildn.xml,amber99_obc.xml): the flow's own samples are compared "
        "with it, and frames without forces get theirs from it. Needs openmm.",
        show_default=False,
    ),
]
DropOutliers = Annotated[
    bool, typer.Option("--drop-outliers", help="Leave mirror images and NaN out instead of refusing them.")
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
    drop_outliers: bool = False,
) -> "ForceData":
    """Frames of the molecule that a model is of; at its temperature unless they say otherwise.

    Raises:
        FileFormatError: no data.
        InputError: units not known, another molecule, Å taken for nm.
    """
    from mdsens.flows.read_data import read_force_data
    from mdsens.molecules.topology import Molecule

    fallback = generator.temperature if temperature is None else temperature
    frames = read_force_data(
        path,
        molecule=Molecule(None, generator.species, generator.topology),
        notice=say,
        temperature=temperature,
        default_temperature=fallback,
        length_unit=length_unit,
        energy_unit=energy_unit,
        stride=stride,
        drop_outliers=drop_outliers,
    )
    generator.coordinates.check(frames.positions)
    return frames


def say(text: str) -> None:
    """A sentence on the terminal, as it is."""
    Console().print(text, soft_wrap=True, markup=False, highlight=False)


def with_forces(frames: "ForceData", target: Any) -> "ForceData":
    """Frames with the forces and energies of the force field, if they have no forces."""
    if frames.forces is not None or target is None:
        return frames
    say(f"forces and energies of {frames.n_frames} frames computed with the force field")
    return frames.labelled_by(target)


def target_energy(
    generator: "BoltzmannGenerator", force_field: str | None, asked_by: str
) -> Callable[[Any], Any]:
    """Reduced energy of the force field, for the model's molecule: as `force_field_energy`."""
    return force_field_energy(generator.topology, generator.temperature, force_field, asked_by)


def force_field_energy(
    pdb: str, temperature: float, force_field: str | None, asked_by: str
) -> Callable[[Any], Any]:
    """Reduced energy of the force field for a molecule.

    Args:
        pdb: the molecule as PDB text.
        temperature: K.
        force_field: names of OpenMM's files, with commas between.
        asked_by: the option that needs it, for messages.
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
    if not pdb:
        raise InputError(
            "the model knows no residues, which a force field needs: train with --topology FILE.pdb."
        )
    try:
        from openmm import app
    except ImportError as error:
        raise InputError("--force-field needs OpenMM: pip install openmm.") from error
    try:
        field = app.ForceField(*(name.strip() for name in force_field.split(",")))
        topology = app.PDBFile(io.StringIO(pdb)).topology
        system = field.createSystem(topology, nonbondedMethod=app.NoCutoff, constraints=None)
    except Exception as error:  # OpenMM raises what its parts raise
        raise InputError(f"--force-field {force_field}: {error}") from error
    return reduced_openmm(system, temperature)


def hidden_sizes(text: str) -> tuple[int, ...]:
    """Sizes of hidden layers.

    Raises:
        InputError: not a list of positive integers.
    """
    sizes = text.split(",")
    if not all(size.strip().isdigit() and int(size) > 0 for size in sizes):
        raise InputError(f"--hidden {text}: a list of positive numbers such as 128,128 is needed.")
    return tuple(int(size) for size in sizes)


def atoms_of(option: str, text: str | None) -> tuple[int, ...] | None:
    """Indices of atoms, from 0.

    Raises:
        InputError: not a list of indices.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise InputError(f"{option} {text}: a list of atoms such as 0,1,5 is needed, counted from 0.")
    return tuple(int(part) for part in parts)
