"""Induced dipoles: closed forms of two atoms, forces and their derivatives, the polarisation catastrophe."""

import dataclasses

import ase.build
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError, NonFiniteError
from mdsens.potentials import dipoles
from mdsens.units import COULOMB

A1, A2, R = 1.5, 2.5, 3.0


def pair(r=R):
    return ms.Structure.create([[0, 0, 0], [r, 0, 0]], ["Ar", "Kr"])


def noble(**options):
    return ms.InducedDipoles([0.0, 0.0], ("Ar", "Kr"), polarizability=[A1, A2], **options)


def ions(**options):
    settings = dict(charge=[0.7, -0.7], elements=("Na", "Cl"), polarizability=[0.3, 3.0], thole=0.39)
    return ms.InducedDipoles(**(settings | options))


CLUSTER = ms.Structure.create(
    [[0, 0, 0], [2.4, 0.3, 0], [0.2, 2.6, 0.3], [0.1, -0.2, 2.7], [2.5, 2.4, 0.3]],
    ["Na", "Cl", "Cl", "Na", "Cl"],
)


def test_two_atoms_have_the_polarizability_of_applequist():
    potential, structure = noble(), pair()
    found = potential.response(structure, ms.neighbors_of(potential, structure))
    along = (A1 + A2 + 4 * A1 * A2 / R**3) / (1 - 4 * A1 * A2 / R**6)
    across = (A1 + A2 - 2 * A1 * A2 / R**3) / (1 - A1 * A2 / R**6)
    assert_allclose(found, np.diag([along, across, across]), rtol=1e-12, atol=1e-12)


def test_softest_dipoles_of_two_atoms_are_those_along_their_axis():
    potential, structure = noble(), pair()
    found = potential.softest(structure, ms.neighbors_of(potential, structure))
    assert_allclose(found, 1 - 2 * np.sqrt(A1 * A2) / R**3, rtol=1e-13)


def test_a_charge_and_an_atom_attract_each_other_as_in_a_textbook():
    potential = ms.InducedDipoles([1.0, 0.0], ("Na", "Ar"), polarizability=[0.0, A1])
    structure = ms.Structure.create([[0, 0, 0], [0, 0, R]], ["Na", "Ar"])
    found = ms.energy_forces_stress(potential, structure)
    assert_allclose(found.energy, -COULOMB * A1 / (2 * R**4), rtol=1e-13)
    assert_allclose(found.forces[0, 2], 2 * COULOMB * A1 / R**5, rtol=1e-12)
    # an atom that cannot be polarised has a derivative by its polarizability all the same: -k f² / 2
    dipole = A1 / R**2
    field = 2 * dipole / R**3
    slope = jax.grad(ms.energy)(potential, structure).polarizability
    assert_allclose(slope, [-COULOMB / 2 * field**2, -COULOMB / (2 * R**4)], rtol=1e-11)


def test_dipoles_are_those_of_a_dense_solve():
    potential = ions(thole=None)
    x, q, a = np.asarray(CLUSTER.positions), potential.charges(CLUSTER), potential.polarizabilities(CLUSTER)
    d = x[:, None] - x
    r = np.linalg.norm(d, axis=-1) + np.eye(5)
    outer = d[..., None] * d[..., None, :]
    T = np.eye(3) / r[..., None, None] ** 3 - 3 * outer / r[..., None, None] ** 5
    T *= 1 - np.eye(5)[..., None, None]
    field = np.sum(np.asarray(q)[:, None] * d / r[..., None] ** 3, axis=1)
    whole = np.diag(1 / np.repeat(a, 3)) + T.transpose(0, 2, 1, 3).reshape(15, 15)
    exact = np.linalg.solve(whole, field.ravel()).reshape(5, 3)
    found = potential.dipoles(CLUSTER, ms.neighbors_of(potential, CLUSTER))
    assert_allclose(found, exact, rtol=1e-10, atol=1e-12)
    energy = COULOMB * (np.sum(np.triu(np.outer(q, q) / r, 1)) - np.sum(exact * field) / 2)
    assert_allclose(ms.energy(potential, CLUSTER), energy, rtol=1e-13)


