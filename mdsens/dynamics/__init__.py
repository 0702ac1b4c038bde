"""Molecular dynamics of crystals, clusters and molecules: alone, in a bath, or under a pressure."""

from mdsens.dynamics.energies import Movable, SinglePrecision
from mdsens.dynamics.recorded import SimulationProgress
from mdsens.dynamics.simulate import langevin, npt, nve, nvt_nose_hoover
from mdsens.dynamics.trajectory import Drift, Trajectory

__all__ = [
    "Drift",
    "Movable",
    "SimulationProgress",
    "SinglePrecision",
    "Trajectory",
    "langevin",
    "npt",
    "nve",
    "nvt_nose_hoover",
]
