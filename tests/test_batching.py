"""Functions of many rows: in pieces of one shape, all at once, or one after another.

With the same results.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mdsens import batching
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


@pytest.mark.parametrize("at_once", [1, 100, 10**6])
def test_rows_give_the_same_all_at_once_and_one_after_another(at_once, monkeypatch):
    monkeypatch.setattr(batching, "AT_ONCE", at_once)
    rows = {"x": jnp.arange(15.0).reshape(5, 3), "y": jnp.arange(5.0)}
    found = batching.map_rows(lambda row: jnp.sum(row["x"]) * row["y"], rows)
    assert_array_equal(found, np.arange(15.0).reshape(5, 3).sum(1) * np.arange(5.0))


def test_pieces_are_powers_of_two_so_that_a_few_rows_more_compile_nothing():
    shapes = set()

    def function(x):
        shapes.add(len(x))
        return (jnp.asarray(x),)

    for n in (5, 6, 7, 8):
        assert len(map_pieces(function, np.zeros(n))[0]) == n
    assert shapes == {8}
