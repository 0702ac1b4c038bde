"""Options that say how a data file is to be understood."""

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


def read(console: Console, path: Path, **choices: Any) -> "Dataset":
    """The data set of a file; what is missing is said."""
    from mdsens.datasets import read_dataset

    def say(text: str) -> None:
        console.print(text, style="yellow", soft_wrap=True, markup=False, highlight=False)

    return read_dataset(path, notice=say, **choices)
