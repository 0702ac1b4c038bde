"""All positions of a tungsten vacancy by all coefficients of SNAP: the time of one block of solves.

    python benchmarks/snap_jacobian.py          # 53 and 127 atoms

The relaxation and the first call, which compiles, are kept apart. The error is that of the Jacobian along a
random change of all coefficients, against re-relaxations.
"""

import argparse
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from ase.build import bulk

jax.config.update("jax_enable_x64", True)

import mdsens as ms  # noqa: E402

EDGE = 3.1804596464683366  # Å


def vacancy(repeat: int) -> ms.Structure:
    atoms = bulk("W", "bcc", a=EDGE, cubic=True) * repeat
    del atoms[0]
    return ms.Structure.from_ase(atoms)


def positions(n_atoms: int) -> ms.Observable:
    """Every coordinate of every atom."""

    def flat(potential: Any, states: Any) -> tuple[jax.Array, ...]:
        return tuple(states["structure"].structure.positions.reshape(-1))

    names = tuple(f"x{k}" for k in range(3 * n_atoms))
    return ms.Observable(names=names, units=("Å",) * len(names), function=flat)


def jacobian(relaxed: Any, coefficients: list[str]) -> np.ndarray:
    """(coordinates, coefficients), Å."""
    where = positions(relaxed.structure.n_atoms)
    return ms.first_order(relaxed, where, coefficients, mode="forward")[1]


def error_along(potential: Any, relaxed: Any, found: np.ndarray, step: float = 1e-4) -> float:
    """Of the Jacobian along a change of all coefficients, relative to the change that re-relaxing gives."""
    beta = potential.parts[1].beta
    direction = np.asarray(beta) * np.random.default_rng(3).normal(size=beta.shape)

    def moved(s: float) -> np.ndarray:
        changed = eqx.tree_at(lambda p: p.parts[1].beta, potential, beta + s * jnp.asarray(direction))
        return np.asarray(ms.relax(changed, relaxed.structure, fmax=1e-11).structure.positions).reshape(-1)

    def slope(h: float) -> np.ndarray:
        return (moved(h) - moved(-h)) / (2 * h)

    wanted = (4 * slope(step) - slope(2 * step)) / 3
    return float(np.linalg.norm(found @ direction - wanted) / np.linalg.norm(wanted))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repeats", type=int, nargs="*", default=[3, 4], help="cells along each edge")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    potential = ms.load_potential("w-snap-2017")
    coefficients = [name for name in ms.parameter_values(potential) if "beta" in name]
    print(f"jax {jax.__version__}; {len(coefficients)} coefficients; s")
    print(f"{'atoms':>6}{'relax':>9}{'first':>9}{'then':>9}{'error':>10}")
    for repeat in options.repeats:
        structure = vacancy(repeat)
        ms.relax(potential, structure, fmax=1e-11)
        start = time.perf_counter()
        relaxed = ms.relax(potential, structure, fmax=1e-11)
        times = [time.perf_counter() - start]
        for _ in range(options.repetitions + 1):
            start = time.perf_counter()
            found = jacobian(relaxed, coefficients)
            times.append(time.perf_counter() - start)
        error = error_along(potential, relaxed, found)
        shown = "".join(f"{t:9.2f}" for t in (times[0], times[1], min(times[2:])))
        print(f"{structure.n_atoms:6d}{shown}{error:10.1e}", flush=True)


if __name__ == "__main__":
    main()
