"""`mdsens flow sample`: independent samples of a flow."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mdsens.cli import options
from mdsens.cli.flow import inputs


def sample(
    model: inputs.Model,
    samples: inputs.Samples = 1000,
    force_field: inputs.ForceField = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=".h5 (positions, log density, weights; mdtraj opens it), .extxyz, .pdb, .dcd, .xtc, ...",
        ),
    ] = Path("samples.h5"),
    seed: inputs.Seed = 0,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Draw independent samples of a flow.

    HDF5 holds positions (nm), log_density (shape, nm) and, with --force-field, potential_energy (kJ/mol) and
    log_weights: averages over samples weighted with their exponentials are those of the force field. It opens
    in mdtraj, and `flow train` and `flow evaluate` read it as DATA.h5.
    """
    options.turn_on_float64()
    import jax

    from mdsens.flows.evaluate import evaluate_on_samples, in_pieces
    from mdsens.flows.samples import FlowSamples
    from mdsens.io.files import check_free
    from mdsens.io.frames import check_ending
    from mdsens.units import from_kT, to_kJ_per_mol

    check_ending(output)
    check_free(output, overwrite)
    generator = inputs.read_generator(model)
    target = None if force_field is None else inputs.target_energy(generator, force_field, "")
    console = Console()
    with console.status("drawing samples"):
        positions, _ = generator.flow.sample(jax.random.key(seed), samples)
        energies, _ = in_pieces(generator, positions)
        found = None if target is None else evaluate_on_samples(generator, target, positions)
    drawn = FlowSamples(positions, -energies, generator.species, generator.temperature, generator.topology)
    if found is not None:
        # log w = -u - log p, and `energies` is -log p
        u = from_kT(energies - found.log_weights, generator.temperature)
        drawn = drawn._replace(potential_energy=to_kJ_per_mol(u), log_weights=found.log_weights)
    drawn.write(output, overwrite=overwrite)
    said = f"{samples} samples"
    if found is not None:
        said += f", effective {100 * found.ess:.1f} % of them"
    console.print(f"{said}; wrote {output}", soft_wrap=True, markup=False, highlight=False)
