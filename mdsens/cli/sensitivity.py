"""`mdsens sensitivity`: how observables of a relaxed structure move with the parameters of the potential."""

import enum
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mdsens.cli import options
from mdsens.cli.progress import LiveLine

DEFAULTS = ("energy", "volume")
BULK_DEFAULTS = ("lattice_constant", "energy_per_atom", "C11", "C12", "C44", "formation")


class Kind(enum.StrEnum):
    """Forms of a derivative in tables and figures."""

    ELASTICITY = "elasticity"
    LOG = "log"
    PLAIN = "plain"


class Mode(enum.StrEnum):
    """Directions of differentiation."""

    AUTO = "auto"
    FORWARD = "forward"
    REVERSE = "reverse"


Bulk = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The perfect crystal: STRUCTURE is then a defect in it, and the other observables are the "
        "crystal's.",
    ),
]
Observables = Annotated[
    list[str] | None,
    typer.Option(
        "--observable",
        "-O",
        metavar="NAME",
        help="energy, energy_per_atom, volume, lattice_constant, C11 ... C66, K, C11_clamped ..., formation "
        "(needs --bulk). Repeat for "
        f"more. Default: {', '.join(DEFAULTS)}; with --bulk: {', '.join(BULK_DEFAULTS)}.",
        show_default=False,
    ),
]
Differentiated = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter",
        metavar="NAME",
        help="Differentiate w.r.t. these only; repeat for more. Default: all.",
        show_default=False,
    ),
]
KindName = Annotated[Kind, typer.Option(help="elasticity: d ln(O)/d ln(θ); log: dO/d ln(θ); plain: dO/dθ.")]
ModeName = Annotated[
    Mode,
    typer.Option(help="One solve a parameter (forward) or an observable (reverse); auto takes the fewer."),
]
Ranges = Annotated[
    bool,
    typer.Option(
        "--range/--no-range", help="How far each parameter may change until first order is off by 10 %."
    ),
]
Checked = Annotated[bool, typer.Option("--check", help="Compare with re-relaxation for every parameter.")]


def sensitivity(
    structure: options.StructureFile,
    potential: options.PotentialName,
    bulk: Bulk = None,
    observables: Observables = None,
    differentiated: Differentiated = None,
    cell: options.Cell = "none",
    pressure: options.Pressure = 0.0,
    fmax: options.ForceTolerance = 1e-10,
    solver: options.SolverName = options.Solver.AUTO,
    max_steps: options.MaxSteps = 10_000,
    fix: options.Fixed = None,
    parameters: options.Parameters = None,
    format: options.Format = None,
    species: options.Species = None,
    kind: KindName = Kind.ELASTICITY,
    mode: ModeName = Mode.AUTO,
    ranges: Ranges = True,
    check: Checked = False,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Differentiate observables of a relaxed structure w.r.t. the potential's parameters.

    Prints the derivatives with their part through relaxation, error bars and a certificate of the relaxed
    state. Writes PREFIX.csv and PREFIX.h5 (everything), PREFIX.png (a map of the derivatives) and
    PREFIX.extxyz (the relaxed structure, with a column dx_d... for each parameter after --mode forward).
    """
    options.turn_on_float64()
    from mdsens.errors import InputError
    from mdsens.io.files import check_free
    from mdsens.io.structures import read_atoms, read_structure
    from mdsens.io.trajectory import write_structure
    from mdsens.observables.named import named
    from mdsens.sensitivity.analysis import sensitivities
    from mdsens.structure import Structure
    from mdsens.units import GPA

    prefix = options.output_prefix(output, structure, "sensitivity")
    files = {ending: prefix.with_name(f"{prefix.name}.{ending}") for ending in ("csv", "h5", "png", "extxyz")}
    for file in files.values():
        check_free(file, overwrite)
    strains = options.cell_option(cell)
    atoms = read_atoms(structure, format=format, species=options.species_option(species))
    start = options.fix_option(Structure.from_ase(atoms), fix)
    form = options.potential_option(potential, parameters)
    names = observables or list(BULK_DEFAULTS if bulk else DEFAULTS if any(start.pbc) else DEFAULTS[:1])
    if "formation" in names and bulk is None:
        raise InputError(
            "--observable formation compares a defect with its crystal: name the crystal's file with --bulk."
        )

    console = Console()
    with LiveLine(console, "reading") as line:
        report = sensitivities(
            named(names, "bulk" if bulk else "structure"),
            form,
            {"defect": start, "bulk": read_structure(bulk)} if bulk else start,
            cell=strains,
            pressure=pressure / GPA,
            parameters=differentiated,
            fmax=fmax,
            solver=options.solver_option(solver),
            max_steps=max_steps,
            mode=None if mode is Mode.AUTO else mode.value,
            second_order=ranges,
            check=check,
            progress=line,
        )
    for part in (
        "total",
        "relaxation",
        "errors",
        *(("radius",) if ranges else ()),
        *(("check",) if check else ()),
    ):
        console.print(report.table(kind.value, part=part))
    if report.check:
        console.print(
            "\n".join(report.check.elsewhere) or "every re-relaxation came back to the same minimum",
            markup=False,
        )
    console.print(report.certificate_table())

    report.to_csv(files["csv"], overwrite=overwrite)
    report.to_hdf5(files["h5"], overwrite=overwrite)
    report.plot(files["png"], kind=kind.value, overwrite=overwrite)
    name = "defect" if bulk else "structure"
    state = report.relaxed[name]
    # columns of extxyz are called by letters, digits and _
    moves = zip(report.parameters, report.moves.get(name, ()), strict=False)
    columns = {"dx_d" + re.sub(r"\W+", "_", parameter).strip("_"): move for parameter, move in moves}
    write_structure(
        files["extxyz"],
        state.structure,
        like=atoms,
        energy=state.energy,
        forces=state.forces,
        stress=state.stress if any(state.structure.pbc) else None,
        columns=columns,
        overwrite=overwrite,
    )
    console.print(
        f"wrote {', '.join(str(file) for file in files.values())}",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
