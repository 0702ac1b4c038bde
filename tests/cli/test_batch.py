"""`mdsens batch`, as typed."""

import csv

import ase.build
import ase.io
import numpy as np
import pytest
from command_line import run
from numpy.testing import assert_allclose

import mdsens as ms


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two frames of argon in one file, copper in another."""
    folder = tmp_path_factory.mktemp("batch")
    frames = []
    for seed in (1, 2):
        crystal = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
        crystal.rattle(0.05, seed=seed)
        frames.append(crystal)
    ase.io.write(folder / "argon.extxyz", frames)
    ase.build.bulk("Cu", cubic=True).write(folder / "copper.extxyz")
    return folder


def test_a_table_of_all_systems_is_written_and_what_fails_is_named(folder):
    files = (folder / "argon.extxyz", folder / "copper.extxyz")
    how = ("--potential", "ar-lennard-jones", "--solver", "newton", "--parameter", "epsilon")
    code, text = run("batch", *files, *how, "-o", folder / "all.h5")
    assert code == 0, text
    assert "3 systems, 1 failed" in text and "failed copper: InputError" in text
    found = ms.MeasuredBatch.read(folder / "all.h5")
    assert found.systems == ("argon-0", "argon-1", "copper") and found.names == ("energy", "volume")
    # the energy is proportional to epsilon
    potential = ms.load_potential("ar-lennard-jones")
    assert_allclose(found.jacobian[:2, 0, 0] * potential.epsilon, found.column("energy")[:2], rtol=1e-9)
    with (folder / "all.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0][:4] == ["system", "energy (eV)", "volume (Å³)", "d energy / d epsilon"]
    assert float(rows[1][1]) == found.values[0, 0] and np.isnan(float(rows[3][1])) and "Cu" in rows[3][-1]
    code, text = run("batch", *files, *how, "-o", folder / "all.h5")
    assert code != 0 and "overwrite" in text


def test_names_that_meet_and_batches_that_fail_as_a_whole_are_said(folder):
    one = folder / "copper.extxyz"
    how = ("--potential", "ar-lennard-jones", "-o", folder / "none.h5")
    code, text = run("batch", one, one, *how)
    assert code != 0 and "two structures are called 'copper'" in text
    code, text = run("batch", one, *how)
    assert code != 0 and "every system of the batch failed" in text
    code, text = run("batch", one, "--potential", "ar-lennard-jones", "-o", folder / "none.csv")
    assert code != 0 and "HDF5" in text
