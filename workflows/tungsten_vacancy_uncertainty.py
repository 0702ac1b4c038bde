"""How uncertain a relaxed vacancy in tungsten is: from training data to coefficients of SNAP to the vacancy.

The data are rattled and strained crystals with energies, forces and stresses; their tolerances say how well
the form is to describe them, and what that leaves open of the coefficients (Laplace). The vacancy, the
crystal and their derivatives by all coefficients are relaxed and solved once; draws of the coefficients, with
the vacancy relaxed again for each, say whether that was enough.

    python workflows/tungsten_vacancy_uncertainty.py --cells 3 --draws 200 --output results/tungsten_vacancy

--potential FILE takes another one: a TOML file, or a .snap file of LAMMPS with its parameters beside it.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402  (float64 first)
from mdsens.datasets import Rattle, generate  # noqa: E402
from mdsens.fitting import (  # noqa: E402
    ForceMatching,
    LabelTolerances,
    ParameterSpace,
    RelaxedTargets,
    Target,
    TargetStructure,
)
from mdsens.io.files import new_file  # noqa: E402
from mdsens.uncertainty import (  # noqa: E402
    DrawsProgress,
    MonteCarlo,
    PropagatedUncertainty,
    SloppySpectra,
    laplace,
    monte_carlo,
    propagate,
    sloppiness,
)

EDGE = 3.1803  # Å, of the crystal of this potential
# what the form is off by on its own training data, about (Wood and Thompson, arXiv:1702.07042)
TOLERANCES = LabelTolerances(energy=0.01, forces=0.2, stress=0.02)
KNOWN_BEFORE = 1.0  # eV: no coefficient is larger
BULK = ["lattice_constant", "energy_per_atom", "C11", "C12", "C44"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("results/tungsten_vacancy"), help="folder")
    parser.add_argument("--cells", type=int, default=3, help="cubic cells along an edge of the vacancy")
    parser.add_argument("--frames", type=int, default=6, help="structures of each kind of data")
    parser.add_argument("--draws", type=int, default=0, help="of the coefficients, relaxed again")
    parser.add_argument("--potential", default="w-snap-2017", help="a parameter set, or a file")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    options = parser.parse_args()
    console = Console(width=150)

    potential = ms.load_potential(options.potential)
    space = free_coefficients(potential)
    forces = data_of(potential, options.frames)
    spectra = sloppiness(space, {"forces": forces, "relaxed": relaxed_targets(options.cells)})
    console.print(spectra_line(spectra))
    coefficients = laplace(space, forces)

    structures = {"bulk": crystal(1), "vacancy": vacancy(options.cells)}
    observables = [*BULK, ms.observables.formation("vacancy", "bulk")]
    began = time.perf_counter()
    options_of: dict[str, Any] = {"cell": "isotropic", "fmax": 1e-7}
    found = propagate(observables, potential, structures, coefficients, progress=console.print, **options_of)
    console.print(f"{time.perf_counter() - began:.1f} s")
    console.print(found.table())
    console.print(found.contribution_table(6))

    drawn = None
    if options.draws:
        options_of["draws"] = options.draws
        drawn = monte_carlo(
            observables, potential, structures, coefficients, progress=said(console), **options_of
        )
        compare(console, found, drawn)
    out, overwrite = options.output, options.overwrite
    found.to_hdf5(out / "uncertainty.h5", overwrite=overwrite)
    found.to_csv(out / "uncertainty.csv", overwrite=overwrite)
    found.plot(out / "correlation.png", overwrite=overwrite)
    with new_file(out / "tungsten_vacancy.png", overwrite) as unfinished:
        draw(found, drawn, spectra).savefig(unfinished, dpi=150)
    console.print(f"wrote {out}/uncertainty.h5, uncertainty.csv, correlation.png, tungsten_vacancy.png")


def crystal(cells: int) -> ms.Structure:
    """Body-centered cubic, so many cubic cells along each edge."""
    basis = EDGE * np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    return ms.Structure.create(basis, ["W"] * 2, cell=[EDGE] * 3).repeat(cells)


def vacancy(cells: int) -> ms.Structure:
    """The crystal without one atom."""
    whole = crystal(cells)
    rest = np.asarray(whole.positions)[1:]
    return ms.Structure.create(rest, ["W"] * len(rest), cell=whole.cell)


def free_coefficients(potential: ms.Potential) -> ParameterSpace:
    """All coefficients of SNAP, none larger than an electronvolt; the repulsion of the nuclei stays."""
    everything = list(ms.parameter_values(potential))
    names = [name for name in everything if "beta" in name] or everything
    priors = dict.fromkeys(names, (None, KNOWN_BEFORE))
    return ParameterSpace.of(potential, names, scale="linear", priors=priors)


def data_of(potential: ms.Potential, frames: int) -> ForceMatching:
    """Crystals that are shaken and strained, cold and hot, and some with a vacancy."""
    ways = [Rattle(0.05, 0.02), Rattle(0.2, 0.04)]
    whole = generate(potential, crystal(2), ways, count=frames)
    damaged = generate(potential, vacancy(2), ways, count=frames, seed=1)
    return ForceMatching(whole + damaged, tolerances=TOLERANCES)


def relaxed_targets(cells: int) -> RelaxedTargets:
    """What is measured on relaxed states, each to one percent."""
    setups = {
        "bulk": TargetStructure(crystal(1), cell="isotropic", fmax=1e-7),
        "vacancy": TargetStructure(vacancy(cells), cell="isotropic", fmax=1e-7),
    }
    values = {"lattice_constant": EDGE, "energy_per_atom": 8.9, "C11": 524.0, "C12": 200.0, "C44": 150.0}
    bulk = [Target(name, value, 0.01 * value, on="bulk") for name, value in values.items()]
    return RelaxedTargets(setups, [*bulk, Target("formation_energy", 3.2, 0.03, on="vacancy", bulk="bulk")])


def spectra_line(spectra: SloppySpectra) -> str:
    """How many combinations each kind of data knows, and how well the forces know those of the others."""
    counts = {kind: int(np.sum(one.singular > 1)) for kind, one in spectra.found.items()}
    known = [f"{kind}: {n} of {len(spectra.names)} combinations" for kind, n in counts.items()]
    return "known to better than a coefficient by itself - " + "; ".join(known)


def said(console: Console):
    """A line every tenth of the draws."""

    def say(now: DrawsProgress) -> None:
        if now.done % max(now.draws // 10, 1) == 0:
            console.print(f"draw {now.done} of {now.draws}, {now.lost} lost")

    return say


def compare(console: Console, found: PropagatedUncertainty, drawn: MonteCarlo) -> None:
    """Propagated and drawn, side by side."""
    of_means, of_errors = drawn.against(found)
    for i, name in enumerate(found.observables):
        console.print(
            f"{name:20} propagated {found.means[i]:10.5g} ± {found.errors[i]:8.3g}   "
            f"drawn {drawn.means[i]:10.5g} ± {drawn.errors[i]:8.3g} {found.units[i]:4} "
            f"({of_means[i]:+.1f} and {of_errors[i]:+.1f} of its own error)"
        )


def draw(found: PropagatedUncertainty, drawn: MonteCarlo | None, spectra: SloppySpectra) -> Figure:
    """The vacancy's formation energy, and what the two kinds of data know."""
    drawing = Figure(figsize=(9.0, 3.4), layout="constrained")
    left, right = drawing.subplots(1, 2)
    i = found.observables.index("formation_energy")
    mean, error = found.means[i], found.errors[i]
    x = np.linspace(mean - 4 * error, mean + 4 * error, 200)
    height = 1 / (error * np.sqrt(2 * np.pi))
    left.plot(x, height * np.exp(-(((x - mean) / error) ** 2) / 2), label=found.order)
    if drawn is not None:
        label = f"{len(drawn.values)} relaxed again"
        left.hist(drawn.values[:, i], bins="auto", density=True, alpha=0.4, label=label)
    left.set(xlabel="formation energy of the vacancy (eV)", yticks=[])
    left.legend(frameon=False)
    for kind, one in spectra.found.items():
        there = one.singular[one.singular > 1e-9 * one.singular[0]]
        right.semilogy(range(1, len(there) + 1), there, ".-", label=kind)
    right.axhline(1.0, color="0.6", lw=0.8)
    right.set(xlabel="combination of coefficients", ylabel="residuals per change of a coefficient by itself")
    right.legend(frameon=False)
    return drawing


if __name__ == "__main__":
    main()
