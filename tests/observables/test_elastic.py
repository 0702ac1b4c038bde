"""Elastic constants against LAMMPS (finite strains) and matscipy (analytic), values and sensitivities."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixCartesian
from references import assert_agrees, structure, table
from references import potential as potential_of

import mdsens as ms
from mdsens.observables import bulk_modulus, cubic_constants, elastic_constants
from mdsens.observables.elastic import clamped_and_relaxed, measure_elastic
from mdsens.relaxation.equilibrium import hessian_times
from mdsens.units import GPA

CRYSTALS = {
    "sw-si-crystal": "stillinger_weber",
    "tersoff-si-t2-crystal": "tersoff",
    "tersoff-si-t3-crystal": "tersoff",
    "lj-ar-crystal-smooth": "lennard_jones",
    "lj-ar-crystal-truncated": "lennard_jones",
    "morse-cu-crystal": "morse",
}


SLOW = ("tersoff-si-t2-crystal", "tersoff-si-t3-crystal", "lj-ar-crystal-smooth", "morse-cu-crystal")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.validation if name in SLOW else ()) for name in CRYSTALS]
)
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
    # a parameter that is zero has no logarithm: the tables, too, then have the plain derivative
    scale = np.where(theta == 0, 1.0, theta)
    rows = np.asarray(jax.jacfwd(measured)(theta)) * scale
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
def packed_alloy():
    """A crystal without any symmetry, cell included: 12 particles of two sizes, packed under pressure."""
    potential = ms.LennardJones(
        [1.0, 1.5, 0.5], [1.0, 0.8, 0.88], elements=("Ar", "Kr"), cutoff_radius=2.0, cut=ms.Smooth()
    )
    grid = np.indices((3, 2, 2)).reshape(3, 12).T * 1.05 + 0.1 * np.random.default_rng(3).normal(size=(12, 3))
    start = ms.Structure.create(grid, ["Ar"] * 9 + ["Kr"] * 3, [3.2, 2.1, 2.15])
    return potential, ms.relax(potential, start, cell="full", pressure=0.5, fmax=1e-9).structure


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


def test_three_elastic_constants_of_diamond_are_two_where_the_angle_is_tetrahedral():
    # Stillinger-Weber at rest: pairs are springs, angles count by cos theta + 1/3: two stiffnesses.
    case = table("stillinger_weber")["sw-si-crystal"]
    potential = dataclasses.replace(potential_of(case), lambda_=30.0, costheta0=-1 / 3)
    rest = ms.relax(potential, structure(case), cell="isotropic", fmax=1e-11)
    C11, C12, C44 = (float(C) for C in cubic_constants(elastic_constants(potential, rest.structure)))
    np.testing.assert_allclose((7 * C11 + 2 * C12) * C44, 3 * (C11 + 2 * C12) * (C11 - C12), rtol=1e-9)


def test_iterative_and_dense_internal_relaxation_agree():
    case = table("stillinger_weber")["sw-si-crystal"]
    potential, crystal = potential_of(case), structure(case)
    dense = elastic_constants(potential, crystal)
    iterative = elastic_constants(potential, crystal, linear_solver=ms.ConjugateGradient())
    np.testing.assert_allclose(dense, iterative, rtol=1e-9, atol=1e-9 * float(jnp.max(dense)))
    np.testing.assert_allclose(dense, dense.T, atol=1e-12 * float(jnp.max(dense)))


@pytest.mark.validation
def test_bulk_modulus_is_the_response_to_pressure(packed_alloy):
    potential, crystal = packed_alloy
    assert np.abs(np.cos(np.radians(crystal.to_ase().cell.angles()))).min() > 1e-3  # no right angle is left
    relaxed = lambda p: ms.relax(potential, crystal, cell="full", pressure=p, fmax=1e-11)
    slope = jax.grad(lambda p: ms.volume(relaxed(p).structure))(0.5)
    state = relaxed(0.5)
    K = bulk_modulus(elastic_constants(potential, state))  # the state brings its Hessian
    np.testing.assert_allclose(K, -ms.volume(state.structure) / slope, rtol=1e-8)
    np.testing.assert_allclose(K, bulk_modulus(elastic_constants(potential, state.structure)), rtol=1e-8)


COPPER = ms.Morse(0.3429, 1.3588, 2.866, elements=("Cu",), cutoff_radius=6.5, cut=ms.ForceShifted())


@pytest.mark.parametrize(("lattice", "a"), [("fcc", 3.6), ("bcc", 2.9)])
def test_one_atom_has_the_constants_of_its_crystal(lattice, a):
    # nothing is left to relax: clamped and relaxed ions agree, and so does the cell with more atoms
    from ase.build import bulk

    found = []
    for cubic in (False, True):
        start = ms.Structure.from_ase(bulk("Cu", lattice, a=a, cubic=cubic))
        relaxed = ms.relax(COPPER, start, cell="isotropic", fmax=1e-10, check_minimum=False)
        found.append(elastic_constants(COPPER, relaxed))
        if not cubic:
            clamped = elastic_constants(COPPER, relaxed, clamped=True)
            # of the entries that symmetry makes zero only the rounding of the others is there
            np.testing.assert_allclose(found[0], clamped, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(*found, rtol=1e-8, atol=1e-10)
    if lattice == "fcc":
        np.testing.assert_allclose(GPA * found[0][0, 0], 138.026, atol=1e-3)


def test_a_report_of_a_one_atom_cell_has_numbers_everywhere():
    from ase.build import bulk

    one = ms.Structure.from_ase(bulk("Cu", "fcc", a=3.6))
    names = ["lattice_constant", "C11", "K", "C14"]
    report = ms.sensitivities(names, COPPER, one, cell="full", second_order=False)
    assert np.isfinite(report.derivative).all() and np.isfinite(report.errors).all()
    rows = dict(zip(report.observables, report.matrix(), strict=True))
    # D0 is the only energy
    np.testing.assert_allclose(
        [rows["lattice_constant"][0], rows["C11"][0], rows["K"][0]], [0, 1, 1], atol=1e-8
    )
    assert "nan" not in str(report)
    # C14 is zero by symmetry: what rounding leaves of it has no elasticity, and says so
    _, C11, _, C14 = report.values
    assert report.value_errors is not None
    assert abs(C14) <= report.value_errors[3] < 1e-9 * C11
    assert report.value_errors[1] < 1e-9 * C11
    assert not np.any(rows["C14"] > 0) and not np.any(rows["C14"] < 0)
    if np.isnan(rows["C14"]).any():
        assert "C14 is zero within its error bar" in " ".join(str(report).split())


def test_a_structure_that_is_not_relaxed_has_no_relaxed_constants():
    case = table("stillinger_weber")["sw-si-crystal"]
    potential, crystal = potential_of(case), structure(case)
    shaken = crystal.at(crystal.positions + 0.1 * np.random.default_rng(1).normal(size=(8, 3)))
    message = r"not relaxed: the force on atom \d \(Si\) is .*largest stress .* GPa.*relax first"
    with pytest.raises(ms.errors.InputError, match=message):
        elastic_constants(potential, shaken)
    with pytest.warns(UserWarning, match=message):
        elastic_constants(potential, shaken, check=False)
    assert np.isfinite(elastic_constants(potential, shaken, clamped=True)).all()


@pytest.mark.validation
def test_constants_of_a_cell_that_came_far_with_atoms_partly_held_are_those_of_where_it_came():
    # the Hessian of the search belongs to the cell of the start, 4 % smaller, and is taken over
    atoms = bulk("Si", a=5.2, cubic=True)
    atoms.rattle(0.02, seed=1)
    held = ((0, (True, True, True)), (2, (True, False, True)), (5, (False, True, True)))
    atoms.set_constraint([FixCartesian([i], mask=mask) for i, mask in held])
    potential = ms.load_potential("si-stillinger-weber-1985")
    relaxed = ms.relax(potential, ms.Structure.from_ase(atoms), cell="full")
    anew = elastic_constants(potential, relaxed.structure)
    internal = relaxed.equilibrium.internal
    found = measure_elastic(potential, relaxed.structure, relaxed.neighbors, internal)[1]
    np.testing.assert_allclose(found, anew, atol=1e-9 * float(anew[0, 0]))
    assert abs(found[5, 5] / found[3, 3] - 1) > 0.05  # what is held keeps the crystal from being cubic


def test_a_cluster_has_no_elastic_constants():
    potential = ms.LennardJones(1.0, 1.0, elements=("Ar",))
    cluster = ms.Structure.create([[0, 0, 0], [1.1, 0, 0]], ["Ar", "Ar"])
    with pytest.raises(ms.errors.InputError, match="periodic in three directions"):
        elastic_constants(potential, cluster)


def test_nothing_is_left_to_solve_for_in_a_one_atom_cell():
    from ase.build import bulk

    state = ms.Equilibrium.at(COPPER, ms.Structure.from_ase(bulk("Cu", "fcc", a=3.6)))
    matrix, projector = state.hessian
    assert not matrix.any() and not projector.any()
    # forms without blocks multiply with what is left of the projector: nothing
    nothing = np.zeros((0, len(state.w)))
    assert hessian_times(state.landscape, state.w, nothing).shape == nothing.shape
