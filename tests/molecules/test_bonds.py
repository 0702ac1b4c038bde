"""Bonds of molecules out of every kind of topology, and what their graph says, on random molecules."""

from itertools import pairwise

import ase
import ase.build
import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdsens.errors import InputError
from mdsens.molecules.bonds import SHOWN, read_bonds
from mdsens.molecules.graph import bond_graph, carried, connected, middle, rings


@st.composite
def graphs(draw, closed=2):
    """Up to 20 atoms in a tree, and some bonds that close rings."""
    n = draw(st.integers(1, 20))
    pairs = [(draw(st.integers(0, k - 1)), k) for k in range(1, n)]
    ends = st.integers(0, n - 1)
    extra = draw(st.lists(st.tuples(ends, ends), max_size=closed))
    return n, [*pairs, *((i, j) for i, j in extra if i != j)]


TREES = graphs(closed=0)


# --- bonds ----------------------------------------------------------------------------------------------


@given(graphs())
def test_bonds_join_both_atoms_and_each_pair_once(topology):
    bonds = read_bonds(topology)
    assert bonds.n_atoms == topology[0]
    for i, bonded in enumerate(bonds.neighbors):
        assert list(bonded) == sorted(set(bonded)) and i not in bonded
        assert all(i in bonds.neighbors[j] for j in bonded)
    assert set(map(frozenset, bonds.pairs)) == {frozenset(pair) for pair in topology[1]}
    assert len(bonds.pairs) == len(set(bonds.pairs))


@given(graphs())
def test_the_order_in_which_bonds_are_listed_means_nothing(topology):
    n, pairs = topology
    turned = [(j, i) for i, j in reversed(pairs)] + pairs
    assert read_bonds((n, turned)) == read_bonds(topology)
    assert read_bonds(read_bonds(topology)) == read_bonds(topology)


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ((3, [(0, 3)]), "a bond between atoms 0 and 3: bonds join two different atoms out of 0 to 2"),
        ((3, [(1, 1)]), "a bond between atoms 1 and 1"),
        ((3, [(-1, 0)]), "a bond between atoms -1 and 0"),
        ((3, [(0, 1)], [8, 1]), "2 atomic numbers for 3 atoms: give one per atom"),
        ("water", "a builtins.str is no topology"),
        (None, "is no topology. Give an mdtraj Topology"),
        ((2.5, []), "is no topology"),
        ([(0, 1)], "is no topology"),
    ],
)
def test_what_is_no_topology_is_refused(topology, message):
    with pytest.raises(InputError, match=message):
        read_bonds(topology)


@pytest.mark.parametrize(
    ("name", "n_bonds"), [("H2O", 2), ("CH4", 4), ("C2H6", 7), ("C6H6", 12), ("CO2", 2), ("O2", 1)]
)
def test_bonds_of_ase_are_those_of_the_molecule(name, n_bonds):
    atoms = ase.build.molecule(name)
    assert len(read_bonds(atoms).pairs) == n_bonds
    # a cell does not bond a molecule to its image
    atoms.set_cell([3.0] * 3)
    atoms.pbc = True
    assert len(read_bonds(atoms).pairs) == n_bonds


def test_atoms_in_messages_are_named_and_long_lists_are_cut():
    bonds = read_bonds((SHOWN + 5, [], None))
    assert bonds.name(0, 2) == "atom 0 (index 0), atom 2 (index 2)"
    assert bonds.name(*range(SHOWN + 5)).endswith("and 5 more")
    assert read_bonds(ase.build.molecule("H2O")).name(0) == "O0 (index 0)"


# --- graphs ---------------------------------------------------------------------------------------------


@given(TREES)
def test_a_tree_has_no_rings(topology):
    assert rings(topology) == []


@given(graphs(closed=4))
def test_ring_systems_are_disjoint_and_hold_all_cycles(topology):
    found = rings(topology)
    atoms = [atom for ring in found for atom in ring]
    assert len(set(atoms)) == len(atoms)
    graph = bond_graph(read_bonds(topology))
    in_cycles = {atom for cycle in networkx.cycle_basis(graph) for atom in cycle}
    assert set(atoms) == in_cycles
    # each cycle lies in one system
    systems = list(map(set, found))
    assert all(any(set(cycle) <= system for system in systems) for cycle in networkx.cycle_basis(graph))


@given(st.integers(3, 12))
def test_a_ring_is_one_system_of_all_its_atoms(n):
    assert rings((n, [*pairwise(range(n)), (n - 1, 0)])) == [tuple(range(n))]


@given(TREES)
def test_a_bond_parts_a_tree_in_two(topology):
    n, pairs = topology
    graph = bond_graph(read_bonds(topology))
    for i, j in pairs:
        assert carried(graph, i, j) + carried(graph, j, i) == n


@given(graphs())
def test_all_atoms_are_reached_from_any(topology):
    graph = bond_graph(read_bonds(topology))
    assert connected(graph, 0) == set(range(topology[0]))


@given(TREES, st.data())
def test_the_middle_is_nearest_to_all_heavy_atoms(topology, data):
    n = topology[0]
    light = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    graph = bond_graph(read_bonds(topology))
    found = middle(graph, light)
    heavy = [atom for atom in range(n) if not light[atom]]
    if not heavy:
        return
    assert found in heavy
    lengths = dict(networkx.all_pairs_shortest_path_length(graph))
    reach = {atom: max(lengths[atom][other] for other in heavy) for atom in heavy}
    assert reach[found] == min(reach.values())


def test_pieces_of_a_molecule_do_not_reach_each_other():
    graph = bond_graph(read_bonds((4, [(0, 1), (2, 3)])))
    assert connected(graph, 0) == {0, 1} and connected(graph, 3) == {2, 3}
    assert np.isclose(carried(graph, 0, 1), 1)
