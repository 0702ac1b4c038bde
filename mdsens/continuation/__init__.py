"""Beyond first order: quadratic expansions of states, and branches of states along a number."""

from mdsens.continuation.branch import Branch, BranchEvent, BranchPoint
from mdsens.continuation.control import AlongParameter, AlongPressure, AlongStrain
from mdsens.continuation.expansion import Expansion, expand
from mdsens.continuation.fold import Fold
from mdsens.continuation.follow import BranchProgress, follow

__all__ = [
    "AlongParameter",
    "AlongPressure",
    "AlongStrain",
    "Branch",
    "BranchEvent",
    "BranchPoint",
    "BranchProgress",
    "Expansion",
    "Fold",
    "expand",
    "follow",
]
