"""Rings of molecules, found in the graph of their bonds."""

import pytest
from ase.build import molecule

from mdsens.molecules.graph import rings

BIPHENYL = (
    12,
    [(i, (i + 1) % 6) for i in range(6)] + [(6 + i, 6 + (i + 1) % 6) for i in range(6)] + [(0, 6)],
)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("C6H6", [6]),
        ("C4H4NH", [5]),
        ("bicyclobutane", [4]),
        ("methylenecyclopropane", [3]),
        ("trans-butane", []),
    ],
)
def test_rings_are_found(name, sizes):
    assert [len(ring) for ring in rings(molecule(name))] == sizes


def test_rings_joined_by_one_bond_are_two_and_by_one_atom_are_one():
    assert rings(BIPHENYL) == [(0, 1, 2, 3, 4, 5), (6, 7, 8, 9, 10, 11)]
    assert rings((5, [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 2)])) == [(0, 1, 2, 3, 4)]
