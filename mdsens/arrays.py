"""Arrays on the device, out of plain numbers."""

from typing import Any

import jax
import numpy as np
from jax import Array
from jax.core import eval_context


def on_device(values: Any, dtype: Any = None) -> Array:
    """A copy on the device, which belongs to nobody else.

    As `jax.numpy.asarray`, which compiles a program for each shape that it meets: a few milliseconds, and a
    megabyte that never comes back.
    """
    with eval_context():  # plain numbers stay plain, also while JAX traces
        return jax.device_put(np.array(values, dtype))
