"""The grid and the box of long waves: a point for each atom or so, in cells and around what is open."""

import ase.build
import numpy as np
import pytest

import mdsens as ms
from mdsens.relaxation.precondition import SMALLEST, WaveBox, grid_of


def crystal(kind, size, **options):
    return ms.Structure.from_ase(ase.build.bulk(kind, **options) * size)


def test_small_systems_have_no_grid():
    assert grid_of(crystal("Cu", (3, 3, 3), cubic=True)) == (1, 1, 1)
    assert SMALLEST > 108


@pytest.mark.parametrize(
    "structure",
    [
        crystal("Cu", (4, 4, 4), cubic=True),
        crystal("Cu", (10, 4, 3), cubic=True),
        crystal("Ti", (6, 6, 6)),
        crystal("Cu", (8, 8, 8)),
        ms.Structure.from_ase(ase.build.fcc111("Al", (8, 8, 4), vacuum=10.0)),
        ms.Structure.from_ase(ase.build.fcc111("Al", (8, 8, 4), vacuum=10.0, periodic=True)),
    ],
    ids=["cube", "long", "hexagonal", "primitive", "slab", "slab with vacuum"],
)
def test_a_grid_has_about_a_point_for_each_atom_and_even_numbers(structure):
    grid = grid_of(structure)
    assert all(points == 1 or points % 2 == 0 for points in grid)
    # vacuum in a cell counts as filled
    assert 0.4 * structure.n_atoms <= np.prod(grid) <= 3 * structure.n_atoms


def test_a_longer_cell_has_more_points_along_it():
    along, across, _ = grid_of(crystal("Cu", (12, 4, 4), cubic=True))
    assert along == pytest.approx(3 * across, abs=2)


@pytest.mark.parametrize("pbc", [(True, True, False), (True, False, False), (False, False, False)])
@pytest.mark.parametrize(
    "cell", [np.diag([9.0, 8.0, 7.0]), np.diag([9.0, 8.0, 0.0]), np.diag([9.0, 1e4, 1e4])]
)
def test_open_directions_are_boxed_around_the_atoms_whatever_the_cell_says(pbc, cell):
    if any(p and not np.any(row) for p, row in zip(pbc, cell, strict=True)):
        pytest.skip("periodic along a zero vector")
    random = np.random.default_rng(0)
    x = random.uniform(0, 1, (20, 3)) * [9.0, 8.0, 5.0] + [0, 100.0, -300.0]
    structure = ms.Structure.create(x, ["Ar"] * 20, cell=cell, pbc=pbc)
    box = WaveBox.around(structure)
    fractional = np.asarray(box.fractional(structure))
    for k in range(3):
        if pbc[k]:
            np.testing.assert_allclose(box.cell[k], cell[k])
        else:  # with a margin, so that opposite faces do not touch
            assert fractional[:, k].min() == pytest.approx(0, abs=1e-9)
            assert fractional[:, k].max() == pytest.approx(0.8)


def test_atoms_in_a_plane_or_at_one_place_have_a_box_too():
    flat = ms.Structure.create([[0.0, 0, 0], [3.0, 0, 0], [0, 3.0, 0]], ["Ar"] * 3)
    for structure in (flat, ms.Structure.create([[1.0, 2.0, 3.0]], ["Ar"])):
        box = WaveBox.around(structure)
        assert abs(np.linalg.det(box.cell)) > 0
        assert np.isfinite(box.fractional(structure)).all()
