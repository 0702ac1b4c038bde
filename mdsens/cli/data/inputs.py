"""Options that say how a data file is to be understood."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from mdsens.datasets import Dataset


def _option(text: str, metavar: str = "NAME") -> Any:
    return typer.Option(metavar=metavar, help=text, show_default=False)


DataFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="Labelled structures: .h5, .extxyz, .db of ASE, and what else ASE or mdtraj read.",
        show_default=False,
    ),
]
EnergyName = Annotated[str | None, _option("What FILE calls the energy, such as dft_energy.")]
ForcesName = Annotated[str | None, _option("What FILE calls the forces.")]
StressName = Annotated[str | None, _option("What FILE calls the stress.")]
EnergyUnit = Annotated[str, typer.Option(help="eV, meV, hartree, Ry, kJ/mol or kcal/mol.")]
LengthUnit = Annotated[str, typer.Option(help="Å, nm or bohr.")]
StressUnit = Annotated[
    str | None, _option("eV/Å³, GPa, kbar or bar; default: the energy unit per volume.", "UNIT")
]
PositiveInCompression = Annotated[
    bool,
    typer.Option("--positive-in-compression", help="Stresses have the sign of a pressure, as those of VASP."),
]
Nan = Annotated[str, typer.Option(help="Labels that are NaN: refuse, or take them for missing.")]
Topology = Annotated[Path | None, _option("Names the atoms of .dcd .xtc .trr .nc.", "FILE.pdb")]


# The options that say how a file is to be understood, as `read_dataset` calls them, with their defaults
LABELS: dict[str, tuple[Any, Any]] = {
    "energy": (EnergyName, None),
    "forces": (ForcesName, None),
    "stress": (StressName, None),
    "energy_unit": (EnergyUnit, "eV"),
    "length_unit": (LengthUnit, "Å"),
    "stress_unit": (StressUnit, None),
    "positive_in_compression": (PositiveInCompression, False),
    "nan": (Nan, "refuse"),
    "topology": (Topology, None),
}


def with_labels(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all options of `LABELS`: they arrive in one argument, `labels`."""
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.name != "labels"]
    option = lambda name, kind, default: own[0].replace(name=name, annotation=kind, default=default)
    added = [option(name, *what) for name, what in LABELS.items()]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        labels = {name: given.pop(name) for name in LABELS}
        command(**given, labels=labels)

    files = [p for p in own if p.default is inspect.Parameter.empty]
    others = [p for p in own if p not in files]
    run.__signature__ = signature.replace(parameters=[*files, *added, *others])  # type: ignore[attr-defined]
    return run


def read(console: Console, path: Path, **choices: Any) -> "Dataset":
    """The data set of a file; what is missing is said."""
    from mdsens.datasets import read_dataset

    def say(text: str) -> None:
        console.print(text, style="yellow", soft_wrap=True, markup=False, highlight=False)

    return read_dataset(path, notice=say, **choices)
