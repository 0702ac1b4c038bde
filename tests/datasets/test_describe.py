"""Words about data: what is in it, for one structure and for many, with and without labels."""

import numpy as np

import mdsens as ms
from mdsens.datasets import Dataset, Duplicate, Outlier, describe, in_words, labelled


def atoms(n=2, symbols="Ar", cell=None, pbc=False):
    return ms.Structure.create(4.0 * np.eye(3)[:n], [symbols] * n, cell=cell, pbc=pbc)


def rows(data):
    return dict(describe(data))


def test_bare_structures_have_no_words_about_labels():
    found = rows(Dataset.create([atoms(2), atoms(2)]))
    assert found["structures"] == "2"
    assert found["atoms"] == "4; 2 in each structure"
    assert found["periodic along"] == "nothing"
    assert found["with energy"] == found["with stress"] == "0"
    assert found["with forces"] == "0 (0 atoms)"
    for row in ("groups", "energy per atom", "force", "pressure"):
        assert row not in found


def test_sizes_elements_and_boundaries_are_all_named():
    slab = atoms(3, "Kr", cell=10 * np.eye(3), pbc=(True, True, False))
    found = rows(Dataset.create([atoms(1), slab, atoms(2, cell=10 * np.eye(3), pbc=True)]))
    assert found["atoms"] == "6; 1 to 3 in a structure"
    assert found["elements"] == "Ar, Kr"
    assert found["periodic along"] == "a b, a b c, nothing"


def test_energies_are_shown_per_atom_with_those_of_the_elements():
    data = Dataset.create([atoms(1), atoms(2), atoms(2, "Kr")], energies=[-1.0, -2.0, -6.0])
    found = rows(data)
    assert found["energy per atom"] == "-3 to -1 eV"
    assert found["reference energies"] == "Ar -1, Kr -3 eV"
    assert found["energy per atom beyond them"].endswith("eV, root mean square")
    compound = ms.Structure.create([[0.0, 0, 0], [3.0, 0, 0]], ["Na", "Cl"])
    found = rows(Dataset.create([compound], energies=[-5.0]))
    assert found["reference energies"].endswith("compositions do not tell the elements apart")


def test_forces_pressures_and_groups_are_those_that_are_there():
    stress = -0.01 * np.eye(3)  # eV/Å³: compressed
    crystal = atoms(2, cell=10 * np.eye(3), pbc=True)
    forces = np.array([[3.0, 0, 4.0], [0.0, 0, 0]])
    data = Dataset(
        (
            labelled(crystal, -1.0, forces, stress, group="bulk"),
            labelled(crystal, -1.0, None, 2 * stress, group="bulk"),
            labelled(atoms(2)),
        )
    )
    found = rows(data)
    assert found["force"] == "3.536 eV/Å, root mean square; at most 5"
    assert found["pressure"] == "1.602 to 3.204 GPa"
    assert found["groups"] == "bulk: 2; none: 1"
    assert found["with forces"] == "1 (2 atoms)"


def test_what_looks_wrong_is_said_with_its_structure_and_number():
    data = Dataset((labelled(atoms(), 0.0, origin="a.xyz:0"), labelled(atoms(), 0.4, origin="a.xyz:1")))
    assert in_words(Duplicate(0, 1, None), data) == "a.xyz:1 is a.xyz:0 again"
    assert in_words(Duplicate(0, 1, 0.2), data).startswith("a.xyz:1 is a.xyz:0 again")
    assert "0.2" in in_words(Duplicate(0, 1, 0.2), data)
    far = in_words(Outlier(1, "force", 123.456, 1.5, "eV/Å"), data)
    assert far == "a.xyz:1: force 123.5 eV/Å, usual is 1.5"
    close = in_words(Outlier(0, "distance", 0.2, 1.19, "Å"), data)
    assert close == "a.xyz:0: distance 0.2 Å, should be at least 1.19"