@pytest.mark.parametrize("by", [ms.Picard(), ms.Anderson()], ids=lambda s: type(s).__name__)
def test_iterating_the_field_finds_what_conjugate_gradients_find(by):
    slow, fast = ions(solver=ms.Iterated(by)), ions()
    near = ms.neighbors_of(fast, CLUSTER)
    assert_allclose(slow.dipoles(CLUSTER, near), fast.dipoles(CLUSTER, near), rtol=1e-9, atol=1e-12)


def test_forces_follow_the_parameters_at_both_orders():
    potential = ions()
    near = ms.neighbors_of(potential, CLUSTER)
    leaves, form = jax.tree.flatten(potential)
    sizes = [leaf.size for leaf in leaves]
    theta = jnp.concatenate([leaf.ravel() for leaf in leaves])

    def built(theta):
        parts = jnp.split(theta, np.cumsum(sizes)[:-1])
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(form, shaped)

    @jax.jit
    def force(theta):
        moved = lambda x: built(theta).energy(CLUSTER.at(x), near)
        return -jax.grad(moved)(CLUSTER.positions)

    direction = theta * jnp.asarray(np.random.default_rng(2).normal(size=len(theta)))
    slope = jax.jit(lambda t: jax.jvp(force, (t,), (direction,))[1])
    bend = jax.jit(lambda t: jax.jvp(slope, (t,), (direction,))[1])
    # sixth order differences: their error is 0.004⁶ of a derivative, and little is lost to rounding
    weights, step = np.array([1, -9, 45, -45, 9, -1]) / 60, 0.004
    places = np.array([3, 2, 1, -1, -2, -3])
    for function, derivative in ((force, slope), (slope, bend)):
        values = np.stack([function(theta + step * k * direction) for k in places])
        twin = np.tensordot(weights, values, 1) / step
        assert_allclose(derivative(theta), twin, rtol=0, atol=1e-8 * np.abs(twin).max())


def test_a_crystal_of_polarizable_ions_has_the_dielectric_constant_of_clausius_and_mossotti():
    # every lattice point of a cubic crystal feels the field of Lorentz: (e - 1) / (e + 2) = 4 pi a / (3 v)
    a, edge = 1.2, 4.0
    crystal = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=edge))
    potential = ms.InducedDipoles(0.0, ("Ar",), polarizability=a, cutoff_radius=6.0)
    response = potential.response(crystal, ms.neighbors_of(potential, crystal))
    volume = edge**3 / 4
    part = 4 * np.pi * a / (3 * volume)
    exact = (1 + 2 * part) / (1 - part)
    dielectric = np.eye(3) + 4 * np.pi / volume * np.asarray(response)
    assert_allclose(dielectric, exact * np.eye(3), rtol=1e-10, atol=1e-10)


def test_dipoles_too_close_are_refused_with_the_distance():
    limit = (4 * A1 * A2) ** (1 / 6)
    with pytest.raises(InputError, match=rf"closer than {limit:.4g} Å.* polarise each other without end"):
        ms.energy(noble(), pair(0.99 * limit))
    assert np.isfinite(ms.energy(noble(), pair(1.01 * limit)))
    assert np.isfinite(ms.energy(noble(thole=0.39), pair(0.5 * limit)))


def test_many_dipoles_can_have_no_equilibrium_where_each_two_of_them_have_one():
    chain = ms.Structure.create([[2.0 * k, 0, 0] for k in range(6)], ["Ar"] * 6)
    potential = ms.InducedDipoles(0.0, ("Ar",), polarizability=2.2)
    assert potential.softest(chain, ms.neighbors_of(potential, chain)) < 0
    # along the chain: a field of the symmetry of the softest dipoles
    charged = dataclasses.replace(chain, charges=jnp.array([1.0, 0, 0, 0, 0, -1.0]))
    with pytest.raises(NonFiniteError):
        ms.energy(dataclasses.replace(potential, charge=None), charged)


