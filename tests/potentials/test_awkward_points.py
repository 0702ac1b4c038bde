"""Every form, and every cut: finite derivatives where they are easily lost, the right jump at the cutoff."""

import dataclasses

import numpy as np
import pytest
from embedded import TWO, tables_of

import mdsens as ms
from mdsens.testing import check_awkward_points, cutoff_smoothness

CONTINUOUS = "energy, force and second derivative are continuous"
FORMS = {
    "lj truncated": (ms.LennardJones(1.0, 1.0, ("Ar",), 2.5, ms.Truncated()), "the energy jumps"),
    "lj shifted": (ms.LennardJones(1.0, 1.0, ("Ar",), 2.5, ms.Shifted()), "the force jumps"),
    "lj force-shifted": (
        ms.LennardJones(1.0, 1.0, ("Ar",), 2.5, ms.ForceShifted()),
        "the second derivative jumps",
    ),
    "lj smooth": (ms.LennardJones(1.0, 1.0, ("Ar",), 2.5, ms.Smooth(0.7)), CONTINUOUS),
    "lj without cutoff": (ms.LennardJones(1.0, 1.0, ()), "there is none"),
    "morse force-shifted": (
        ms.Morse(0.34, 1.36, 2.87, ("Cu",), 6.5, ms.ForceShifted()),
        "the second derivative jumps",
    ),
    "harmonic spheres": (ms.SoftSphere([1.0, 0.6], 1.0, 2.0, ("Ar", "Ne")), "the second derivative jumps"),
    "hertzian spheres": (ms.SoftSphere([1.0, 0.6], 1.0, 2.5, ("Ar", "Ne")), CONTINUOUS),
    # the slope at the last knot is that towards the one before
    "embedded-atom tables": (tables_of(TWO, 60), "the force jumps"),
    "gupta truncated": (dataclasses.replace(TWO, cut=ms.Truncated()), "the energy jumps"),
    # T2 has n = 23, the other set n < 1, where the bond order has no derivative without neighbors.
    "tersoff T2": (ms.load_potential("si-tersoff-1988-t2"), "the second derivative jumps"),
    "tersoff SiC": (ms.load_potential("sic-tersoff-1989"), "the second derivative jumps"),
    "edip": (ms.load_potential("si-edip-1998"), CONTINUOUS),
    "vashishta": (ms.load_potential("sic-vashishta-2007"), "the second derivative jumps"),
    "zbl": (ms.ZBL.of(("Si", "C"), 1.5, 2.5), CONTINUOUS),
    "stillinger-weber": (ms.load_potential("si-stillinger-weber-1985"), CONTINUOUS),
    "snap": (
        ms.SNAP(
            [0.1, 0.7, -0.4, 0.3, 0.2, -0.5], ("W",), twojmax=2, rcutfac=3.0, radii=(0.5,), weights=(1.0,)
        ),
        "the second derivative jumps",
    ),
}


def pair(potential):
    """Two atoms at a distance typical of the potential."""
    cutoff = float(potential.cutoff)
    spacing = 1.1 if np.isinf(cutoff) else 0.6 * cutoff
    symbol = potential.elements[0] if potential.elements else "Ar"
    return ms.Structure.create([[0, 0, 0], [spacing, 0, 0]], [symbol] * 2)


@pytest.mark.parametrize("name", FORMS)
def test_value_force_hessian_and_parameter_derivatives_are_finite_at_awkward_points(name):
    potential, _ = FORMS[name]
    checks = check_awkward_points(potential, pair(potential))
    assert len(checks) == (5 if np.isinf(float(potential.cutoff)) else 7)
    assert [str(check) for check in checks if not check.holds] == []


@pytest.mark.parametrize("name", FORMS)
def test_cut_leaves_the_jump_it_says(name):
    potential, jump = FORMS[name]
    assert cutoff_smoothness(potential, pair(potential)) == jump
