"""Steps of molecular dynamics by mdsens, LAMMPS and jax-md on one core; and ASE's by mdsens' calculator.

    python benchmarks/dynamics.py              # Lennard-Jones and Stillinger-Weber, about 4000 atoms
    python benchmarks/dynamics.py --atoms 500

All start from one rattled crystal at 300 K (argon: 30 K), with a skin of 0.5 Å, in float64, and renew their
lists when atoms have used it up. Times are the least of several runs: other work on the machine only adds.
"""

import argparse
import time
from typing import Any

import forces  # one core, float64
import jax
import jax.numpy as jnp
import numpy as np
from forces import SKIN, crystal, potential_of
from timing import least

import mdsens as ms

TIMESTEP = 1.0  # fs
HOT = {"lj": 30.0, "sw": 300.0}  # K


def velocities_of(form: str, structure: ms.Structure) -> np.ndarray:
    """Å/fs."""
    masses = np.asarray(structure.masses)[:, None]
    spread = np.sqrt(ms.units.BOLTZMANN * HOT[form] * ms.units.ACCELERATION / masses)
    v = spread * np.random.default_rng(0).normal(size=structure.positions.shape)
    return v - np.average(v, axis=0, weights=masses[:, 0])


def ours(form: str, structure: ms.Structure, v: np.ndarray, steps: int) -> float:
    """Time of a step, ms: the difference of a long and a short run, without what every run begins with."""
    options: dict[str, Any] = {"velocities": v, "timestep": TIMESTEP, "skin": SKIN}
    potential = potential_of(form)

    def run(steps: int) -> None:
        ms.dynamics.nve(potential, structure, steps=steps, record_every=steps, **options)

    run(10)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        run(10)
        middle = time.perf_counter()
        run(10 + steps)
        times.append(time.perf_counter() - middle - (middle - began))
    return 1e3 * min(times) / steps


def lammps(form: str, atoms: Any, v: np.ndarray, steps: int) -> float | str:
    """Time of a step of LAMMPS, ms; or why there is none."""
    program = forces.lammps_program(form, atoms)
    if isinstance(program, str):
        return program
    x = atoms.get_positions(wrap=True).ravel().tolist()
    program.create_atoms(len(atoms), None, [1] * len(atoms), x, v=(1e3 * v).ravel().tolist())
    program.commands_string(
        f"fix 1 all nve\ntimestep {TIMESTEP / 1000}\nneigh_modify every 1 delay 0 check yes\nrun 5"
    )
    return min(least(lambda: program.command(f"run {steps} pre no post no"), 2) / steps for _ in range(2))


def jaxmd(form: str, atoms: Any, v: np.ndarray, steps: int) -> float | str:
    """Time of a step of jax-md, ms, its list renewed as its documentation does; or why there is none."""
    try:
        from jax_md import simulate
    except ImportError as error:
        return f"no jax-md here ({error})"
    search, energy, shift = forces.jaxmd_energy(form, atoms)
    unit = ms.units.ACCELERATION * TIMESTEP**2
    _, apply = simulate.nve(lambda x, neighbor: unit * energy(x, neighbor=neighbor), shift, 1.0)
    masses = jnp.asarray(atoms.get_masses())[:, None]
    x = jnp.asarray(atoms.get_positions(wrap=True))
    neighbors = search.allocate(x)
    zero: Any = {"position": x, "momentum": masses * v, "force": jnp.zeros_like(x), "mass": masses}

    @jax.jit
    def walk(state: Any, neighbors: Any) -> Any:
        def step(_: Any, now: Any) -> Any:
            state, neighbors = now
            neighbors = neighbors.update(state.position)
            return apply(state, neighbor=neighbors), neighbors

        return jax.lax.fori_loop(0, steps, step, (state, neighbors))

    return least(lambda: walk(simulate.NVEState(**zero), neighbors), 2) / steps


def by_ase(form: str, atoms: Any, v: np.ndarray, steps: int) -> tuple[float, float]:
    """A step of ASE's Verlet with our calculator, and a bare call of it, ms."""
    from ase.md.verlet import VelocityVerlet

    calculator = ms.calculators.MDSens(potential_of(form), skin=SKIN)
    moved = atoms.copy()
    moved.calc = calculator
    moved.set_velocities(v / np.sqrt(ms.units.ACCELERATION))
    dynamics = VelocityVerlet(moved, TIMESTEP * np.sqrt(ms.units.ACCELERATION))
    dynamics.run(3)
    step = least(lambda: dynamics.run(steps), 3) / steps
    rng = np.random.default_rng(1)

    def call() -> None:
        moved.positions += 1e-6 * rng.normal(size=moved.positions.shape)
        calculator.calculate(moved, ["energy", "forces"], ["positions"])

    return step, least(call, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    print(
        f"jax {jax.__version__}, one core, float64, skin {SKIN} Å; ms a step, and in brackets ratios to ours"
    )
    head = ("ours", "bare force", "LAMMPS", "jax-md", "ASE", "bare call")
    print(f"{'form':5}{'atoms':>7}" + "".join(f"{name:>16}" for name in head))
    for form in ("lj", "sw"):
        atoms = crystal(form, options.atoms)
        structure = ms.Structure.from_ase(atoms)
        v = velocities_of(form, structure)
        times: dict[str, float | str] = {"ours": ours(form, structure, v, options.steps)}
        given = (
            potential_of(form),
            structure,
            ms.find_neighbors(structure, float(potential_of(form).cutoff), SKIN),
        )
        times["bare force"] = least(lambda given=given: forces.forces(*given))
        times["LAMMPS"] = lammps(form, atoms, v, options.steps)
        times["jax-md"] = jaxmd(form, atoms, v, max(options.steps // 20, 5))
        times["ASE"], times["bare call"] = by_ase(form, atoms, v, options.steps // 4)
        print(f"{form:5}{len(atoms):7d}" + "".join(cell(times, name) for name in head), flush=True)
        for reason in (t for t in times.values() if isinstance(t, str)):
            print(f"left out: {reason}")


def cell(times: dict[str, float | str], name: str) -> str:
    found = times[name]
    if isinstance(found, str):
        return f"{'-':>16}"
    return f"{found:9.2f} ({found / float(times['ours']):4.2f})"


if __name__ == "__main__":
    main()
