"""The placement order: every atom once, after the three it is measured from."""

from pathlib import Path

import mdtraj
import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from mdsens.errors import InputError
from mdsens.molecules.bonds import read_bonds
from mdsens.molecules.placement import place_atoms

DATA = Path(__file__).parents[2] / "data"
BIPHENYL = (
    12,
    [(i, (i + 1) % 6) for i in range(6)] + [(6 + i, 6 + (i + 1) % 6) for i in range(6)] + [(0, 6)],
)


@pytest.fixture(scope="module")
def peptide() -> mdtraj.Trajectory:
    return mdtraj.load_pdb(DATA / "alanine-dipeptide.pdb")


@st.composite
def molecules(draw, rings: int = 0):
    """Random connected graphs of 4 to 30 atoms: a tree, and possibly bonds that close rings."""
    n = draw(st.integers(4, 30))
    pairs = [(draw(st.integers(0, i - 1)), i) for i in range(1, n)]
    extra = [draw(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))) for _ in range(rings)]
    label = draw(st.permutations(range(n)))
    numbers = draw(st.lists(st.sampled_from([1, 6, 8]), min_size=n, max_size=n))
    return n, [(label[i], label[j]) for i, j in pairs + [(i, j) for i, j in extra if i != j]], numbers


@given(molecules(rings=2))
def test_every_atom_is_placed_once_after_the_three_it_is_measured_from(topology):
    bonds = read_bonds(topology)
    rows, proper = place_atoms(topology)
    assert sorted(rows[:, 0]) == list(range(topology[0]))
    assert np.sum(rows < 0) == 3 + 2 + 1 and np.all(rows[3:] >= 0) and len(proper) == topology[0] - 3
    for k, (atom, a, b, c) in enumerate(rows):
        parents = [i for i in (a, b, c) if i >= 0]
        assert len(set(parents)) == len(parents) and set(parents) <= set(rows[:k, 0])
        assert a < 0 or a in bonds.neighbors[atom]
        assert b < 0 or b in bonds.neighbors[a]
        if c >= 0:
            # proper: on along the chain; improper: a sibling
            assert c in bonds.neighbors[b] if proper[k - 3] else c in bonds.neighbors[a]


@given(molecules())
def test_one_torsion_about_each_bond_is_proper_and_the_others_follow_it(topology):
    # a tree of n atoms turns about each bond that has something on both ends
    rows, proper = place_atoms(topology)
    axes = [frozenset(row[1:3]) for row in rows[3:][proper].tolist()]
    bonds = read_bonds(topology)
    inner = {
        frozenset((i, j))
        for i in range(topology[0])
        for j in bonds.neighbors[i]
        if min(len(bonds.neighbors[k]) for k in (i, j)) > 1
    }
    assert len(axes) == len(set(axes)) and set(axes) == inner


@given(molecules(rings=2), st.randoms())
def test_atoms_outside_a_block_have_three_parents(topology, random):
    bonds = read_bonds(topology)
    block = [random.randrange(bonds.n_atoms)]
    while len(block) < random.randint(3, bonds.n_atoms):
        block.append(random.choice([j for i in block for j in bonds.neighbors[i] if j not in block]))
    rows, proper = place_atoms(topology, tuple(block))
    assert len(rows) == len(proper) == bonds.n_atoms - len(block)
    placed = set(block)
    for atom, a, b, c in rows:
        assert len({a, b, c}) == 3 and {a, b, c} <= placed
        placed.add(atom)
    assert placed == set(range(bonds.n_atoms))


def test_torsions_of_a_peptide_are_phi_and_psi(peptide):
    rows, proper = place_atoms(peptide.topology)
    chosen = {tuple(row) for row in rows[3:][proper].tolist()}
    for compute in (mdtraj.compute_phi, mdtraj.compute_psi):
        (quartet,) = compute(peptide)[0].tolist()
        assert chosen & {tuple(quartet), tuple(quartet[::-1])}


def test_hydrogens_come_after_the_heavy_atoms(peptide):
    light = np.array([atom.element.number == 1 for atom in peptide.topology.atoms])[
        place_atoms(peptide.topology).rows[:, 0]
    ]
    assert np.all(np.diff(light.astype(int)) >= 0)


def test_mdtraj_ase_and_pairs_give_the_same_order(peptide):
    numbers = [atom.element.number for atom in peptide.topology.atoms]
    pairs = [(one.index, other.index) for one, other in peptide.topology.bonds]
    expected = place_atoms(peptide.topology).rows
    # what is periodic does not matter: the molecule is whole
    atoms = Atoms(numbers, 10 * peptide.xyz[0], cell=[30, 30, 30], pbc=True)
    np.testing.assert_array_equal(place_atoms(atoms).rows, expected)
    np.testing.assert_array_equal(place_atoms((len(numbers), pairs, numbers)).rows, expected)


def test_openmm_topology_gives_the_same_order(peptide):
    pytest.importorskip("openmm")
    np.testing.assert_array_equal(
        place_atoms(peptide.topology.to_openmm()).rows, place_atoms(peptide.topology).rows
    )


@pytest.mark.parametrize(("n", "rows"), [(1, [[0, -1, -1, -1]]), (2, [[0, -1, -1, -1], [1, 0, -1, -1]])])
def test_one_and_two_atoms_have_no_more_parents_than_there_are(n, rows):
    assert place_atoms((n, [(0, 1)][: n - 1])).rows.tolist() == rows


@pytest.mark.parametrize(
    ("topology", "block", "message"),
    [
        (
            (5, [(0, 1), (1, 2), (3, 4)]),
            (),
            r"no chain of bonds leads from atom 1 .* to atom 3 \(index 3\), atom 4",
        ),
        (
            Atoms(
                "OH2OH2", np.arange(6)[:, None] * [0.9, 0.0, 0.0] + np.repeat([[0, 0, 0], [0, 9, 0]], 3, 0)
            ),
            (),
            "no chain of bonds",
        ),
        ((3, [(0, 3)]), (), "bonds join two different atoms out of 0 to 2"),
        ((3, [(1, 1)]), (), "bonds join two different atoms"),
        ((3, [(0, 1), (1, 2)], [1, 8]), (), "2 atomic numbers for 3 atoms"),
        ((0, []), (), "no atoms"),
        ("alanine", (), "a builtins.str is no topology"),
        (BIPHENYL, (0, 1), "a block of 2 atoms"),
        (BIPHENYL, (0, 1, 1), "each atom once"),
        (BIPHENYL, (0, 1, 12), "indices 0 to 11"),
        (BIPHENYL, (0, 1, 2, 7, 8), "falls into pieces: .* atom 7"),
    ],
)
def test_what_is_no_molecule_is_refused_with_advice(topology, block, message):
    with pytest.raises(InputError, match=message):
        place_atoms(topology, block)
