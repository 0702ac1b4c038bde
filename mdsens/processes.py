"""Forked processes: where JAX was used before a fork, the child would wait for ever. Here it says so.

XLA computes in threads. `os.fork` copies the memory of a process and none of its threads, so in the child the
first computation waits for threads that do not exist. A child that runs another program (`subprocess`), one
started by spawn or forkserver, or one forked off before JAX was used, has no such trouble.
"""

import os
import sys

from mdsens.errors import ForkError

ALLOW = "MDSENS_ALLOW_FORK"  # environment variable that switches the check off

_threads_lost = False  # in a child: JAX had its threads when the process was forked off


def require_threads() -> None:
    """Raise in a process that was forked off after JAX had been used.

    Raises:
        ForkError: says how to start processes instead.
    """
    if _threads_lost and not os.environ.get(ALLOW):
        raise ForkError(
            f"process {os.getpid()} was forked off after JAX had been used: the threads that JAX computes "
            "with are not here, and it would wait for them for ever. Start processes with "
            'multiprocessing.get_context("spawn") (or "forkserver"), as in '
            'ProcessPoolExecutor(mp_context=get_context("spawn")); or fork before the first computation.'
        )


def _after_fork() -> None:
    global _threads_lost
    _threads_lost = _threads_lost or _jax_runs()


def _jax_runs() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    initialized = getattr(bridge, "backends_are_initialized", None)  # JAX's own, but not public
    return initialized is not None and bool(initialized())


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
