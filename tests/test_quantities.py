"""Energy, forces and stress as they stand: signs, identities, derivatives, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from ase.build import bulk
from numpy.testing import assert_allclose

import mdsens as ms

LJ = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=7.5)


def argon() -> ms.Structure:
    """Four atoms off the sites of a fcc crystal."""
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True)
    atoms.rattle(0.1, seed=1)
    return ms.Structure.from_ase(atoms)


def test_energy_forces_and_stress_are_those_of_lammps():
    record = references.table("lennard_jones")["lj-ar-rattled-108-smooth"]
    energy, forces, stress = ms.energy_forces_stress(LJ, references.structure(record))
    references.assert_agrees(energy, record["values"]["energy"], "energy")
    references.assert_agrees(forces, record["values"]["forces"], "forces")
    references.assert_agrees(ms.strain.to_voigt(stress), record["values"]["stress"], "stress")


def test_stress_is_positive_in_tension_and_zero_without_volume():
    stretched = argon().deformed(1.05 * jnp.eye(3))
    assert np.all(np.linalg.eigvalsh(ms.energy_forces_stress(LJ, stretched).stress) > 0)
    free = ms.Structure.create(argon().positions, ["Ar"] * 4)
    assert_allclose(ms.energy_forces_stress(LJ, free).stress, 0)


def test_forces_sum_to_zero_and_stress_is_symmetric():
    _, forces, stress = ms.energy_forces_stress(LJ, argon())
    # rounding of sums of terms of order 0.1 eV/Å and 0.001 eV/Å³
    assert_allclose(np.sum(forces, axis=0), 0, atol=1e-13)
    assert_allclose(stress, stress.T, atol=1e-16)


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_derivatives_by_parameters_pass_through_the_list(mode):
    structure = argon()
    quantities = lambda scale: ms.energy_forces_stress(
        ms.replace_parameters(LJ, {"epsilon": 0.0104 * scale}), structure
    )
    # epsilon is the only energy of the form: each of the three is proportional to it
    for derivative, value in zip(mode(quantities)(1.0), ms.energy_forces_stress(LJ, structure), strict=True):
        assert_allclose(derivative, value, atol=1e-14)


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_a_cutoff_that_is_a_parameter_moves_with_it(mode):
    # Spheres of diameter s D at x are spheres of diameter D at x / s: dE/dln(D) = -x . dE/dx = -V tr(stress).
    structure = argon()
    spheres = ms.SoftSphere(4.5, 1.0, 2.0, elements=("Ar",))
    slope = mode(lambda s: ms.energy(ms.replace_parameters(spheres, {"diameter": 4.5 * s}), structure))(1.0)
    virial = ms.volume(structure) * jnp.trace(ms.energy_forces_stress(spheres, structure).stress)
    assert_allclose(slope, -virial, rtol=1e-12)


def test_under_jit_a_list_must_be_given():
    structure = argon()
    neighbors = ms.neighbors_of(LJ, structure)
    eager, jitted = (
        ms.energy_forces_stress(LJ, structure),
        jax.jit(ms.energy_forces_stress)(LJ, structure, neighbors),
    )
    for mine, theirs in zip(jitted, eager, strict=True):
        assert_allclose(mine, theirs, atol=1e-13)
    with pytest.raises(ms.errors.TracedError, match=r"under jax\.jit"):
        jax.jit(lambda p, s: ms.energy_forces_stress(p, s))(LJ, structure)


def test_atoms_at_the_same_place_are_named():
    structure = argon()
    structure = structure.at(structure.positions.at[3].set(structure.positions[2]))
    with pytest.raises(ms.errors.NonFiniteError, match=r"atoms 2 \(Ar\) and 3 \(Ar\) are 0\.00e\+00 Å apart"):
        ms.energy_forces_stress(LJ, structure)


def test_what_has_no_energy_is_an_error():
    krypton = ms.Structure.create(argon().positions, ["Kr"] * 4, argon().cell)
    with pytest.raises(ms.errors.InputError, match="no parameters for Kr; it knows Ar"):
        ms.energy_forces_stress(LJ, krypton)
    with jax.enable_x64(False), pytest.raises(ms.errors.PrecisionError, match="JAX_ENABLE_X64=1"):
        ms.energy_forces_stress(LJ, krypton)


@pytest.mark.parametrize("function", [ms.energy, ms.energy_forces_stress])
def test_energy_checks_what_it_is_given(function):
    errors, structure = ms.errors, argon()
    image = ms.Structure.create([[0, 0, 0], [5.0, 0, 0]], ["Ar"] * 2, [5.0] * 3)
    with pytest.raises(errors.NonFiniteError, match=r"atoms 0 \(Ar\) and 1 \(Ar\) are 0\.00e\+00 Å apart"):
        function(LJ, image)
    krypton = ms.Structure.create(structure.positions, ["Kr"] * 4, structure.cell)
    with pytest.raises(errors.InputError, match="no parameters for Kr; it knows Ar"):
        function(LJ, krypton)
    for value in (-1.0, np.nan):
        with pytest.raises(errors.InputError, match=r"parameter epsilon = .* lies outside its bounds"):
            function(ms.LennardJones(value, 3.4, ("Ar",), 7.5), structure)
    with pytest.raises(errors.InputError, match=r"ms\.Structure\.from_ase\(atoms\)"):
        function(LJ, structure.to_ase())
    for potential in ("cu-morse", None, ms.LennardJones):
        with pytest.raises(errors.InputError, match=r"potential must be .*ms\.load_potential"):
            function(potential, structure)


@pytest.mark.parametrize("function", [ms.energy, ms.energy_forces_stress])
def test_energies_with_a_given_list_are_refused_where_they_would_be_wrong_or_hang(function, monkeypatch):
    structure = argon()
    neighbors = ms.neighbors_of(LJ, structure)
    with jax.enable_x64(False), pytest.raises(ms.errors.PrecisionError, match="JAX_ENABLE_X64=1"):
        function(LJ, structure, neighbors)
    monkeypatch.setattr("mdsens.processes._threads_lost", True)
    with pytest.raises(ms.errors.ForkError, match="spawn"):
        function(LJ, structure, neighbors)
