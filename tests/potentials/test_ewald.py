"""Ewald's sum: Madelung constants, independence of how it is split, charges on atoms, what it refuses."""

import dataclasses

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.units import COULOMB

# Madelung constants for the distance of nearest neighbors, known to twenty digits. The sublattices of all
# four crystals are fcc lattices shifted by quarters of the diagonal of the cube. With f_m the energy of two
# that are m quarters apart, the energies of a formula unit are
#     NaCl f0 - f2,   ZnS f0 - f1,   CsCl f0 + f2 - 2 f1,   CaF2 3 f0 + f2 - 4 f1,
# so that the last two follow from the others.
NACL = 1.74756459463318219063
CSCL = 1.76267477307098839793
ZNS = (CSCL + np.sqrt(3) / 2 * NACL) / 2
CAF2 = 4 * ZNS - np.sqrt(3) / 2 * NACL
EDGE = 5.6


def rock_salt(edge=EDGE):
    return ase.build.bulk("NaCl", "rocksalt", a=edge)


def fluorite():
    return ase.build.bulk("CaF2", "fluorite", a=EDGE)


CRYSTALS = {  # atoms of the primitive cell, charges, constant, distance of neighbors over the edge
    "NaCl": (rock_salt(), {"Na": 1.0, "Cl": -1.0}, NACL, 1 / 2),
    "CsCl": (ase.build.bulk("CsCl", "cesiumchloride", a=EDGE), {"Cs": 1.0, "Cl": -1.0}, CSCL, np.sqrt(3) / 2),
    "ZnS": (ase.build.bulk("ZnS", "zincblende", a=EDGE), {"Zn": 2.0, "S": -2.0}, 4 * ZNS, np.sqrt(3) / 4),
    "CaF2": (fluorite(), {"Ca": 2.0, "F": -1.0}, CAF2, np.sqrt(3) / 4),
}


def ewald(charges, **options):
    return ms.Ewald(list(charges.values()), tuple(charges), **options)


SALT = ewald({"Na": 1.0, "Cl": -1.0})


def shaken_salt(seed=0, **options):
    atoms = ase.build.bulk("NaCl", "rocksalt", a=EDGE, cubic=True)
    atoms.rattle(0.2, seed=seed)
    return ms.Structure.create(atoms.positions, atoms.numbers, atoms.cell.array, **options)


@pytest.mark.parametrize("name", CRYSTALS)
def test_crystals_have_their_madelung_constants_in_any_cell(name):
    atoms, charges, constant, share = CRYSTALS[name]
    # the cells span the same lattice: one as small as possible, one skewed, two of these
    for transformation in (np.eye(3), [[1, 1, 0], [0, 1, 0], [2, 0, 1]], [[2, 0, 0], [1, 1, 0], [0, 0, 1]]):
        cell = ase.build.make_supercell(atoms, transformation)
        structure = ms.Structure.from_ase(cell)
        units = len(cell) / len(atoms)
        found = -float(ms.energy(ewald(charges, accuracy=1e-14), structure)) / units * share * EDGE / COULOMB
        assert_allclose(found, constant, rtol=1e-13)


def test_the_stated_accuracy_is_kept_however_the_sum_is_split():
    structure = shaken_salt()
    exact = ms.energy_forces_stress(ewald({"Na": 1.0, "Cl": -1.0}, accuracy=1e-15), structure)
    of_neighbors = COULOMB / (EDGE / 2)  # eV
    for accuracy, cutoff in ((1e-6, 6.0), (1e-12, 8.0)):
        potential = ewald({"Na": 1.0, "Cl": -1.0}, accuracy=accuracy, cutoff_radius=cutoff)
        found = ms.energy_forces_stress(potential, structure)
        allowed = accuracy * of_neighbors
        assert_allclose(found.energy / 8, exact.energy / 8, rtol=0, atol=allowed)
        assert_allclose(found.forces, exact.forces, rtol=0, atol=allowed)
        virial = float(ms.volume(structure)) / 8
        assert_allclose(virial * found.stress, virial * exact.stress, rtol=0, atol=allowed)


