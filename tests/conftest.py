"""Settings of every test: float64, and compiled code kept between runs."""

import ctypes
import gc
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

# BLAS threads wait by spinning: with a second test process on the same cores a small matrix takes ten times
# as long.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

# for the processes that tests start, too
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.01)

# A trace makes many small objects that live on. Looking through all of them again and again for garbage takes
# a tenth of the time of the whole run.
gc.set_threshold(200_000, 50, 100)

# Random inputs are the same in every run, and a first call may take seconds to compile.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


MAPS, MEMORY = Path("/proc/self/maps"), Path("/proc/self/statm")
FINISHED = itertools.count(1)
MOST_MAPS = 30_000  # half of what Linux allows a process
MOST_PAGES = 1_500_000  # of 4 KiB: 6 GiB, with two processes on a machine of 24


@pytest.fixture(autouse=True)
def room_for_compiled_code() -> Iterator[None]:
    """Every compiled function holds maps of memory; at 65 530 of them the compiler takes the process down.

    It holds memory, too: after some hundred tests of large systems a process has 12 GB.
    """
    yield
    if next(FINISHED) % 10 == 0 and MAPS.exists() and (_many_maps() or _much_memory()):
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what is free goes back to the system


def _many_maps() -> bool:
    return MAPS.read_bytes().count(b"\n") > MOST_MAPS


def _much_memory() -> bool:
    resident = MEMORY.read_text().split()[1]
    return int(resident) > MOST_PAGES


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--validation-report FILE`: what was compared with independent codes, in one process."""
    parser.addoption("--validation-report", type=Path, help="write comparisons with other codes to this file")
    parser.addoption(
        "--conformance-report", type=Path, help="write what holds for which potential to this file"
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report that was asked for."""
    path = session.config.getoption("--validation-report")
    if path is not None:
        from agreement import write

        write(path)
    path = session.config.getoption("--conformance-report")
    if path is not None:
        import conforming

        conforming.write(path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies in tests/peers compares with another program."""
    for item in items:
        if "peers" in item.path.parts:
            item.add_marker(pytest.mark.peer)
