"""Elastic constants of quartz: what they are while atoms are clamped, at rest, and fitted with atoms at rest.

The potential of van Beest, Kramer and van Santen (BKS) was made for silica. Fits that relax the atoms once
and then clamp them see other constants than a crystal has: its tetrahedra turn under a strain, which is most
of its softness. Here the tensor of alpha-quartz is printed

    clamped in the measured cell, clamped after a relaxation, and with atoms that relax under the strain,

beside what others have computed with this set and what is measured. Then the set is fitted to the measured
constants and edges of the cell: at each step the crystal relaxes with its cell, and constants are
differentiated through that relaxation.

    python workflows/refit_quartz.py --output results/refit_quartz

Source of the crystal: Levien, Prewitt, Weidner, Am. Mineral. 65, 920 (1980). Of the set and of its constants:
van Beest, Kramer, van Santen, Phys. Rev. Lett. 64, 1955 (1990), doi:10.1103/PhysRevLett.64.1955. That of the
constants that are measured, as the latter has them and as they are quoted beside them in npj Comput. Mater.
10, 218 (2024), table 2, doi:10.1038/s41524-024-01390-8.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402  (float64 first)
from mdsens.fitting import (  # noqa: E402
    FitProgress,
    FitResult,
    ParameterSpace,
    RelaxedTargets,
    Target,
    TargetStructure,
    fit,
)
from mdsens.fitting.show import floor_lines, identifiability_lines  # noqa: E402

EDGES = {"a": 4.916, "c": 5.4054}  # Å, measured
# GPa; C66 = (C11 - C12) / 2 follows from the others
MEASURED = {"C11": 86.8, "C12": 7.0, "C13": 19.1, "C14": -18.0, "C33": 105.8, "C44": 58.2}
PUBLISHED = {"C11": 90.6, "C12": 8.1, "C13": 15.2, "C14": -17.6, "C33": 107.0, "C44": 50.2}
SILICON = (0.4697, 0.0, 0.0)
OXYGEN = (0.4135, 0.2669, 0.1191)
FREE = ["*[Si-O]", "*[O-O]", "Ewald.charge"]
TIES = [["Ewald.charge*"]]  # the crystal stays neutral
WIDTH = 0.2  # of each parameter before the fit
TOLERANCES = {"edges": 0.02, "constants": 2.0}  # Å, GPa


def main(arguments: list[str] | None = None) -> None:
    """Run the workflow; `arguments` as on the command line."""
    options = parsed(arguments)
    console = Console(width=130)
    potential, crystal = ms.load_potential("sio2-bks"), quartz()
    columns = three_ways(potential, crystal)
    columns |= {"published": PUBLISHED, "measured": MEASURED}
    console.print(constants_table(columns))
    if options.no_fit:
        return
    result = fitted(potential, crystal, options.steps, console)
    console.print(result.table(), result.parameter_table())
    for line in [*floor_lines(result), *identifiability_lines(result)]:
        console.print(line)
    result.to_hdf5(options.output / "fit.h5", overwrite=options.overwrite)
    result.to_markdown(options.output / "fit.md", overwrite=options.overwrite)
    ms.save_potential(result.potential, options.output / "silica.toml", overwrite=options.overwrite)
    console.print(f"wrote {options.output}/fit.h5, fit.md, silica.toml")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("results/refit_quartz"), help="folder")
    parser.add_argument("--steps", type=int, default=30, help="of the fit, at most")
    parser.add_argument("--no-fit", action="store_true", help="print the tensor and stop")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    return parser.parse_args(arguments)


def quartz() -> ms.Structure:
    """Nine atoms of the crystal P3_2 21, as measured.

    Half a turn about the threefold axis changes the sign of C14: a is along -x, where it is negative, as in
    the tables.
    """
    a, c = EDGES["a"], EDGES["c"]
    cell = np.array([[-a, 0, 0], [a / 2, -a * np.sqrt(3) / 2, 0], [0, 0, c]])
    silicon, oxygen = orbit(SILICON), orbit(OXYGEN)
    places = np.concatenate([silicon, oxygen]) @ cell
    return ms.Structure.create(places, ["Si"] * len(silicon) + ["O"] * len(oxygen), cell=cell)


def orbit(place: tuple[float, float, float]) -> np.ndarray:
    """The places that the six operations of the space group make of one, each once."""
    x, y, z = place
    images = [(x, y, z), (y, x, 2 / 3 - z), (-y, x - y, 2 / 3 + z)]
    images += [(-x, y - x, 1 / 3 - z), (y - x, -x, 1 / 3 + z), (x - y, -y, -z)]
    found: list[np.ndarray] = []
    for image in np.array(images) % 1.0:
        apart = [image - other for other in found]
        if not any(np.allclose(d, np.round(d), atol=1e-6) for d in apart):
            found.append(image)
    return np.array(found)


def three_ways(potential: ms.Potential, crystal: ms.Structure) -> dict[str, dict[str, float]]:
    """Constants in GPa: clamped as measured, clamped at rest, and with atoms that relax."""
    constants = ms.observables.elastic_constants
    relaxed = ms.relax(potential, crystal, cell="full")
    tensors = {
        "clamped, as measured": constants(potential, crystal, clamped=True),
        "clamped, at rest": constants(potential, relaxed, clamped=True),
        "atoms relax": constants(potential, relaxed),
    }
    return {title: named(np.asarray(tensor)) for title, tensor in tensors.items()}


def named(tensor: np.ndarray) -> dict[str, float]:
    """The independent constants of a trigonal crystal, GPa."""
    value = lambda name: ms.units.GPA * float(tensor[int(name[1]) - 1, int(name[2]) - 1])
    return {name: value(name) for name in MEASURED}


def constants_table(columns: Mapping[str, Mapping[str, float]]) -> Table:
    """One row a constant, one column a way to get it."""
    table = Table(title="alpha-quartz with the set of BKS, GPa")
    table.add_column("")
    for title in columns:
        table.add_column(title, justify="right")
    for name in MEASURED:
        table.add_row(name, *(f"{column[name]:.1f}" for column in columns.values()))
    return table


def fitted(potential: ms.Potential, crystal: ms.Structure, steps: int, console: Console) -> FitResult:
    """The set with the measured constants and edges, as far as the form can have them."""
    edges = [Target(name, value, TOLERANCES["edges"]) for name, value in EDGES.items()]
    constants = [Target(name, value, TOLERANCES["constants"]) for name, value in MEASURED.items()]
    targets = RelaxedTargets(TargetStructure(crystal, cell="full"), [*edges, *constants])
    priors = dict.fromkeys(["*[Si-O]", "*[O-O]"], (None, WIDTH))
    space = ParameterSpace.of(potential, FREE, ties=TIES, scale="log", priors=priors)

    def say(now: FitProgress) -> None:
        console.print(f"step {now.step:2d}   loss {now.loss:12.5f}   {now.seconds:6.1f} s   {now.note[:70]}")

    return fit(space, targets, max_steps=steps, tolerance=1e-3, throw=False, progress=say)


if __name__ == "__main__":
    main()
