"""Energy, forces and stress as they stand: signs, identities, derivatives, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from ase.build import bulk
from numpy.testing import assert_allclose

import mdsens as ms

SW = ms.StillingerWeber(2.1683, 2.0951, 1.8, 21.0, 1.2, -0.333333333333, 7.049556277, 0.6022245584, 4.0, 0.0, elements=("Si",))


def silicon() -> ms.Structure:
    """Eight atoms off their sites."""
    atoms = bulk("Si", "diamond", a=5.5, cubic=True)
    atoms.rattle(0.1, seed=1)
    return ms.Structure.from_ase(atoms)


def test_energy_forces_and_stress_are_those_of_lammps():
    record = references.table("stillinger_weber")["sw-si-rattled-64"]
    energy, forces, stress = ms.energy_forces_stress(SW, references.structure(record))
    references.assert_agrees(energy, record["values"]["energy"], "energy")
    references.assert_agrees(forces, record["values"]["forces"], "forces")
    references.assert_agrees(ms.strain.to_voigt(stress), record["values"]["stress"], "stress")


def test_stress_is_positive_in_tension_and_zero_without_volume():
    stretched = silicon().deformed(1.03 * jnp.eye(3))
    assert np.all(np.linalg.eigvalsh(ms.energy_forces_stress(SW, stretched).stress) > 0)
    free = ms.Structure.create(silicon().positions, ["Si"] * 8)
    assert_allclose(ms.energy_forces_stress(SW, free).stress, 0)


def test_forces_sum_to_zero_and_stress_is_symmetric():
    _, forces, stress = ms.energy_forces_stress(SW, silicon())
    # rounding of sums of terms of order 1 eV/Å and 0.1 eV/Å³
    assert_allclose(np.sum(forces, axis=0), 0, atol=1e-12)
    assert_allclose(stress, stress.T, atol=1e-15)


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_derivatives_by_parameters_pass_through_the_list(mode):
    structure = silicon()
    quantities = lambda scale: ms.energy_forces_stress(ms.replace_parameters(SW, {"epsilon": 2.1683 * scale}), structure)
    # epsilon is the only energy of the form: each of the three is proportional to it
    for derivative, value in zip(mode(quantities)(1.0), ms.energy_forces_stress(SW, structure), strict=True):
        assert_allclose(derivative, value, atol=1e-12)
    # a sigma that changes moves the cutoff as well; E(s sigma, x) = E(sigma, x / s), so dE/dln(sigma) = -x . dE/dx = -V tr(stress)
    slope = mode(lambda s: ms.energy(ms.replace_parameters(SW, {"sigma": 2.0951 * s}), structure))(1.0)
    virial = ms.volume(structure) * jnp.trace(ms.energy_forces_stress(SW, structure).stress)
    assert_allclose(slope, -virial, rtol=1e-12)


def test_under_jit_a_list_must_be_given():
    structure = silicon()
    neighbors = ms.neighbors_of(SW, structure)
    eager, jitted = ms.energy_forces_stress(SW, structure), jax.jit(ms.energy_forces_stress)(SW, structure, neighbors)
    for mine, theirs in zip(jitted, eager, strict=True):
        assert_allclose(mine, theirs, atol=1e-13)
    with pytest.raises(ms.errors.TracedError, match=r"under jax\.jit"):
        jax.jit(lambda p, s: ms.energy_forces_stress(p, s))(SW, structure)


def test_atoms_at_the_same_place_are_named():
    structure = silicon()
    structure = structure.at(structure.positions.at[5].set(structure.positions[2]))
    with pytest.raises(ms.errors.NonFiniteError, match=r"atoms 2 \(Si\) and 5 \(Si\) are 0\.00e\+00 Å apart"):
        ms.energy_forces_stress(SW, structure)


def test_what_has_no_energy_is_an_error():
    germanium = ms.Structure.create(silicon().positions, ["Ge"] * 8, silicon().cell)
    with pytest.raises(ms.errors.InputError, match="no parameters for Ge; it knows Si"):
        ms.energy_forces_stress(SW, germanium)
    with jax.enable_x64(False), pytest.raises(ms.errors.PrecisionError, match="JAX_ENABLE_X64=1"):
        ms.energy_forces_stress(SW, germanium)
