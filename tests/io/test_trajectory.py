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
    # extxyz writes eight decimals of positions and forces
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
