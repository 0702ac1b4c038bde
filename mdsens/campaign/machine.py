"""Dask on this machine: one worker a GPU, or some processes that share the cores.

The engine is Dask's scheduler with a nanny for each worker, set so that long jitted calls and dying workers
are what they should be:

    spawn               a forked JAX has no threads
    memory_limit 0      a nanny would pause and kill workers at 80 % of the machine's memory
    worker-ttl None     a call that holds Python's lock for minutes does not count as death
    allowed-failures 3  a task that takes workers with it begins four times; its attempts are counted
    one thread a worker JAX computes with threads of its own
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from mdsens.checks import whole
from mdsens.errors import CampaignError, InputError

SETTINGS = {
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.scheduler.worker-ttl": None,
    "distributed.scheduler.allowed-failures": 3,
    "distributed.worker.daemon": True,
    "distributed.admin.large-graph-warning-threshold": "1GB",
}


def require_dask() -> None:
    """Raise if Dask is not installed.

    Raises:
        CampaignError: says how to install it.
    """
    if find_spec("distributed") is None:
        raise CampaignError(
            "local workers need Dask, which is not installed: pip install 'mdsens[campaign]'. Without an "
            "executor tasks are computed one after the other in this process."
        )


@contextmanager
def local(workers: int | str = "auto") -> Iterator[Executor]:
    """Processes on this machine as an executor.

    with local() as engine:
        run(tasks, out, engine)

    Scripts need `if __name__ == "__main__":` around it, as workers are started by spawn.

    Args:
        workers: how many; "auto": one for each GPU, else one for each core.
    Raises:
        CampaignError: Dask is not installed. InputError: no whole number.
    """
    require_dask()
    import dask.config
    from distributed import Client

    environments = worker_environments(workers)
    with dask.config.set(SETTINGS), _cluster(environments) as cluster, Client(cluster) as client:
        client.wait_for_workers(1)
        yield client.get_executor(pure=False)


def _cluster(environments: list[dict[str, str]]) -> Any:
    from distributed import Nanny, Scheduler, SpecCluster

    common = {"nthreads": 1, "memory_limit": 0, "dashboard_address": None, "silence_logs": 50}
    specs = {
        k: {"cls": Nanny, "options": {**common, "env": environment}}
        for k, environment in enumerate(environments)
    }
    scheduler: Any = {"cls": Scheduler, "options": {"dashboard_address": None, "host": "127.0.0.1"}}
    quiet: Any = 50  # a level of `logging`: what a worker's death means, the campaign says
    return SpecCluster(workers=specs, scheduler=scheduler, silence_logs=quiet)


# --- how many, and on what


def worker_environments(workers: int | str = "auto") -> list[dict[str, str]]:
    """Environment variables of each worker, which are there before JAX starts.

    Raises:
        InputError: neither "auto" nor a whole number of 1 or more.
    """
    gpus = visible_gpus()
    if workers == "auto":
        count = len(gpus) or n_cores()
    elif isinstance(workers, str):
        raise InputError(f"workers = '{workers}': give a whole number, or 'auto'.")
    else:
        count = whole("workers", workers, at_least=1)
    return [_environment(k, count, gpus) for k in range(count)]


def _environment(k: int, count: int, gpus: list[str]) -> dict[str, str]:
    threads = str(max(1, n_cores() // count))
    common = {
        "JAX_ENABLE_X64": "1",
        "NPROC": threads,  # of XLA on the CPU
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
    }
    if not gpus:
        return {**common, "JAX_PLATFORMS": "cpu"}
    shared = count > len(gpus)
    # the first JAX process takes three quarters of a GPU's memory at once: the second would find none
    preallocate = "false" if shared else "true"
    own = {"CUDA_VISIBLE_DEVICES": gpus[k % len(gpus)], "XLA_PYTHON_CLIENT_PREALLOCATE": preallocate}
    return {**common, **own}


def n_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """GPUs that may be used, as CUDA_VISIBLE_DEVICES names them; of those a queue gave, if it did."""
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [str(k) for k in range(len(lines))]
