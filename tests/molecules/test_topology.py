"""Molecules out of files, whatever the files are called."""

from pathlib import Path

import ase
import ase.io
import pytest

from mdsens.errors import FileFormatError, InputError
from mdsens.molecules.bonds import read_bonds
from mdsens.molecules.topology import read_molecule

ALANINE = Path(__file__).parents[2] / "data" / "alanine-dipeptide.pdb"
WATER = ase.Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])


def test_a_pdb_file_keeps_its_text_residues_and_bonds():
    molecule = read_molecule(ALANINE)
    assert len(molecule.species) == 22 and sorted(set(molecule.species)) == [1, 6, 7, 8]
    assert molecule.pdb == ALANINE.read_text()
    bonds = read_bonds(molecule.topology)
    assert sum(len(bonded) for bonded in bonds.neighbors) == 2 * 21  # a molecule of 22 atoms without a ring


@pytest.mark.parametrize("name", ["molecule", "molecule.txt", "molecule.ent"])
def test_a_pdb_file_of_another_name_is_read_when_its_format_is_named(tmp_path, name):
    (tmp_path / name).write_text(ALANINE.read_text())
    assert read_molecule(tmp_path / name, format="pdb") == read_molecule(ALANINE)._replace(
        topology=read_molecule(tmp_path / name, format="pdb").topology
    )


@pytest.mark.parametrize(("name", "form"), [("water.xyz", None), ("water.dat", "xyz"), ("water", "extxyz")])
def test_atoms_of_other_formats_have_no_pdb_text(tmp_path, name, form):
    ase.io.write(tmp_path / name, WATER, format=form or "xyz")
    molecule = read_molecule(tmp_path / name, format=form)
    assert molecule.species == (8, 1, 1) and molecule.pdb == ""
    assert [len(bonded) for bonded in read_bonds(molecule.topology).neighbors] == [2, 1, 1]


def test_files_that_hold_no_molecule_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match="no file"):
        read_molecule(tmp_path / "nothing.pdb")
    ase.io.write(tmp_path / "water.xyz", WATER)
    with pytest.raises(InputError, match="Did you mean 'xyz'"):
        read_molecule(tmp_path / "water.xyz", format="xyzz")
    text = "ATOM      1  Q1  MOL A   1       0.000   0.000   0.000  1.00  0.00\nEND\n"
    (tmp_path / "nameless.pdb").write_text(text)
    with pytest.raises(FileFormatError, match="whose element is not known"):
        read_molecule(tmp_path / "nameless.pdb")
