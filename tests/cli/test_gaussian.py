"""`mdsens gaussian`: what it prints, writes and refuses."""

import ase.build
import pytest
from ase.io import write
from command_line import run

import mdsens as ms

POTENTIAL = ["--potential", "ar-lennard-jones"]
SMALL = ["--members", "32", "--temperature", "20"]


@pytest.fixture
def crystal(tmp_path):
    file = tmp_path / "argon.extxyz"
    write(file, ase.build.bulk("Ar", "fcc", a=5.3, cubic=True))
    return file


def test_the_state_is_printed_and_written(crystal, tmp_path):
    output = ["--output", tmp_path / "ar"]
    code, text = run("gaussian", crystal, *POTENTIAL, *SMALL, *output)
    assert code == 0, text
    assert "Gaussian state at 20 K" in text and "free energy" in text and "operations of symmetry" in text
    read = ms.read_hdf5(tmp_path / "ar.h5")
    assert read["force_constants"].value.shape == (12, 12)
    assert read["free_energy"].unit == "eV"
    assert ms.read_structure(tmp_path / "ar.xyz").n_atoms == 4
    code, text = run("gaussian", crystal, *POTENTIAL, *SMALL, *output)
    assert code == 5 and "exists" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "0"], "above 0"),
        (["--temperature", "20", "--members", "8"], "members = 8"),
        (["--temperature", "20", "--cell", "cubic"], "cubic"),
    ],
)
def test_what_cannot_be_is_refused(crystal, options, message):
    code, text = run("gaussian", crystal, *POTENTIAL, *options)
    assert code == 2 and message in text
