"""`mdsens barrier`, as typed: what it finds and writes, how it goes on, and how it refuses."""

import matplotlib.image
import numpy as np
import passes
import pytest
from command_line import run
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import FileFormatError, InputError
from mdsens.saddles.files import read_path, write_path
from mdsens.units import BOLTZMANN


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both minima, and the potential as a file."""
    folder = tmp_path_factory.mktemp("barrier")
    ms.save_potential(passes.morse(), folder / "well.toml")
    for name, y in (("up", passes.UP), ("down", -passes.UP)):
        ms.write_structure(folder / f"{name}.extxyz", passes.structure(y + 0.01))
    return folder


def command(folder, *more):
    ends = folder / "up.extxyz", folder / "down.extxyz"
    return run("barrier", *ends, "-p", folder / "well.toml", "--images", 4, "-o", folder / "pass", *more)


@pytest.fixture(scope="module")
def done(folder):
    return command(folder, "--temperature", 400)


def test_the_command_prints_and_writes_what_was_found(folder, done):
    code, text = done
    assert code == 0, text
    expected = passes.height(passes.D, passes.ALPHA, passes.R0)
    assert f"barrier {expected:.6f} eV" in text
    assert "backward attempt frequency" in text and "rate 400K" in text and "d ln(O) / d ln(θ)" in text
    content = ms.read_hdf5(folder / "pass.h5", kind="barrier")
    assert_allclose(content["barrier"].value, expected, rtol=1e-9)
    values = content["values"]
    boltzmann = np.exp(-values["barrier"] / (BOLTZMANN * 400))
    assert_allclose(values["rate_400K"], 1e12 * values["attempt_frequency"] * boltzmann, rtol=1e-9)
    assert_allclose(content["states"]["saddle"]["structure"].positions[2], 0, atol=1e-8)
    slopes = content["derivatives"]
    column = list(slopes["parameters"]).index("D0")
    assert_allclose(slopes["derivative"].value[0, column], expected / passes.D, rtol=1e-8)
    assert len(ms.read_trajectory(folder / "pass.extxyz")) == 6
    assert matplotlib.image.imread(folder / "pass.png").std() > 0


def test_files_that_stand_there_are_not_replaced_unless_asked_for(folder, done):
    assert command(folder)[0] == 5


def test_a_run_that_was_cut_off_goes_on_from_its_path(folder, done):
    before = read_path(folder / "pass.h5")
    code, text = command(folder, "--resume", "--no-derivatives")
    assert code == 0, text
    assert "d ln(O)" not in text
    # it begins where the band had come to: nothing is left to do
    after = read_path(folder / "pass.h5")
    assert after.steps == 0
    assert_allclose(after.positions[1:-1], before.positions[1:-1], atol=1e-12)


def test_a_path_of_another_potential_is_not_gone_on_from(folder, done):
    code, text = command(folder, "--resume", "--set", "D0=0.4")
    assert code == 2
    assert "was made with D0 = 0.5, and now D0 = 0.4" in text


def test_equal_ends_are_refused_in_words(folder):
    end = folder / "up.extxyz"
    code, text = run("barrier", end, end, "-p", folder / "well.toml", "-o", folder / "same")
    assert code == 2
    assert "relax into the same minimum" in text


def test_a_path_is_read_back_as_it_was_written(tmp_path):
    start = passes.structure(1.0)
    positions = np.stack([np.asarray(passes.structure(y).positions) for y in (1.0, 0.0, -1.0)])
    path = ms.ReactionPath(start, positions, np.array([0.0, 0.5, 0.1]), 0.03, 1, 12)
    write_path(tmp_path / "path.h5", path, settings={"images": 1})
    again = read_path(tmp_path / "path.h5", settings={"images": 1})
    assert_allclose(again.positions, positions)
    assert (again.fmax, again.climbing, again.steps, again.highest) == (0.03, 1, 12, 1)
    with pytest.raises(InputError, match="images = 1, and now images = 3"):
        read_path(tmp_path / "path.h5", settings={"images": 3})
    ms.write_hdf5(tmp_path / "other.h5", {"a": 1.0})
    with pytest.raises(FileFormatError, match="holds no path"):
        read_path(tmp_path / "other.h5")
