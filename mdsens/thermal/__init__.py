"""Averages at a temperature: ensembles of a potential, their derivatives, other states from the frames."""

from mdsens.thermal.ensemble import Ensemble, joined
from mdsens.thermal.observables import elastic_constants
from mdsens.thermal.pairs import radial_distribution
from mdsens.thermal.point import ThermalObservable, ThermalPoint
from mdsens.thermal.result import AverageWithError, ThermalAverages
from mdsens.thermal.sampling import of_trajectory, sample

__all__ = [
    "AverageWithError",
    "Ensemble",
    "ThermalAverages",
    "ThermalObservable",
    "ThermalPoint",
    "elastic_constants",
    "joined",
    "of_trajectory",
    "radial_distribution",
    "sample",
]
