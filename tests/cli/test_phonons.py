"""`mdsens phonons`: what it prints, writes and refuses."""

import csv

import ase.build
import pytest
from ase.io import write
from command_line import run

POTENTIAL = ["--potential", "ar-lennard-jones"]


@pytest.fixture
def crystal(tmp_path):
    file = tmp_path / "argon.extxyz"
    write(file, ase.build.bulk("Ar", "fcc", a=5.3))
    return file


def test_bands_and_states_are_written_and_frequencies_printed(crystal, tmp_path):
    small = ["--supercell", "4,4,4", "--mesh", "4", "--points", "9", "--path", "GX"]
    code, text = run("phonons", crystal, *POTENTIAL, *small, "--q", "1/2,0,1/2", "--output", tmp_path / "ar")
    assert code == 0 and "frequencies (THz)" in text and "1/2,0,1/2" in text
    rows = list(csv.reader((tmp_path / "ar.csv").read_text().splitlines()))
    assert rows[0][:4] == ["distance (1/Å)", "q1", "q2", "q3"] and len(rows) == 10
    states = list(csv.reader((tmp_path / "ar-dos.csv").read_text().splitlines()))
    assert states[0] == ["frequency (THz)", "states (1/THz)"] and len(states) == 401
    assert (tmp_path / "ar.png").exists()
    code, text = run("phonons", crystal, *POTENTIAL, *small, "--output", tmp_path / "ar")
    assert code == 5 and "exists" in text


@pytest.mark.parametrize(
    "options, message",
    [
        (["--supercell", "4,4"], "write three whole numbers"),
        (["--q", "1/2,0"], "give three fractions"),
        (["--q", "1/2,0,x"], "'x' is no fraction"),
    ],
)
def test_what_cannot_be_read_is_refused(crystal, options, message):
    code, text = run("phonons", crystal, *POTENTIAL, *options)
    assert code == 2 and message in text
