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
            help=".h5 (positions, log density, weights) or anything ASE writes (.extxyz).",
        ),
    ] = Path("samples.h5"),
    seed: inputs.Seed = 0,
    overwrite: options.Overwrite = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Draw independent samples of a flow.

    HDF5 holds positions (nm), log_density (shape, nm) and, with --force-field, potential_energy (kJ/mol) and
    log_weights: averages over samples weighted with their exponentials are those of the force field.
    """
    options.turn_on_float64()
    import jax
    import numpy as np

    from mdsens.flows.evaluate import evaluate_on_samples, in_pieces
    from mdsens.io.files import check_free
    from mdsens.io.hdf5 import Quantity, write_hdf5
    from mdsens.io.trajectory import write_trajectory
    from mdsens.structure import Structure
    from mdsens.units import BOLTZMANN, KJ_PER_MOL

    check_free(output, overwrite)
    generator = inputs.read_generator(model)
    target = None if force_field is None else inputs.target_energy(generator, force_field, "")
    console = Console()
    with console.status("drawing samples"):
        positions, _ = generator.flow.sample(jax.random.key(seed), samples)
        energies, _ = in_pieces(generator, positions)
        found = None if target is None else evaluate_on_samples(generator, target, positions)
    if output.suffix in (".h5", ".hdf5"):
        content = {
            "positions": Quantity(positions, "nm", "samples, atoms, xyz"),
            "log_density": Quantity(-energies, "1", "samples"),
            "species": np.array(generator.species),
            "temperature": Quantity(generator.temperature, "K"),
        }
        if found is not None:
            kT = BOLTZMANN * generator.temperature / KJ_PER_MOL
            content["log_weights"] = Quantity(found.log_weights, "1", "samples")
            content["potential_energy"] = Quantity((energies - found.log_weights) * kT, "kJ/mol", "samples")
        write_hdf5(output, content, overwrite=overwrite)
    else:
        write_trajectory(
            output,
            [Structure.create(10.0 * frame, generator.species) for frame in positions],
            overwrite=overwrite,
        )
    said = (
        f"{samples} samples"
        if found is None
        else f"{samples} samples, effective {100 * found.ess:.1f} % of them"
    )
    console.print(f"{said}; wrote {output}", soft_wrap=True, markup=False, highlight=False)
