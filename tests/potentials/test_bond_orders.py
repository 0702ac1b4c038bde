"""Tersoff, EDIP, Vashishta, ZBL: energies of LAMMPS, and what holds for any of them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from short_range import CASES, stored

import mdsens as ms
from mdsens.potentials import bond_orders
from mdsens.strain import to_voigt


@pytest.mark.parametrize("name", CASES)
def test_energy_forces_and_stress_are_those_stored_from_lammps(name):
    mine = ms.energy_forces_stress(CASES[name].potential, CASES[name].structure())
    values = stored()[name]
    for found, quantity in (
        (mine.energy, "energy"),
        (mine.forces, "forces"),
        (to_voigt(mine.stress), "stress"),
    ):
        value = np.asarray(values[quantity])
        assert_allclose(found, value, atol=1e-10 * np.abs(value).max(), rtol=0, err_msg=quantity)


def test_rows_of_any_width_have_one_energy():
    # Rows of a list with a wide skin are shortened where few atoms are near, and left whole where many are.
    case = CASES["tersoff"]
    structure = case.structure()
    reach = float(case.potential.cutoff)
    shortest, longest = bond_orders.NEAREST
    most = []
    for scale in (1.2, 1.1, 1.0):
        moved = structure.at(structure.positions * scale, structure.cell * scale)
        close = ms.find_neighbors(moved, reach, 0.0)
        wide = ms.find_neighbors(moved, reach, 1.5)
        near = np.sum(np.asarray(close.near) < close.nobody, axis=1)
        most.append(near.max())
        assert wide.width > longest
        energies = [case.potential.energy(moved, neighbors) for neighbors in (wide, close)]
        assert_allclose(*energies, rtol=1e-13)
    assert most[0] <= shortest < most[1] <= longest < most[2]


def test_labels_of_a_parameter_change_nothing_but_its_names():
    potential = CASES["tersoff"].potential
    places = {"n": [0, 0, 1, 1], "lambda3": [0] * 4 + [1] * 4}
    potential = dataclasses.replace(potential, lambda3=jnp.array([0.7, 0.2]))
    named = dataclasses.replace(
        potential,
        n=potential.n[np.array(places["n"])],
        lambda3=potential.lambda3[np.array(places["lambda3"])],
        sharing={"n": "ordered pair", "lambda3": "ordered triple"},
    )
    structure = CASES["tersoff"].structure()
    assert "lambda3[C-Si-C]" in ms.parameter_values(named)
    assert_allclose(ms.energy(named, structure), ms.energy(potential, structure), rtol=1e-14)


def test_powers_by_triple_stretch_as_one_power_does():
    potential = dataclasses.replace(CASES["tersoff"].potential, lambda3=jnp.array([0.7, 0.2]))
    structure = CASES["tersoff"].structure()
    energies = []
    for m in (3, 1):
        alike = dataclasses.replace(potential, m=m)
        by_triple = dataclasses.replace(potential, m=(m,) * 8)
        energies.append(float(ms.energy(alike, structure)))
        assert_allclose(ms.energy(by_triple, structure), energies[-1], rtol=1e-14)
    mixed = float(ms.energy(dataclasses.replace(potential, m=(1,) * 4 + (3,) * 4), structure))
    other = float(ms.energy(dataclasses.replace(potential, m=(3,) * 4 + (1,) * 4), structure))
    # zeta knows its center only, so that what either center has adds up
    assert_allclose(mixed + other, sum(energies), rtol=1e-13)


def test_pair_without_other_neighbors_has_the_whole_bond():
    silicon = ms.load_potential("si-tersoff-1988-t3")
    r = 2.3
    pair = ms.Structure.create([[0, 0, 0], [r, 0, 0]], ["Si", "Si"])
    expected = silicon.A * jnp.exp(-silicon.lambda1 * r) - silicon.B * jnp.exp(-silicon.lambda2 * r)
    assert_allclose(ms.energy(silicon, pair), expected, rtol=1e-14)