def test_the_accuracy_outlasts_all_deformations_that_the_list_allows():
    structure = shaken_salt()
    potential = ewald({"Na": 1.0, "Cl": -1.0}, accuracy=1e-10)
    neighbors = ms.neighbors_of(potential, structure, skin=1.5)
    strain = np.diag([0.07, 0.05, -0.03]) + 0.02 * (np.ones((3, 3)) - np.eye(3))
    moved = structure.deformed(jnp.asarray(np.eye(3) + strain))
    assert 0 < neighbors.slack(moved, potential.cutoff) < 0.4
    # the same shapes: nothing is compiled again
    anew = ms.neighbors_of(potential, moved, capacity=neighbors.capacity)
    kept, exact = (ms.energy_forces_stress(potential, moved, near) for near in (neighbors, anew))
    assert anew.capacity == neighbors.capacity
    assert_allclose(kept.forces, exact.forces, rtol=0, atol=1e-10 * COULOMB / (EDGE / 2))
    assert_allclose(kept.stress, exact.stress, rtol=0, atol=1e-11)


def test_the_waves_keep_their_shape_while_the_cell_moves_a_little():
    structure = shaken_salt()
    first = ms.neighbors_of(SALT, structure, skin=1.0)
    larger = ms.neighbors_of(SALT, structure.deformed(1.002 * jnp.eye(3)), 1.0, first.capacity)
    assert larger.waves.shape == first.waves.shape


def test_potentials_without_waves_have_none_in_their_list():
    potential = ms.LennardJones(0.01, 3.0, ("Na",), 6.0)
    assert ms.neighbors_of(potential, shaken_salt()).waves is None


def test_a_cluster_is_the_plain_sum_over_all_pairs():
    rng = np.random.default_rng(1)
    x, q = 6 * rng.random((7, 3)), rng.normal(size=7)
    cluster = ms.Structure.create(x, ["Na"] * 7, charges=q)
    i, j = np.triu_indices(7, 1)
    exact = COULOMB * np.sum(q[i] * q[j] / np.linalg.norm(x[i] - x[j], axis=1))
    assert_allclose(ms.energy(ms.Ewald(), cluster), exact, rtol=1e-14)


def test_energies_of_atoms_add_up_and_are_half_their_potential():
    charged = shaken_salt(charges=[1.0, -1.0, 1.2, -1.2, 0.8, -0.8, 1.0, -1.0])
    neighbors = ms.neighbors_of(ms.Ewald(), charged)
    energies = ms.Ewald().site_energies(charged, neighbors)
    q = charged.charges
    slope = jax.grad(lambda q: ms.energy(ms.Ewald(), dataclasses.replace(charged, charges=q), neighbors))(q)
    assert_allclose(energies, q * slope / 2, rtol=1e-12)
    assert_allclose(energies.sum(), ms.energy(ms.Ewald(), charged), rtol=1e-13)


def test_charges_of_atoms_give_what_charges_of_species_give():
    plain = shaken_salt()
    charged = shaken_salt(charges=[1.0, -1.0] * 4)
    by_species, by_atoms = ms.energy_forces_stress(SALT, plain), ms.energy_forces_stress(ms.Ewald(), charged)
    assert_allclose(by_atoms.energy, by_species.energy, rtol=1e-15)
    assert_allclose(by_atoms.forces, by_species.forces, rtol=0, atol=1e-14)
    assert_allclose(by_atoms.stress, by_species.stress, rtol=0, atol=1e-15)


def test_forces_follow_the_charges_of_atoms_forward_and_in_reverse():
    charged = shaken_salt(charges=[1.0, -1.0] * 4)
    neighbors = ms.neighbors_of(ms.Ewald(), charged)

    @jax.jit
    def along(q, x):
        return ms.Ewald().energy(dataclasses.replace(charged, positions=x, charges=q), neighbors)

    x, q = charged.positions, charged.charges
    force = jax.jit(lambda q: jax.grad(along, argnums=1)(q, x)[0, 0])
    forward, reverse = jax.jacfwd(force)(q), jax.grad(force)(q)
    assert_allclose(forward, reverse, rtol=1e-12, atol=1e-13)
    step = 1e-3 * np.eye(8)
    # quadratic in the charges: a central difference is exact up to rounding
    twin = [(force(q + d) - force(q - d)) / 2e-3 for d in step]
    assert_allclose(forward, twin, atol=1e-11)


