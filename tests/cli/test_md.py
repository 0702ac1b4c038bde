"""`mdsens md`, as typed: it moves what the library moves, and says what is wrong."""

import ase.build
import ase.io
import numpy as np
import pytest
from command_line import run
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.dynamics import Trajectory

pytest.importorskip("jax_md", reason="jax-md is not installed")

OPTIONS = ("--potential", "ar-lennard-jones", "--temperature", 30, "--timestep", 5, "--steps", 40)


@pytest.fixture(scope="module")
def crystal(tmp_path_factory):
    path = tmp_path_factory.mktemp("md") / "argon.extxyz"
    ase.build.bulk("Ar", "fcc", a=5.3, cubic=True).write(path)
    return path


def test_a_run_under_pressure_is_that_of_the_library_and_opens_elsewhere(crystal, tmp_path):
    file = tmp_path / "md.extxyz"
    barostat = ("--ensemble", "npt", "--pressure", 0.1, "--cell", "full", "--friction", 2, "--seed", 3)
    code, text = run("md", crystal, *OPTIONS, *barostat, "--output", file)
    assert code == 0, text
    assert "temperature" in text and "GPa" in text and "conserved energy" in text and "volume" in text
    expected = ms.dynamics.npt(
        ms.load_potential("ar-lennard-jones"),
        ms.read_structure(crystal),
        pressure=0.1 / ms.units.GPA,
        cell="full",
        friction=2e-3,
        seed=3,
        temperature=30.0,
        timestep=5.0,
        steps=40,
    )
    frames = ase.io.read(file, ":")
    assert len(frames) == 5
    assert_allclose(frames[-1].cell.array, expected.cell[-1], atol=1e-7)
    assert_allclose(frames[-1].get_stress(voigt=False), expected.stress[-1], atol=1e-8)
    assert_allclose(frames[-1].get_forces(), expected.forces[-1], atol=1e-7)


def test_a_run_goes_on_from_its_trajectory_and_a_finished_one_is_not_made_again(crystal, tmp_path):
    first, second = tmp_path / "one.h5", tmp_path / "two.h5"
    assert run("md", crystal, *OPTIONS, "--output", first)[0] == 0
    code, text = run(
        "md", first, "--potential", "ar-lennard-jones", "--timestep", 5, "--steps", 40, "-o", second
    )
    assert code == 0, text
    one, two = Trajectory.from_hdf5(first), Trajectory.from_hdf5(second)
    assert_array_equal(two.positions[0], one.positions[-1])
    assert two.time[0] == 200.0 and np.isfinite(two.total).all()
    made = first.stat().st_mtime_ns
    assert run("md", crystal, *OPTIONS, "--output", first, "--resume")[0] == 0
    assert first.stat().st_mtime_ns == made
    code, text = run("md", crystal, *OPTIONS, "--output", first)
    assert code == 5 and "exists" in text


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--pressure", 1), 2, "acts on a cell that moves: add --ensemble npt"),
        (("--ensemble", "npt", "--cell", "none"), 2, "a pressure needs a cell that moves"),
        (("--ensemble", "npt", "--fix", "0"), 2, "atom 0 is held along x, and the cell moves"),
        (("--replicas", 2, "--output", "md.xyz"), 2, "only .h5 holds several"),
        (("--output", "md.txt"), 2, "a trajectory is written as one of .h5"),
        (("--steps", 45), 2, "no multiple of record_every = 10"),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_remedy(crystal, options, code, message):
    found, text = run("md", crystal, *OPTIONS, *options)
    assert (found, message in text) == (code, True), text
