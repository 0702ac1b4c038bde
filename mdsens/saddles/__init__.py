"""Saddle points between minima: paths, barriers, rates, and how they move with the potential."""

from mdsens.saddles.barrier import Barrier, barrier
from mdsens.saddles.path import ReactionPath, in_order, interpolate
from mdsens.saddles.saddle import Saddle, saddle

__all__ = ["Barrier", "ReactionPath", "Saddle", "barrier", "in_order", "interpolate", "saddle"]
