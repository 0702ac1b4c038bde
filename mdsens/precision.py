"""What every computation needs first: float64, a process in which JAX can run, a folder for compiled code.

In float32 a relaxation stalls at 1e-4 eV/Å and its derivative is noise.
"""

import jax

from mdsens import compile_cache
from mdsens.errors import PrecisionError
from mdsens.processes import require_threads

compile_cache.set_up()  # before anything is compiled


def require_x64() -> None:
    """Raise unless JAX computes in float64, in a process that it can run in. Costs a microsecond.

    Raises:
        PrecisionError: float64 is off; the message says how to turn it on.
        ForkError: this process was forked off after JAX had been used.
    """
    require_threads()
    if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]  (JAX makes it at import)
        raise PrecisionError(
            "JAX is running in float32: forces would stall near 1e-4 eV/Å and derivatives of relaxed states "
            "would be meaningless. "
            'Call jax.config.update("jax_enable_x64", True) before anything else, or set the '
            "environment variable JAX_ENABLE_X64=1."
        )
