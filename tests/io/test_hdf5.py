"""What is written comes back the same, whole, and in the place of nothing."""

import dataclasses
from types import SimpleNamespace

import ase.build
import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import mdsens as ms
from mdsens.io.files import new_file
from mdsens.io.hdf5 import STRUCTURE_UNITS, Quantity

CONTENT = {
    "numbers": Quantity(np.arange(6.0).reshape(2, 3), "eV/Å", "atoms, xyz"),
    "count": 3,
    "flags": np.array([True, False]),
    "name": "Ångström, ²",
    "names": ["epsilon[Ni-Cu]", "sigma"],
    "deeper": {"and": {"deeper": Quantity(2.5, "GPa")}, "empty": {}},
    "nothing": None,
}


def structure() -> ms.Structure:
    """Slab with a fixed atom and a fixed coordinate."""
    atoms = ase.build.fcc111("Cu", (1, 1, 3), vacuum=5.0)
    s = ms.Structure.from_ase(atoms)
    return ms.Structure.create(
        s.positions,
        s.species,
        s.cell,
        s.pbc,
        [63.0, 64.0, 65.0],
        [[True] * 3, [False, False, True], [False] * 3],
    )


def test_nested_content_comes_back_with_its_units(tmp_path):
    ms.write_hdf5(tmp_path / "results.h5", CONTENT)
    back = ms.read_hdf5(tmp_path / "results.h5")
    assert set(back) == set(CONTENT) - {"nothing"}
    assert_array_equal(back["numbers"].value, CONTENT["numbers"].value)
    assert back["numbers"][1:] == ("eV/Å", "atoms, xyz")
    assert back["deeper"] == {"and": {"deeper": Quantity(2.5, "GPa")}, "empty": {}}
    assert (back["count"], back["name"], list(back["names"])) == (
        3,
        "Ångström, ²",
        ["epsilon[Ni-Cu]", "sigma"],
    )
    assert_array_equal(back["flags"], [True, False])
    # for those who read it without mdsens
    with h5py.File(tmp_path / "results.h5") as file:
        assert file.attrs["format"] == "mdsens-1"
        assert file["deeper/and/deeper"].attrs["unit"] == "GPa"


def test_a_structure_comes_back_bit_by_bit(tmp_path):
    written = structure()
    ms.write_hdf5(tmp_path / "a.h5", {"here": {"slab": written}})
    read = ms.read_hdf5(tmp_path / "a.h5")["here"]["slab"]
    assert read.pbc == written.pbc
    for name in ("positions", "cell", "species", "masses", "fixed"):
        assert_array_equal(getattr(read, name), getattr(written, name))


def test_every_array_of_a_structure_has_a_unit():
    arrays = {field.name for field in dataclasses.fields(ms.Structure) if not field.metadata.get("static")}
    assert set(STRUCTURE_UNITS) == arrays - {"real", "columns"}  # None in all that is written; a group
    assert set(vars(structure())) == arrays | {"pbc"}


def test_a_reader_may_ask_for_a_kind(tmp_path):
    ms.write_hdf5(tmp_path / "a.h5", {"x": 1}, kind="sensitivity")
    assert ms.read_hdf5(tmp_path / "a.h5", kind="sensitivity") == {"x": 1} == ms.read_hdf5(tmp_path / "a.h5")
    with pytest.raises(ms.errors.FileFormatError, match="holds 'sensitivity', and 'relaxed' is needed"):
        ms.read_hdf5(tmp_path / "a.h5", kind="relaxed")
    ms.write_hdf5(tmp_path / "b.h5", {"x": 1})  # as files written before kinds
    with pytest.raises(ms.errors.FileFormatError, match="does not say what it holds"):
        ms.read_hdf5(tmp_path / "b.h5", kind="relaxed")


def test_nothing_is_overwritten_unless_asked_for(tmp_path):
    path = tmp_path / "deep" / "er" / "a.h5"
    ms.write_hdf5(path, {"x": 1})
    with pytest.raises(ms.errors.OutputExistsError, match=r"a\.h5' exists.*overwrite=True"):
        ms.write_hdf5(path, {"x": 2})
    assert ms.read_hdf5(path)["x"] == 1
    ms.write_hdf5(path, {"x": 2}, overwrite=True)
    assert ms.read_hdf5(path)["x"] == 2
    with pytest.raises(ms.errors.OutputExistsError, match="is a folder"):
        ms.write_hdf5(path.parent, {"x": 2}, overwrite=True)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.h5"
    ms.write_hdf5(path, {"x": 1})
    with pytest.raises(
        ms.errors.InputError, match=r"'/deeper/bad' is of type object|'/deeperbad' is of type object"
    ):
        ms.write_hdf5(path, {"x": 2, "deeper": {"bad": object()}}, overwrite=True)
    assert ms.read_hdf5(path)["x"] == 1
    # a file that appears while another is being written is not replaced either
    with pytest.raises(ms.errors.OutputExistsError), new_file(tmp_path / "b") as unfinished:
        unfinished.write_text("mine")
        (tmp_path / "b").write_text("theirs")
    assert (tmp_path / "b").read_text() == "theirs"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b"]


