"""`mdsens uncertainty` on files, as a user calls it."""

import csv

import numpy as np
import pytest
from command_line import run
from numpy.testing import assert_allclose
from triangle import ARGON, COVARIANCE, EPSILON, SIGMA, TRIANGLE

import mdsens as ms
from mdsens.errors import FileFormatError
from mdsens.uncertainty import ParameterDistribution, read_covariance, read_samples, write_covariance


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ms.write_structure("argon.extxyz", TRIANGLE)
    ms.save_potential(ARGON, "argon.toml")
    return ["uncertainty", "argon.extxyz", "--potential", "argon.toml", "-O", "energy"]


def rows():
    with open("argon-uncertainty.csv") as file:
        return {row["observable"]: row for row in csv.DictReader(file)}


def test_errors_in_percent_become_those_of_the_energy(command):
    code, text = run(*command, "--error", "epsilon=2%", "-e", "sigma=0.01", "--draws", "6")
    assert code == 0 and "epsilon 100 %" in text and "6 draws relaxed again, 0 lost" in text
    assert "first order" in text and "argon-uncertainty.h5" in text
    energy = rows()["energy"]
    # E = -3 epsilon
    assert_allclose(float(energy["value"]), -3 * EPSILON, rtol=1e-9)
    assert_allclose(float(energy["error"]), 0.06 * EPSILON, rtol=1e-9)
    assert_allclose(float(energy["share epsilon"]), 1, rtol=1e-9)
    code, text = run(*command, "--error", "epsilon=2%")
    assert code == 5 and "--overwrite" in text


def test_a_covariance_comes_from_its_file(command):
    write_covariance(ParameterDistribution.from_covariance(ARGON, COVARIANCE), "c.csv")
    code, _ = run(*command, "--covariance", "c.csv", "--order", "first")
    assert code == 0
    assert_allclose(float(rows()["energy"]["error"]), 3 * np.sqrt(COVARIANCE[0, 0]), rtol=1e-9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "by one of --error, --covariance and --samples"),
        (("-e", "epsilon=1%", "--samples", "s.csv"), "by one of --error, --covariance and --samples"),
        (("-e", "epsilon=small"), "--error epsilon=small: write a number, or percent"),
        (("-e", "epsilom=1%"), "epsilom"),
        (("--covariance", "none.csv"), "no file 'none.csv'"),
    ],
)
def test_what_is_no_error_is_refused(command, words, message):
    code, text = run(*command, *words)
    assert code != 0 and message in text


def test_tables_are_read_and_their_faults_named(tmp_path):
    file = tmp_path / "table.csv"
    given = ParameterDistribution.from_covariance(ARGON, COVARIANCE)
    write_covariance(given, file)
    assert_allclose(read_covariance(ARGON, file).covariance, COVARIANCE, rtol=1e-9)
    file.write_text(f"sigma,epsilon\n{SIGMA},{EPSILON}\n{1.1 * SIGMA},{1.2 * EPSILON}\n")
    found = read_samples(ARGON, file)
    assert found.names == ("sigma", "epsilon")
    assert_allclose(found.mean, [1.05 * SIGMA, 1.1 * EPSILON])
    for text, message in (
        ("", "is empty: the names of the parameters come first"),
        ("sigma,epsilon\n1\n", "row 2: 1 numbers for 2 names"),
        ("sigma\n1\nlow\n", "row 3: could not convert string to float: 'low'"),
    ):
        file.write_text(text)
        with pytest.raises(FileFormatError, match=message):
            read_samples(ARGON, file)
