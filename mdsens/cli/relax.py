"""`mdsens relax`: from a structure file to its minimum, as files and a table."""

from typing import TYPE_CHECKING, cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mdsens.cli import options
from mdsens.cli.progress import LiveLine
from mdsens.errors import NotConvergedError, SaddlePointError

if TYPE_CHECKING:
    from mdsens.relaxation.relax import Relaxed
    from mdsens.structure import Structure


def relax(
    structure: options.StructureFile,
    potential: options.PotentialName,
    cell: options.Cell = "none",
    pressure: options.Pressure = 0.0,
    fmax: options.ForceTolerance = 1e-8,
    solver: options.SolverName = options.Solver.AUTO,
    max_steps: options.MaxSteps = 10_000,
    fix: options.Fixed = None,
    parameters: options.Parameters = None,
    format: options.Format = None,
    species: options.Species = None,
    output: options.Output = None,
    output_format: options.OutputFormat = None,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Relax a structure to the minimum of its energy.

    Writes PREFIX.extxyz (the relaxed structure; --output-format for others), PREFIX.h5 (everything, with
    units) and PREFIX.png (the course of the relaxation). PREFIX is the name of the structure with -relaxed,
    in the current folder, unless --output says otherwise. A state that is not converged, or a saddle point,
    is written as well and says so.
    """
    options.turn_on_float64()
    from mdsens.cli.convergence import plot_convergence
    from mdsens.io.files import check_free
    from mdsens.io.hdf5 import Quantity, write_relaxed
    from mdsens.io.structures import read_atoms
    from mdsens.io.trajectory import write_structure
    from mdsens.potentials.parameters import parameter_values
    from mdsens.relaxation.relax import relax as find_minimum
    from mdsens.structure import Structure, volume
    from mdsens.units import GPA

    strains = options.cell_option(cell)
    prefix = options.output_prefix(output, structure, "relaxed")
    files = options.structure_files(prefix, ("h5", "png"), output_format)
    for file in files.values():
        check_free(file, overwrite)
    atoms = read_atoms(structure, format=format, species=options.species_option(species))
    form = options.potential_option(potential, parameters)
    start = options.fix_option(Structure.from_ase(atoms, form.columns), fix)

    console = Console()
    problem = None
    with LiveLine(console, f"relaxing {start.n_atoms} atoms: compiling") as line:
        try:
            relaxed = find_minimum(
                form,
                start,
                cell=strains,
                pressure=pressure / GPA,
                fmax=fmax,
                solver=options.solver_option(solver),
                max_steps=max_steps,
                progress=line.relaxation,
            )
        except (NotConvergedError, SaddlePointError) as error:
            problem, relaxed = error, cast("Relaxed", error.partial)
        write_structure(
            files["structure"],
            relaxed.structure,
            like=atoms,
            energy=relaxed.energy,
            forces=relaxed.forces,
            stress=relaxed.stress if float(volume(start)) > 0 else None,
            info={"relaxation": relaxed.status.value, "potential": potential},
            format=output_format,
            overwrite=overwrite,
        )
        write_relaxed(
            files["h5"],
            relaxed,
            parameters=parameter_values(form),
            start=start,
            settings={
                "potential": potential,
                "form": type(form).__name__,
                "source": form.source,
                "cell": cell,
                "pressure": Quantity(pressure, "GPa"),
                "fmax": Quantity(fmax, "eV/Å"),
                "solver": solver.value,
            },
            course={
                "steps": [p.steps for p in line.course],
                "energy": Quantity([p.energy for p in line.course], "eV"),
                "fmax": Quantity([p.fmax for p in line.course], "eV/Å"),
                "stress_off_target": Quantity([p.stress for p in line.course], "eV/Å³"),
            },
            overwrite=overwrite,
        )
        merit = "enthalpy" if pressure else "energy"
        plot_convergence(
            files["png"], line.course, fmax, with_cell=strains is not None, merit=merit, overwrite=overwrite
        )
    console.print(summary(start, relaxed, structure.name))
    options.say_files(console, files)
    if problem is not None:
        raise problem


def summary(start: "Structure", relaxed: "Relaxed", name: str) -> Table:
    """What a relaxation found, as a table."""
    import numpy as np

    from mdsens.structure import volume
    from mdsens.units import GPA

    end, n = relaxed.structure, start.n_atoms
    table = Table(title=escape(f"{name}: {relaxed.status.value}"), title_justify="left", show_header=False)
    rows = [
        ("energy", f"{float(relaxed.energy):.8f}", "eV"),
        ("energy per atom", f"{float(relaxed.energy) / n:.8f}", "eV"),
        ("largest force", f"{float(relaxed.fmax):.1e}", "eV/Å"),
        ("steps", f"{int(relaxed.steps)}", ""),
    ]
    if float(volume(end)) > 0:
        stress = np.round(GPA * np.asarray(relaxed.stress), 6) + 0.0  # no -0.000000
        lengths = np.linalg.norm(np.asarray(end.cell), axis=1)
        rows += [
            ("volume", f"{float(volume(end)):.6f}", "Å³"),
            ("change of volume", f"{100 * float(volume(end) / volume(start) - 1):+.4f}", "%"),
            ("cell vectors", "  ".join(f"{x:.6f}" for x in lengths), "Å"),
            ("stress xx yy zz", "  ".join(f"{stress[k, k]:+.6f}" for k in range(3)), "GPa"),
            (
                "stress yz xz xy",
                "  ".join(f"{stress[a, b]:+.6f}" for a, b in ((1, 2), (0, 2), (0, 1))),
                "GPa",
            ),
        ]
    for column in ("left", "right", "left"):
        table.add_column(justify=column)
    for row in rows:
        table.add_row(*row)
    return table
