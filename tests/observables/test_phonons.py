"""Vibrations at the wave vector zero: an exact identity, degenerate modes, what cannot be asked for."""

import ase.build
import numpy as np
import pytest

import mdsens as ms
from mdsens.errors import InputError
from mdsens.implicit.groups import groups_of
from mdsens.observables import gamma_phonon
from mdsens.units import THZ


def crystal():
    """Four argon atoms in a cubic cell, and Lennard-Jones."""
    potential = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5)
    return potential, ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.2, cubic=True))


def dimer():
    potential = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=40.0)
    return potential, ms.Structure.create([[0.0, 0, 0], [3.8, 0, 0]], ["Ar"] * 2)


def test_stretching_of_a_dimer_is_that_of_its_force_constant():
    potential, start = dimer()
    relaxed = ms.relax(potential, start)
    (omega,), (row,) = ms.first_order(relaxed, gamma_phonon(), ["epsilon", "sigma"])
    # V'' = 72 epsilon / (2^(1/3) sigma^2) at the minimum, and the reduced mass is half a mass
    mass = float(start.masses[0])
    exact = THZ * np.sqrt(72 * 0.0104 / (2 ** (1 / 3) * 3.405**2) * 2 / mass)
    assert omega == pytest.approx(exact, rel=1e-5)  # the potential is cut off at 40 Å, 1e-6 of its depth
    # omega goes as sqrt(epsilon) / sigma
    np.testing.assert_allclose(row * [0.0104, 3.405] / omega, [0.5, -1.0], rtol=1e-5)


def test_modes_that_symmetry_makes_equal_move_together():
    potential, start = crystal()
    relaxed = ms.relax(potential, start, cell="isotropic")
    value, row = ms.first_order(relaxed, gamma_phonon(), ["epsilon", "sigma"])
    more = ms.replace_parameters(potential, {"sigma": 3.405 * 1.0001})
    moved = ms.first_order(ms.relax(more, start, cell="isotropic"), gamma_phonon(), ["epsilon", "sigma"])[0]
    np.testing.assert_allclose((moved - value) / 3.405e-4, row[:, 1], rtol=2e-3)  # second order: 1e-4 times 9
    np.testing.assert_allclose(row[:, 0] * 0.0104 / value, 0.5, rtol=1e-8)  # omega goes as sqrt(epsilon)


def test_groups_are_runs_of_equal_values():
    squares = np.array([-1e-9, 0, 1e-9, 0.5, 0.5 + 1e-8, 2.0])
    assert groups_of(squares) == [(0, 2), (3, 4), (5, 5)]


def test_a_group_that_is_not_there_is_refused():
    potential, start = dimer()
    with pytest.raises(InputError, match=r"gamma_phonon\(rank=3\): 'structure' has 2 groups of equal modes"):
        gamma_phonon(rank=3).bound({"structure": ms.relax(potential, start).equilibrium})
    with pytest.raises(InputError, match="rank = 0"):
        gamma_phonon(rank=0)
