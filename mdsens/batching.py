"""One function, many directions: all at once while they are small, one after another where memory counts."""

from collections.abc import Callable
from typing import Any

import jax

AT_ONCE = 1_000_000  # numbers in all rows together up to which they are mapped at once


def map_rows(function: Callable[..., Any], *rows: Any, batch: int = 1) -> Any:
    """function of each row of the arguments (pytrees with a common leading axis), stacked.

    Products with the Hessian of 10⁵ atoms take about a gigabyte each: a dozen at once would not fit.

    Args:
        function: of one row.
        rows: the arguments.
        batch: rows at once where they are too many for all at once; more than 1 where the function takes little memory.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(rows))
    if size <= AT_ONCE:
        return jax.vmap(function)(*rows)
    return jax.lax.map(lambda row: function(*row), rows, batch_size=batch if batch > 1 else None)
