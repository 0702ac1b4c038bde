"""Structures out of files: sites that are no atoms are refused, LAMMPS data, names that mislead."""

import ase.build
import ase.io
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms

CIF = """data_test
_cell_length_a 5.5
_cell_length_b 5.5
_cell_length_c 5.5
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_symmetry_equiv_pos_as_xyz
 'x, y, z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_occupancy
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
"""
LAMMPS = """LAMMPS data triclinic

4 atoms
2 atom types
0.0 5.0 xlo xhi
0.0 5.2 ylo yhi
0.0 5.4 zlo zhi
1.1 0.7 -0.9 xy xz yz
{masses}
Atoms # atomic

1 1 0.0 0.0 0.0
2 2 2.5 2.6 0.0
4 2 0.2 2.6 2.7
3 1 2.5 0.1 2.7
"""
MASSES = "\nMasses\n\n1 39.948\n2 83.798\n"
SELECTIVE = """Si
1.0
5.43 0 0
0 5.43 0
0 0 5.43
Si
3
Selective dynamics
Direct
0 0 0 T T F
0.25 0.25 0.25 F F F
0 0.5 0.5 T T T
"""


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ("Si0 Si 0.6 0 0 0\nGe0 Ge 0.4 0 0 0\nSi1 Si 1.0 0.5 0.5 0.5\n", r"1 sites .*Si 0\.6 Ge 0\.4"),
        ("Si0 Si 0.5 0 0 0\nSi1 Si 1.0 0.25 0.25 0.25\n", r"Si 0\.5 at \(0\.0000, 0\.0000, 0\.0000\)"),
        ("Si0 Si 1.0 0.5 0.5 0.5\nSi9 Si 0.5 0.05 0 0\nSi10 Si 0.5 -0.05 0 0\n", r"2 sites .*Si 0\.5"),
    ],
    ids=["shared", "half", "split"],
)
def test_sites_that_are_not_whole_atoms_are_named_and_refused(tmp_path, sites, message):
    (tmp_path / "a.cif").write_text(CIF + sites)
    with pytest.raises(ms.errors.FileFormatError, match=message):
        ms.read_structure(tmp_path / "a.cif")


def test_whole_sites_are_read(tmp_path):
    (tmp_path / "a.cif").write_text(CIF + "Si0 Si 1.0 0 0 0\nGe1 Ge 1.0 0.25 0.25 0.25\n")
    assert ms.read_structure(tmp_path / "a.cif").symbols == ["Si", "Ge"]


def test_two_atoms_at_one_place_are_refused(tmp_path):
    twins = ase.Atoms("Ar3", [[0, 0, 0], [2, 2, 2], [5, 0, 0]], cell=[5, 5, 5], pbc=True)
    twins.write(tmp_path / "twins.extxyz")  # the third is the first in the next cell
    with pytest.raises(ms.errors.FileFormatError, match=r"same place, 0 \(Ar\) and 2 \(Ar\)"):
        ms.read_structure(tmp_path / "twins.extxyz")


@pytest.mark.parametrize("name", ["tri.data", "tri.lmp", "tri.lammps", "data.tri", "TRI.DATA"])
def test_lammps_data_has_its_cell_and_the_elements_of_its_masses(tmp_path, name):
    (tmp_path / name).write_text(LAMMPS.format(masses=MASSES))
    structure = ms.read_structure(tmp_path / name)
    assert_array_equal(structure.cell, [[5.0, 0, 0], [1.1, 5.2, 0], [0.7, -0.9, 5.4]])
    assert structure.symbols == ["Ar", "Kr", "Ar", "Kr"]
    assert_allclose(structure.positions[2], [2.5, 0.1, 2.7], atol=1e-12)
    assert_allclose(structure.masses, [39.948, 83.798, 39.948, 83.798])
    assert structure.pbc == (True, True, True)


