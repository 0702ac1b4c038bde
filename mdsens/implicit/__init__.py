"""Implicit differentiation for any solver: knows no atoms."""

from mdsens.implicit.inverse import BracketedNewton, inverse, triangular_inverse
from mdsens.implicit.linear import GMRES, ConjugateGradient, Dense, NearlySymmetric
from mdsens.implicit.rule import fixed_point, root

__all__ = [
    "BracketedNewton",
    "ConjugateGradient",
    "Dense",
    "GMRES",
    "NearlySymmetric",
    "fixed_point",
    "inverse",
    "root",
    "triangular_inverse",
]
