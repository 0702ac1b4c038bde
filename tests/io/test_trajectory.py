"""Structures in the files of other programs: results inside, tags and info kept."""

import ase.build
import ase.io
import numpy as np
import pytest
from ase.constraints import FixAtoms
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms


@pytest.fixture
def slab() -> ase.Atoms:
    """Slab with tags, info and a fixed layer."""
    atoms = ase.build.fcc111("Cu", (1, 1, 3), vacuum=5.0)
    atoms.info = {"source": "tests"}
    atoms.set_constraint(FixAtoms([0]))
    return atoms


def test_extxyz_holds_results_and_what_the_atoms_had(tmp_path, slab):
    structure = ms.Structure.from_ase(slab)
    forces = np.arange(9.0).reshape(3, 3)
    stress = np.array([[1.0, 0.6, 0.5], [0.6, 2.0, 0.4], [0.5, 0.4, 3.0]])
    path = tmp_path / "slab.extxyz"
    ms.write_structure(
        path, structure, like=slab, energy=np.float64(-1.25), forces=forces, stress=stress, info={"steps": 7}
    )
    back = ase.io.read(path)
    assert_allclose(back.positions, slab.positions, atol=1e-8)
    assert_array_equal(back.get_tags(), slab.get_tags())
    assert (back.info["source"], back.info["steps"]) == ("tests", 7)
    assert back.get_potential_energy() == -1.25
    assert_allclose(back.get_forces(apply_constraint=False), forces, atol=1e-8)
    assert_allclose(back.get_stress(), [1, 2, 3, 0.4, 0.5, 0.6])
    assert_array_equal(ms.Structure.from_ase(back).fixed, structure.fixed)
    assert slab.calc is None and slab.info == {"source": "tests"}


@pytest.mark.parametrize("name", ["POSCAR", "slab.cif", "slab.xyz.gz", "slab.traj"])
def test_the_name_of_the_file_says_its_format(tmp_path, slab, name):
    ms.write_structure(tmp_path / name, ms.Structure.from_ase(slab))
    assert_allclose(
        np.sort(ase.io.read(tmp_path / name).get_all_distances(), axis=None)[-1],
        slab.get_all_distances().max(),
        atol=1e-5,
    )
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_trajectory_has_a_frame_for_each_structure(tmp_path, slab):
    structure = ms.Structure.from_ase(slab)
    frames = [structure.at(structure.positions + k) for k in range(3)]
    ms.write_trajectory(tmp_path / "walk.extxyz", frames, like=slab)
    back = ase.io.read(tmp_path / "walk.extxyz", index=":")
    assert len(back) == 3
    assert_allclose(back[2].positions, slab.positions + 2, atol=1e-8)
    assert all(atoms.info["source"] == "tests" for atoms in back)


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, slab):
    structure = ms.Structure.from_ase(slab)
    for name in ("slab.nonsense", "slab"):
        with pytest.raises(ms.errors.InputError, match=r"no file format.*\.extxyz"):
            ms.write_structure(tmp_path / name, structure)
    free = ms.Structure.create([[0.0, 0, 0]], ["Ar"])
    with pytest.raises(ms.errors.InputError, match="ASE cannot write"):
        ms.write_structure(tmp_path / "POSCAR", free)  # a POSCAR has a cell
    assert not list(tmp_path.iterdir())
    ms.write_structure(tmp_path / "slab.extxyz", structure)
    with pytest.raises(ms.errors.OutputExistsError):
        ms.write_structure(tmp_path / "slab.extxyz", structure)
    ms.write_structure(tmp_path / "slab.extxyz", structure, overwrite=True)


def test_extxyz_comes_back_bit_by_bit(tmp_path, slab):
    slab.rattle(0.1, seed=2)
    masses, fixed = [63.1, 1 / 3, 65.0], [[True, False, True]] * 3
    structure = ms.Structure.create(slab.positions, slab.numbers, slab.cell.array, slab.pbc, masses, fixed)
    forces = np.random.default_rng(1).normal(size=(3, 3))
    columns = {"dx_depsilon_Cu_Cu": forces / 7}
    ms.write_structure(tmp_path / "a.extxyz", structure, energy=-1 / 3, forces=forces, columns=columns)
    atoms = ase.io.read(tmp_path / "a.extxyz")
    back = ms.Structure.from_ase(atoms)
    for name in ("positions", "cell", "species", "masses", "fixed"):
        assert_array_equal(getattr(back, name), getattr(structure, name))
    assert_array_equal(atoms.get_forces(apply_constraint=False), forces)
    assert_array_equal(atoms.arrays["dx_depsilon_Cu_Cu"], forces / 7)
    assert atoms.get_potential_energy() == -1 / 3