def test_lammps_data_without_telling_masses_needs_species(tmp_path):
    path = tmp_path / "tri.data"
    path.write_text(LAMMPS.format(masses=""))
    with pytest.raises(ms.errors.InputError, match=r"no mass for atom type 1.*--species Ar,Kr"):
        ms.read_structure(path)
    assert ms.read_structure(path, species=["Ar", "Kr"]).symbols == ["Ar", "Kr", "Ar", "Kr"]
    with pytest.raises(ms.errors.InputError, match="has 2 atom types"):
        ms.read_structure(path, species=["Ar"])
    path.write_text(LAMMPS.format(masses="\nMasses\n\n1 1.0\n2 83.798\n"))
    with pytest.raises(ms.errors.InputError, match=r"the mass 1 u of atom type 1"):
        ms.read_structure(path)
    assert ms.read_structure(path, species=["Ar", "Kr"]).masses[0] == pytest.approx(1.0)


def test_selective_dynamics_are_read_for_each_coordinate(tmp_path):
    (tmp_path / "POSCAR").write_text(SELECTIVE)
    expected = [[False, False, True], [True] * 3, [False] * 3]
    assert_array_equal(ms.read_structure(tmp_path / "POSCAR").fixed, expected)


@pytest.mark.parametrize("name", ["si@300K.extxyz", "si 1.extxyz", "SI.EXTXYZ", "Å.extxyz", "a[1].xyz"])
def test_any_name_is_read(tmp_path, name):
    atoms = ase.build.bulk("Si", cubic=True)
    ase.io.write(tmp_path / "plain.extxyz", atoms)
    (tmp_path / "plain.extxyz").rename(tmp_path / name)
    assert_allclose(ms.read_structure(tmp_path / name).positions, atoms.positions, atol=1e-7)


@pytest.mark.parametrize("name", ["a.extxyz", "POSCAR", "a.cif"])
def test_a_byte_order_mark_is_no_part_of_a_structure(tmp_path, name):
    ase.build.bulk("Si", cubic=True).write(tmp_path / name)
    plain = ms.read_structure(tmp_path / name)
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + (tmp_path / name).read_bytes())
    assert_array_equal(ms.read_structure(tmp_path / name).positions, plain.positions)


def test_a_format_may_be_named(tmp_path):
    (tmp_path / "start").write_text(SELECTIVE)
    assert ms.read_structure(tmp_path / "start", format="vasp").n_atoms == 3
    with pytest.raises(ms.errors.InputError, match="Did you mean 'extxyz'"):
        ms.read_structure(tmp_path / "start", format="extxy")
    assert np.all(np.isfinite(ms.read_structure(tmp_path / "start", format="vasp").cell))


@pytest.mark.filterwarnings("ignore:.*netCDF4")
@pytest.mark.parametrize("name", ["a.dcd", "a.xtc", "a.trr", "a.nc", "a.h5", "a.pdb"])
def test_trajectories_of_mdtraj_are_read_in_angstrom_with_their_boxes(tmp_path, name):
    import mdtraj

    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for symbol in ("O", "H"):
        topology.add_atom(symbol, mdtraj.element.Element.getBySymbol(symbol), residue)
    places = np.array([[[0.0, 0, 0], [0.1, 0, 0]], [[0.0, 0, 0.1], [0.11, 0, 0.1]]], np.float32)
    box = {"unitcell_lengths": np.full((2, 3), 1.2), "unitcell_angles": np.full((2, 3), 90.0)}
    frames = mdtraj.Trajectory(places, topology, **box)
    frames.save(str(tmp_path / name))
    frames[0].save(str(tmp_path / "top.pdb"))
    given = {} if name.endswith(("h5", "pdb")) else {"topology": tmp_path / "top.pdb"}
    read = ms.read_trajectory(tmp_path / name, **given)
    assert len(read) == 2 and read[0].symbols == ["O", "H"] and read[0].pbc == (True, True, True)
    # PDB and XTC keep three decimals of Å and nm
    assert_allclose(read[1].positions, 10 * places[1], atol=2e-3)
    assert_allclose(read[1].cell, 12 * np.eye(3), atol=1e-4)
    if given:
        with pytest.raises(ms.errors.FileFormatError, match="give topology="):
            ms.read_trajectory(tmp_path / name)


