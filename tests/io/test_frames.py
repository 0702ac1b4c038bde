"""Frames of molecules for other programs: by their ending, with names and residues, whole or not at all."""

import ase.io
import h5py
import mdtraj
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mdsens.errors import InputError, OutputExistsError
from mdsens.flows.samples import FlowSamples
from mdsens.io.frames import BY_ASE, BY_MDTRAJ, HDF5, check_ending, mdtraj_topology, write_frames

SPECIES = (8, 1, 1)
WATER = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
FRAMES = np.stack([WATER, WATER + 0.1, WATER * 1.01])  # Å
PDB = "".join(
    f"ATOM  {k + 1:5d}  {name:<3s} MOL A  17    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {name[0]:>2s}\n"
    for k, (name, (x, y, z)) in enumerate(zip(("OW", "HA", "HB"), WATER, strict=True))
)


@pytest.mark.parametrize("ending", [*BY_MDTRAJ, *BY_ASE])
@pytest.mark.filterwarnings("ignore:.*netCDF4")
def test_frames_come_back_from_every_format(tmp_path, ending):
    path = tmp_path / f"water{ending}"
    write_frames(path, FRAMES, SPECIES)
    if ending in BY_MDTRAJ:
        places = 10 * mdtraj.load(str(path), top=mdtraj_topology(SPECIES)).xyz
    else:
        places = np.array([atoms.positions for atoms in ase.io.read(path, index=":")])
    # float32 of nm, or three decimals of nm (.xtc) and of Å (.pdb)
    assert_allclose(places, FRAMES, atol=6e-3)


@pytest.mark.parametrize("ending", ["", ".h6", ".xtcc", ".txt", ".trr"])
def test_an_ending_that_is_not_written_is_refused_with_those_that_are(ending):
    with pytest.raises(InputError, match=r"is written as one of \.h5, .*\.pdb\. \.h5 keeps everything"):
        check_ending(f"frames{ending}")


@pytest.mark.parametrize("ending", [*HDF5, *BY_MDTRAJ, *BY_ASE])
def test_endings_are_known_in_capitals_too(ending):
    assert check_ending(f"FRAMES{ending.upper()}") == ending


def test_names_and_residues_of_the_molecule_stand_in_a_pdb_file(tmp_path):
    write_frames(tmp_path / "water.pdb", FRAMES, SPECIES, pdb=PDB)
    read = mdtraj.load(str(tmp_path / "water.pdb"))
    assert [atom.name for atom in read.topology.atoms] == ["OW", "HA", "HB"]
    assert {residue.resSeq for residue in read.topology.residues} == {17}
    assert read.n_frames == 3


def test_without_a_pdb_text_atoms_are_named_by_element_and_number():
    topology = mdtraj_topology(SPECIES)
    assert [atom.name for atom in topology.atoms] == ["O1", "H2", "H3"]
    assert topology.n_residues == topology.n_chains == 1


def test_numbers_of_frames_stand_beside_them(tmp_path):
    info = [{"log_density": float(k)} for k in range(3)]
    write_frames(tmp_path / "water.extxyz", FRAMES, SPECIES, info=info)
    read = ase.io.read(tmp_path / "water.extxyz", index=":")
    assert [atoms.info["log_density"] for atoms in read] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("ending", [".dcd", ".extxyz", ".pdb"])
def test_a_file_that_is_there_stays_unless_asked(tmp_path, ending):
    path = tmp_path / f"water{ending}"
    path.write_text("mine")
    with pytest.raises(OutputExistsError):
        write_frames(path, FRAMES, SPECIES)
    assert path.read_text() == "mine"
    write_frames(path, FRAMES, SPECIES, overwrite=True)
    assert path.read_bytes() != b"mine" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", [".dcd", ".extxyz", ".pdb"])
def test_positions_of_other_atoms_are_refused(tmp_path, ending):
    with pytest.raises(InputError, match=r"positions of shape \(3, 2, 3\) do not belong to 3 atoms"):
        write_frames(tmp_path / f"water{ending}", FRAMES[:, :2], SPECIES)
    assert not list(tmp_path.iterdir())


def test_what_a_writer_meets_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def break_off(*_, **__):
        raise RuntimeError("no more")

    monkeypatch.setattr(mdtraj.Trajectory, "save", break_off)
    with pytest.raises(InputError, match=r"'.*water\.dcd' cannot be written: RuntimeError: no more.*\.h5"):
        write_frames(tmp_path / "water.dcd", FRAMES, SPECIES)
    assert not list(tmp_path.iterdir())


# --- samples of flows -----------------------------------------------------------------------------------


def samples(**changes) -> FlowSamples:
    plain = FlowSamples(FRAMES / 10, np.array([-1.0, -2.0, -3.0]), SPECIES, 300.0)
    return plain._replace(**changes)


def test_samples_open_in_mdtraj_and_keep_every_bit_beside_it(tmp_path):
    samples(potential_energy=np.arange(3.0), log_weights=np.zeros(3)).write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert_array_equal(file["positions"], FRAMES / 10)
        assert file["positions"].attrs["unit"] == "nm"
        assert_array_equal(file["log_density"], [-1, -2, -3])
        assert file["potential_energy"].attrs["unit"] == "kJ/mol"
        assert file.attrs["temperature"] == 300.0
    tables = pytest.importorskip("tables")
    assert tables is not None
    assert_allclose(mdtraj.load(str(tmp_path / "a.h5")).xyz, FRAMES / 10, atol=1e-7)


def test_what_is_not_known_of_samples_is_not_in_the_file(tmp_path):
    samples().write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert "log_weights" not in file and "potential_energy" not in file
    samples().write(tmp_path / "a.extxyz")
    info = ase.io.read(tmp_path / "a.extxyz").info
    assert "log_density" in info and "log_weight" not in info
