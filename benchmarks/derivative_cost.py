"""What a derivative costs, in relaxations: gradient of a scalar w.r.t.

All parameters, and the full position Jacobian.

    python benchmarks/derivative_cost.py 3 8        # cubic cells along an edge: 215 and 4095 atoms

Each time is the median over repetitions after compilation; the memory of relaxations is emptied before each
relaxation.
"""

import statistics
import sys
import time

import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)

from crystals import silicon_vacancy  # noqa: E402

import mdsens as ms  # noqa: E402
from mdsens.relaxation.memory import forget  # noqa: E402


def seconds(action, repetitions: int = 5) -> float:
    jax.block_until_ready(action())  # compile
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        jax.block_until_ready(action())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    print(
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}, float64, Stillinger-Weber, all 10 parameters"
    )
    print(f"{'atoms':>7} {'relax s':>9} {'gradient s':>11} {'ratio':>6} {'Jacobian s':>11}")
    potential = ms.load_potential("si-stillinger-weber-1985")
    for cells in [int(word) for word in sys.argv[1:]] or [3, 8]:
        structure = silicon_vacancy(cells)

        def relax(p, structure=structure):
            return ms.relax(p, structure, fmax=1e-10, check_minimum=False).structure.positions

        def anew(relax=relax):
            forget()
            return relax(potential)

        scalar = jax.grad(lambda p, relax=relax: jnp.sum(relax(p)[:8] ** 2))
        relaxation = seconds(anew)
        gradient = seconds(lambda scalar=scalar: scalar(potential))
        jacobian = seconds(lambda relax=relax: jax.jacfwd(relax)(potential))
        print(
            f"{structure.n_atoms:7d} {relaxation:9.3f} {gradient:11.3f} {gradient / relaxation:6.2f} "
            f"{jacobian:11.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
