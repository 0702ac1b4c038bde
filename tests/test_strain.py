"""Strain, Voigt order and volume: one convention, that of ASE and LAMMPS."""

import jax.numpy as jnp
import numpy as np
import pytest
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from mdsens.strain import UNIT_STRAINS, VOIGT, VOIGT_NAMES, from_voigt, strain_matrix, to_voigt, volume_of

NUMBERS = st.floats(-100, 100, allow_subnormal=False)
SIX = arrays(float, 6, elements=NUMBERS)
CELL = arrays(float, (3, 3), elements=NUMBERS)


@given(SIX)
def test_six_numbers_are_the_tensor_of_ase_and_come_back(voigt):
    tensor = np.asarray(from_voigt(jnp.asarray(voigt)))
    assert_array_equal(tensor, voigt_6_to_full_3x3_stress(voigt))
    assert_array_equal(to_voigt(jnp.asarray(tensor)), voigt)
    assert_array_equal(full_3x3_to_voigt_6_stress(tensor), voigt)


@given(SIX)
def test_engineering_shear_is_twice_that_of_the_tensor(voigt):
    tensor = np.asarray(strain_matrix(jnp.asarray(voigt)))
    assert_allclose(tensor, tensor.T)
    assert_allclose(tensor[[0, 1, 2], [0, 1, 2]], voigt[:3])
    assert_allclose(2 * tensor[[1, 0, 0], [2, 2, 1]], voigt[3:])


@given(SIX, SIX)
def test_work_is_the_product_of_voigt_components(stress, strain):
    # dE = V sum_ab stress_ab strain_ab = V sum_k stress_k strain_k: engineering shear counts each pair once
    tensors = from_voigt(jnp.asarray(stress)), strain_matrix(jnp.asarray(strain))
    work = np.sum(np.asarray(tensors[0]) * np.asarray(tensors[1]))
    assert_allclose(work, stress @ strain, rtol=1e-12, atol=1e-9)


def test_names_are_those_of_the_components():
    assert tuple("xyz"[a] + "xyz"[b] for a, b in VOIGT) == VOIGT_NAMES
    assert_array_equal(UNIT_STRAINS.sum(0), [[1, 0.5, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 1]])


@given(CELL)
def test_volume_is_the_size_of_the_determinant(cell):
    size = np.abs(cell).max() ** 3
    assert_allclose(volume_of(jnp.asarray(cell)), abs(np.linalg.det(cell)), atol=1e-12 * size + 1e-300)


@given(CELL, st.permutations(range(3)))
def test_volume_does_not_depend_on_the_order_of_the_vectors(cell, order):
    size = np.abs(cell).max() ** 3
    assert_allclose(
        volume_of(jnp.asarray(cell[order])), volume_of(jnp.asarray(cell)), atol=1e-12 * size + 1e-300
    )


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_cell_without_one_of_its_vectors_has_no_volume(missing):
    cell = np.diag([2.0, 3.0, 4.0])
    cell[missing] = 0
    assert float(volume_of(jnp.asarray(cell))) == 0
