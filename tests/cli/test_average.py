"""`mdsens average`, as typed: it averages what the library averages, and says what is wrong."""

import csv

import ase.build
import pytest
from command_line import run
from numpy.testing import assert_allclose

import mdsens as ms

pytest.importorskip("jax_md", reason="jax-md is not installed")

POTENTIAL = ("--potential", "ar-lennard-jones")
OPTIONS = (*POTENTIAL, "--temperature", 20, "--timestep", 5, "--steps", 400, "--record-every", 10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("average")
    ase.build.bulk("Ar", "fcc", a=5.3, cubic=True).write(path / "argon.extxyz")
    return path


@pytest.fixture(scope="module")
def printed(folder):
    code, text = run(
        "average", folder / "argon.extxyz", *OPTIONS, "-O", "energy", "-O", "C11", "-o", folder / "a"
    )
    assert code == 0, text
    return text


def test_frames_and_averages_are_printed_and_written(folder, printed):
    assert "effective samples" in printed and "energy" in printed and "C11" in printed
    assert "by" in printed and "epsilon" in printed and "temperature" in printed
    found = ms.ThermalAverages.from_hdf5(folder / "a.h5")
    ensemble = ms.Ensemble.from_hdf5(folder / "a-ensemble.h5", ms.load_potential("ar-lennard-jones"))
    again = ensemble.average(["energy", "C11"])
    assert_allclose(found.values, again.values)
    assert_allclose(found.derivatives, again.derivatives)
    rows = list(csv.DictReader((folder / "a.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 2 * len(found.variables) and rows[0]["observable"] == "energy"
    assert (folder / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_an_ensemble_is_averaged_again_and_at_another_temperature(folder, printed):
    common = ("average", folder / "a-ensemble.h5", *POTENTIAL, "-O", "energy", "--by", "sigma")
    code, text = run(*common, "-o", folder / "b")
    assert code == 0 and "20 K" in text and "epsilon" not in text
    code, text = run(*common, "--temperature", 21, "-o", folder / "c")
    assert code == 0 and "21 K" in text
    one, other = (ms.ThermalAverages.from_hdf5(folder / f"{name}.h5") for name in "bc")
    change = other["energy"].value - one["energy"].value
    assert_allclose(change, one.derivative("energy", "temperature").value, rtol=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*POTENTIAL,), "a temperature is needed to sample a structure"),
        ((*OPTIONS[:-2], "--temperature", -5), "temperature = -5"),
        ((*OPTIONS, "-O", "presure"), "no thermal observable 'presure'. Did you mean 'pressure'"),
        ((*OPTIONS, "-O", "thermal_expansion"), "the cell was held: sample with pressure"),
        ((*OPTIONS, "--by", "sgma"), "has no parameter 'sgma'. Did you mean 'sigma'"),
        ((*OPTIONS, "--cell", "round", "--pressure", 1), "--cell round"),
        ((*OPTIONS, "--steps", 50), "make 5 frames of each replica"),
    ],
)
def test_what_cannot_be_averaged_is_refused(folder, tmp_path, arguments, message):
    code, text = run("average", folder / "argon.extxyz", *arguments, "-o", f"{tmp_path}/")
    assert code != 0 and message in text, text
    assert not list(tmp_path.glob("*average.h5"))


def test_files_are_not_overwritten_unasked(folder, printed):
    code, text = run("average", folder / "argon.extxyz", *OPTIONS, "-o", folder / "a")
    assert code != 0 and "exists" in text
    code, text = run("average", folder / "a-ensemble.h5", *POTENTIAL, "--fix", "0", "-o", folder / "d")
    assert code != 0 and "leave out --fix" in text
