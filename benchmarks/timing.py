"""How long something takes, on a machine that may do other things as well."""

import time
from collections.abc import Callable

import jax

clock = time.perf_counter  # or time.process_time, beside other work on the machine


def least(action: Callable[[], object], repetitions: int = 20) -> float:
    """Shortest time of an action, ms, after a first call that compiles: other work only ever adds."""
    jax.block_until_ready(action())
    times = []
    for _ in range(repetitions):
        start = clock()
        jax.block_until_ready(action())
        times.append(clock() - start)
    return 1e3 * min(times)
