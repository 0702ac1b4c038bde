"""Sparse matrices of 3 x 3 blocks: products and the dense matrix are those of the sum of their blocks."""

import jax.numpy as jnp
import numpy as np
import pytest

from mdsens.implicit.blocks import BlockMatrix, BorderedMatrix


def whole(i, j, blocks, n):
    matrix = np.zeros((n, 3, n, 3))
    for a, b, block in zip(i, j, blocks, strict=True):
        matrix[a, :, b, :] += block
    return matrix.reshape(3 * n, 3 * n)


def random_blocks(n, entries, seed=0):
    """Any number of blocks at one place, each with its transpose at the mirrored place."""
    random = np.random.default_rng(seed)
    i, j = random.integers(0, n, (2, entries))
    blocks = random.normal(size=(entries, 3, 3))
    return np.concatenate([i, j]), np.concatenate([j, i]), np.concatenate([blocks, blocks.swapaxes(1, 2)])


@pytest.mark.parametrize(("n", "entries"), [(1, 1), (1, 5), (5, 3), (6, 60)])
def test_blocks_at_one_place_add_up_and_points_without_any_have_rows_of_zeros(n, entries):
    i, j, blocks = random_blocks(n, entries)
    matrix = BlockMatrix.of(i, j, blocks, n)
    dense = whole(i, j, blocks, n)
    assert matrix.n_points == n
    np.testing.assert_allclose(matrix.dense(), dense, atol=1e-14)
    v = np.random.default_rng(1).normal(size=3 * n)
    np.testing.assert_allclose(matrix(jnp.asarray(v)), dense @ v, atol=1e-13)


def test_widths_come_in_steps_of_four_so_that_few_programs_are_compiled():
    widths = set()
    for entries in range(1, 40):
        matrix = BlockMatrix.of(*random_blocks(8, entries, seed=entries), 8)
        widths.add(matrix.columns.shape[1])
    assert widths <= {4, 8, 12, 16}


@pytest.mark.parametrize("few", [0, 1, 6])
def test_full_rows_at_the_end_are_symmetric_to_their_columns(few):
    n = 4
    i, j, blocks = random_blocks(n, 12)
    random = np.random.default_rng(2)
    border = random.normal(size=(few, 3 * n + few))
    corner = border[:, 3 * n :]
    border[:, 3 * n :] = corner + corner.T
    matrix = BorderedMatrix(BlockMatrix.of(i, j, blocks, n), jnp.asarray(border))
    dense = np.zeros((3 * n + few, 3 * n + few))
    dense[: 3 * n, : 3 * n] = whole(i, j, blocks, n)
    dense[3 * n :] = border
    dense[:, 3 * n :] = border.T
    np.testing.assert_allclose(matrix.dense(), dense, atol=1e-14)
    v = random.normal(size=3 * n + few)
    np.testing.assert_allclose(matrix(jnp.asarray(v)), dense @ v, atol=1e-13)