def test_other_trajectories_are_read_by_ase(tmp_path):
    ase.io.write(tmp_path / "walk.extxyz", [ase.Atoms("Ar", positions=[[k, 0, 0]]) for k in range(3)])
    assert [float(s.positions[0, 0]) for s in ms.read_trajectory(tmp_path / "walk.extxyz")] == [0, 1, 2]


LABELLED = """LAMMPS data with names for types # Masses of nothing

4 atoms
2 atom types
0.0 5.0 xlo xhi
0.0 5.2 ylo yhi
0.0 5.4 zlo zhi

Atom Type Labels

1 {first}
2 Kr  # krypton

Bond Type Labels

1 Ar-Kr
{masses}
Pair Coeffs # lj/cut

Kr 0.01 3.6

Atoms # {style}

4 {mol}Kr {charge}0.2 2.6 2.7
1 {mol}{first} {charge}0.0 0.0 0.0
3 {mol}{first} {charge}2.5 0.1 2.7
2 {mol}Kr {charge}2.5 2.6 0.0

Bonds

1 Ar-Kr 1 2
"""
LABELLED_MASSES = "\nMasses\n\n{first} 39.948\nKr 83.798\n"


@pytest.mark.parametrize(
    ("style", "mol", "charge"),
    [("atomic", "", ""), ("charge", "", "0.5 "), ("molecular", "7 ", ""), ("full", "7 ", "0.5 ")],
)
def test_types_of_lammps_data_may_have_labels(tmp_path, style, mol, charge):
    text = LABELLED.format(first="Ar", masses="", style=style, mol=mol, charge=charge)
    (tmp_path / "a.data").write_text(text)
    structure = ms.read_structure(tmp_path / "a.data")
    # the rows of the file are not in order
    assert structure.symbols == ["Ar", "Kr", "Ar", "Kr"]
    assert_allclose(structure.positions[3], [0.2, 2.6, 2.7], atol=1e-12)


def test_labels_that_are_no_symbols_leave_it_to_the_masses_or_to_species(tmp_path):
    path = tmp_path / "a.data"
    without = LABELLED.format(first="core", masses="", style="atomic", mol="", charge="")
    path.write_text(without)
    with pytest.raises(ms.errors.InputError, match=r"no mass for atom type 1.*--species Ar,Kr"):
        ms.read_structure(path)
    assert ms.read_structure(path, species=["Ne", "Kr"]).symbols == ["Ne", "Kr", "Ne", "Kr"]
    masses = LABELLED_MASSES.format(first="core")
    path.write_text(LABELLED.format(first="core", masses=masses, style="atomic", mol="", charge=""))
    structure = ms.read_structure(path)
    assert structure.symbols == ["Ar", "Kr", "Ar", "Kr"]
    assert_allclose(structure.masses, [39.948, 83.798, 39.948, 83.798])


def test_a_label_and_a_mass_that_disagree_are_refused(tmp_path):
    masses = LABELLED_MASSES.format(first="Ne")
    text = LABELLED.format(first="Ne", masses=masses, style="atomic", mol="", charge="")
    (tmp_path / "a.data").write_text(text)
    with pytest.raises(
        ms.errors.InputError, match=r"type 1 is labelled Ne and has the mass of Ar, 39\.948 u"
    ):
        ms.read_structure(tmp_path / "a.data")
    assert ms.read_structure(tmp_path / "a.data", species=["Ne", "Kr"]).symbols[0] == "Ne"


@pytest.mark.parametrize("name", ["data.extxyz", "data.xyz", "data.cif", "Data.traj", "data.extxyz.gz"])
def test_a_file_called_data_with_the_ending_of_another_format_is_no_lammps_file(tmp_path, name):
    ase.io.write(tmp_path / name, ase.build.bulk("Si", cubic=True))
    assert ms.read_structure(tmp_path / name).n_atoms == 8
