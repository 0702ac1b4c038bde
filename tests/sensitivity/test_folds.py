"""Near the end of a branch no range and no step goes beyond it.

And the check says that the minimum is gone.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

import mdsens as ms


class Fold(ms.Potential):
    """E = x³ / 3 - (theta - 1) x + 50 y² for an atom beside one that is held.

    A minimum at x = sqrt(theta - 1).
    """

    theta: jax.Array = ms.parameter("eV")
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")
    local: ClassVar[bool] = False

    @property
    def cutoff(self):
        return jnp.asarray(4.0)

    def energy(self, structure, neighbors):
        x, y, _ = structure.positions[1] - structure.positions[0]
        return x**3 / 3 - (self.theta - 1) * x + 50 * y**2


def place(potential, states):
    return (states["structure"].structure.positions[1, 0],)


def test_no_range_and_no_step_goes_beyond_a_fold():
    distance = 5e-5  # theta - 1: of the fold at theta = 1
    held = np.array([[True] * 3, [False, False, True]])
    positions = [[0, 0, 0], [0.02, 0.01, 0]]
    start = ms.Structure.create(positions, ["Ar"] * 2, [10.0] * 3, fixed=held)  # periodic: turns count
    observable = ms.Observable(("place",), ("Å",), place)
    report = ms.sensitivities([observable], Fold(1 + distance), start, fmax=1e-13, check=True)
    x = np.sqrt(distance)
    assert_allclose(report.values, x, rtol=1e-8)
    assert_allclose(report.derivative, 1 / (2 * x), rtol=1e-7)
    # lambda = 2 sqrt(theta - 1) falls exactly as assumed, so the distance in ln(theta) is known exactly
    assert report.radius is not None and report.check is not None
    assert 0 < report.radius[0, 0] <= distance / (1 + distance) * (1 + 1e-6)
    # the check stays on this side: steps of a tenth of the distance, wrong by a part in a thousand
    assert_allclose(report.check.derivative, report.derivative, rtol=3e-3)
    assert "the minimum is gone when it changes by about 0.005 %" in report.check.elsewhere[0]
