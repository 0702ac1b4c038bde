"""Compiling for a test: most functions run once.

And then the compiler takes longer to optimize than it saves.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx


def quick_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """`equinox.filter_jit` without optimization of the machine code."""
    return eqx.filter_jit(function, compiler_options={"xla_backend_optimization_level": 0})
