"""Units: the factors are those of CODATA, and every conversion is undone by its counterpart."""

import ase.units
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mdsens import units

NUMBERS = st.floats(-1e12, 1e12, allow_subnormal=False)
TEMPERATURES = st.floats(1e-3, 1e5)


def test_factors_are_those_of_ase():
    # ASE's are those of CODATA 2014; the constants were fixed in 2019, at 1e-7 from there
    assert_allclose(1 / units.GPA, ase.units.GPa, rtol=1e-7)
    assert_allclose(units.BOLTZMANN, ase.units.kB, rtol=1e-6)
    assert_allclose(units.KJ_PER_MOL, ase.units.kJ / ase.units.mol, rtol=1e-7)
    assert_allclose(units.KCAL_PER_MOL, ase.units.kcal / ase.units.mol, rtol=1e-7)
    assert_allclose(units.NM, ase.units.nm)
    assert_allclose(units.COULOMB, ase.units.Hartree * ase.units.Bohr, rtol=1e-7)


def test_factors_follow_from_the_constants_that_define_the_si():
    e, k, N = 1.602176634e-19, 1.380649e-23, 6.02214076e23  # C, J/K, 1/mol: exact since 2019
    u = 1.66053906660e-27  # kg
    assert_allclose(units.GPA, e * 1e30 / 1e9, rtol=1e-12)
    assert_allclose(units.BOLTZMANN, k / e, rtol=1e-9)
    assert_allclose(units.KJ_PER_MOL, 1000 / (e * N), rtol=1e-12)
    # 1 eV/Å on 1 u, in Å/fs²
    assert_allclose(units.ACCELERATION, e / 1e-10 / u * 1e10 / 1e30, rtol=1e-10)
    # sqrt(1 eV/Å² / 1 u) / 2 pi, in THz
    assert_allclose(units.THZ, np.sqrt(e / 1e-20 / u) / (2 * np.pi) / 1e12, rtol=1e-10)


@given(NUMBERS)
def test_lengths_go_there_and_back(x):
    assert_allclose(units.from_nm(units.to_nm(x)), x, rtol=1e-15)


@given(NUMBERS, TEMPERATURES)
def test_energies_and_forces_go_there_and_back(x, T):
    assert_allclose(units.from_kT(units.to_kT(x, T), T), x, rtol=1e-14)
    assert_allclose(units.from_kT_per_nm(units.to_kT_per_nm(x, T), T), x, rtol=1e-14)


@given(NUMBERS, TEMPERATURES)
def test_a_force_is_an_energy_by_a_length(x, T):
    assert_allclose(units.to_kT_per_nm(x, T), units.to_kT(x, T) / units.to_nm(1.0), rtol=1e-14)


def test_kT_at_room_temperature():
    assert_allclose(units.to_kJ_per_mol(units.from_kT(1.0, 300.0)), 2.494338785, rtol=1e-9)
    assert_allclose(units.from_kT(1.0, 300.0), 0.025851999786, rtol=1e-10)


@pytest.mark.parametrize("function", [units.to_nm, units.from_nm, units.to_kJ_per_mol])
def test_arrays_are_converted_as_their_numbers_are(function):
    numbers = np.array([[0.0, -1.5], [3.0, 1e-9]])
    assert_allclose(function(numbers), [[function(x) for x in row] for row in numbers])
