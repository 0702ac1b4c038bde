"""`mdsens follow`, as typed: what it prints and writes, and how it refuses."""

import numpy as np
import pytest
from command_line import run
from continuation_crystal import crystal, nearest_only, spinodal
from numpy.testing import assert_allclose

import mdsens as ms


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("follow")
    ms.save_potential(nearest_only(), folder / "pairs.toml")
    ms.write_structure(folder / "crystal.extxyz", crystal())
    return folder


def command(folder, *more):
    files = folder / "crystal.extxyz", "-p", folder / "pairs.toml", "-o", folder / "branch"
    return run("follow", *files, "--cell", "isotropic", *more)


@pytest.fixture(scope="module")
def torn(folder):
    tension = ["--along", "pressure", "--to", 1.3 * ms.units.GPA * spinodal()[0]]
    return command(folder, *tension, "-O", "volume", "-O", "energy")


def test_the_command_prints_and_writes_the_branch(folder, torn):
    code, text = torn
    assert code == 0, text
    assert "fold: the minimum meets a saddle point and is gone beyond pressure = -0.0285547316" in text
    content = ms.read_hdf5(folder / "branch.h5", kind="branch")
    assert_allclose(content["fold"]["s"], spinodal()[0], rtol=1e-9)
    frames = ms.read_trajectory(folder / "branch.extxyz")
    volumes = [float(ms.volume(frame)) for frame in frames]
    assert_allclose(volumes, content["values"].value[:, 0], rtol=1e-6)
    assert np.all(np.diff(volumes) > 0)
    assert (folder / "branch.png").exists()


def test_files_that_stand_there_are_not_replaced_unless_asked_for(folder, torn):
    assert command(folder, "--along", "epsilon", "--to", 0.2)[0] == 5


def test_what_was_followed_until_points_ran_out_is_kept(folder, torn):
    some = "--along", "pressure", "--to", ms.units.GPA * 0.01, "--max-points", 2
    code, text = command(folder, *some, "-O", "volume", "-O", "energy", "--overwrite")
    assert code == 3
    assert "max_points = 2" in text
    assert len(ms.read_hdf5(folder / "branch.h5", kind="branch")["s"].value) == 2


def test_a_misspelt_name_is_answered_with_the_nearest(folder):
    code, text = command(folder, "--along", "sigmo", "--to", 2.0, "--overwrite")
    assert code == 2
    assert "Did you mean 'sigma'?" in text
