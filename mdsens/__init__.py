"""Sensitivity analysis for molecular dynamics: relaxed states, and how they move with the potential's parameters."""

from mdsens import calculators, errors, units
from mdsens.gauge import find_gauge
from mdsens.implicit.linear import ConjugateGradient, Dense
from mdsens.neighbors import Neighbors, find_neighbors
from mdsens.potentials.base import (
    Potential,
    check_parameters,
    parameter_entries,
    parameter_values,
    replace_parameters,
)
from mdsens.potentials.cutoffs import ForceShifted, Shifted, Smooth, Truncated
from mdsens.potentials.pair import LennardJones, Morse, PairPotential, SoftSphere
from mdsens.potentials.stillinger_weber import StillingerWeber
from mdsens.quantities import EnergyForcesStress, energy, energy_forces_stress, neighbors_of
from mdsens.relaxation.auto import AutoRelaxer
from mdsens.relaxation.fire import FIRE, JaxMDFIRE
from mdsens.relaxation.lbfgs import LBFGS
from mdsens.relaxation.newton import NewtonCG
from mdsens.relaxation.relax import Relaxed, relax
from mdsens.relaxation.search import Progress, Status
from mdsens.structure import Structure, read_structure, volume

__version__ = "0.1.0"

__all__ = [
    "AutoRelaxer",
    "ConjugateGradient",
    "Dense",
    "EnergyForcesStress",
    "FIRE",
    "ForceShifted",
    "JaxMDFIRE",
    "LBFGS",
    "LennardJones",
    "Morse",
    "Neighbors",
    "NewtonCG",
    "PairPotential",
    "Potential",
    "Progress",
    "Relaxed",
    "Shifted",
    "Smooth",
    "SoftSphere",
    "Status",
    "StillingerWeber",
    "Structure",
    "Truncated",
    "calculators",
    "check_parameters",
    "energy",
    "energy_forces_stress",
    "errors",
    "find_gauge",
    "find_neighbors",
    "neighbors_of",
    "parameter_entries",
    "parameter_values",
    "read_structure",
    "relax",
    "replace_parameters",
    "units",
    "volume",
]
