"""Random structures through every format that is read and written: what comes back is what was written."""

import ase.data
import ase.io
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.io.hdf5 import STRUCTURE_UNITS, Quantity

ELEMENTS = [symbol for symbol in ase.data.chemical_symbols[1:96] if symbol != "X"]
EDGES = st.floats(4.0, 12.0)
SHEARS = st.floats(-2.0, 2.0)
FLAGS, NEVER = st.booleans(), st.just(False)
FILES = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def structures(draw, periodic=True, held=FLAGS):
    """Up to six atoms on places of a grid, moved a little, in a cell that may be sheared."""
    n = draw(st.integers(1, 6))
    edges = [draw(EDGES) for _ in range(3)]
    cell = np.diag(edges)
    cell[1, 0], cell[2, 0], cell[2, 1] = (draw(SHEARS) for _ in range(3))
    sites = draw(st.permutations(range(8)))[:n]
    grid = np.array([[(k >> a) & 1 for a in range(3)] for k in sites]) / 2
    moves = draw(arrays(float, (n, 3), elements=st.floats(-0.1, 0.1)))
    species = draw(st.lists(st.sampled_from(ELEMENTS), min_size=n, max_size=n))
    fixed = draw(arrays(bool, (n, 3), elements=held))
    pbc = (True, True, True) if periodic else tuple(draw(st.tuples(*[st.booleans()] * 3)))
    return ms.Structure.create((grid + moves) @ cell, species, cell, pbc, fixed=fixed)


def same(read: ms.Structure, written: ms.Structure, *names: str) -> None:
    for name in names:
        assert_array_equal(getattr(read, name), getattr(written, name), err_msg=name)


@FILES
@given(structures(periodic=False))
def test_hdf5_keeps_every_bit(tmp_path, structure):
    ms.write_hdf5(tmp_path / "a.h5", {"here": structure}, overwrite=True)
    read = ms.read_hdf5(tmp_path / "a.h5")["here"]
    same(read, structure, *STRUCTURE_UNITS)
    assert read.pbc == structure.pbc


@FILES
@given(structures(periodic=False))
def test_extended_xyz_keeps_every_bit(tmp_path, structure):
    ms.write_structure(tmp_path / "a.extxyz", structure, overwrite=True)
    read = ms.read_structure(tmp_path / "a.extxyz")
    same(read, structure, "positions", "species", "fixed")
    assert read.pbc == structure.pbc
    # the cell stands in the comment, which ASE writes
    assert_allclose(read.cell, structure.cell, rtol=1e-14, atol=1e-14)


@FILES
@given(structures(held=NEVER))
def test_lammps_data_keep_species_masses_and_all_distances(tmp_path, structure):
    ms.write_structure(tmp_path / "a.data", structure, overwrite=True)
    text = (tmp_path / "a.data").read_text()
    kinds = sorted(set(structure.symbols))
    assert f"{len(kinds)} atom types" in text
    # masses alone do not tell cobalt from nickel in every file: name the elements
    read = ms.read_structure(tmp_path / "a.data", species=kinds)
    assert read.symbols == structure.symbols
    assert_allclose(read.masses, structure.masses, rtol=1e-6)
    # LAMMPS turns the cell; what is left are lengths and angles
    for mine, theirs in ((read.cell, structure.cell), (read.positions, structure.positions)):
        assert_allclose(np.asarray(mine) @ np.asarray(mine).T, gram(theirs), atol=1e-5)


def gram(rows) -> np.ndarray:
    return np.asarray(rows) @ np.asarray(rows).T


@FILES
@given(structures(held=NEVER))
def test_poscar_keeps_each_species_in_its_place(tmp_path, structure):
    ms.write_structure(tmp_path / "POSCAR", structure, overwrite=True)
    read = ms.read_structure(tmp_path / "POSCAR")
    assert read.symbols == structure.symbols
    assert_allclose(read.positions, structure.positions, atol=1e-9)
    assert_allclose(read.cell, structure.cell, atol=1e-9)


@FILES
@given(st.lists(structures(), min_size=1, max_size=4))
def test_trajectories_keep_the_order_of_their_frames(tmp_path, frames):
    ms.write_trajectory(tmp_path / "walk.extxyz", frames, overwrite=True)
    read = ms.read_trajectory(tmp_path / "walk.extxyz")
    assert [frame.symbols for frame in read] == [frame.symbols for frame in frames]
    for mine, theirs in zip(read, frames, strict=True):
        assert_array_equal(mine.positions, theirs.positions)


@FILES
@given(structures(periodic=False))
def test_atoms_of_ase_come_back(structure):
    again = ms.Structure.from_ase(structure.to_ase())
    same(again, structure, "positions", "cell", "species", "masses", "fixed")
    assert again.pbc == structure.pbc


# --- content of HDF5 ------------------------------------------------------------------------------------

NAMES = st.text(
    st.characters(blacklist_characters="/.\0", blacklist_categories=["Cs"]), min_size=1, max_size=12
)
NUMBERS = st.one_of(
    st.floats(allow_nan=False),
    st.integers(-(2**62), 2**62),
    st.booleans(),
    arrays(float, st.tuples(st.integers(0, 3), st.integers(1, 3)), elements=st.floats(allow_nan=False)),
)
TEXTS = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)
CONTENT = st.recursive(
    st.dictionaries(NAMES, NUMBERS | TEXTS, max_size=3),
    lambda inner: st.dictionaries(NAMES, inner | NUMBERS, max_size=3),
    max_leaves=6,
)


def assert_same(read, written) -> None:
    if isinstance(written, dict):
        assert set(read) == set(written)
        for name in written:
            assert_same(read[name], written[name])
    else:
        assert_array_equal(read, written)


@FILES
@given(CONTENT)
def test_nested_content_comes_back(tmp_path, content):
    ms.write_hdf5(tmp_path / "a.h5", content, overwrite=True)
    assert_same(ms.read_hdf5(tmp_path / "a.h5"), content)


@FILES
@given(NUMBERS, st.sampled_from(["eV", "Å", "eV/Å³", "1"]), st.sampled_from(["", "atoms, xyz"]))
def test_units_and_axes_come_back_and_any_reader_sees_them(tmp_path, value, unit, axes):
    ms.write_hdf5(tmp_path / "a.h5", {"x": Quantity(value, unit, axes)}, overwrite=True)
    read = ms.read_hdf5(tmp_path / "a.h5")["x"]
    assert_array_equal(read.value, value)
    assert (read.unit, read.axes) == (unit, axes)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"].attrs["unit"] == unit


@pytest.mark.parametrize("value", [object(), 1j, [object()], {"deep": {1, 2}}, b"bytes"])
def test_content_that_hdf5_does_not_hold_is_refused_by_name(tmp_path, value):
    with pytest.raises(ms.errors.InputError, match=r"'/.*' is of type"):
        ms.write_hdf5(tmp_path / "a.h5", {"name": value})
    assert not list(tmp_path.iterdir())


def test_a_hand_written_file_of_another_program_is_read(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["group/numbers"] = np.arange(3)
        file["text"] = "words"
    read = ms.read_hdf5(tmp_path / "other.h5")
    assert read["text"] == "words"
    assert_array_equal(read["group"]["numbers"], [0, 1, 2])


def test_a_group_that_only_looks_like_a_structure_stays_a_group(tmp_path):
    arrays = {name: Quantity(np.zeros(3), unit) for name, unit in STRUCTURE_UNITS.items()}
    ms.write_hdf5(tmp_path / "a.h5", {"almost": arrays})
    assert isinstance(ms.read_hdf5(tmp_path / "a.h5")["almost"], dict)
