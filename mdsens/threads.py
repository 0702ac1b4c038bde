"""Linear algebra of small matrices on the host: in one thread.

LAPACK cuts a matrix of a few hundred rows into pieces for all cores, and its threads then wait for each other
thousands of times. On free cores that gains nothing (768 rows, two cores: 28 ms with one thread, 24 to 35 ms
with two); with other processes on the same cores it takes 2 to 100 times as long.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_one_thread(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, with one thread for BLAS and LAPACK while it runs."""

    @functools.wraps(function)
    def alone(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with _libraries().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return alone


@functools.cache
def _libraries() -> Any:
    # found among what is loaded: NumPy and SciPy carry a library each
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
