"""A shorter list out of a longer one holds the pairs that a search for it finds."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, surface

import mdsens as ms
from mdsens.neighbors import Neighbors, find_neighbors, nearer

REACH = 3.9


def structure_of(atoms: Atoms) -> ms.Structure:
    atoms.rattle(0.2, seed=2)
    return ms.Structure.from_ase(atoms)


STRUCTURES = {
    "smaller than its reach": structure_of(bulk("Cu", "hcp", a=2.7, c=4.3)),
    "crystal": structure_of(bulk("Si", a=5.43, cubic=True)),
    "slab": structure_of(surface(bulk("Cu", a=3.6), (1, 1, 0), 3, vacuum=6.0)),
    "cluster": structure_of(Atoms("Ar5", np.random.default_rng(0).uniform(0, 6, (5, 3)))),
    "nobody near": ms.Structure.create([[0, 0, 0]], ["Ar"], cell=20 * np.eye(3)),
}


def pairs_of_rows(neighbors: Neighbors) -> set:
    table = neighbors.table()
    atom, place = np.nonzero(np.asarray(table.valid))
    owner, shift = np.asarray(table.j)[atom, place], np.asarray(table.shift)[atom, place]
    found = {(a, b, *s) for a, b, s in zip(atom.tolist(), owner.tolist(), shift.tolist(), strict=True)}
    assert len(found) == len(atom)  # each once
    return found


def number_of_pairs(neighbors: Neighbors) -> int:
    return int(np.sum(np.asarray(neighbors.valid)))


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_pairs_within_a_shorter_reach_are_those_that_a_search_finds(name):
    structure = STRUCTURES[name]
    long = find_neighbors(structure, REACH, 1.3)
    short, searched = nearer(long, structure, REACH), find_neighbors(structure, REACH)
    assert pairs_of_rows(short) == pairs_of_rows(searched)
    assert number_of_pairs(short) == number_of_pairs(searched)
    assert len(pairs_of_rows(short)) == 2 * number_of_pairs(short)


def test_atoms_that_have_moved_are_looked_at_where_they_are_now():
    structure = STRUCTURES["crystal"]
    long = find_neighbors(structure, REACH, 1.3)
    moves = np.random.default_rng(1).uniform(-0.3, 0.3, (8, 3))
    moved = structure.at(structure.positions + moves)
    here = nearer(long, moved, REACH)
    assert pairs_of_rows(here) == pairs_of_rows(find_neighbors(moved, REACH))
    assert pairs_of_rows(here) != pairs_of_rows(find_neighbors(structure, REACH))
    # it has no skin, and is made for this place
    assert float(here.reach) == REACH
    np.testing.assert_array_equal(here.positions, moved.positions)
