"""Waves that have the period of a cell, exp(i k . x), for sums over reciprocal space.

With the cell vectors as rows of h, they are k = 2 pi n h^-T for whole n: k . (x + m h) = k . x + 2 pi n . m.
A set of waves is its whole numbers n. These stay what they are while the cell moves, and k moves with the
cell: an energy that is a sum over the set has exact derivatives by the strain. Of n and -n one is kept, and
the constant wave n = 0 is left out.
"""

import numpy as np

from mdsens.errors import InputError

WAVES_LIMIT = 4_000_000  # of a set; with the structure factors of some atoms that is a gigabyte


def find_waves(cell: np.ndarray, limit: float) -> np.ndarray:
    """(waves, 3): n of all waves with 0 < |k| < limit (1/Å), one of n and -n, the longest waves first.

    Raises:
        InputError: there are more than WAVES_LIMIT.
    """
    # |n_a| = |k . a| / 2 pi <= |k| |a| / 2 pi
    lengths = np.linalg.norm(cell, axis=1)
    largest = np.floor(limit * lengths / (2 * np.pi)).astype(int)
    expected = abs(np.linalg.det(cell)) * limit**3 / (12 * np.pi**2)
    if expected > WAVES_LIMIT:
        shortest = 2 * np.pi / limit
        raise InputError(
            f"about {expected:.1e} waves of this cell are longer than {shortest:.3g} Å; the limit is "
            f"{WAVES_LIMIT:.0e}. Take a longer cutoff_radius or a lower accuracy of the Ewald sum."
        )
    na, nb, nc = (np.arange(-m, m + 1) for m in largest)
    grid = np.meshgrid(na[na >= 0], nb, nc, indexing="ij")
    n = np.stack(grid, -1).reshape(-1, 3)
    a, b, c = n.T
    # one of n and -n: the first number that is not zero is positive
    on_line = (a == 0) & (b == 0)
    positive = (a > 0) | ((a == 0) & (b > 0)) | (on_line & (c > 0))
    n = n[positive]
    k = 2 * np.pi * n @ np.linalg.inv(cell).T
    squares = np.sum(k * k, axis=1)
    inside = squares < limit * limit
    order = np.argsort(squares[inside], kind="stable")
    return n[inside][order].astype(np.int32)


def outlast(limit: float, stretch: float) -> float:
    """The limit (1/Å) for a set that still holds all waves below `limit` when the cell has stretched.

    Args:
        stretch: the largest |F - 1| of a deformation h -> h F, as `Neighbors.slack` measures it.
    """
    # k' = k F^-T, so |k| <= |F| |k'| <= (1 + |F - 1|) |k'|: what was left out was longer than this.
    return limit * (1 + stretch)


def padded(waves: np.ndarray, slots: int) -> np.ndarray:
    """The set with constant waves behind it, which sums leave out."""
    return np.pad(waves, ((0, slots - len(waves)), (0, 0)))
