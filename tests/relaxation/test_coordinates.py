"""Unknowns of a relaxation: which strains are free, where the cell is open, and what a vector of them is."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.relaxation.coordinates import Coordinates, closed, strain_basis
from mdsens.strain import UNIT_STRAINS

CELL = np.array([[4.0, 0, 0], [-2.0, 3.5, 0], [0.3, 0.2, 6.0]])


def structure(pbc=True, cell=CELL, atoms=2):
    positions = np.random.default_rng(0).uniform(0, 3, (atoms, 3))
    return ms.Structure.create(positions, ["Cu"] * atoms, cell=cell, pbc=pbc)


# --- which strains are free -----------------------------------------------------------------------------


def test_masks_name_strains_in_the_order_of_voigt():
    crystal = structure()
    assert strain_basis(None, crystal).shape == (0, 3, 3)
    assert_allclose(strain_basis("isotropic", crystal), np.eye(3)[None])
    assert_allclose(strain_basis("full", crystal), UNIT_STRAINS)
    for k in range(6):
        mask = [j == k for j in range(6)]
        assert_allclose(strain_basis(mask, crystal), UNIT_STRAINS[[k]])
    assert_allclose(strain_basis(np.array([1, 0, 0, 0, 1, 0]), crystal), UNIT_STRAINS[[0, 4]])


@pytest.mark.parametrize(
    "cell", ["cubic", [True] * 5, [True] * 9, [0.5] * 6, [2, 0, 0, 0, 0, 0], np.eye(3), [[1], [1, 2]]]
)
def test_what_is_no_mask_is_refused(cell):
    with pytest.raises(InputError, match="six bools in the order xx yy zz yz xz xy"):
        strain_basis(cell, structure())


def test_a_slab_may_strain_in_its_plane_and_a_wire_along_itself():
    flat = np.diag([4.0, 5.0, 20.0])
    slab, wire = structure((True, True, False), flat), structure((False, False, True), flat)
    assert len(strain_basis([1, 1, 0, 0, 0, 1], slab)) == 3
    assert len(strain_basis([0, 0, 1, 0, 0, 0], wire)) == 1
    for mask, open_one in ([0, 0, 1, 0, 0, 0], slab), ([0, 0, 0, 1, 0, 0], slab), ([1, 0, 0, 0, 0, 0], wire):
        with pytest.raises(InputError, match="the cell cannot relax along a direction without periodic"):
            strain_basis(mask, open_one)


@pytest.mark.parametrize("cell", ["isotropic", "full", [True] * 6])
@pytest.mark.parametrize("pbc", [(False, False, False), (True, True, False)])
def test_vacuum_is_never_strained(cell, pbc):
    with pytest.raises(InputError, match=r"Set pbc and a cell, relax with cell=None, or free only"):
        strain_basis(cell, structure(pbc))


def test_forces_of_free_strains_are_a_gradient_where_their_products_are_free():
    masks = {"isotropic": True, "full": True, (1, 1, 1, 0, 0, 0): True, (1, 1, 0, 0, 0, 1): True}
    masks |= {(0, 0, 0, 0, 0, 1): False, (1, 0, 0, 0, 0, 1): False, (1, 1, 1, 1, 1, 0): False}
    for mask, expected in masks.items():
        basis = strain_basis(mask if isinstance(mask, str) else list(mask), structure())
        assert closed(basis) is expected
    assert closed(np.zeros((0, 3, 3)))


# --- from unknowns to structures ------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [None, "isotropic", "full"])
def test_nothing_is_the_reference_and_strains_carry_atoms_along(cell):
    reference = structure()
    coordinates = Coordinates(reference, jnp.asarray(strain_basis(cell, reference)))
    w = np.zeros(coordinates.size)
    same = coordinates.structure(jnp.asarray(w))
    assert_allclose(same.positions, reference.positions)
    assert_allclose(same.cell, reference.cell)
    w[:6] = np.arange(6) / 10
    w[6:] = 0.01 * np.arange(1, len(w) - 5)
    strain = np.einsum("k,kab->ab", w[6:] / float(coordinates.length), np.asarray(coordinates.basis))
    F = np.eye(3) + strain
    moved = coordinates.structure(jnp.asarray(w))
    assert_allclose(moved.cell, CELL @ F, atol=1e-14)
    assert_allclose(moved.positions, (np.asarray(reference.positions) + w[:6].reshape(2, 3)) @ F, atol=1e-14)


def test_the_length_of_strains_grows_with_the_root_of_the_cell_so_that_curvatures_are_comparable():
    small = Coordinates(structure(), jnp.asarray(UNIT_STRAINS))
    large = Coordinates(structure().repeat(2), jnp.asarray(UNIT_STRAINS))
    # sqrt(N) (V / N)^(1/3): eight times the atoms at the same volume each
    assert_allclose(large.length / small.length, np.sqrt(8))
    volume_per_atom = abs(np.linalg.det(CELL)) / 2
    assert_allclose(small.length, np.sqrt(2) * np.cbrt(volume_per_atom))


def test_a_missing_vector_counts_one_angstrom_and_a_cluster_has_a_length_too():
    slab = structure((True, True, False), np.array([[4.0, 0, 0], [0, 5.0, 0], [0, 0, 0]]))
    assert_allclose(Coordinates(slab, jnp.asarray(UNIT_STRAINS)).reference_volume, 20.0)
    cluster = structure(False, np.zeros((3, 3)))
    coordinates = Coordinates(cluster, jnp.zeros((0, 3, 3)))
    assert float(coordinates.length) > 0
    assert_allclose(coordinates.structure(jnp.zeros(6)).positions, cluster.positions)
