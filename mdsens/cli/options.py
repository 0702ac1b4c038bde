"""Options that commands share, what their texts mean, and the file they may stand in.

Every option of a command may stand in a TOML file given by --config; what the command line says wins.
"""

import dataclasses
import enum
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdsens.checks import existing_file, nearest
from mdsens.errors import FileFormatError, InputError

if TYPE_CHECKING:
    from mdsens.potentials.base import Potential
    from mdsens.relaxation.coordinates import CellOption
    from mdsens.relaxation.plan import AbstractRelaxer
    from mdsens.structure import Structure


class Solver(enum.StrEnum):
    """Names of the relaxers."""

    AUTO = "auto"
    FIRE = "fire"
    LBFGS = "lbfgs"
    NEWTON = "newton"
    DAMPED_NEWTON = "damped-newton"
    GRADIENT_FLOW = "gradient-flow"
    JAXMD_FIRE = "jaxmd-fire"


def _merge(ctx: typer.Context, path: Path | None) -> Path | None:
    if path is not None:
        defaults = read_config(path, option_names(ctx))
        ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return path


def _debug(ctx: typer.Context, on: bool) -> bool:
    ctx.meta["debug"] = on or ctx.meta.get("debug", False)
    return on


def count(text: str, at_least: int = 1) -> Any:
    """An option that counts something."""
    return typer.Option(min=at_least, metavar="N", help=text)


def factor(text: str) -> Any:
    """An option that is a number without a unit."""
    return typer.Option(metavar="X", help=text)


StructureFile = Annotated[
    Path,
    typer.Argument(
        metavar="STRUCTURE",
        help="Any structure file ASE reads (.extxyz, POSCAR, .cif, ...).",
        show_default=False,
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="Format of STRUCTURE as ASE names it (extxyz, vasp, lammps-data, ...), if its name misleads.",
        show_default=False,
    ),
]
OutputFormat = Annotated[
    str | None,
    typer.Option(
        "--output-format",
        metavar="FORMAT",
        help="Format of the relaxed structure's file as ASE names it (vasp, cif, lammps-data, ...); default: "
        "extxyz, which keeps all of it.",
        show_default=False,
    ),
]
Species = Annotated[
    str | None,
    typer.Option(
        "--species",
        metavar="ELEMENTS",
        help="Element of each atom type of LAMMPS data, such as Ar,Kr; of all such files of a command.",
        show_default=False,
    ),
]
PotentialName = Annotated[
    str,
    typer.Option(
        "--potential",
        "-p",
        help="Parameter set by name (see `mdsens potentials`), or a file.",
        show_default=False,
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Change a parameter of the potential; repeat for more.",
        show_default=False,
    ),
]
Fixed = Annotated[
    list[str] | None,
    typer.Option(
        "--fix",
        metavar="ATOMS[:AXES]",
        help="Hold atoms: indices from 0 and ranges (0,4,8-11), a symbol, or all; axes such as z or xy, "
        "default xyz. Repeat for more.",
        show_default=False,
    ),
]
Cell = Annotated[
    str,
    typer.Option(
        help="Which strains of the cell relax: none, isotropic, full, or a list out of xx,yy,zz,yz,xz,xy."
    ),
]
Pressure = Annotated[
    float, typer.Option(metavar="GPA", help="Target pressure in GPa; positive compresses. Needs --cell.")
]
ForceTolerance = Annotated[
    float,
    typer.Option(
        metavar="EV/Å",
        help="Tolerance: largest force on a free atom, and largest stress as a force on an atom's face.",
    ),
]
SolverName = Annotated[Solver, typer.Option(help="How to walk downhill.")]
MaxSteps = Annotated[int, typer.Option(min=1, metavar="N", help="Steps allowed.")]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR_OR_PREFIX",
        help="Where results go: a folder (that exists, or ends in /), or the beginning of the files' names.",
        show_default=False,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE.toml",
        help="Read options from a TOML file; the command line wins.",
        is_eager=True,
        callback=_merge,
        show_default=False,
    ),
]
Debug = Annotated[
    bool,
    typer.Option("--debug", help="Show the whole traceback of an error.", is_eager=True, callback=_debug),
]


