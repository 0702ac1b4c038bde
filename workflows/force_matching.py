"""A potential fitted to energies, forces and stresses, from the data to a file that LAMMPS runs.

Without --data the data are made here: silicon in the potential of Stillinger and Weber, simulated at 300 and
1000 K and strained, so that the answer is known. The fit starts with parameters 10 to 20 % away from it.

    make or read data -> divide -> fit on the one part -> judge on another -> write

    python workflows/force_matching.py --output results/force_matching
    python workflows/force_matching.py --data mine.extxyz --potential si-tersoff-1988-t3 --free A B beta

Written: fit.h5 and fit.md (the report), parity.png and parity.h5 (the test part), the potential as .toml
and, if there is a format for its form, as a file of LAMMPS.
"""

import argparse
from pathlib import Path

import ase.build
import jax
import numpy as np
from rich.console import Console

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402  (float64 first)
from mdsens.datasets import Dataset, Heat, Rattle, generate, inspect, split  # noqa: E402
from mdsens.errors import InputError  # noqa: E402
from mdsens.fitting import FitProgress, ForceMatching, LabelTolerances, ParameterSpace, fit, parity  # noqa: E402
from mdsens.io.files import check_free  # noqa: E402

ENDINGS = {"StillingerWeber": ".sw", "Tersoff": ".tersoff", "SNAP": ".snapcoeff"}
# p, q and the cutoff a sigma stay; epsilon is a factor of A and lambda
FREE = ("sigma", "lambda", "gamma", "costheta0", "A", "B")


def main(arguments: list[str] | None = None) -> None:
    """Run the workflow; `arguments` as on the command line."""
    options = parsed(arguments)
    console = Console()
    folder: Path = options.output
    check_free(folder / "fit.h5", options.overwrite)
    published = ms.load_potential(options.potential)
    data = ms.read_dataset(options.data) if options.data else silicon(published, folder, options)
    report = inspect(data)
    console.print(
        f"{len(data)} structures, {len(report.duplicates)} duplicates, {len(report.outliers)} outliers"
    )
    parts = split(data, validation=0.0, test=0.2)
    start = published if options.data else off(published, options.free)
    space = ParameterSpace.of(start, options.free)
    term = ForceMatching(
        parts.train,
        tolerances=LabelTolerances(options.energy, options.forces, options.stress),
        huber=options.huber,
        shift_energies=options.data is not None,
    )
    result = fit(
        space,
        term,
        max_steps=options.steps,
        checkpoint=folder / "checkpoint.h5",
        resume=options.resume,
        overwrite=options.overwrite,
        throw=False,
        progress=lambda now: console.print(in_words(now)),
    )
    console.print(f"the fit {result.status}", result.parameter_table(), result.table())
    judged = parity(result.potential, parts.test, shift_energies=options.data is not None)
    console.print("the test part:", judged)
    write(folder, result, judged, options.overwrite)


def silicon(potential: ms.Potential, folder: Path, options: argparse.Namespace) -> Dataset:
    """Simulated and strained crystals of 8 atoms, labelled by the potential; kept in data.h5."""
    start = ms.Structure.from_ase(ase.build.bulk("Si", cubic=True))
    moves = [Heat(300.0), Heat(1000.0), Rattle(0.1, strain=0.02), Rattle(0.2, strain=0.02)]
    chosen = moves[2:] if options.quick else moves
    return generate(
        potential,
        start,
        chosen,
        count=options.count,
        output=folder / "data.h5",
        resume=options.resume,
        overwrite=options.overwrite,
    )


def off(potential: ms.Potential, names: list[str]) -> ms.Potential:
    """With parameters that are 10 to 20 % off."""
    rng = np.random.default_rng(0)
    values = ms.parameter_values(potential)
    if unknown := [name for name in names if name not in values]:
        raise InputError(f"--free {unknown[0]}: the parameters are {', '.join(values)}.")
    factors = 1 + rng.choice([-1, 1], len(names)) * rng.uniform(0.1, 0.2, len(names))
    changed = {name: values[name] * factor for name, factor in zip(names, factors, strict=True)}
    return ms.replace_parameters(potential, changed)


def in_words(now: FitProgress) -> str:
    """One line for each step."""
    return f"step {now.step:3d}   loss {now.loss:.6g}   {now.note}"


def write(folder: Path, result, judged, overwrite: bool) -> None:
    """Everything that was found."""
    result.to_hdf5(folder / "fit.h5", overwrite=overwrite)
    result.to_markdown(folder / "fit.md", overwrite=overwrite)
    judged.plot(folder / "parity.png", overwrite=overwrite)
    judged.to_hdf5(folder / "parity.h5", overwrite=overwrite)
    endings = [".toml", ENDINGS.get(type(result.potential).__name__)]
    for ending in filter(None, endings):
        ms.save_potential(result.potential, folder / f"fitted{ending}", overwrite=overwrite)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="labelled structures; default: made here")
    parser.add_argument("--potential", default="si-stillinger-weber-1985", help="form and start of the fit")
    parser.add_argument("--free", nargs="+", default=list(FREE), help="parameters, by name or pattern")
    parser.add_argument("--count", type=int, default=20, help="structures of each kind that is made")
    parser.add_argument("--quick", action="store_true", help="rattled structures alone, no simulations")
    parser.add_argument("--energy", type=float, default=0.005, help="tolerance of energies, eV per atom")
    parser.add_argument("--forces", type=float, default=0.05, help="tolerance of forces, eV/Å")
    parser.add_argument("--stress", type=float, default=0.005, help="tolerance of stresses, eV/Å³")
    parser.add_argument("--huber", type=float, help="tolerances beyond which outliers count less")
    parser.add_argument("--steps", type=int, default=100, help="of the fit, at most")
    parser.add_argument("--output", type=Path, default=Path("force_matching"), help="a folder")
    parser.add_argument("--resume", action="store_true", help="go on from what is in the folder")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in the folder")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
