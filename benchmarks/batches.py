"""Many structures: relaxations a second against ASE and torch-sim, sensitivities a minute, and compilations.

    python benchmarks/batches.py                    # all three
    python benchmarks/batches.py --only argon       # or vacancies, sizes
    python benchmarks/batches.py --torch-sim PYTHON # an interpreter that has torch-sim

argon: 64 cells of 256 atoms (fcc, a = 5.26 Å, rattled by 0.1 Å), Lennard-Jones cut at 8.5 Å, to 1e-3 eV/Å.
    ASE walks with FIRE and its own LennardJones, for as many systems as --peers says; like torch-sim it does
    not ask whether the end is a minimum, which ours proves unless told not to. Compiling is timed apart, by a
    batch of two systems before.
vacancies: silicon, 63 atoms, Stillinger and Weber: energy and volume of each by all parameters, to 1e-8 eV/Å.
sizes: structures of 20 to 200 silicon atoms, 15 % of the sites empty, rattled by 0.1 Å. Counted are the
    compilations of `advance`, which is what takes seconds.

Wall-clock time with all cores: do not run anything else beside it.
"""

import argparse
import logging
import resource
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ase import Atoms
from ase.build import bulk

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402
from mdsens.relaxation import memory  # noqa: E402

ARGON = ms.LennardJones(0.0104, 3.4, elements=("Ar",), cutoff_radius=8.5)
LBFGS = ms.LBFGS(history=5, preconditioned=False)
SILICON = ms.load_potential("si-stillinger-weber-1985")


class Compilations(logging.Handler):
    """Counts programs by name, as JAX tells its log."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.names: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """One line of the log."""
        text = record.getMessage()
        if text.startswith("Compiling "):
            self.names.append(text.split()[1])


def rattled(atoms: Atoms, by: float, seed: int) -> ms.Structure:
    moved = atoms.copy()
    moved.rattle(by, seed=seed)
    return ms.Structure.from_ase(moved)


SKIN = 1.1  # Å: rattled atoms go home without a new list
WALKS: dict[str, dict[str, Any]] = {
    "as by default": {},
    "L-BFGS, proven": {"solver": LBFGS, "skin": SKIN},
    "L-BFGS": {"solver": LBFGS, "skin": SKIN, "check_minimum": False},
}


def argon(systems: int, peers: int, interpreter: str | None) -> None:
    crystal = bulk("Ar", "fcc", a=5.26, cubic=True).repeat(4)
    structures = [rattled(crystal, 0.1, seed) for seed in range(systems)]
    first = [rattled(crystal, 0.1, 1000 + k) for k in range(2)]
    print(f"argon: {systems} systems of 256 atoms to 1e-3 eV/Å, ms a system")
    their = ase_fire(crystal, peers)
    print(f"  {'ASE FIRE':24} {1e3 * their:7.1f}")
    if interpreter is not None:
        script = Path(__file__).with_name("batches_torch_sim.py")
        command = [interpreter, str(script), str(systems)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"  {'torch-sim FIRE':24} {1e3 * float(found.stdout):7.1f}")
    for name, options in WALKS.items():
        begun = time.perf_counter()
        ms.relax_batch(ARGON, first, fmax=1e-3, **options)
        compiled = time.perf_counter() - begun
        begun = time.perf_counter()
        batch = ms.relax_batch(ARGON, structures, fmax=1e-3, **options)
        ours = (time.perf_counter() - begun) / systems
        steps = np.mean([int(relaxed.steps) for relaxed in batch.values()])
        row = f"{1e3 * ours:7.1f}, {steps:.0f} steps, ASE takes {their / ours:.1f} times as long"
        print(f"  {'mdsens, ' + name:24} {row} (before: {compiled:.1f} s, compiling)")


def ase_fire(crystal: Atoms, peers: int) -> float:
    from ase.calculators.lj import LennardJones
    from ase.optimize import FIRE

    begun = time.perf_counter()
    for seed in range(peers):
        atoms = crystal.copy()
        atoms.rattle(0.1, seed=seed)
        atoms.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=8.5, smooth=False)
        FIRE(atoms, logfile=None).run(fmax=1e-3, steps=10_000)
    return (time.perf_counter() - begun) / peers


def vacancies(systems: int) -> None:
    crystal = bulk("Si", "diamond", a=5.431, cubic=True).repeat(2)
    del crystal[0]
    names = ("energy", "volume")
    ms.sensitivity_batch(SILICON, [rattled(crystal, 0.05, 1000)], names)
    begun = time.perf_counter()
    found = ms.sensitivity_batch(SILICON, [rattled(crystal, 0.05, seed) for seed in range(systems)], names)
    seconds = time.perf_counter() - begun
    print(f"vacancies: {systems} of 63 atoms, {len(found.parameters)} parameters: ", end="")
    print(f"{60 * systems / seconds:.0f} sensitivities a minute, {len(found.failures)} failed")


def sizes(systems: int) -> None:
    rng = np.random.default_rng(0)
    structures = [disordered(rng) for _ in range(systems)]
    log = Compilations()
    logger = logging.getLogger("jax._src.interpreters.pxla")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(log)
    logger.propagate = False
    jax.config.update("jax_log_compiles", True)
    begun = time.perf_counter()
    sizes_of_memory = []

    def watch(progress: object) -> None:
        sizes_of_memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    found = ms.observables_batch(SILICON, structures, "energy", fmax=1e-3, progress=watch)
    seconds = time.perf_counter() - begun
    slow = sum("advance" in name for name in log.names)
    tenth = sizes_of_memory[len(sizes_of_memory) // 10]
    print(
        f"sizes: {systems} structures of 20 to 200 atoms: {seconds:.0f} s, {len(found.failures)} failed, ",
        end="",
    )
    print(f"{slow} compilations of steppers, {len(log.names)} of all programs; ", end="")
    print(f"{tenth:.0f} MiB after a tenth of them, {sizes_of_memory[-1]:.0f} MiB at the end")


def disordered(rng: np.random.Generator) -> ms.Structure:
    repeat = rng.integers(1, 4, size=3)
    atoms = bulk("Si", "diamond", a=5.431, cubic=True).repeat(repeat)
    while not 24 <= len(atoms) <= 230:
        repeat = rng.integers(1, 4, size=3)
        atoms = bulk("Si", "diamond", a=5.431, cubic=True).repeat(repeat)
    atoms = atoms[rng.random(len(atoms)) > 0.15]
    atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
    return ms.Structure.from_ase(atoms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("argon", "vacancies", "sizes"))
    parser.add_argument("--systems", type=int, default=64, help="of argon, and vacancies")
    parser.add_argument("--peers", type=int, default=4, help="systems that ASE relaxes")
    parser.add_argument("--torch-sim", metavar="PYTHON", help="interpreter that has torch-sim")
    parser.add_argument("--structures", type=int, default=1000, help="of different sizes")
    options = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.default_backend()}, float64")
    parts = {
        "argon": lambda: argon(options.systems, options.peers, options.torch_sim),
        "vacancies": lambda: vacancies(options.systems),
        "sizes": lambda: sizes(options.structures),
    }
    for name, part in parts.items():
        if options.only in (None, name):
            memory.forget()
            part()


if __name__ == "__main__":
    main()