# --- options in a file


def option_names(ctx: typer.Context) -> dict[str, tuple[str, bool]]:
    """What may stand in a file: names as on the command line, to the name inside and whether it repeats."""
    names = {}
    for parameter in ctx.command.params:
        long = [text for text in parameter.opts if text.startswith("--")] or [parameter.name or ""]
        names[long[0].lstrip("-")] = (parameter.name or "", getattr(parameter, "multiple", False))
    return {name: value for name, value in names.items() if name not in ("config", "help", "debug")}


def read_config(path: Path, names: Mapping[str, tuple[str, bool]]) -> dict[str, Any]:
    """Options of a TOML file, as if typed.

    A table stands for NAME=VALUE options ([set] epsilon = 2.2), a list for repeated or comma-separated ones.

    Raises:
        FileFormatError: no such file, or not TOML.
        InputError: a key that is no option of the command; the nearest is suggested.
    """
    path = existing_file(path, "configuration file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"'{path}' is not TOML: {error}.") from error
    options = {}
    for key, value in content.items():
        name = key.replace("_", "-")
        if name not in names:
            raise InputError(
                f"'{key}' in '{path}' is no option here.{nearest(name, names, 0.5)} Options: "
                f"{', '.join(names)}."
            )
        inside, repeats = names[name]
        options[inside] = _typed(value, repeats)
    return options


def _typed(value: Any, repeats: bool) -> Any:
    match value:
        case dict():
            texts = [f"{name}={number!r}" for name, number in value.items()]
        case list():
            texts = [str(item) for item in value]
        case bool():
            return value
        case _:
            texts = [str(value)]
    return texts if repeats else ",".join(texts)


# --- what the texts mean


def turn_on_float64() -> None:
    """Let JAX compute in float64, as everything here needs."""
    import jax

    jax.config.update("jax_enable_x64", True)


def cell_option(text: str) -> "CellOption":
    """The `cell` of `mdsens.relax`.

    Raises:
        InputError: neither none, isotropic, full, nor strains out of xx,yy,zz,yz,xz,xy.
    """
    from mdsens.strain import VOIGT_NAMES

    match text:
        case "none":
            return None
        case "isotropic" | "full":
            return text
    strains = [part.strip() for part in text.split(",")]
    if unknown := [part for part in strains if part not in VOIGT_NAMES]:
        raise InputError(
            f"--cell {text}: '{unknown[0]}' is unknown. Use none, isotropic, full, or a list out of "
            f"{','.join(VOIGT_NAMES)}."
        )
    return [name in strains for name in VOIGT_NAMES]


def solver_option(name: Solver) -> "AbstractRelaxer":
    """The relaxer of this name."""
    from mdsens.relaxation.solvers import solver_named

    return solver_named(name.value)


def potential_option(name: str, changes: Sequence[str] | None) -> "Potential":
    """The potential of this name or file, with the parameters changed by --set.

    Raises:
        InputError: unknown names, or a change that is not NAME=VALUE.
    """
    from mdsens.potentials.parameter_sets import load_potential
    from mdsens.potentials.parameters import replace_parameters

    values = {}
    for change in changes or ():
        parameter, equals, number = change.rpartition("=")
        try:
            values[parameter.strip()] = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise InputError(f"--set {change}: write NAME=VALUE with a number, such as --set epsilon=2.2.")
    return replace_parameters(load_potential(name), values)


def named_values(texts: Sequence[str] | None, option: str, form: str) -> dict[str, str]:
    """NAME=VALUE texts of an option.

    Raises:
        InputError: one has another form.
    """
    values = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (equals and name.strip() and value.strip()):
            raise InputError(f"{option} {text}: write {form}.")
        values[name.strip()] = value.strip()
    return values


def structure_files(prefix: Path, others: Sequence[str], form: str | None) -> dict[str, Path]:
    """Names of all output files by what they are: "structure", and the other endings.

    Raises:
        InputError: the structure's format is unknown, cannot be written, or has the ending of another file.
    """
    from mdsens.io.trajectory import ending_of

    ending = ending_of(form) if form else "extxyz"
    if ending in others:
        raise InputError(f"--output-format {form}: PREFIX.{ending} is another file of this command.")
    endings = {"structure": ending} | {other: other for other in others}
    return {name: prefix.with_name(f"{prefix.name}.{ending}") for name, ending in endings.items()}


def say_files(console: Any, files: Mapping[str, Path]) -> None:
    """What was written, in one line that no terminal breaks."""
    names = ", ".join(str(file) for file in files.values())
    console.print(f"wrote {names}", soft_wrap=True, markup=False, highlight=False)


def species_of(path: Path, form: str | None, text: str | None) -> list[str] | None:
    """The elements of --species, for a file beside STRUCTURE: only LAMMPS data leave them open."""
    from mdsens.io.structures import LAMMPS, format_of

    return species_option(text) if (form or format_of(path.name)) == LAMMPS else None


def species_option(text: str | None) -> list[str] | None:
    """The elements of --species."""
    return None if text is None else [part.strip() for part in text.split(",")]


def start_option(
    path: Path,
    potential: "Potential",
    format: str | None,
    species: list[str] | None,
    choices: Sequence[str] | None = None,
) -> "Structure":
    """The structure of a file, with the columns that the potential takes and the atoms of --fix held."""
    from mdsens.io.structures import read_atoms
    from mdsens.structure import Structure

    atoms = read_atoms(path, format=format, species=species)
    return fix_option(Structure.from_ase(atoms, potential.columns), choices)


def fix_option(structure: "Structure", choices: Sequence[str] | None) -> "Structure":
    """The structure with the atoms chosen by --fix held, besides those that its file holds.

    Raises:
        InputError: an atom that is not there, or a choice that cannot be read.
    """
    import jax.numpy as jnp
    import numpy as np

    fixed = np.array(structure.fixed)
    for choice in choices or ():
        atoms, colon, axes = choice.partition(":")
        if colon and (not axes or set(axes) - set("xyz")):
            raise InputError(
                f"--fix {choice}: '{axes}' are no axes. Use some of xyz, such as --fix {atoms}:z."
            )
        rows = _atoms(atoms, structure, choice)
        for axis in axes or "xyz":
            fixed[rows, "xyz".index(axis)] = True
    return dataclasses.replace(structure, fixed=jnp.asarray(fixed))


def _atoms(text: str, structure: "Structure", choice: str) -> list[int]:
    n, symbols = structure.n_atoms, structure.symbols
    if text == "all":
        return list(range(n))
    if text in symbols:
        return [k for k, symbol in enumerate(symbols) if symbol == text]
    rows: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.strip().isdigit() or (last and not last.strip().isdigit()):
            elements = ", ".join(sorted(set(symbols)))
            raise InputError(
                f"--fix {choice}: '{part}' is neither an index, a range such as 0-3, 'all', nor one of "
                f"{elements}."
            )
        rows += range(int(first), int(last or first) + 1)
    if wrong := [k for k in rows if k >= n]:
        raise InputError(
            f"--fix {choice}: there is no atom {wrong[0]}; {n} atoms are counted from 0 to {n - 1}."
        )
    return rows


def output_prefix(output: str | None, structure: Path, ending: str) -> Path:
    """Beginning of the names of all output files: in a folder, or at a prefix; else in the current folder."""
    default = f"{structure.name.split('.')[0]}-{ending}"
    if output is None:
        return Path(default)
    folder = output.endswith("/") or Path(output).is_dir()
    return Path(output) / default if folder else Path(output)
