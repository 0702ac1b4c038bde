"""Forces, relaxation and derivative on an accelerator.

Right against the CPU, and how fast from 10³ to 10⁶ atoms.

    python benchmarks/gpu.py                       # an accelerator if JAX sees one, else the CPU
    python benchmarks/gpu.py --sizes 5 10 20       # cubic cells of silicon along an edge (8 atoms each)

Self-contained: silicon with a vacancy, Stillinger-Weber, float64. First the check: energy, forces, relaxed
positions and the derivative of a scalar of x* on the accelerator against the same on the CPU, at 999 atoms.
Then the times, each the
median over repetitions after compilation:

    force     energy, forces and stress with a list that is there
    rebuild   neighbor list: the builder this device uses by itself
    relax     from 0.02 Å rattled positions to 1e-6 eV/Å, rebuilds included
    adjoint   gradient of a scalar of x* w.r.t. all parameters, once relaxed
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

from ase.build import bulk  # noqa: E402

import mdsens as ms  # noqa: E402
from mdsens.quantities import evaluate  # noqa: E402
from mdsens.relaxation.memory import forget  # noqa: E402

NUMBERS = dict(
    epsilon=2.1683,
    sigma=2.0951,
    a=1.8,
    lambda_=21.0,
    gamma=1.2,
    costheta0=-1 / 3,
    A=7.049556277,
    B=0.6022245584,
    p=4.0,
    q=0.0,
)
POTENTIAL = ms.StillingerWeber(**NUMBERS, elements=("Si",))
FMAX = 1e-6


def vacancy(cells: int) -> ms.Structure:
    """cells³ cubic cells less one atom, rattled, the four neighbors of the hole drawn in."""
    atoms = bulk("Si", a=5.431, cubic=True) * (cells, cells, cells)
    d = atoms.positions - atoms.positions[0]
    d -= np.round(d / atoms.cell[0, 0]) * atoms.cell[0, 0]
    r = np.linalg.norm(d, axis=1)
    near = (r > 0.1) & (r < 2.5)
    atoms.positions[near] -= 0.4 * d[near] / r[near, None]
    atoms.positions += np.random.default_rng(0).normal(scale=0.02, size=atoms.positions.shape)
    del atoms[0]
    return ms.Structure.from_ase(atoms)


def scalar(potential: ms.Potential, structure: ms.Structure, fmax: float) -> jax.Array:
    """A number of the relaxed state: spread of the atoms around the hole."""
    x = ms.relax(potential, structure, fmax=fmax, check_minimum=False).structure.positions
    return jnp.sum((x[:8] - structure.positions[:8]) ** 2)


def seconds(action, repetitions: int) -> float:
    jax.block_until_ready(action())  # compiles
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        jax.block_until_ready(action())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def results(device: jax.Device) -> dict[str, np.ndarray]:
    with jax.default_device(device):
        forget()
        potential, structure = jax.tree.map(
            lambda leaf: jax.device_put(leaf, device), (POTENTIAL, vacancy(5))
        )
        energy, forces, stress = ms.energy_forces_stress(potential, structure)
        state = ms.relax(potential, structure, fmax=1e-9, check_minimum=False)
        gradient = jax.grad(scalar)(potential, structure, 1e-9)
        x = state.structure.positions
        return {
            "energy": np.asarray(energy),
            "forces": np.asarray(forces),
            "stress": np.asarray(stress),
            "relaxed positions": np.asarray(x - jnp.mean(x, axis=0)),
            "derivative": np.array([np.asarray(leaf) for leaf in jax.tree.leaves(gradient)]),
        }


def compare(device: jax.Device) -> None:
    """Print the largest difference of each result from the CPU's, relative to its largest entry.

    Stop if one is off.
    """
    reference, mine = results(jax.devices("cpu")[0]), results(device)
    print("agreement with the CPU, 999 atoms (largest difference / largest entry)")
    for name, value in reference.items():
        off = float(np.max(np.abs(mine[name] - value)) / np.max(np.abs(value)))
        print(f"  {name:18s} {off:.1e}")
        # positions and derivative are as good as the relaxation: 1e-9 eV/Å over a curvature of 0.1 eV/Å²
        limit = 1e-7 if name in ("relaxed positions", "derivative") else 1e-11
        if off > limit:
            raise SystemExit(
                f"{name} on {device.device_kind} is off by {off:.1e}, more than {limit:.0e}: do not trust "
                "this device."
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[5, 11, 23, 50], help="cubic cells along an edge"
    )
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform}: {device.device_kind}, float64")
    if device.platform != "cpu":
        compare(device)
    print(f"{'atoms':>8} {'force ms':>9} {'rebuild ms':>11} {'relax s':>8} {'steps':>6} {'adjoint s':>10}")
    for cells in options.sizes:
        structure = vacancy(cells)
        neighbors = ms.neighbors_of(POTENTIAL, structure, 0.377)

        def relaxed(structure=structure):
            forget()
            return ms.relax(POTENTIAL, structure, fmax=FMAX, check_minimum=False)

        force = seconds(
            lambda structure=structure, neighbors=neighbors: evaluate(POTENTIAL, structure, neighbors), 10
        )
        rebuild = seconds(
            lambda structure=structure: ms.neighbors_of(POTENTIAL, structure, 0.377).i, options.repetitions
        )
        walk = seconds(lambda relaxed=relaxed: relaxed().structure.positions, options.repetitions)
        steps = int(relaxed().steps)
        adjoint = seconds(
            lambda structure=structure: jax.tree.leaves(jax.grad(scalar)(POTENTIAL, structure, FMAX)),
            options.repetitions,
        )
        print(
            f"{structure.n_atoms:8d} {1e3 * force:9.2f} {1e3 * rebuild:11.1f} {walk:8.2f} {steps:6d} "
            f"{adjoint:10.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
