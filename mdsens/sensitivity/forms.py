"""The forms in which a derivative is shown: plain, or of and by logarithms."""

from typing import Literal

import numpy as np
from jaxtyping import Float

from mdsens.errors import InputError

Kind = Literal["elasticity", "log", "plain"]
KINDS: dict[str, str] = {"elasticity": "d ln(O) / d ln(θ)", "log": "dO / d ln(θ)", "plain": "dO / dθ"}

Matrix = Float[np.ndarray, "observables parameters"]


def in_form(
    kind: Kind,
    derivative: Matrix,
    theta: np.ndarray,
    values: np.ndarray,
    value_errors: np.ndarray | None = None,
) -> Matrix:
    """dO/dtheta in another form.

    Args:
        kind: "plain" dO/dtheta; "log" dO/dln(theta); "elasticity" dln(O)/dln(theta), a number without unit.
            An observable that is zero has no elasticity: NaN, and 0 where its derivative is 0 as well.
        value_errors: error bars of the values: what lies within its own is zero. By default nothing is known.
    Raises:
        InputError: another kind.
    """
    match kind:
        case "plain":
            return derivative
        case "log":
            return derivative * theta
        case "elasticity":
            log = derivative * theta
            zero = is_zero(values, value_errors)[:, None]
            undefined = np.where(log == 0, 0.0, np.nan)
            known = log / np.where(zero, 1.0, values[:, None])
            return np.where(zero, undefined, known)
    raise InputError(f"kind '{kind}' is unknown: use {', '.join(KINDS)}.")


def is_zero(values: np.ndarray, value_errors: np.ndarray | None) -> np.ndarray:
    """Which values are zero, or lie within their error bars: as C14 of a cubic crystal, which is rounding."""
    floor = np.zeros_like(values) if value_errors is None else value_errors
    return np.abs(values) <= floor