def test_a_background_makes_a_charged_cell_independent_of_the_splitting():
    # one charge per cubic cell on a uniform background: the Wigner crystal, sc, -2.837297479480619 / (2 L)
    structure = ms.Structure.create([[0.0, 0.0, 0.0]], ["Na"], cell=[EDGE] * 3)
    for cutoff in (6.0, 12.0):
        potential = ms.Ewald(1.0, ("Na",), cutoff_radius=cutoff, background=True)
        found = float(ms.energy(potential, structure)) * 2 * EDGE / COULOMB
        assert_allclose(found, -2.837297479480619, rtol=1e-12)


# --- what it refuses


def test_a_net_charge_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"net charge of \+4 e.*background=True"):
        ms.energy(ewald({"Na": 2.0, "Cl": -1.0}), shaken_salt())


def test_a_slab_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"slab or wire.*DampedShiftedForce"):
        ms.energy(SALT, shaken_salt(pbc=[True, True, False]))


def test_missing_charges_are_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"the structure has none.*Structure.create\(\.\.\., charges="):
        ms.energy(ms.Ewald(), shaken_salt())


def test_an_element_without_charge_is_named():
    with pytest.raises(InputError, match="Ewald has no parameters for Cl"):
        ms.energy(ewald({"Na": 1.0, "K": -1.0}), shaken_salt())


@pytest.mark.parametrize("accuracy", [1e-17, 0.1, 0.0, -1.0])
def test_accuracies_out_of_range_are_refused(accuracy):
    with pytest.raises(InputError, match=r"accuracy = .*choose one from 1e-15"):
        ewald({"Na": 1.0, "Cl": -1.0}, accuracy=accuracy)


def test_charges_and_elements_come_together():
    with pytest.raises(InputError, match="give both, one charge"):
        ms.Ewald([1.0, -1.0])
    with pytest.raises(InputError, match="2 values, in the order Na, Cl"):
        ms.Ewald([1.0, -1.0, 2.0], ("Na", "Cl"))


def test_a_list_without_waves_is_refused_with_the_remedy():
    structure = shaken_salt()
    with pytest.raises(InputError, match=r"no waves.*ms.neighbors_of"):
        ms.energy(SALT, structure, ms.find_neighbors(structure, 10.0))


def test_more_waves_than_fit_are_refused_with_the_remedy():
    structure = ms.Structure.create([[0.0] * 3, [1.0] * 3], ["Na", "Cl"], cell=[200.0] * 3)
    with pytest.raises(InputError, match=r"waves of this cell.*longer cutoff_radius"):
        ms.energy(ewald({"Na": 1.0, "Cl": -1.0}, cutoff_radius=2.0), structure)


def test_charges_of_a_structure_must_be_one_per_atom():
    with pytest.raises(InputError, match=r"charges have shape \(3,\): give 8"):
        shaken_salt(charges=[1.0, 2.0, 3.0])


def test_a_charge_that_moves_alone_is_refused_by_relax_and_followed_by_analyses():
    uneven, crystal = ewald({"Na": 1.1, "Cl": -1.0}), ms.Structure.from_ase(rock_salt())
    with pytest.raises(InputError, match=r"net charge of \+0.1 e"):
        ms.relax(uneven, crystal)
    # at rest by symmetry
    assert ms.relax(uneven, crystal, check_structure=False, check_minimum=False).fmax < 1e-12


def test_charges_that_were_rounded_are_taken_for_neutral_and_a_missing_ion_is_not():
    rounded = shaken_salt(charges=[0.9999, -1.0] * 4)
    ms.Ewald().check_structure(rounded)
    crystal = ms.Structure.from_ase(rock_salt()).repeat(6)
    missing = dataclasses.replace(
        crystal, charges=jnp.tile(jnp.array([1.0, -1.0]), crystal.n_atoms // 2).at[0].set(0.0)
    )
    with pytest.raises(InputError, match=r"net charge of -1 e"):
        ms.Ewald().check_structure(missing)
