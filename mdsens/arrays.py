"""Arrays on the device, out of plain numbers; rows of different lengths in one of them."""

import hashlib
import os
from collections.abc import Iterable
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


def places_in_rows(counts: np.ndarray) -> np.ndarray:
    """Place of each entry in its row, for entries that stand row after row.

    Args:
        counts: entries of each row.
    """
    begins = np.cumsum(counts) - counts
    return np.arange(counts.sum()) - np.repeat(begins, counts)


def fingerprint(arrays: Iterable[Any], *texts: str) -> str:
    """A text that differs where numbers, their types or shapes, or the texts differ; the same everywhere."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    for array in arrays:
        plain = np.ascontiguousarray(array)
        digest.update(f"{plain.dtype}{plain.shape}".encode())
        digest.update(plain.tobytes())
    return digest.hexdigest()


def device_memory() -> float:
    """Memory of the device that computes, bytes; of the machine where the device has none of its own."""
    stats: Any = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    if not hasattr(os, "sysconf"):  # Windows
        return float("inf")
    return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
