"""Relaxation and sensitivity from 10³ to 64·10³ atoms.

Time, its exponent, and peak memory, each size in its own process.

    python benchmarks/scaling.py            # argon and silicon, about 1e3, 8e3 and 64e3 atoms

"sensitivity" is one relaxation and one gradient of a scalar of x* w.r.t. all parameters (an adjoint solve),
after compilation. The exponent is that of a straight line through log(time) against log(atoms).
"""

import json
import math
import resource
import subprocess
import sys
import time

SIZES = {"argon": (6, 13, 25), "silicon": (5, 10, 20)}  # cubic cells along an edge: 4 and 8 atoms each


def measure(kind: str, cells: int) -> dict[str, float]:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from crystals import argon_vacancy, silicon_vacancy

    import mdsens as ms
    from mdsens.relaxation.memory import forget

    structure = argon_vacancy(cells) if kind == "argon" else silicon_vacancy(cells)
    potential = ms.load_potential("ar-lennard-jones" if kind == "argon" else "si-stillinger-weber-1985")

    def spread(p):
        return jnp.sum(ms.relax(p, structure, fmax=1e-8, check_minimum=False).structure.positions[:8] ** 2)

    times = {}
    for _ in range(2):  # the first compiles
        forget()
        start = time.perf_counter()
        state = ms.relax(potential, structure, fmax=1e-8, check_minimum=False)
        jax.block_until_ready(state.structure.positions)
        times["relax"] = time.perf_counter() - start
        jax.block_until_ready(jax.tree.leaves(jax.grad(spread)(potential)))
        times["sensitivity"] = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"atoms": structure.n_atoms, "steps": int(state.steps), **times, "memory": memory}


def main() -> None:
    if len(sys.argv) > 2:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
        return
    kinds = sys.argv[1:] or list(SIZES)
    for kind in kinds:
        print(f"{kind}\n{'atoms':>7} {'steps':>6} {'relax s':>9} {'sensitivity s':>14} {'peak GiB':>9}")
        rows = []
        for cells in SIZES[kind]:
            answer = subprocess.run(
                [sys.executable, __file__, kind, str(cells)], capture_output=True, text=True, check=True
            )
            row = json.loads(answer.stdout.splitlines()[-1])
            rows.append(row)
            print(
                f"{row['atoms']:7d} {row['steps']:6d} {row['relax']:9.2f} {row['sensitivity']:14.2f} "
                f"{row['memory']:9.2f}",
                flush=True,
            )
        x = [math.log(r["atoms"]) for r in rows]
        for name in ("relax", "sensitivity"):
            y = [math.log(r[name]) for r in rows]
            mx, my = sum(x) / len(x), sum(y) / len(y)
            slope = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum(
                (a - mx) ** 2 for a in x
            )
            print(f"exponent of {name}: {slope:.2f}")


if __name__ == "__main__":
    main()
