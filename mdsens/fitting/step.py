"""One step of a least-squares fit: the best point of the linear model within a box.

To first order r(z + p) = r + J p. The step minimises |r + J p|^2 where that is to be believed and allowed:

    |p_v| <= radius,    |p_v| <= reach_v,    lower_v <= z_v + p_v <= upper_v.

How far first order is to be believed is measured by each step that was tried: it was off by the share

    s = |r(z + p) - (r + J p)| / |J p|

of the change that it predicted, and s grows in proportion to p. The radius is the length where s would be a
half. (The ranges in sensitivity reports are lengths where the same number is a tenth.)

Why a box and not the ball of Levenberg and Marquardt: bounds of parameters and distances to where a minimum
disappears are boxes too, and one solve takes them all. `scipy.optimize.least_squares` would do the loop as
well, but keeps its radius to itself: it can neither be told a range of validity nor go on from a file.
"""

from typing import cast

import numpy as np
from jaxtyping import Float

Vector = Float[np.ndarray, "variables"]

OFF = 0.5  # share of its prediction by which first order may be off at the radius
GROWTH = (0.25, 4.0)  # of the radius by one step, least and most
DAMPING = 1e-10  # of the largest singular value: directions below are noise, and steps stay short there


def box_step(
    jacobian: Float[np.ndarray, "rows variables"],
    residuals: Float[np.ndarray, "rows"],
    low: Vector,
    high: Vector,
) -> Vector:
    """The step that minimises |residuals + jacobian step| with low <= step <= high."""
    from scipy.optimize import lsq_linear

    n = jacobian.shape[1]
    stacked = np.column_stack([jacobian, residuals])
    if len(stacked) > n + 1:
        stacked = condensed(stacked)
    J, r = stacked[:, :n], stacked[:, n]
    damping = DAMPING * np.linalg.norm(J, 2) if J.size else 0.0
    J, r = np.concatenate([J, damping * np.eye(n)]), np.concatenate([r, np.zeros(n)])
    free = low < high
    step = np.zeros(n)
    if free.any():
        bounds = low[free], high[free]
        step[free] = lsq_linear(J[:, free], -r, bounds, method="bvls", max_iter=100 + 10 * n).x
    return np.clip(step, low, high)


def condensed(rows: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "columns columns"]:
    """A square matrix R with R^T R = rows^T rows: all that thousands of rows say about lengths."""
    return cast("np.ndarray", np.linalg.qr(rows, mode="r"))


def off_share(
    predicted: Float[np.ndarray, "rows"], found: Float[np.ndarray, "rows"], before: Float[np.ndarray, "rows"]
) -> float:
    """s: how far first order was off, as a share of the change that it predicted."""
    change = float(np.linalg.norm(predicted - before))
    return float(np.linalg.norm(found - predicted)) / change if change else np.inf


def next_radius(radius: float, length: float, share: float) -> float:
    """The radius after a step of some length that was off by a share."""
    factor = np.clip(OFF / share if share else np.inf, *GROWTH)
    believed = float(length * factor)
    # a short step that came out as predicted says nothing against a longer radius
    return max(radius, believed) if factor >= 1 else min(radius, believed)