def test_a_cluster_relaxes_and_its_bond_follows_the_polarizability():
    pairs = ([0.05] * 3, [2.0] * 3, [2.6] * 3)
    repulsion = ms.Morse(*pairs, ("Na", "Ar"), cutoff_radius=np.inf, cut=ms.Truncated())
    structure = ms.Structure.create([[0, 0, 0], [0, 0, 2.6]], ["Na", "Ar"])

    def bond(a):
        induced = ms.InducedDipoles([1.0, 0.0], ("Na", "Ar"), polarizability=jnp.stack([0.0 * a, a]))
        x = ms.relax(repulsion + induced, structure, fmax=1e-11).structure.positions
        return jnp.linalg.norm(x[1] - x[0])

    a, step = 1.6, 1e-4
    twin = (bond(a + step) - bond(a - step)) / (2 * step)
    assert_allclose(jax.grad(bond)(a), twin, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(polarizability=None), "needs a polarizability"),
        (dict(polarizability=[1.0]), "polarizability"),
        (dict(elements=()), "needs elements"),
        (dict(accuracy=1.0), "accuracy"),
        (dict(screening=-1.0), "screening"),
        (dict(solver="cg"), "solver must be"),
        (dict(cutoff_radius=0.0), "cutoff_radius"),
    ],
)
def test_what_is_wrong_is_said(options, match):
    with pytest.raises(InputError, match=match):
        ions(**options)


def test_slabs_need_a_screening():
    slab = ms.Structure.create(
        [[0, 0, 0], [2.5, 0, 0]], ["Na", "Cl"], [5.0, 5.0, 9.0], pbc=(True, True, False)
    )
    with pytest.raises(InputError, match="InducedDipoles sums over crystals and free clusters"):
        ms.energy(ions(), slab)
    assert np.isfinite(ms.energy(ions(screening=0.2), slab))


def test_a_charged_crystal_is_refused():
    crystal = ms.Structure.create([[0, 0, 0]], ["Na"], [5.0, 5.0, 5.0])
    with pytest.raises(InputError, match=r"net charge.*InducedDipoles\(..., background=True\)"):
        ms.energy(ions(), crystal)


def test_a_file_keeps_everything_but_the_solver(tmp_path):
    ms.save_potential(ions(screening=0.2, solver=ms.Iterated()), tmp_path / "ions.toml")
    assert eqx.tree_equal(ms.load_potential(tmp_path / "ions.toml"), ions(screening=0.2))


@pytest.mark.parametrize(("sodium", "differentiated"), [(0.3, True), (0.0, False)])
def test_a_rougher_tensor_changes_how_fields_are_found_and_not_the_fields(
    sodium, differentiated, monkeypatch
):
    crystal = ms.Structure.from_ase(ase.build.bulk("NaCl", "rocksalt", a=5.6, cubic=True))
    structure = crystal.at(crystal.positions + 0.2 * np.random.default_rng(1).normal(size=(8, 3)))
    potential = ions(polarizability=[sodium, 3.0], cutoff_radius=6.0, accuracy=1e-8)
    near = ms.neighbors_of(potential, structure)

    def moment(x):
        return jnp.sum(jnp.sin(jnp.arange(24.0)) * potential.dipoles(structure.at(x), near).ravel())

    found = jax.grad(moment) if differentiated else moment
    small = found(structure.positions)
    assert potential._with_fields(structure, near).rougher is None
    monkeypatch.setattr(dipoles, "MANY", 0)
    assert len(potential._with_fields(structure, near).rougher.waves) < 0.3 * len(near.waves)
    assert_allclose(found(structure.positions), small, rtol=0, atol=1e-9)
