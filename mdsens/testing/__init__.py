"""Tests for anybody's potential: derivatives against differences, and what physics asks of any energy.

`central_difference` is a twin of `jax.jacfwd` that knows no calculus. `check_potential` puts a potential
through all that the rest of mdsens relies on, and says with numbers what fails.
"""

from mdsens.testing.awkward import check_awkward_points, cutoff_smoothness
from mdsens.testing.conformance import ConformanceReport, check_potential
from mdsens.testing.differences import central_difference
from mdsens.testing.probe import Check

__all__ = [
    "Check",
    "ConformanceReport",
    "central_difference",
    "check_awkward_points",
    "check_potential",
    "cutoff_smoothness",
]