def test_results_of_the_start_are_not_written_beside_those_of_the_end(tmp_path, slab):
    slab.info.update(virial=np.eye(3), dft_energy=-1.0, title="before relaxation", REF_stress=np.zeros(6))
    slab.set_array("force", np.ones((3, 3)))
    slab.set_initial_charges([0.0, 1.0, -1.0])
    ms.write_structure(tmp_path / "a.extxyz", ms.Structure.from_ase(slab), like=slab, energy=-2.0)
    back = ase.io.read(tmp_path / "a.extxyz")
    assert set(back.info) == {"source"} and "force" not in back.arrays
    assert_array_equal(back.get_initial_charges(), [0.0, 1.0, -1.0])
    assert "virial" in slab.info


def test_poscar_keeps_held_coordinates(tmp_path):
    fixed = [[1, 1, 1], [1, 0, 1], [0, 0, 0]]
    positions = [[0, 0, 0], [0, 2.6, 2.6], [2.6, 0, 2.6]]
    box = ms.Structure.create(positions, ["Ar"] * 3, [5.2] * 3, fixed=fixed)
    ms.write_structure(tmp_path / "POSCAR", box)
    assert "F   T   F" in (tmp_path / "POSCAR").read_text()
    assert_array_equal(ms.read_structure(tmp_path / "POSCAR").fixed, fixed)
    # a hexagonal cell: x is no cell vector, z is one, and so is the plane of the other two
    skew = [[3.0, 0, 0], [-1.5, 2.6, 0], [0, 0, 8.0]]
    for axes, holds in (((0, 0, 1), True), ((1, 1, 0), True), ((1, 0, 0), False)):
        layer = ms.Structure.create([[0.0, 0, 0]], ["Ar"], skew, fixed=[axes])
        if holds:
            ms.write_structure(tmp_path / "POSCAR", layer, overwrite=True)
            assert_array_equal(ms.read_structure(tmp_path / "POSCAR").fixed[0], axes)
        else:
            with pytest.raises(ms.errors.InputError, match=r"atom 0 is held along x, and flags of a POSCAR"):
                ms.write_structure(tmp_path / "POSCAR", layer, overwrite=True)


def test_lammps_data_come_back_in_the_orientation_of_lammps(tmp_path):
    lower = [[5.0, 0, 0], [1.1, 5.2, 0], [0.7, -0.9, 5.4]]
    positions = np.array([[0.0, 0, 0], [2.5, 2.6, 0.1], [-0.4, 7.0, 2.0]])
    ours = ms.Structure.create(positions, ["Kr", "Ar", "Kr"], lower)
    ms.write_structure(tmp_path / "a.data", ours)
    back = ms.read_structure(tmp_path / "a.data")
    assert back.symbols == ours.symbols
    assert_allclose(back.cell, lower, atol=1e-14)
    assert_allclose(back.positions, positions, atol=1e-14)
    # another orientation: cell and atoms are turned together
    turned = ase.build.bulk("Ar", a=5.3).repeat((2, 1, 1))
    turned.rattle(0.1, seed=1)
    ms.write_structure(tmp_path / "b.lmp", ms.Structure.from_ase(turned))
    read = ms.read_structure(tmp_path / "b.lmp").to_ase()
    assert_allclose(read.get_all_distances(mic=True), turned.get_all_distances(mic=True), atol=1e-12)
    assert_allclose(read.cell.cellpar(), turned.cell.cellpar(), atol=1e-10)
    isotopes = ms.Structure.create(positions, ["Ar"] * 3, lower, masses=[36.0, 40.0, 40.0])
    with pytest.raises(ms.errors.InputError, match="one mass for each atom type, and Ar has 36 and 40 u"):
        ms.write_structure(tmp_path / "c.data", isotopes)


def test_a_format_may_be_named_for_writing(tmp_path, slab):
    structure = ms.Structure.from_ase(slab)
    ms.write_structure(tmp_path / "plain.txt", structure, format="extxyz")
    assert_array_equal(
        ms.read_structure(tmp_path / "plain.txt", format="extxyz").positions, structure.positions
    )
    ms.write_trajectory(tmp_path / "si@300K.EXTXYZ", [structure, structure])
    assert ms.read_structure(tmp_path / "si@300K.EXTXYZ", 0).n_atoms == 3
    with pytest.raises(ms.errors.InputError, match="Did you mean 'extxyz'"):
        ms.write_structure(tmp_path / "a.txt", structure, format="extxy")
