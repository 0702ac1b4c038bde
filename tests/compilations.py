"""Count what JAX compiles."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax


@contextmanager
def compilations() -> Iterator[list[str]]:
    """Collects the names of whatever JAX compiles, or loads from disk, eager operations included."""
    seen: list[str] = []

    def listen(event: str, duration: float, **facts: object) -> None:
        if event == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            seen.append(str(facts.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
