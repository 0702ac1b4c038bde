"""`mdsens gaussian`: a crystal at a temperature, as a Gaussian: cell, displacements, expansion."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mdsens.cli import options
from mdsens.cli.progress import LiveLine

if TYPE_CHECKING:
    from mdsens.equilibria.gaussian import GaussianState

Temperature = Annotated[
    float, typer.Option("--temperature", "-t", metavar="K", help="Temperature, K, above zero.")
]
Members = Annotated[int, options.count("Members over which averages are made.", at_least=2)]
Quantum = Annotated[bool, typer.Option("--quantum", help="With zero-point motion and quantised energies.")]
Asymmetric = Annotated[
    bool, typer.Option("--no-symmetry", help="Do not average over the space group of the crystal.")
]
Derivatives = Annotated[
    bool,
    typer.Option("--expansion", help="Also the thermal expansion and the compressibility, by derivatives."),
]


def gaussian(
    structure: options.StructureFile,
    potential: options.PotentialName,
    temperature: Temperature,
    cell: options.Cell = "isotropic",
    pressure: options.Pressure = 0.0,
    members: Members = 512,
    quantum: Quantum = False,
    no_symmetry: Asymmetric = False,
    expansion: Derivatives = False,
    fmax: options.ForceTolerance = 1e-8,
    max_steps: options.MaxSteps = 200,
    parameters: options.Parameters = None,
    format: options.Format = None,
    species: options.Species = None,
    output: options.Output = None,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Find the Gaussian of lowest free energy around a crystal, after relaxing it.

    Writes PREFIX.xyz (mean positions and cell) and PREFIX.h5 (force constants, covariance, free energy).
    """
    options.turn_on_float64()
    from mdsens.equilibria.gaussian import gaussian_state
    from mdsens.equilibria.gaussian_content import gaussian_content
    from mdsens.io.files import check_free
    from mdsens.io.hdf5 import write_hdf5
    from mdsens.io.trajectory import write_structure
    from mdsens.relaxation.relax import relax
    from mdsens.units import GPA

    prefix = options.output_prefix(output, structure, "gaussian")
    names = {"xyz": ".xyz", "h5": ".h5"}
    files = {key: prefix.with_name(prefix.name + ending) for key, ending in names.items()}
    for file in files.values():
        check_free(file, overwrite)
    strains = options.cell_option(cell)
    form = options.potential_option(potential, parameters)
    start = options.start_option(structure, form, format, options.species_option(species))
    settings: dict[str, Any] = dict(cell=strains, quantum=quantum, members=members, max_steps=max_steps)
    settings["symmetry"] = not no_symmetry

    console = Console()
    with LiveLine(console, f"relaxing {start.n_atoms} atoms: compiling") as line:
        relaxed = relax(
            form, start, cell=strains, pressure=pressure / GPA, fmax=fmax, progress=line.relaxation
        )
        line("averages: compiling")
        found = gaussian_state(form, relaxed.structure, temperature, pressure=pressure / GPA, **settings)
        slopes = None
        if expansion:
            line("derivatives: compiling")
            slopes = _slopes(form, relaxed.structure, temperature, pressure / GPA, settings)
    console.print(_table(found, slopes))
    write_structure(files["xyz"], found.structure, overwrite=overwrite)
    write_hdf5(files["h5"], gaussian_content(found), overwrite=overwrite)
    options.say_files(console, files)


def _slopes(form: Any, structure: Any, temperature: float, pressure: float, settings: Any) -> Any:
    import jax
    import jax.numpy as jnp

    from mdsens.equilibria.gaussian import gaussian_state
    from mdsens.structure import volume

    def size(t: Any, p: Any) -> Any:
        return jnp.log(volume(gaussian_state(form, structure, t, pressure=p, **settings).structure))

    return jax.grad(size, argnums=(0, 1))(temperature, pressure)


def _table(found: "GaussianState", slopes: Any) -> Table:
    from mdsens.structure import volume
    from mdsens.units import GPA

    title = f"Gaussian state at {float(found.temperature):g} K"
    table = Table(title=title, title_justify="left", show_header=False)
    atoms = found.structure.n_atoms
    move = found.frequencies
    table.add_row("free energy", f"{float(found.free_energy) / atoms:.6f} eV/atom")
    table.add_row("mean potential energy", f"{float(found.energy) / atoms:.6f} eV/atom")
    table.add_row("volume", f"{float(volume(found.structure)) / atoms:.5f} Å³/atom")
    table.add_row("displacement, rms", f"{float(found.displacements.max()):.4f} Å at most")
    table.add_row("frequencies", f"{float(move[0]):.4f} to {float(move[-1]):.4f} THz")
    if slopes is not None:
        by_temperature, by_pressure = (float(slope) for slope in slopes)
        table.add_row("linear thermal expansion", f"{by_temperature / 3:.4g} 1/K")
        if by_pressure:
            table.add_row("bulk modulus", f"{-GPA / by_pressure:.4g} GPa")
    table.add_row("equations solved to", f"{float(found.residual):.1e} in {found.steps} steps")
    table.add_row("operations of symmetry", str(found.operations))
    return table
