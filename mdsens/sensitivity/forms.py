"""The forms in which a derivative is shown: plain, or of and by logarithms."""

from typing import Literal

import numpy as np
from jaxtyping import Float

from mdsens.errors import InputError

Kind = Literal["elasticity", "log", "plain"]
KINDS: dict[str, str] = {"elasticity": "d ln(O) / d ln(θ)", "log": "dO / d ln(θ)", "plain": "dO / dθ"}

Matrix = Float[np.ndarray, "observables parameters"]


def in_form(kind: Kind, derivative: Matrix, theta: np.ndarray, values: np.ndarray) -> Matrix:
    """dO/dtheta in another form.

    Args:
        kind: "plain" dO/dtheta; "log" dO/dln(theta); "elasticity" dln(O)/dln(theta), a number without unit.
            An observable that is zero has no elasticity: NaN, and 0 where its derivative is 0 as well.
    Raises:
        InputError: another kind.
    """
    match kind:
        case "plain":
            return derivative
        case "log":
            return derivative * theta
        case "elasticity":
            log, column = derivative * theta, values[:, None]
            undefined = np.where(log == 0, 0.0, np.nan) + np.zeros_like(column)
            return np.where(column == 0, undefined, log / np.where(column == 0, 1.0, column))
    raise InputError(f"kind '{kind}' is unknown: use {', '.join(KINDS)}.")