@pytest.mark.parametrize("name", ["", "a/b", "."])
def test_names_that_hdf5_reads_as_paths_are_refused(tmp_path, name):
    with pytest.raises(ms.errors.InputError, match="cannot name content"):
        ms.write_hdf5(tmp_path / "a.h5", {name: 1})


def test_a_file_that_is_no_hdf5_is_an_error(tmp_path):
    with pytest.raises(ms.errors.FileFormatError, match="no file"):
        ms.read_hdf5(tmp_path / "nothing.h5")
    (tmp_path / "notes.h5").write_text("This is no HDF5.")
    with pytest.raises(ms.errors.FileFormatError, match="is no HDF5 file"):
        ms.read_hdf5(tmp_path / "notes.h5")


def relaxed_slab(start: ms.Structure) -> SimpleNamespace:
    return SimpleNamespace(
        structure=start.at(1.01 * start.positions),
        energy=np.float64(-1.25),
        forces=np.arange(9.0).reshape(3, 3),
        stress=np.eye(3),
        steps=np.int64(7),
        status=ms.Status.CONVERGED,
    )


def test_a_relaxed_state_is_complete_in_its_file(tmp_path):
    start = structure()
    relaxed = relaxed_slab(start)
    ms.write_relaxed(tmp_path / "slab.h5", relaxed, parameters={"epsilon": 0.4}, start=start)
    back = ms.read_hdf5(tmp_path / "slab.h5")
    assert_array_equal(back["structure"].positions, relaxed.structure.positions)
    assert_array_equal(back["start"].positions, start.positions)
    assert back["energy"] == Quantity(-1.25, "eV")
    assert_array_equal(back["forces"].value, relaxed.forces)
    assert_array_equal(back["stress"].value, np.eye(3))
    assert (back["status"], back["steps"], back["parameters"]) == ("converged", 7, {"epsilon": 0.4})


def test_a_relaxed_state_is_read_back_and_written_again(tmp_path):
    start = structure()
    relaxed = relaxed_slab(start)
    ms.write_relaxed(tmp_path / "slab.h5", relaxed, parameters={"epsilon[Ni-Cu]": 0.4}, start=start)
    back = ms.read_relaxed(tmp_path / "slab.h5")
    assert (back.energy, back.steps, back.status) == (-1.25, 7, "converged")
    assert back.parameters == {"epsilon[Ni-Cu]": 0.4}
    assert ms.Status(back.status) is ms.Status.CONVERGED
    for name in ("positions", "cell", "species", "masses", "fixed"):
        assert_array_equal(getattr(back.structure, name), getattr(relaxed.structure, name))
    assert_array_equal(back.forces, relaxed.forces)
    assert_array_equal(back.more["start"].positions, start.positions)
    # a record is written as what it was read from
    ms.write_relaxed(tmp_path / "again.h5", back, parameters=back.parameters, **back.more)
    again = ms.read_relaxed(tmp_path / "again.h5")
    assert (again.energy, again.status, again.parameters) == (back.energy, back.status, back.parameters)


def test_a_state_without_parameters_has_none_and_other_files_are_no_states(tmp_path):
    ms.write_relaxed(tmp_path / "a.h5", relaxed_slab(structure()))
    assert ms.read_relaxed(tmp_path / "a.h5").parameters == {} == ms.read_relaxed(tmp_path / "a.h5").more
    ms.write_hdf5(tmp_path / "b.h5", {"x": 1}, kind="relaxed")
    with pytest.raises(ms.errors.FileFormatError, match="has no structure, which every relaxed state has"):
        ms.read_relaxed(tmp_path / "b.h5")
    ms.write_hdf5(tmp_path / "c.h5", {"x": 1}, kind="sensitivity")
    with pytest.raises(ms.errors.FileFormatError, match="holds 'sensitivity'"):
        ms.read_relaxed(tmp_path / "c.h5")


def test_charges_come_back_bit_by_bit_and_structures_without_them_without(tmp_path):
    plain = structure()
    charged = dataclasses.replace(plain, charges=jnp.linspace(-1.0, 1.0, plain.n_atoms))
    ms.write_hdf5(tmp_path / "a.h5", {"plain": plain, "charged": charged})
    read = ms.read_hdf5(tmp_path / "a.h5")
    assert read["plain"].charges is None
    assert_array_equal(read["charged"].charges, charged.charges)
