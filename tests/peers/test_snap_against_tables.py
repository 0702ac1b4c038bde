"""SNAP tungsten: a vacancy against LAMMPS, all coefficients at once against re-relaxation.

The tables (tests/data/references/snap.json) have derivatives by ln c of five coefficients.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
import references

import mdsens as ms

pytestmark = pytest.mark.validation


@pytest.fixture(scope="module")
def tungsten():
    return ms.load_potential("w-snap-2017")


def with_coefficients(potential, beta):
    return eqx.tree_at(lambda p: p.parts[1].beta, potential, beta)


def assert_rows(jacobian, beta, sensitivities, quantity):
    for name, record in sensitivities[quantity].items():
        k = int(name.removeprefix("c"))
        references.assert_agrees(np.asarray(jacobian)[..., k] * beta[k], record, f"{quantity} by {name}")


def positions_by_all_coefficients(relaxed):
    """(numbers, coefficients) derivatives of all positions, by one solve with many right sides, Å."""
    n = 3 * relaxed.structure.n_atoms
    flat = lambda potential, states: tuple(states["structure"].structure.positions.reshape(-1))
    names = tuple(f"x{k}" for k in range(n))
    places = ms.Observable(names=names, units=("Å",) * n, function=flat)
    coefficients = [name for name in ms.parameter_values(relaxed.potential) if "beta" in name]
    return ms.first_order(relaxed, places, coefficients, mode="forward")[1]


def test_vacancy_and_its_derivatives_are_those_of_lammps(tungsten):
    case = references.table("snap")["snap-w-vacancy-53"]
    relaxed = ms.relax(tungsten, references.structure(case), fmax=1e-11)
    x, beta = np.asarray(relaxed.structure.positions), tungsten.parts[1].beta
    fixed, rows = case["values"]["fixed_cell"], case["sensitivities"]["fixed_cell"]
    references.assert_agrees(relaxed.energy, fixed["energy"], "energy")
    references.assert_agrees(x, fixed["positions"], "positions")
    jacobian = positions_by_all_coefficients(relaxed).reshape(*x.shape, -1)
    assert_rows(jacobian, beta, rows, "positions")


def test_all_coefficients_at_once_move_the_atoms_as_re_relaxation_does(tungsten):
    from ase.build import bulk

    atoms = bulk("W", "bcc", a=3.1804596464683366, cubic=True) * 3
    del atoms[0]
    relaxed = ms.relax(tungsten, ms.Structure.from_ase(atoms), fmax=1e-11)
    jacobian = positions_by_all_coefficients(relaxed)
    beta = tungsten.parts[1].beta
    rng = np.random.default_rng(3)
    for _ in range(2):  # directions in which every coefficient counts
        direction = np.asarray(beta) * rng.normal(size=beta.shape)

        def moved(s, direction=direction):
            potential = with_coefficients(tungsten, beta + s * jnp.asarray(direction))
            return np.asarray(ms.relax(potential, relaxed.structure, fmax=1e-11).structure.positions).reshape(
                -1
            )

        slope = lambda h, moved=moved: (moved(h) - moved(-h)) / (2 * h)
        wanted = (4 * slope(1e-4) - slope(2e-4)) / 3
        found = jacobian @ direction
        assert np.linalg.norm(found - wanted) < 1e-6 * np.linalg.norm(wanted)


def test_crystal_and_its_derivatives_by_coefficients_are_those_of_lammps(tungsten):
    case = references.table("snap")["snap-w-crystal"]
    relaxed = ms.relax(tungsten, references.structure(case), cell="isotropic", fmax=1e-11)
    quantities = ["lattice_constant", "energy_per_atom", "C11", "C12", "C44"]
    names = [name for name in ms.parameter_values(tungsten) if "beta" in name]
    observables = ms.observables.named(quantities, "structure")
    values, jacobian = ms.first_order(relaxed, observables, names)
    beta = np.asarray(tungsten.parts[1].beta)
    for k, quantity in enumerate(quantities):
        expected = case["values"][quantity]["value"]
        # constants are differences of stress in the table, with steps of 2e-4 in the strain
        np.testing.assert_allclose(values[k], expected, rtol=1e-9 if k < 2 else 1e-6)
        for name, row in case["sensitivities"][quantity].items():
            number = int(name.removeprefix("c"))
            found = jacobian[k, number] * beta[number]
            error = 1e-8 * abs(expected) if k < 2 else 1e-5 * abs(expected)
            np.testing.assert_allclose(
                found, row["value"], rtol=1e-6, atol=error, err_msg=f"{quantity}, {name}"
            )
