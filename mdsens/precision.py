"""Float64 or nothing: in float32 a relaxation stalls at 1e-4 eV/Å and its derivative is noise."""

import jax

from mdsens.errors import PrecisionError


def require_x64() -> None:
    """Raise unless JAX computes in float64.

    Raises:
        PrecisionError: float64 is off; the message says how to turn it on.
    """
    if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]  (JAX makes it at import)
        raise PrecisionError(
            "JAX is running in float32: forces would stall near 1e-4 eV/Å and derivatives of relaxed states "
            "would "
            'be meaningless. Call jax.config.update("jax_enable_x64", True) before anything else, or set the '
            "environment variable JAX_ENABLE_X64=1."
        )
