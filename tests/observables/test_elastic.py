"""Elastic constants against LAMMPS (finite strains) and matscipy (analytic), values and sensitivities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import assert_agrees, structure, table
from references import potential as potential_of

import mdsens as ms
from mdsens.observables import bulk_modulus, cubic_constants, elastic_constants
from mdsens.observables.elastic import clamped_and_relaxed
from mdsens.units import GPA

CRYSTALS = {
    "sw-si-crystal": "stillinger_weber",
    "lj-ar-crystal-smooth": "lennard_jones",
    "lj-ar-crystal-truncated": "lennard_jones",
    "morse-cu-crystal": "morse",
}


@pytest.mark.parametrize("name", CRYSTALS)
def test_a0_energy_and_elastic_constants_with_their_sensitivities(name):
    case = table(CRYSTALS[name])[name]
    potential, start = potential_of(case), structure(case)
    names = [n for n in ms.parameter_values(potential) if n in case["sensitivities"]["lattice_constant"]]
    theta = jnp.array([ms.parameter_values(potential)[n] for n in names])

    def measured(theta):
        p = ms.replace_parameters(potential, dict(zip(names, theta, strict=True)))
        crystal = ms.relax(p, start, cell="isotropic", fmax=1e-10, check_minimum=False).structure
        clamped, relaxed = clamped_and_relaxed(p, crystal, ms.neighbors_of(p, crystal, 0.3))
        a0 = jnp.cbrt(ms.volume(crystal))
        return jnp.stack(
            [
                a0,
                ms.energy(p, crystal) / start.n_atoms,
                *cubic_constants(clamped * GPA),
                *cubic_constants(relaxed * GPA),
            ]
        )

    values = np.asarray(measured(theta))
    rows = np.asarray(jax.jacfwd(measured)(theta)) * np.asarray(theta)
    quantities = [
        "lattice_constant",
        "energy_per_atom",
        "C11_clamped",
        "C12_clamped",
        "C44_clamped",
        "C11",
        "C12",
        "C44",
    ]
    for i, quantity in enumerate(quantities):
        # the tables' own strain step leaves 1e-9 relative in the values (README of the tables)
        np.testing.assert_allclose(values[i], case["values"][quantity]["value"], rtol=2e-9, err_msg=quantity)
        for k, parameter in enumerate(names):
            assert_agrees(
                rows[i, k], case["sensitivities"][quantity][parameter], f"d {quantity} / d ln {parameter}"
            )


@pytest.fixture(scope="module")
def strained_argon():
    """A crystal of low symmetry, relaxed: 4 atoms of argon in a sheared cell under pressure."""
    from ase.build import bulk

    potential = ms.load_potential("ar-lennard-jones")
    atoms = bulk("Ar", "fcc", a=5.2, cubic=True)
    start = ms.Structure.from_ase(atoms)
    return potential, start


def test_relaxed_ion_constants_are_the_strain_derivative_of_the_relaxed_stress():
    """The twin: strain the crystal by hand, let the ions relax, difference the stress."""
    case = table("stillinger_weber")["sw-si-crystal"]
    potential, crystal = potential_of(case), structure(case)
    # away from the symmetric crystal, so that every ion moves under strain
    generator = np.random.default_rng(5)
    start = crystal.at(crystal.positions + jnp.asarray(generator.normal(scale=0.02, size=(8, 3))))
    relaxed = ms.relax(potential, start, fmax=1e-11).structure
    C = elastic_constants(potential, relaxed)

    def stress(component, size):
        strain = ms.strain.strain_matrix(jnp.zeros(6).at[component].set(size))
        strained = relaxed.deformed(jnp.eye(3) + strain)
        state = ms.relax(potential, strained, fmax=1e-11, check_minimum=False)
        return np.asarray(ms.strain.to_voigt(state.stress))

    for component in (0, 3):
        h = 1e-4
        twin = (stress(component, h) - stress(component, -h)) / (2 * h)
        # truncation h² C'' ~ 1e-8 x 10 C, rounding 1e-11 / 1e-4
        np.testing.assert_allclose(C[:, component], twin, atol=2e-7 * float(jnp.max(C)))


def test_iterative_and_dense_internal_relaxation_agree():
    case = table("stillinger_weber")["sw-si-crystal"]
    potential, crystal = potential_of(case), structure(case)
    dense = elastic_constants(potential, crystal)
    iterative = elastic_constants(potential, crystal, linear_solver=ms.ConjugateGradient())
    np.testing.assert_allclose(dense, iterative, rtol=1e-9, atol=1e-9 * float(jnp.max(dense)))
    np.testing.assert_allclose(dense, dense.T, atol=1e-12 * float(jnp.max(dense)))


def test_bulk_modulus_is_the_response_to_pressure(strained_argon):
    potential, start = strained_argon
    volume_at = lambda p: ms.volume(ms.relax(potential, start, cell="full", pressure=p, fmax=1e-11).structure)
    slope = jax.grad(volume_at)(0.0)
    crystal = ms.relax(potential, start, cell="full", fmax=1e-11).structure
    np.testing.assert_allclose(
        bulk_modulus(elastic_constants(potential, crystal)), -ms.volume(crystal) / slope, rtol=1e-9
    )


def test_a_cluster_has_no_elastic_constants():
    potential = ms.LennardJones(1.0, 1.0, elements=("Ar",))
    cluster = ms.Structure.create([[0, 0, 0], [1.1, 0, 0]], ["Ar", "Ar"])
    with pytest.raises(ms.errors.InputError, match="periodic in three directions"):
        elastic_constants(potential, cluster)
