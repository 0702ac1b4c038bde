"""`mdsens fit`, as typed: what it writes, how it goes on, and how it refuses."""

import ase.build
import numpy as np
import pytest
from command_line import run

import mdsens as ms
from mdsens.errors import FileFormatError, InputError
from mdsens.fitting.config import read_fit_config

GOOD = """
potential = "ar-lennard-jones"
free = ["epsilon", "sigma"]
[set]
epsilon = 0.011
[bounds]
sigma = [3.0, 4.0]
[structures.bulk]
file = "crystal.extxyz"
cell = "isotropic"
[[targets]]
observable = "lattice_constant"
value = 5.3
tolerance = 0.001
[[targets]]
observable = "energy_per_atom"
value = -0.08
tolerance = 0.001
[fit]
radius = 0.2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    ase.build.bulk("Ar", "fcc", a=5.3, cubic=True).write(folder / "crystal.extxyz")
    (folder / "fit.toml").write_text(GOOD)
    return folder


def test_a_fit_meets_its_targets_and_writes_a_potential_and_a_report(folder):
    prefix = str(folder / "found")
    code, text = run("fit", folder / "fit.toml", "--output", prefix)
    assert code == 0, text
    assert "Every target is met within its tolerance." in text
    potential = ms.load_potential(f"{prefix}.toml")
    crystal = ms.relax(potential, ms.read_structure(folder / "crystal.extxyz"), cell="isotropic")
    assert float(ms.volume(crystal.structure)) == pytest.approx(5.3**3, rel=1e-6)
    assert float(crystal.energy) / 4 == pytest.approx(-0.08, rel=1e-6)
    report = (folder / "found.md").read_text()
    assert "| lattice_constant |" in report and "met |" in report
    content = ms.read_hdf5(f"{prefix}.h5", kind="fit result")
    np.testing.assert_allclose(content["rows"]["target"], [5.3, -0.08])
    assert (folder / "found.png").stat().st_size > 1000
    # it is done: going on from its file changes nothing
    code, text = run("fit", folder / "fit.toml", "--output", prefix, "--resume", "--overwrite")
    assert code == 0, text
    assert ms.parameter_values(ms.load_potential(f"{prefix}.toml")) == ms.parameter_values(potential)


def test_results_that_are_there_are_not_replaced(folder):
    (folder / "taken.md").write_text("mine")
    code, text = run("fit", folder / "fit.toml", "--output", str(folder / "taken"))
    assert code == 5
    assert "taken.md' exists" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("free =", "fre ="), r"^fre is unknown. Did you mean 'free'\? There are potential, free"),
        (("cell = ", "cel = "), r"^structures.bulk.cel is unknown. Did you mean 'cell'"),
        (
            ("tolerance = 0.001", "tolerence = 0.001"),
            r"^targets\[0\].tolerence is unknown. Did you mean 'tol",
        ),
        (("radius", "radios"), r"^fit.radios is unknown. Did you mean 'radius'"),
        (("value = -0.08", 'value = "low"'), r"^targets\[1\].value = 'low': give a number"),
        (("value = -0.08", ""), r"^targets\[1\].value is missing"),
        (('potential = "ar-lennard-jones"', ""), r"^potential is missing"),
        (('"sigma"', '"sigmaa"'), r"^free: there is no parameter 'sigmaa'. Did you mean 'sigma'"),
        (("epsilon = 0.011", "eps = 0.011"), r"^set: LennardJones has no parameter 'eps'"),
        (("sigma = [3.0, 4.0]", "sigma = [3.0]"), r"^bounds: \[3.0\] of sigma: give two numbers"),
        (
            ("energy_per_atom", "energy_per_atoms"),
            r"^targets: no observable 'energy_per_atoms'. Did you mean",
        ),
        (('"isotropic"', '"cubic"'), r"^structures.bulk.cell: cell='cubic' is unknown"),
        (("[structures.bulk]", "[structure.bulk]"), r"^structure is unknown. Did you mean 'structures'"),
    ],
)
def test_a_configuration_that_is_wrong_names_the_path_of_the_key(folder, tmp_path, change, message):
    (tmp_path / "crystal.extxyz").write_bytes((folder / "crystal.extxyz").read_bytes())
    (tmp_path / "bad.toml").write_text(GOOD.replace(*change, 1))
    with pytest.raises(InputError, match=message):
        read_fit_config(tmp_path / "bad.toml")


def test_a_file_that_is_no_configuration_is_refused(tmp_path):
    (tmp_path / "bad.toml").write_text("free = [")
    with pytest.raises(FileFormatError, match=r"bad.toml' is not TOML"):
        read_fit_config(tmp_path / "bad.toml")
    (tmp_path / "empty.toml").write_text('potential = "ar-lennard-jones"')
    with pytest.raises(InputError, match="there is nothing to fit to: add"):
        read_fit_config(tmp_path / "empty.toml")


def test_a_lammps_file_that_the_form_has_not_is_refused_before_the_work(folder):
    code, text = run("fit", folder / "fit.toml", "--lammps", "sw", "--output", str(folder / "other"))
    assert code == 2
    assert "hold StillingerWeber, and this is a LennardJones" in " ".join(text.split())
    code, text = run("fit", folder / "fit.toml", "--lammps", "tersof", "--output", str(folder / "other"))
    assert code == 2
    assert "--lammps tersof: no such file of LAMMPS. Did you mean 'tersoff'?" in " ".join(text.split())


def test_a_fit_to_data_is_judged_by_the_part_it_did_not_see(tmp_path):
    from mdsens.datasets import Rattle, generate

    potential = ms.load_potential("si-stillinger-weber-1985")
    crystal = ms.Structure.from_ase(ase.build.bulk("Si", cubic=True))
    generate(potential, crystal, Rattle(0.1, 0.02), count=6, output=tmp_path / "data.h5")
    (tmp_path / "fit.toml").write_text(
        """
potential = "si-stillinger-weber-1985"
free = ["lambda", "A"]
[set]
lambda = 24.0
A = 6.3
[data]
file = "data.h5"
test = 0.3
"""
    )
    code, text = run("fit", tmp_path / "fit.toml", "--output", tmp_path / "out", "--lammps", "sw")
    assert code == 0, text
    assert "2 structures that the fit did not see: " in text and "force rmse" in text
    assert (tmp_path / "out-parity.png").stat().st_size > 1000
    found = ms.parameter_values(ms.load_potential(tmp_path / "out.sw"))
    np.testing.assert_allclose([found["lambda"], found["A"]], [21.0, 7.049556277], rtol=1e-6)
