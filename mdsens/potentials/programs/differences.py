"""Derivatives of noisy functions of one number, with the error of each.

A difference at step t errs by t^2 in truncation and by noise / t in rounding, so it is made at several steps,
halved each time, and extrapolated. The spread of the table is the error.

Source: Ridders, Adv. Eng. Software 4, 75 (1982).
"""

from collections.abc import Callable

import numpy as np

STEP = 4e-3  # Å, of the farthest moving atom in the widest difference
LEVELS = 5  # halvings of the step, at most
GOOD = 1e-9  # relative error at which a difference is good enough


def difference(
    function: Callable[[float], np.ndarray], step: float, noise: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Derivative at zero of a function of one number, and an estimate of its error.

    Central differences at halved steps, extrapolated until the table stops getting better.

    Args:
        step: the widest. noise: of the function; steps are then as wide as that asks for.
    """
    # D(t) = f' + a t^2 + b t^4 + ...; with D at t and t/2, (4 D(t/2) - D(t)) / 3 is free of the first term.
    # The error of an entry is how far it lies from the two it came from; too small a step and it grows again.
    step = max(step, 30.0 * np.cbrt(noise)) if noise else step
    rows: list[list[np.ndarray]] = []
    best, error = np.zeros(0), np.zeros(0)
    for level in range(LEVELS):
        t = step / 2**level
        row = [(function(t) - function(-t)) / (2 * t)]
        for order, above in enumerate(rows[-1] if rows else []):
            factor = 4.0 ** (order + 1)
            row.append((factor * row[order] - above) / (factor - 1))
        if not rows:
            best, error = row[0], np.full_like(row[0], np.inf)
        for order in range(1, len(row)):
            lower_order, larger_step = row[order - 1], rows[-1][order - 1]
            spread = np.maximum(np.abs(row[order] - lower_order), np.abs(row[order] - larger_step))
            if np.max(spread, initial=0.0) <= np.max(error, initial=0.0):
                best, error = row[order], spread
        rows.append(row)
        if level and np.max(error, initial=0.0) <= GOOD * np.max(np.abs(best), initial=0.0):
            break
    return best, error + noise / step
