"""One function, many directions: all at once while they are small, one after another where memory counts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

AT_ONCE = 1_000_000  # numbers in all rows together up to which they are mapped at once


def map_rows(function: Callable[..., Any], *rows: Any, batch: int = 1, at_once: int = AT_ONCE) -> Any:
    """function of each row of the arguments (pytrees with a common leading axis), stacked.

    Products with the Hessian of 10⁵ atoms take about a gigabyte each: a dozen at once would not fit.

    Args:
        function: of one row.
        rows: the arguments.
        batch: rows at once where they are too many for all at once; more than 1 where the function takes
            little memory.
        at_once: numbers in all rows together up to which they are mapped at once.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(rows))
    if size <= at_once:
        return jax.vmap(function)(*rows)
    return jax.lax.map(lambda row: function(*row), rows, batch_size=batch if batch > 1 else None)


def in_blocks(rows: Array, most: int) -> Array:
    """Rows in blocks of one size, no more than `most` in each; zeros fill up the last one."""
    count = len(rows)
    blocks = max(-(-count // most), 1)
    size = -(-count // blocks)
    spare = [(0, blocks * size - count)] + [(0, 0)] * (rows.ndim - 1)
    return jnp.pad(rows, spare).reshape(blocks, size, *rows.shape[1:])


def map_pieces(
    function: Callable[..., Any],
    *rows: np.ndarray,
    at_once: int = 512,
    progress: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, ...]:
    """function of all rows, some after the other, on the host; the results of the pieces end to end.

    All pieces have one shape, a power of two, the last one filled up with copies of its last row: compiled
    once, also when the next call has some rows more.

    Args:
        function: of many rows at a time; returns a tuple of arrays with as many rows.
        rows: the arguments, with a common leading axis.
        at_once: the most rows together.
        progress: called with the number of rows done.
    """
    n = len(rows[0])
    size = min(at_once, 1 << max(0, n - 1).bit_length())
    parts = []
    for start in range(0, n, size):
        here = np.minimum(np.arange(start, start + size), n - 1)
        count = min(size, n - start)
        results = function(*(row[here] for row in rows))
        parts.append([np.asarray(result)[:count] for result in results])
        if progress is not None:
            progress(start + count)
    return tuple(np.concatenate(results) for results in zip(*parts, strict=True))
