"""Bonds, angles, dihedrals, and what is not bonded: identities, awkward places, images, wrong input."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import peroxide
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.testing.probe import filled, probe

CHAIN = ((0, 1), (1, 2), (2, 3))
EXCLUDED = tuple(itertools.combinations(range(4), 2))


def bonds(atoms=CHAIN, kind=(0, 1, 0)):
    return ms.HarmonicBonds(k=[30.0, 20.0], r0=[0.97, 1.45], types=("O-H", "O-O"), atoms=atoms, kind=kind)


def angles(theta0=1.75, atoms=((0, 1, 2), (1, 2, 3))):
    return ms.HarmonicAngles(k=[5.0], theta0=[theta0], types=("H-O-O",), atoms=atoms, kind=[0] * len(atoms))


def dihedrals(atoms=((0, 1, 2, 3),)):
    return ms.PeriodicDihedrals(
        k=[0.1, 0.03],
        phi0=[0.3, -1.0],
        n=[1, 3],
        types=("H-O-O-H:1", "H-O-O-H:3"),
        atoms=[*atoms, *atoms],
        kind=[0] * len(atoms) + [1] * len(atoms),
    )


def wells(kind=(0, 1, 1, 0), excluded=EXCLUDED, scaled=((0, 3),), **settings):
    settings = {"cutoff_radius": 4.0, "cut": ms.Smooth(), **settings}
    return ms.MolecularLennardJones(
        epsilon=[0.001, 0.007], sigma=[1.5, 3.1], types=("H", "O"), kind=kind, excluded=excluded,
        scaled=scaled, scale14=0.5, **settings,
    )  # fmt: skip


def charges(kind=(0, 1, 1, 0), excluded=EXCLUDED, scaled=((0, 3),)):
    return ms.MolecularCharges(
        charge=[0.4, -0.4], types=("H", "O"), kind=kind, excluded=excluded, scaled=scaled, scale14=1 / 1.2,
        cutoff_radius=4.0, accuracy=1e-12,
    )  # fmt: skip


def molecule(cell=None):
    return ms.Structure.create(peroxide.positions(), ["H", "O", "O", "H"], cell)


# a cell in which the second image of every atom is within the cutoff, also that of an excluded one
CELL = np.array([[5.2, 0.0, 0.0], [0.4, 5.4, 0.0], [-0.3, 0.5, 5.3]])


def test_two_cells_have_twice_the_energy_of_one_with_the_exclusions_of_both():
    once = molecule(CELL)
    twice = once.repeat((2, 1, 1))
    both = {
        name: [tuple(i + shift for i in atoms) for shift in (0, 4) for atoms in rows]
        for name, rows in (("excluded", EXCLUDED), ("scaled", [(0, 3)]))
    }
    for form in (wells, charges):
        single, double = form(), form(kind=(0, 1, 1, 0) * 2, **both)
        assert ms.energy(double, twice) == pytest.approx(2 * float(ms.energy(single, once)), rel=1e-9)


def test_images_of_excluded_pairs_interact():
    # in a cell so large that no image is near there is nothing left but the scaled pair
    alone, crowded = (float(ms.energy(wells(), molecule(cell))) for cell in (3 * CELL, CELL))
    d = peroxide.positions()[3] - peroxide.positions()[0]
    sixth = (1.5 / np.linalg.norm(d)) ** 6
    assert alone == pytest.approx(0.5 * 4 * 0.001 * (sixth**2 - sixth), rel=1e-12)
    assert abs(crowded - alone) > 1e-6


def test_explicit_pairs_are_the_mixed_ones_where_they_have_their_numbers():
    mixed, free = wells(), molecule()
    epsilon = [0.001, np.sqrt(0.001 * 0.007), 0.007]
    explicit = dataclasses.replace(mixed, epsilon=epsilon, sigma=[1.5, 2.3, 3.1], mixing=None)
    assert "sigma[H-O]" in ms.parameter_values(explicit)
    assert ms.energy(explicit, free) == pytest.approx(float(ms.energy(mixed, free)), rel=1e-13)
    geometric = dataclasses.replace(explicit, sigma=[1.5, np.sqrt(1.5 * 3.1), 3.1])
    mixed = dataclasses.replace(mixed, mixing="geometric")
    # with the H-O pairs among those that interact
    kept = {"excluded": ((0, 3),)}
    a, b = (ms.energy(dataclasses.replace(p, **kept), free) for p in (geometric, mixed))
    assert a == pytest.approx(float(b), rel=1e-13)


def test_well_of_no_depth_has_finite_derivatives():
    flat = dataclasses.replace(wells(), epsilon=[0.0, 0.007], excluded=((0, 3),))
    found = probe(
        flat, molecule(CELL), ms.neighbors_of(flat, molecule(CELL)), jnp.ones((4, 3)), filled(flat, 1.0)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert found.reverse.epsilon[0] == 0  # pyright: ignore


# --- awkward places


def test_molecule_that_wants_to_be_straight_bends_as_a_spring():
    # E = k delta² / 2 and delta = 2 y / r for the middle atom moved sideways by y
    k, r = 4.0, 1.16
    potential = dataclasses.replace(angles(np.pi, ((0, 1, 2),)), k=jnp.array([k]))
    straight = ms.Structure.create([[-r, 0, 0], [0, 0, 0], [r, 0, 0]], ["O", "C", "O"])
    still = ms.neighbors_of(potential, straight)
    energy = lambda x: potential.energy(straight.at(x), still)
    hessian = np.asarray(jax.hessian(energy)(straight.positions))[1, 1:, 1, 1:]
    assert_allclose(hessian, 4 * k / r**2 * np.eye(2), rtol=1e-12, atol=1e-12)
    # and the series joins the arctangent
    bent = lambda y: float(energy(straight.positions.at[1, 1].set(y)))
    for sine in (0.0999, 0.1001):
        y = r * np.tan(np.arcsin(sine) / 2)
        delta = 2 * np.arctan(y / r)
        assert bent(y) == pytest.approx(k * delta**2 / 2, rel=1e-12)


PLACES = {
    "in a line": [[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]],
    "in a line but one": [[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 1, 0]],
    "folded back": [[0, 0, 0], [1, 0, 0], [0, 0, 1e-30], [1, 0, 0]],
    "cis": [[0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0]],
    "trans": [[0, 1, 0], [0, 0, 0], [1, 0, 0], [1, -1, 0]],
    "two at one place": [[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 1, 1]],
}


@pytest.mark.parametrize("theta0", [1.75, np.pi])
def test_value_and_derivatives_of_bonded_forms_are_finite_in_awkward_places(theta0):
    potential = bonds() + angles(theta0) + dihedrals()
    v, change = jnp.asarray(np.random.default_rng(2).normal(size=(4, 3))), filled(potential, 1.0)
    for name, places in PLACES.items():
        structure = ms.Structure.create(places, ["H", "O", "O", "H"])
        found = probe(potential, structure, ms.neighbors_of(potential, structure), v, change)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found)), name


def test_shares_of_atoms_are_the_energy_and_atoms_without_bonds_are_in_contact_with_nothing():
    structure = molecule()
    potential = bonds(CHAIN[:2], (0, 1)) + angles(atoms=((0, 1, 2),))
    neighbors = ms.neighbors_of(potential, structure)
    shares = potential.site_energies(structure, neighbors)
    assert float(jnp.sum(shares)) == pytest.approx(float(ms.energy(potential, structure)), rel=1e-13)
    assert potential.contacts(structure, neighbors).tolist() == [True, True, True, False]


def test_relaxed_torsion_follows_its_phase():
    # bonds and angles do not feel the torsion: E is least at n phi - phi0 = pi
    potential = bonds() + angles() + dataclasses.replace(dihedrals(), k=jnp.array([0.0, 0.3]))

    def phi(potential):
        relaxed = ms.relax(potential, molecule(), fmax=1e-9)
        part = relaxed.potential.parts[2]  # pyright: ignore
        from mdsens.potentials.bonded import dihedral_angles

        return dihedral_angles(*part._steps(relaxed.structure))[0]

    value, slopes = jax.value_and_grad(phi)(potential)
    assert np.cos(3 * value - (-1.0)) == pytest.approx(-1, abs=1e-9)
    assert_allclose(slopes.parts[2].phi0, [0, 1 / 3], atol=1e-8)
    assert_allclose(slopes.parts[0].r0, 0, atol=1e-8)


# --- what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bonds(atoms=((0, 0),), kind=(0,)), r"atoms, row 0: \[0, 0\] names an atom twice"),
        (lambda: bonds(atoms=((0, 1, 2),), kind=(0,)), r"atoms have shape \(1, 3\): give 2 atoms in each"),
        (lambda: bonds(atoms=((0, -1),), kind=(0,)), "give whole numbers, 0 or more"),
        (lambda: bonds(atoms=((0, 0.5),), kind=(0,)), "give whole numbers, 0 or more"),
        (lambda: bonds(kind=(0, 1)), r"kind has shape \(2,\): give the type of each of the 3 bonds"),
        (lambda: bonds(kind=(0, 1, 2)), "kind counts to 2, and there are 2 types"),
        (lambda: dataclasses.replace(bonds(), types=("A", "A")), "types: 'A' stands twice"),
        (lambda: dataclasses.replace(bonds(), k=[1.0]), r"k has shape \(1,\); it must have 2 values, in the"),
        (lambda: dataclasses.replace(dihedrals(), n=[1]), r"n has shape \(1,\): give the minima"),
        (lambda: wells(scaled=((0, 3),), excluded=()), r"scaled pair \[0, 3\] is not among the excluded"),
        (lambda: wells(scaled=()), "scale14 = 0.5 for 0 scaled pairs: give the fraction"),
        (lambda: wells(kind=(0, 1)), "excluded names atom 3, and kind has 2 atoms"),
        (lambda: wells(mixing="sum"), "mixing 'sum' is unknown"),
        (lambda: wells(cut=ms.ForceShifted(), tail=True), "tail=True with the cutoff 4.0 Å and ForceShifted"),
        (lambda: ms.energy(wells(), molecule().repeat(1).at(jnp.zeros((4, 3)), jnp.eye(3))), "not finite"),
        (lambda: ms.energy(bonds(), ms.Structure.create([[0, 0, 0]], ["H"])), "names atom 3, and the struct"),
        (lambda: ms.energy(charges(), ms.Structure.create([[0, 0, 0]], ["H"])), "made for 4 atoms"),
        (lambda: ms.energy(wells(), molecule(0.6 * CELL)), "which images belong together is not clear"),
        (lambda: ms.energy(bonds(), molecule(0.5 * CELL)), "ties atoms 1 and 2.* half the thickness"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(make, message):
    with pytest.raises((InputError, ms.errors.NonFiniteError), match=message):
        make()
