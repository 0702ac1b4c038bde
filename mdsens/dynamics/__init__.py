"""Molecular dynamics of molecules: at constant energy, or in a bath."""

from mdsens.dynamics.simulate import Movable, Progress, langevin, nve
from mdsens.dynamics.trajectory import Drift, Trajectory

__all__ = ["Drift", "Movable", "Progress", "Trajectory", "langevin", "nve"]
