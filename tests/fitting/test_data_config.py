"""Data of a configuration file: what is said is done, what is misspelled is named by its path."""

import ase.build
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.datasets import Dataset, LabelWeights, write_dataset
from mdsens.errors import FileFormatError, InputError
from mdsens.fitting.data_config import configured_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    atoms = ase.build.bulk("Si", cubic=True)
    structures = []
    for seed in range(5):
        atoms.rattle(0.1, seed=seed)
        structures.append(ms.Structure.from_ase(atoms))
    forces = [np.ones((8, 3))] * 5
    write_dataset(folder / "a.h5", Dataset.create(structures, [-34.0] * 5, forces, group="bulk"))
    write_dataset(folder / "b.extxyz", Dataset.create(structures[:2], [-33.0] * 2, group="other"))
    return folder


def test_all_keys_are_followed(folder):
    table = {
        "file": ["a.h5", "b.extxyz"],
        "test": 0.2,
        "seed": 3,
        "huber": 3.0,
        "shift_energies": True,
        "tolerances": {"energy": 0.01, "stress": False},
        "weights": {"other": [1.0, 0.0, 0.0], "bulk": 2},
        "references": {"Si": -4.0},
    }
    found = configured_data(table, folder=folder, notice=lambda text: None)
    data = found.term.data + found.test
    assert len(data) == 7 and len(found.test) == 1
    assert {entry.weights for entry in data} == {LabelWeights(1.0, 0.0, 0.0), LabelWeights(2.0, 2.0, 2.0)}
    assert_allclose(sorted(entry.energy for entry in data), [-2.0] * 5 + [-1.0] * 2)
    assert found.term.tolerances == (0.01, 0.05, None)
    assert found.term.huber == 3.0 and found.term.shift_energies and found.term.name == "data"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"flie": "a.h5"}, r"data\.flie is unknown\. Did you mean 'file'"),
        ({}, r"data\.file is missing"),
        ({"file": 3}, r"data\.file = 3: give a text or a list"),
        ({"file": "a.h5", "huber": True}, r"data\.huber = True: give a number"),
        ({"file": "a.h5", "tolerances": {"force": 1.0}}, r"data\.tolerances\.force is unknown.*'forces'"),
        ({"file": "a.h5", "tolerances": {"forces": True}}, r"data\.tolerances\.forces = true: give a number"),
        ({"file": "a.h5", "weights": {"bluk": 1.0}}, r"data\.weights: no group is called 'bluk'.*'bulk'"),
        ({"file": "a.h5", "references": {"C": 1.0}}, "no reference energy for Si"),
        ({"file": "b.extxyz", "energy_unit": "ev"}, "Did you mean 'eV'"),
    ],
)
def test_faults_are_named_by_their_path(folder, table, message):
    with pytest.raises(InputError, match=message):
        configured_data(table, folder=folder)


def test_a_file_that_is_not_there_is_said(folder):
    with pytest.raises(FileFormatError, match="no data set"):
        configured_data({"file": "none.h5"}, folder=folder)
