"""Molecular dynamics of crystals, clusters and molecules: at constant energy, or in a bath."""

from mdsens.dynamics.energies import Movable
from mdsens.dynamics.simulate import SimulationProgress, langevin, nve
from mdsens.dynamics.trajectory import Drift, Trajectory

__all__ = ["Drift", "Movable", "SimulationProgress", "Trajectory", "langevin", "nve"]
