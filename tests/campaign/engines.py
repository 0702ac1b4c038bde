"""Engines that the contract of campaigns is tested with; each is a context that gives an executor."""

import os
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


@contextmanager
def dask(folder):
    """Two processes, as `local` sets them."""
    if find_spec("distributed") is None:
        pytest.skip("Dask is not installed: pip install 'mdsens[campaign]'")
    from mdsens.campaign import local

    with workers_find(HERE), local(2) as executor:
        yield executor


@contextmanager
def parsl(folder):
    """Two processes of Parsl's high-throughput executor, without retries: the driver sends tasks again."""
    if find_spec("parsl") is None:
        pytest.skip("Parsl is not installed: pip install 'mdsens[parsl]'")
    from parsl.concurrent import ParslPoolExecutor
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    provider = LocalProvider(init_blocks=1, max_blocks=1)
    workers = HighThroughputExecutor(
        label="workers",
        max_workers_per_node=2,
        provider=provider,
        heartbeat_period=1,
        heartbeat_threshold=10,
        address="127.0.0.1",
    )
    config = Config(executors=[workers], run_dir=str(folder / "parsl"), retries=0, usage_tracking=0)
    with workers_find(HERE), ParslPoolExecutor(config=config) as executor:
        yield executor


@contextmanager
def workers_find(folder):
    """Processes that are started in this block find the modules of a folder, and mdsens."""
    before = os.environ.copy()
    paths = [str(folder), str(ROOT), *before.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), before["PATH"]]
    )  # Parsl's programs
    os.environ["JAX_PLATFORMS"] = "cpu"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


ENGINES = {"dask": dask, "parsl": parsl}
