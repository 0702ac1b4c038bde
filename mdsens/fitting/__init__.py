"""Fits: parameters of potentials to relaxed properties, forces, and whatever else has exact derivatives."""

from mdsens.fitting.fit import FitProgress, FitStatus, fit
from mdsens.fitting.identifiability import Identifiability
from mdsens.fitting.result import FitResult
from mdsens.fitting.space import FitVariable, GaussianPrior, ParameterSpace
from mdsens.fitting.targets import RelaxedTargets, Target, TargetStructure
from mdsens.fitting.terms import FitTerm, TermRow, TermValue

__all__ = [
    "FitProgress",
    "FitResult",
    "FitStatus",
    "FitTerm",
    "FitVariable",
    "GaussianPrior",
    "Identifiability",
    "ParameterSpace",
    "RelaxedTargets",
    "Target",
    "TargetStructure",
    "TermRow",
    "TermValue",
    "fit",
]
