"""Programs that run once or twice for each state: compiled without optimizations, in a fifth of the time.

A first relaxation waits for its programs. Most of them run thousands of times, and are worth every
optimization; others take a tenth of a millisecond once, and compiling takes half a second. Without
optimizations they take twice as long to run.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jax.core import Tracer, eval_context

OPTIONS: Any = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}


def while_loop(unfinished: Callable[[Any], Any], step: Callable[[Any], Any], state: Any) -> Any:
    """`jax.lax.while_loop` inside a program that is being compiled; on plain numbers, a loop of the host."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(state)):
        return jax.lax.while_loop(unfinished, step, state)
    while bool(unfinished(state)):
        state = step(state)
    return state


def compiled_soon(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled for plain numbers with little effort; others as usual."""
    jit: Any = eqx.filter_jit  # hands further options on to `jax.jit`
    quick = jit(function, compiler_options=OPTIONS)
    ordinary = eqx.filter_jit(function)

    def run(*args: Any) -> Any:
        traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(args))
        if traced or jax.default_backend() != "cpu":
            return ordinary(*args)
        with eval_context():  # options belong to a program of its own, also where JAX traces all it sees
            return quick(*args)

    return run
