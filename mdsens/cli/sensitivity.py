"""`mdsens sensitivity`: how observables of a relaxed structure move with the parameters of the potential."""

import enum
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mdsens.cli import options
from mdsens.cli.progress import LiveLine

if TYPE_CHECKING:
    from mdsens.observables.observable import Observable
    from mdsens.potentials.base import Potential
    from mdsens.relaxation.relax import Relaxed
    from mdsens.sensitivity.functional import FunctionalReport
    from mdsens.structure import Structure

DEFAULTS = ("energy", "volume")
BULK_DEFAULTS = ("lattice_constant", "energy_per_atom", "C11", "C12", "C44", "formation")
OTHER_BULK_DEFAULTS = ("a", "b", "c", *BULK_DEFAULTS[1:])  # of a crystal that is not cubic


MOST_COLUMNS = 500  # of a table of derivatives, when no parameters are named


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
        help="energy, energy_per_atom, volume, lattice_constant, a, b, c, alpha, beta, gamma, C11 ... C66, "
        "C11_cubic, K, C11_clamped ..., 'phonon(q=[1/2, 0, 1/2], mode=3)', formation (needs --bulk). Repeat "
        f"for more. Default: {', '.join(DEFAULTS)}; with --bulk: {', '.join(BULK_DEFAULTS)}.",
        show_default=False,
    ),
]
References = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ELEMENT=FILE",
        help="Where the atoms of a defect that changes the composition come from: a crystal of that element, "
        "or its energy per atom in eV. Repeat for more.",
        show_default=False,
    ),
]
BulkFormat = Annotated[
    str | None,
    typer.Option(
        "--bulk-format",
        metavar="FORMAT",
        help="Format of the file of --bulk, if its name misleads.",
        show_default=False,
    ),
]
ReferenceFormat = Annotated[
    str | None,
    typer.Option(
        "--reference-format",
        metavar="FORMAT",
        help="Format of the files of --references, if their names mislead.",
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
Functional = Annotated[
    bool,
    typer.Option(
        "--functional",
        help="Differentiate w.r.t. the tabulated functions of the potential, phi(r), rho(r), F(rho), as "
        "curves; --parameter then names functions. Writes PREFIX.csv and PREFIX.png.",
    ),
]
Checked = Annotated[bool, typer.Option("--check", help="Compare with re-relaxation for every parameter.")]


def sensitivity(
    structure: options.StructureFile,
    potential: options.PotentialName,
    bulk: Bulk = None,
    bulk_format: BulkFormat = None,
    references: References = None,
    reference_format: ReferenceFormat = None,
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
    functional: Functional = False,
    output: options.Output = None,
    output_format: options.OutputFormat = None,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Differentiate observables of a relaxed structure w.r.t. the potential's parameters.

    Prints the derivatives with their part through relaxation, error bars and a certificate of the relaxed
    state. Writes PREFIX.csv and PREFIX.h5 (everything), PREFIX.png (a map of the derivatives) and
    PREFIX.extxyz (the relaxed structure, with a column dx_d... for each parameter after --mode forward;
    --output-format for others).
    """
    options.turn_on_float64()
    from mdsens.errors import InputError
    from mdsens.io.files import check_free
    from mdsens.io.structures import read_atoms
    from mdsens.sensitivity.analysis import sensitivities
    from mdsens.structure import Structure
    from mdsens.units import GPA

    prefix = options.output_prefix(output, structure, "sensitivity")
    if functional and (check or mode is Mode.FORWARD):
        raise InputError("--functional differentiates in reverse mode and has no --check: leave these out.")
    kept = ("csv", "png") if functional else ("csv", "h5", "png")
    files = options.structure_files(prefix, kept, output_format)
    for file in files.values():
        check_free(file, overwrite)
    strains = options.cell_option(cell)
    atoms = read_atoms(structure, format=format, species=options.species_option(species))
    form = options.potential_option(potential, parameters)
    start = options.fix_option(Structure.from_ase(atoms, form.columns), fix)
    if not functional and not differentiated:
        _require_few(form)
    crystal = read_beside(bulk, bulk_format, species) if bulk else None
    names = observables or default_names(start, crystal)
    elements = options.named_values(references, "--references", "Cd=FILE")
    if "formation" in names and bulk is None:
        raise InputError(
            "--observable formation compares a defect with its crystal: name the crystal's file with --bulk."
        )

    console = Console()
    chosen = chosen_observables(names, crystal is not None, elements)
    states = _states(
        start, crystal, elements, lambda file: read_beside(Path(file), reference_format, species)
    )
    name = "defect" if bulk else "structure"
    like: dict[str, Any] = dict(like=atoms, format=output_format, overwrite=overwrite)
    if functional:
        with LiveLine(console, "reading") as line:
            curves, relaxed = functional_report(
                chosen,
                form,
                states,
                differentiated,
                line,
                cell=strains,
                pressure=pressure / GPA,
                fmax=fmax,
                solver=options.solver_option(solver),
                max_steps=max_steps,
            )
        console.print(curves.table())
        curves.to_csv(files["csv"], overwrite=overwrite)
        curves.plot(files["png"], overwrite=overwrite)
        _write_state(files["structure"], relaxed[name], {}, like)
        options.say_files(console, files)
        return
    with LiveLine(console, "reading") as line:
        report = sensitivities(
            chosen,
            form,
            states,
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
    # columns of extxyz are called by letters, digits and _
    moves = zip(report.parameters, report.moves.get(name, ()), strict=False)
    columns = {"dx_d" + re.sub(r"\W+", "_", parameter).strip("_"): move for parameter, move in moves}
    _write_state(files["structure"], report.relaxed[name], columns, like)
    options.say_files(console, files)


def _require_few(potential: "Potential") -> None:
    from mdsens.errors import InputError
    from mdsens.potentials.parameters import parameter_entries

    names = [entry.name for entry in parameter_entries(potential)]
    if len(names) > MOST_COLUMNS:
        raise InputError(
            f"{type(potential).__name__} has {len(names)} parameters, from {names[0]} to {names[-1]}: a "
            f"table has {MOST_COLUMNS} columns at most. Name some with --parameter, or differentiate w.r.t. "
            "tabulated functions as curves, with --functional."
        )


def functional_report(
    observables: "list[Observable]",
    potential: "Potential",
    states: "dict[str, Structure]",
    functions: list[str] | None,
    say: Callable[[str], None],
    **relax_options: Any,
) -> "tuple[FunctionalReport, dict[str, Relaxed]]":
    """Relax every state, and differentiate w.r.t. functions."""
    from mdsens.relaxation.relax import relax
    from mdsens.sensitivity.functional import chosen_curves, functional_sensitivities

    chosen_curves(potential, functions)  # mistakes are found before anything is relaxed
    relaxed = {}
    for key, start in states.items():
        say(f"relaxing {key} ({start.n_atoms} atoms)")
        relaxed[key] = relax(potential, start, **relax_options)
    say("differentiating")
    return functional_sensitivities(relaxed, observables, functions), relaxed


def _write_state(path: Path, state: "Relaxed", columns: dict[str, Any], like: dict[str, Any]) -> None:
    from mdsens.io.trajectory import write_structure

    stress = state.stress if any(state.structure.pbc) else None
    write_structure(
        path,
        state.structure,
        energy=state.energy,
        forces=state.forces,
        stress=stress,
        columns=columns,
        **like,
    )


def default_names(start: "Structure", crystal: "Structure | None") -> list[str]:
    """Observables of a defect, a crystal or a cluster, where none are named."""
    from mdsens.observables.crystal import conventional

    if crystal is not None:
        cubic = all(crystal.pbc) and conventional(crystal, "--bulk").is_cubic
        return list(BULK_DEFAULTS if cubic else OTHER_BULK_DEFAULTS)
    return list(DEFAULTS if all(start.pbc) else DEFAULTS[:1])


def chosen_observables(
    names: list[str], with_crystal: bool, elements: "dict[str, str]"
) -> "list[Observable]":
    """Observables by name, of the structure or of the crystal beside it."""
    from mdsens.observables import formation, named

    if not with_crystal:
        return named(names, "structure")
    others = [name for name in names if name != "formation"]
    chosen = named(others, "bulk") if others else []
    references = {element: _number(text, f"reservoir {element}") for element, text in elements.items()}
    return [*chosen, *([formation(references=references)] if "formation" in names else [])]


def read_beside(path: Path, form: str | None, species: str | None) -> "Structure":
    """A structure of another file than STRUCTURE."""
    from mdsens.io.structures import read_structure

    return read_structure(path, format=form, species=options.species_of(path, form, species))


def _states(
    start: "Structure",
    crystal: "Structure | None",
    elements: "dict[str, str]",
    read: "Callable[[str], Structure]",
) -> "dict[str, Structure]":
    if crystal is None:
        return {"structure": start}
    named = {element: _number(text, f"reservoir {element}") for element, text in elements.items()}
    files = {name: elements[element] for element, name in named.items() if isinstance(name, str)}
    reservoirs = {name: read(file) for name, file in files.items()}
    return {"defect": start, "bulk": crystal, **reservoirs}


def _number(text: str, otherwise: str) -> "float | str":
    try:
        return float(text)
    except ValueError:
        return otherwise
