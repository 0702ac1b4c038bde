"""A flow as an ASE calculator: -kT log p and its exact derivatives, in ASE's units."""

import copy
import dataclasses
import json
import pickle

import ase
import numpy as np
import peroxide
import pytest
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces
from compilations import compilations
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.calculators import FlowCalculator
from mdsens.errors import InputError, NonFiniteError
from mdsens.flows.boltzmann import BoltzmannGenerator
from mdsens.units import BOLTZMANN

kT = BOLTZMANN * peroxide.TEMPERATURE


@pytest.fixture(scope="module")
def generator() -> BoltzmannGenerator:
    return peroxide.generator()


@pytest.fixture
def molecule(generator) -> ase.Atoms:
    return ase.Atoms(peroxide.SPECIES, peroxide.positions(), calculator=FlowCalculator(generator))


def test_the_energy_is_minus_kT_times_the_log_density_written_by_hand(molecule):
    bonds = np.array([molecule.get_distance(i, j) for i, j in peroxide.BONDS]) / 10
    angles = np.radians([molecule.get_angle(0, 1, 2), molecule.get_angle(1, 2, 3)])
    z = np.concatenate(
        [
            (bonds - [peroxide.OH, peroxide.OO, peroxide.OH]) / peroxide.BOND_WIDTH,
            (angles - peroxide.ANGLE) / peroxide.ANGLE_WIDTH,
        ]
    )
    # p(x) d³ʳx = product of the normal densities, 1 / 2 pi for the torsion, over the volume element b² and
    # sin t
    normal = 0.5 * z**2 + np.log(
        np.sqrt(2 * np.pi) * np.array([peroxide.BOND_WIDTH] * 3 + [peroxide.ANGLE_WIDTH] * 2)
    )
    reduced = normal.sum() + np.log(2 * np.pi) + 2 * np.log(bonds).sum() + np.log(np.sin(angles)).sum()
    # deviations of 0.01 Å out of 1 Å, and a square of them: two digits less than rounding
    assert_allclose(molecule.get_potential_energy(), kT * reduced, rtol=1e-11)
    assert molecule.get_potential_energy(force_consistent=True) == molecule.get_potential_energy()


def test_forces_are_derivatives_of_the_energy(molecule):
    # E''' ~ k / r ~ 45 eV/Å² / 1 Å: truncation ~ 1e-8 / 6 * 50 ~ 1e-7 at 1e-4 Å, of forces of 1 eV/Å;
    # rounding 1e-15 / 1e-4
    assert_allclose(molecule.get_forces(), calculate_numerical_forces(molecule, eps=1e-4), atol=1e-6)


def test_forces_turn_with_the_molecule_and_neither_shift_nor_turn_it(molecule):
    energy, forces = molecule.get_potential_energy(), molecule.get_forces()
    assert np.abs(forces).max() > 0.5
    # forces of several eV/Å, rounded at 1e-16 times distances of a few Å
    assert_allclose(forces.sum(0), 0, atol=1e-12)
    assert_allclose(np.cross(molecule.positions, forces).sum(0), 0, atol=1e-12)
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    molecule.positions = molecule.positions @ rotation.T + np.array([3.0, 1.0, -2.0])
    assert_allclose(molecule.get_potential_energy(), energy, rtol=1e-12)
    assert_allclose(molecule.get_forces(), forces @ rotation.T, atol=1e-11)


def test_a_flow_trained_in_float32_is_computed_in_float64(generator, molecule):
    molecule.calc = FlowCalculator(generator.astype(np.float32))
    # in float32 energies of 0.5 eV carry 3e-8 eV, and these differences 3e-4 eV/Å
    assert_allclose(molecule.get_forces(), calculate_numerical_forces(molecule, eps=1e-4), atol=1e-6)


def test_nothing_is_compiled_again_as_atoms_move_or_another_flow_is_taken(generator, molecule):
    before = molecule.get_forces()
    with compilations() as compiled:
        molecule.positions[0] += 0.02
        moved = molecule.get_forces()
        molecule.calc = FlowCalculator(generator)
        assert np.array_equal(molecule.get_forces(), moved)
    assert not np.array_equal(moved, before)
    assert compiled == []


def test_another_generator_is_used_at_once(generator, molecule):
    molecule.get_potential_energy()
    hot = BoltzmannGenerator(generator.flow, peroxide.SPECIES, 2 * peroxide.TEMPERATURE)
    before = molecule.get_forces()
    molecule.calc.generator = hot
    assert_allclose(
        molecule.get_forces(), 2 * before, rtol=1e-14
    )  # the same density at twice the temperature


def test_other_molecules_are_refused(generator, molecule):
    two = molecule + molecule
    two.calc = molecule.calc
    with pytest.raises(InputError, match=r"8 atoms.*molecule of 4"):
        two.get_potential_energy()
    molecule.symbols[2] = "S"
    for _ in range(2):  # the second request finds ASE's copy of the atoms unchanged
        with pytest.raises(InputError, match=r"atom 2 is S, and the flow has O there \(1 atoms differ\)"):
            molecule.get_forces()


def test_a_periodic_molecule_is_refused_and_a_box_around_a_free_one_is_not(molecule):
    molecule.set_cell([10, 10, 10])
    molecule.get_forces()
    molecule.pbc = (False, False, True)
    with pytest.raises(InputError, match=r"atoms.pbc = False"):
        molecule.get_forces()
    molecule.pbc = False
    with pytest.raises(PropertyNotImplementedError):
        molecule.get_stress()


def test_what_has_no_density_is_an_error_that_names_the_atoms(molecule):
    molecule.positions[3, 1] = np.nan
    with pytest.raises(NonFiniteError, match=r"atom 3 \(H\)"):
        molecule.get_forces()
    molecule.positions[3] = molecule.positions[2]
    with pytest.raises(NonFiniteError, match=r"2 \(O\) and 3 \(H\), 0.000 Å apart"):
        molecule.get_potential_energy()


def test_only_a_generator_is_taken(generator):
    with pytest.raises(InputError, match="BoltzmannGenerator, not Flow"):
        FlowCalculator(generator.flow)
    assert ms.calculators.FlowCalculator is FlowCalculator


def test_a_flow_calculator_says_which_flow_it_has(generator, tmp_path):
    atoms = ase.Atoms(peroxide.SPECIES, peroxide.positions())
    calc = FlowCalculator(generator, atoms=atoms, directory=tmp_path, label="flow")
    assert atoms.calc is calc and repr(calc) == f"FlowCalculator(H2O2, {peroxide.TEMPERATURE:g} K)"
    described = calc.todict()
    assert json.loads(json.dumps(described)) == described
    other = dataclasses.replace(generator, temperature=2 * peroxide.TEMPERATURE)
    assert calc.set(generator=other) == {"temperature": 2 * peroxide.TEMPERATURE}
    with pytest.raises(InputError, match="no parameter 'epsilon'"):
        calc.set(epsilon=1.0)
    energy = atoms.get_potential_energy()
    for same in (copy.deepcopy(calc), pickle.loads(pickle.dumps(calc))):
        assert same.get_potential_energy(atoms) == energy
