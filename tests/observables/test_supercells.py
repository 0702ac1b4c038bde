"""Supercells: the smallest one of a wave, and the pairs in it."""

from fractions import Fraction
from math import lcm

import ase.build
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.observables.primitive import PrimitiveCell
from mdsens.observables.supercells import Supercell, repeated, repeated_list, thickness

WAVES = [(1, 2), (0, 1), (1, 2)], [(1, 3), (2, 3), (1, 2)], [(0, 1), (0, 1), (3, 4)], [(1, 6), (1, 4), (5, 8)]


@pytest.mark.parametrize("wave", WAVES, ids=str)
def test_a_wave_repeats_with_as_many_cells_as_its_common_denominator(wave):
    q = tuple(Fraction(*x) for x in wave)
    found = Supercell.of_wave(q)
    assert found.n_cells == lcm(*(x.denominator for x in q))
    assert found.holds([float(x) for x in q])
    assert not Supercell.diagonal((1, 1, 1)).holds([float(x) for x in q])


def test_every_point_has_its_place_among_the_cells():
    supercell = Supercell(((3, 1, 0), (0, 2, 1), (0, 0, 2)))
    points = np.random.default_rng(1).integers(-9, 9, size=(50, 3))
    cell, shift = supercell.place(points)
    back = supercell.points[cell] + np.asarray(shift) @ supercell.matrix
    np.testing.assert_array_equal(back, points)
    np.testing.assert_array_equal(supercell.place(supercell.points)[0], np.arange(12))


def test_the_list_of_a_supercell_is_made_of_that_of_its_cell():
    # two species, off their sites, in a skew cell that is smaller than the cutoff
    potential = ms.load_potential("cdte-stillinger-weber-1989")
    atoms = ase.build.bulk("CdTe", "zincblende", a=6.5)
    atoms.rattle(0.1, seed=1)
    cell = ms.Structure.from_ase(atoms)
    supercell = Supercell(((2, 1, 0), (0, 1, 0), (0, 0, 2)))
    large = repeated(cell, supercell)
    neighbors = repeated_list(ms.neighbors_of(potential, cell, 0.3), supercell, large)
    own = ms.energy_forces_stress(potential, large)
    found = ms.energy_forces_stress(potential, large, neighbors)
    for mine, right in zip(found, own, strict=True):
        assert_allclose(mine, right, atol=1e-12)
    assert_allclose(found.energy, 4 * ms.energy(potential, cell), rtol=1e-13)


def test_thickness_is_the_distance_of_faces():
    assert_allclose(thickness(np.array([[2.0, 0, 0], [5.0, 3, 0], [1, 1, 4]]))[2], 4.0)


# --- the primitive cell


def test_a_conventional_cell_is_made_of_primitive_ones():
    cubic = ms.Structure.from_ase(ase.build.bulk("Si", "diamond", a=5.43, cubic=True))
    found = PrimitiveCell.of(cubic)
    assert found.n_atoms == 2 and len(found.kinds) == 8
    assert_allclose(np.linalg.det(np.array(found.matrix)), 4.0)
    # every atom stands where its first atom and its steps say
    places = np.asarray(cubic.positions)
    steps = np.array(found.steps) @ np.asarray(found.cell(cubic))
    assert_allclose(places[list(found.first)][list(found.kinds)] + steps, places, atol=1e-9)


@pytest.mark.parametrize("name", ["Cu", "Mg"])
def test_a_primitive_cell_is_taken_as_it_is(name):
    crystal = ms.Structure.from_ase(ase.build.bulk(name))
    assert PrimitiveCell.of(crystal) == PrimitiveCell.same(crystal.n_atoms)


def test_a_cell_with_a_defect_is_its_own_primitive_cell():
    atoms = ase.build.bulk("Cu", cubic=True) * (2, 1, 1)
    del atoms[0]
    crystal = ms.Structure.from_ase(atoms)
    assert PrimitiveCell.of(crystal).n_atoms == 7
