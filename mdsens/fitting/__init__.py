"""Fits: parameters of potentials to relaxed properties, forces, and whatever else has exact derivatives."""

from mdsens.fitting.edits import EditProgress, LabelShifts, TargetCost, WeightEdit, edit_weights, label_shifts
from mdsens.fitting.fit import FitProgress, FitStatus, fit
from mdsens.fitting.force_matching import ForceMatching, LabelTolerances
from mdsens.fitting.identifiability import Identifiability
from mdsens.fitting.keeping import KeptProperties
from mdsens.fitting.matrix_free import MatrixFreeFit, MatrixFreeProgress, fit_matrix_free
from mdsens.fitting.parity import Parity, ParityPoints, parity
from mdsens.fitting.result import FitResult
from mdsens.fitting.single_loop import LoopProgress, SingleLoop, single_loop
from mdsens.fitting.space import FitVariable, GaussianPrior, ParameterSpace
from mdsens.fitting.targets import RelaxedTargets, Target, TargetStructure
from mdsens.fitting.terms import FitTerm, TermRow, TermValue
from mdsens.fitting.thermal_targets import ThermalTarget, ThermalTargets
from mdsens.fitting.train_potential import TrainedPotential, load_trained, train_potential

__all__ = [
    "EditProgress",
    "KeptProperties",
    "LabelShifts",
    "TargetCost",
    "WeightEdit",
    "edit_weights",
    "label_shifts",
    "FitProgress",
    "FitResult",
    "FitStatus",
    "FitTerm",
    "FitVariable",
    "ForceMatching",
    "GaussianPrior",
    "Identifiability",
    "LabelTolerances",
    "LoopProgress",
    "MatrixFreeFit",
    "MatrixFreeProgress",
    "ParameterSpace",
    "Parity",
    "ParityPoints",
    "RelaxedTargets",
    "SingleLoop",
    "Target",
    "TargetStructure",
    "TermRow",
    "TermValue",
    "ThermalTarget",
    "ThermalTargets",
    "TrainedPotential",
    "fit",
    "fit_matrix_free",
    "load_trained",
    "parity",
    "single_loop",
    "train_potential",
]
