"""Functions of many rows: in pieces of one shape, all at once, or one after another.

With the same results.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mdsens.batching import map_pieces


@pytest.mark.parametrize("n", [1, 5, 8, 13])
def test_pieces_give_what_the_whole_gives(n):
    rows, other = np.arange(3.0 * n).reshape(n, 3), np.arange(float(n))
    shapes, told = set(), []

    def function(x, y):
        shapes.add(x.shape)
        return jnp.sum(x, axis=1) + y, 2 * x

    sums, doubled = map_pieces(function, rows, other, at_once=8, progress=told.append)
    assert_array_equal(sums, rows.sum(1) + other)
    assert_array_equal(doubled, 2 * rows)
    assert len(shapes) == 1, "each shape would be compiled"
    assert told[-1] == n
