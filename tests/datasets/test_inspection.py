"""What is wrong with data: equal atoms in any disguise and no others, numbers far off, atoms too close."""

import ase.build
import jax.numpy as jnp
import numpy as np
import pytest

import mdsens as ms
from mdsens.datasets import Dataset, find_duplicates, find_outliers
from mdsens.datasets.inspection import Duplicate, surroundings


def dimer(r, symbols=("Ar", "Ar")):
    return ms.Structure.create([[0.0, 0, 0], [r, 0, 0]], list(symbols))


def crystal(kind, size=1, seed=None, **options):
    atoms = ase.build.bulk(kind, **options) * (size, size, size)
    if seed is not None:
        atoms.rattle(0.1, seed=seed)
    return ms.Structure.from_ase(atoms)


def pairs(*structures):
    return [(one.first, one.second) for one in find_duplicates(Dataset.create(structures))]


# --- duplicates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("r", [1.2, 3.8, 4.97, 5.5, 8.0, 12.0])
def test_dimers_of_a_binding_curve_are_all_different_however_far_apart(r):
    assert pairs(dimer(r), dimer(r + 0.1)) == []
    assert pairs(dimer(r), dimer(r)) == [(0, 1)]


def test_fragments_of_a_molecule_torn_apart_are_told_apart_by_their_distance():
    water = ase.build.molecule("H2O")
    apart = []
    for distance in (6.0, 7.0, 6.0):
        other = water.copy()
        other.translate([distance, 0, 0])
        apart.append(ms.Structure.from_ase(water + other))
    assert pairs(*apart) == [(0, 2)]


def test_cells_of_one_atom_are_told_apart_by_their_size():
    assert pairs(*(crystal("Ar", a=a) for a in (7.5, 8.0, 7.5))) == [(0, 2)]


def test_elements_and_boundaries_make_a_difference():
    argon = dimer(3.8)
    periodic = ms.Structure.create(np.asarray(argon.positions), ["Ar"] * 2, cell=[30.0] * 3)
    assert pairs(argon, dimer(3.8, ("Ar", "Kr")), dimer(3.8, ("Kr", "Kr")), periodic) == []


@pytest.mark.parametrize(
    "structure",
    [
        crystal("Si", 2, seed=1, cubic=True),
        crystal("Cu", 3, seed=1, cubic=True),
        crystal("Ti", 2, seed=1),
        ms.Structure.from_ase(ase.build.fcc111("Al", (2, 2, 3), vacuum=6.0)),
        ms.Structure.from_ase(ase.build.molecule("C6H6")),
    ],
    ids=["diamond", "dense fcc", "hexagonal", "slab", "molecule"],
)
def test_digits_that_a_file_rounds_off_make_no_difference_and_a_hundredth_of_an_angstrom_does(structure):
    x = np.array(structure.positions)
    rounded = structure.at(jnp.round(x, 5))
    x[0] += [0.006, 0.006, 0.006]
    assert pairs(structure, rounded, structure.at(jnp.asarray(x))) == [(0, 1)]


def test_a_shift_another_image_and_another_order_make_no_difference():
    structure = crystal("Ti", 2, seed=2)
    x, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    images = np.random.default_rng(0).integers(-1, 2, x.shape)
    shifted = structure.at(jnp.asarray(x + [0.3, -0.2, 0.1] + images @ cell))
    order = np.random.default_rng(1).permutation(len(x))
    assert pairs(structure, shifted, structure.at(jnp.asarray(x[order]))) == [(0, 1), (0, 2)]


def test_numbers_of_surroundings_go_smoothly_to_zero_where_they_end():
    for end, scale in ((5.0, 1.0), (15.0, 3.0)):
        inside, outside = (surroundings(dimer(end + d), scale) for d in (-1e-3, 1e-3))
        assert np.abs(inside).max() < 1e-6
        np.testing.assert_array_equal(outside, 0.0)


def test_duplicates_contradict_each_other_where_their_energies_do():
    assert not Duplicate(0, 1, None).contradictory
    assert not Duplicate(0, 1, 9e-4).contradictory
    assert Duplicate(0, 1, -2e-3).contradictory
    same = [dimer(3.8)] * 3
    found = find_duplicates(Dataset.create(same, energies=[-0.01, -0.01, 0.01]))
    assert [one.contradictory for one in found] == [False, True]
    assert found[1].energy_difference == pytest.approx(0.01)  # per atom


# --- outliers -------------------------------------------------------------------------------------------


def test_of_few_numbers_none_is_far_off():
    structures = [dimer(3.5 + 0.1 * k) for k in range(4)]
    assert find_outliers(Dataset.create(structures, energies=[0.0, 0.0, 0.0, 1e6])) == []


def test_equal_numbers_have_no_outliers_and_a_different_one_among_them_is():
    structures = [dimer(3.5 + 0.1 * k) for k in range(6)]
    forces = [np.full((2, 3), 0.5) for _ in structures]
    assert find_outliers(Dataset.create(structures, forces=forces)) == []
    forces[3] = forces[3] * 10
    (found,) = find_outliers(Dataset.create(structures, forces=forces))
    assert (found.row, found.what, found.unit) == (3, "force", "eV/Å")
    assert found.value == pytest.approx(5 * np.sqrt(3))
    assert found.usual == pytest.approx(0.5 * np.sqrt(3))


def test_energies_are_compared_without_those_of_the_elements():
    # each Kr brings -100 eV: no energy is far off from what its atoms explain
    symbols = [("Ar", "Kr") if k % 2 else ("Ar", "Ar") for k in range(8)]
    structures = [dimer(4.0 + 0.1 * k, kinds) for k, kinds in enumerate(symbols)]
    energies = np.array([-100.0 * (k % 2) for k in range(8)])
    assert find_outliers(Dataset.create(structures, energies=energies)) == []
    compounds = Dataset.create([dimer(4.0 + 0.1 * k, ("Ar", "Kr")) for k in range(8)], energies=energies)
    assert find_outliers(compounds) == []  # half of them is no outlier
    energies[:] = -100.0
    energies[5] -= 50.0
    (found,) = find_outliers(Dataset.create(compounds.structures, energies=energies))
    assert (found.row, found.what, found.unit) == (5, "energy per atom", "eV")


@pytest.mark.parametrize("pbc", [False, True])
def test_atoms_on_top_of_each_other_are_found_through_periodic_boundaries_too(pbc):
    far = ms.Structure.create([[0.5, 0, 0], [5.0, 0, 0]], ["Cu", "O"], cell=[10.0] * 3, pbc=pbc)
    near = far.at(jnp.array([[0.1, 0, 0], [9.9, 0, 0]]))
    found = find_outliers(Dataset.create([far, near]))
    assert [one.row for one in found] == ([1] if pbc else [])
    if pbc:
        assert found[0].value == pytest.approx(0.2)
        assert found[0].usual == pytest.approx(0.6 * (1.32 + 0.66))  # covalent radii of Cu and O, Å


def test_a_single_atom_is_close_to_nothing():
    assert find_outliers(Dataset.create([ms.Structure.create([[0.0, 0, 0]], ["H"])])) == []
