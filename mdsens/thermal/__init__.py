"""Averages at a temperature: ensembles of a potential, their derivatives, other states from the frames."""

from mdsens.thermal.crystal import CrystalFreeEnergy, crystal_free_energy
from mdsens.thermal.ensemble import Ensemble, joined
from mdsens.thermal.from_flow import sample_flow
from mdsens.thermal.observables import elastic_constants
from mdsens.thermal.pairs import radial_distribution
from mdsens.thermal.point import ThermalObservable, ThermalPoint
from mdsens.thermal.result import AverageWithError, ThermalAverages
from mdsens.thermal.sampling import of_trajectory, sample
from mdsens.thermal.states import CombinedStates, combine

__all__ = [
    "AverageWithError",
    "CombinedStates",
    "CrystalFreeEnergy",
    "Ensemble",
    "ThermalAverages",
    "ThermalObservable",
    "ThermalPoint",
    "combine",
    "crystal_free_energy",
    "elastic_constants",
    "joined",
    "of_trajectory",
    "radial_distribution",
    "sample",
    "sample_flow",
]
