"""What a user waits for once: the first relaxation and gradient of a process, and structures of many sizes.

    python benchmarks/first_call.py                  # a vacancy of 215 silicon atoms, then 100 structures
    python benchmarks/first_call.py --structures 0   # without those

Each line is a fresh process: the first with an empty cache on disk, the second with what that one left there.
Structures of many sizes have 20 to 200 silicon atoms, 15 % of the sites empty, rattled by 0.1 Å; they are
relaxed in one batch without a cache. Processor time, which other work on the machine hardly changes; JAX
compiles on several cores, so that it is shorter on the clock of a free machine. Budgets: 3 s for a relaxation
with a cache, 10 s without, 5 s for the gradient; 6 compilations of steppers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SLOW = ("advance", "_advance_all")  # whole walks: what takes seconds to compile
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
MIB = 2**20


def resident() -> float:
    """Memory of this process, MiB; NaN where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * PAGE / MIB if statm.exists() else float("nan")


def compiled_programs() -> Counter[str]:
    """Counts programs by name from now on, as they are compiled or loaded."""
    import jax

    seen: Counter[str] = Counter()

    def listen(event: str, duration: float, **facts: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen[str(facts.get("fun_name"))] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    return seen


def one() -> dict[str, float]:
    """Import, relaxation and gradient of this process, s."""
    begun = time.process_time()
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from crystals import silicon_vacancy

    import mdsens as ms

    potential, start = ms.load_potential("si-stillinger-weber-1985"), silicon_vacancy(3)
    ready = time.process_time()
    jax.block_until_ready(ms.relax(potential, start).structure.positions)
    relaxed = time.process_time()

    def size(potential: ms.Potential) -> jax.Array:
        return jnp.sum(ms.relax(potential, start).structure.positions ** 2)

    jax.block_until_ready(jax.grad(size)(potential))
    done = time.process_time()
    return {"import": ready - begun, "relaxation": relaxed - ready, "gradient": done - relaxed}


def many(structures: int) -> dict[str, float]:
    """Compilations and memory of a batch."""
    import jax
    import numpy as np

    jax.config.update("jax_enable_x64", True)
    from batches import disordered

    import mdsens as ms

    rng = np.random.default_rng(0)
    given = [disordered(rng) for _ in range(structures)]
    seen, memory = compiled_programs(), []
    begun = time.process_time()
    potential = ms.load_potential("si-stillinger-weber-1985")
    watch = lambda progress: memory.append((resident(), seen.total()))
    ms.observables_batch(potential, given, "energy", fmax=1e-3, progress=watch)
    slow = sum(count for name, count in seen.items() if any(f"({word})" in name for word in SLOW))
    last = next(k for k, (_, programs) in enumerate(memory) if programs == seen.total())
    return {
        "seconds": time.process_time() - begun,
        "slow": slow,
        "programs": seen.total(),
        "last": last + 1,
        "then": memory[last][0],
        "end": memory[-1][0],
    }


def child(*arguments: str, cache: str) -> dict[str, float]:
    """What a fresh process measures of itself."""
    environment = dict(os.environ, MDSENS_COMPILE_CACHE=cache, TF_CPP_MIN_LOG_LEVEL="3")
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, __file__, *arguments]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structures", type=int, default=100, help="of many sizes")
    parser.add_argument("--measure", choices=("one", "many"), help="measure this process itself")
    options = parser.parse_args()
    if options.measure == "one":
        print(json.dumps(one()))
    elif options.measure == "many":
        print(json.dumps(many(options.structures)))
    else:
        tell(options.structures)


def tell(structures: int) -> None:
    """Run the processes, and print what they found."""
    with tempfile.TemporaryDirectory() as cache:
        for name in ("empty", "warm"):
            t = child("--measure", "one", cache=cache)
            print(
                f"{name} cache: import {t['import']:.1f} s, first relaxation {t['relaxation']:.1f} s,", end=""
            )
            print(f" first gradient {t['gradient']:.1f} s", flush=True)
    if structures:
        m = child("--measure", "many", "--structures", str(structures), cache="off")
        print(
            f"{structures} structures of many sizes: {m['seconds']:.0f} s, {m['slow']:.0f} compilations of ",
            end="",
        )
        print(
            f"steppers, {m['programs']:.0f} of all programs, the last at structure {m['last']:.0f}; ", end=""
        )
        print(f"{m['then']:.0f} MiB then, {m['end']:.0f} MiB at the end")


if __name__ == "__main__":
    main()
