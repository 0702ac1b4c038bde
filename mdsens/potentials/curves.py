"""Functions inside a potential that are tables of parameters: phi(r), rho(r), F(rho).

The knots of such a table are values of the function, or values times a known factor (r phi(r)). A change of
the function, df(x), changes the knots by factor · df at each of them, and nothing else.
"""

from typing import NamedTuple

import numpy as np

from mdsens.potentials.base import Potential
from mdsens.potentials.sums import SumPotential


class Curve(NamedTuple):
    """One tabulated function of a potential.

    Attributes:
        name: "phi[Ni-Cu]". unit: of its values.
        argument: "r". argument_unit: of x.
        x: where the knots stand, equally spaced.
        knots: flat names of the parameters that are the knots.
        factor: knot = factor · value of the function.
    """

    name: str
    unit: str
    argument: str
    argument_unit: str
    x: np.ndarray
    knots: tuple[str, ...]
    factor: np.ndarray

    @property
    def spacing(self) -> float:
        """Distance of two knots."""
        return float(self.x[1] - self.x[0])


def curves(potential: Potential) -> tuple[Curve, ...]:
    """The tabulated functions of a potential; () if it has none."""
    if isinstance(potential, SumPotential):
        named = zip(potential.part_names, potential.parts, strict=True)
        return tuple(_within(name, curve) for name, part in named for curve in curves(part))
    own = getattr(potential, "curves", None)
    return own() if own else ()


def _within(part: str, curve: Curve) -> Curve:
    knots = tuple(f"{part}.{knot}" for knot in curve.knots)
    return curve._replace(name=f"{part}.{curve.name}", knots=knots)
