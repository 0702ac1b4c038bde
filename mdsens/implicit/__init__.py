"""Implicit differentiation for any solver: knows no atoms."""

from mdsens.implicit.linear import GMRES, ConjugateGradient, Dense, NearlySymmetric
from mdsens.implicit.rule import fixed_point, root

__all__ = ["ConjugateGradient", "Dense", "GMRES", "NearlySymmetric", "fixed_point", "root"]
