"""`mdsens relax`, as typed: what it computes and writes, and how it refuses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import ase.build
import ase.io
import matplotlib.image
import numpy as np
import pytest
from command_line import run
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.cli.options import structure_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Structures to relax: a strained crystal with tags, and three atoms in a row."""
    folder = tmp_path_factory.mktemp("relax")
    crystal = ase.build.bulk("Ar", "fcc", a=5.4, cubic=True)
    crystal.rattle(0.05, seed=1)
    crystal.set_tags([1, 2, 3, 4])
    crystal.info["origin"] = "tests"
    crystal.write(folder / "crystal.extxyz")
    ase.Atoms("Ar3", [[-1.1, 0, 0], [0, 0, 0], [1.1, 0, 0]]).write(folder / "row.xyz")
    return folder


CRYSTAL = ("--potential", "ar-lennard-jones", "--cell", "isotropic", "--solver", "newton")


@pytest.fixture(scope="module")
def relaxed(folder) -> tuple[int, str]:
    """The crystal under pressure, with another well depth, all files written."""
    changes = ("--set", "epsilon=0.0112", "--pressure", "0.1", "--fix", "0")
    return run("relax", folder / "crystal.extxyz", *CRYSTAL, *changes, "--output", f"{folder}/out/")


def test_the_files_hold_what_relax_finds(folder, relaxed):
    code, text = relaxed
    assert code == 0, text
    potential = ms.replace_parameters(ms.load_potential("ar-lennard-jones"), {"epsilon": 0.0112})
    start = ms.read_structure(folder / "crystal.extxyz")
    fixed = np.zeros((4, 3), bool)
    fixed[0] = True
    start = ms.Structure.create(start.positions, start.species, start.cell, fixed=fixed)
    pressure = 0.1 / ms.units.GPA
    expected = ms.relax(potential, start, cell="isotropic", pressure=pressure, solver=ms.NewtonCG())
    results = ms.read_hdf5(folder / "out" / "crystal-relaxed.h5")
    # the same program with the same inputs
    assert_allclose(results["structure"].positions, expected.structure.positions, atol=1e-12)
    assert_allclose(results["energy"].value, float(expected.energy), rtol=1e-13)
    # isotropic: the pressure is the mean of the normal stresses
    assert_allclose(np.trace(results["stress"].value) / 3, -pressure, atol=1e-9)
    assert_array_equal(results["start"].fixed, fixed)
    assert results["status"] == "converged"
    assert results["parameters"]["epsilon"] == 0.0112
    assert results["settings"]["pressure"] == (0.1, "GPa", "")
    assert results["course"]["fmax"].value[-1] <= 1e-8
    assert results["course"]["steps"][0] == 0
    assert len(results["course"]["steps"]) == len(results["course"]["energy"].value)

    atoms = ase.io.read(folder / "out" / "crystal-relaxed.extxyz")
    assert_array_equal(atoms.get_tags(), [1, 2, 3, 4])
    assert (atoms.info["origin"], atoms.info["relaxation"]) == ("tests", "converged")
    assert_allclose(atoms.positions, expected.structure.positions, atol=1e-7)  # eight decimals
    assert_allclose(atoms.get_potential_energy(), float(expected.energy), rtol=1e-8)

    picture = matplotlib.image.imread(folder / "out" / "crystal-relaxed.png")
    assert picture.shape[0] > 500 and picture[..., :3].std() > 0.05
    assert f"{float(expected.energy):.8f}" in text
    assert "crystal.extxyz: converged" in text
    assert "wrote" in text and "crystal-relaxed.png" in text


def test_existing_files_stay_unless_overwrite_is_given(folder, relaxed):
    again = ("relax", folder / "crystal.extxyz", *CRYSTAL, "--output", folder / "out")
    before = (folder / "out" / "crystal-relaxed.h5").read_bytes()
    code, text = run(*again)
    assert code == 5
    assert "crystal-relaxed.extxyz' exists" in text and "--overwrite" in text
    assert (folder / "out" / "crystal-relaxed.h5").read_bytes() == before
    code, text = run(*again, "--overwrite")
    assert code == 0, text
    assert (folder / "out" / "crystal-relaxed.h5").read_bytes() != before


def test_a_state_that_is_not_converged_is_written_and_exit_code_is_3(folder):
    code, text = run(
        "relax", folder / "crystal.extxyz", *CRYSTAL, "--max-steps", "1", "--output", folder / "short"
    )
    assert code == 3
    assert "Error: relax stopped after max_steps" in text
    assert "Traceback" not in text
    results = ms.read_hdf5(folder / "short.h5")
    assert results["status"] == "stopped after max_steps"
    assert ase.io.read(folder / "short.extxyz").info["relaxation"] == "stopped after max_steps"


def test_options_may_stand_in_a_file_and_the_command_line_wins(folder):
    config = folder / "options.toml"
    config.write_text(
        f"""
        structure = "{folder / "crystal.extxyz"}"
        potential = "ar-lennard-jones"
        cell = "isotropic"
        solver = "newton"
        max_steps = 7
        fix = ["0", "1:xy"]
        overwrite = true
        output = "{folder / "from-file"}"
        [set]
        epsilon = 0.0113
        """
    )
    code, text = run("relax", "--config", config, "--max-steps", "1", "--output", folder / "from-line")
    assert code == 3, text
    assert not (folder / "from-file.h5").exists()
    results = ms.read_hdf5(folder / "from-line.h5")
    assert results["parameters"]["epsilon"] == 0.0113
    assert_array_equal(results["start"].fixed[:2], [[True, True, True], [True, True, False]])
    assert results["steps"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('potental = "x"', "'potental' in .* is no option here. Did you mean 'potential'"),
        ("max-stesp = 3", "Did you mean 'max-steps'"),
        ("config = 'more.toml'", "'config' in .* is no option here"),
        ("cell = ", "is not TOML"),
        ("fmax = 'small'", "--fmax.*valid"),
        ("solver = 'cg'", "--solver"),
        ("max_steps = 0", "--max-steps"),
    ],
)
def test_a_wrong_file_of_options_is_refused(folder, text, message):
    config = folder / "wrong.toml"
    config.write_text(text)
    code, output = run("relax", folder / "crystal.extxyz", "-p", "ar-lennard-jones", "-c", config)
    assert code == 2
    assert_match(message, output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.xyz", "-p", "ar-lennard-jones"), "no structure file 'nothing.xyz'"),
        (("crystal.extxyz",), "Missing option '--potential'"),
        (("crystal.extxyz", "-p", "argon"), "no parameter set is called 'argon'"),
        (("crystal.extxyz", "-p", "nothing.toml"), "no potential file 'nothing.toml'"),
        (("crystal.extxyz", "-p", "si-stillinger-weber-1985"), "no parameters for Ar; it knows Si"),
        (("crystal.extxyz", "-p", "ar-lennard-jones", "--set", "epsilon"), "--set epsilon: write NAME=VALUE"),
        (
            ("crystal.extxyz", "-p", "ar-lennard-jones", "--set", "epsilon=big"),
            "--set epsilon=big: write NAME=VALUE",
        ),
        (("crystal.extxyz", "-p", "ar-lennard-jones", "--set", "epsylon=1"), "Did you mean 'epsilon'"),
        (("crystal.extxyz", "-p", "ar-lennard-jones", "--set", "epsilon=-1"), "outside its bounds"),
        (("crystal.extxyz", "-p", "ar-lennard-jones", "--cell", "ful"), "--cell ful: 'ful' is unknown"),
        (("crystal.extxyz", "-p", "ar-lennard-jones", "--cell", "xx,zx"), "'zx' is unknown"),
        (("crystal.extxyz", "-p", "ar-lennard-jones", "--pressure", "1"), "needs a cell that can move"),
        (
            ("crystal.extxyz", "-p", "ar-lennard-jones", "--fmax", "0"),
            "fmax = 0.0: it must be finite and above 0",
        ),
        (
            ("crystal.extxyz", "-p", "ar-lennard-jones", "--fix", "4"),
            "there is no atom 4; 4 atoms are counted from 0 to 3",
        ),
        (("crystal.extxyz", "-p", "ar-lennard-jones", "--fix", "Cu"), "nor one of Ar"),
        (("crystal.extxyz", "-p", "ar-lennard-jones", "--fix", "all:w"), "'w' are no axes"),
        (
            ("row.xyz", "-p", "lennard-jones-reduced", "--cell", "full", "-o", "row"),
            "cannot relax along a direction without periodic boundaries",
        ),
        (
            ("crystal.extxyz", "-p", "ar-lennard-jones", "--config", "nothing.toml"),
            "no configuration file 'nothing.toml'",
        ),
        (("crystal.extxyz", "-p", "ar-lennard-jones", "--solver", "bfgs"), "'bfgs' is not one of"),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    code, text = run("relax", *arguments)
    assert code == 2, text
    assert_match(message.replace("(", r"\("), text)
    assert "Traceback" not in text
    assert sorted(folder.iterdir()) == before


def test_debug_shows_where_an_error_came_from(folder):
    code, text = run("relax", folder / "crystal.extxyz", "-p", "argon", "--debug")
    assert code == 2
    assert "Traceback" in text and "in load_potential" in text
    assert "Error: no parameter set is called 'argon'" in text


@pytest.mark.parametrize(
    ("choice", "rows", "axes"),
    [
        ("0,2-3", [0, 2, 3], "xyz"),
        ("1:z", [1], "z"),
        ("all:xy", [0, 1, 2, 3], "xy"),
        ("Kr", [3], "xyz"),
        ("Kr:x", [3], "x"),
    ],
)
def test_fix_chooses_atoms_and_axes(choice, rows, axes):
    from mdsens.cli.options import fix_option

    structure = ms.Structure.create(
        np.eye(4)[:, :3] * 4, ["Ar", "Ar", "Ar", "Kr"], fixed=[False, True, False, False]
    )
    expected = np.array(structure.fixed)
    expected[np.ix_(rows, ["xyz".index(a) for a in axes])] = True
    assert_array_equal(fix_option(structure, [choice]).fixed, expected)


def test_a_saddle_point_has_exit_code_4_and_float64_is_turned_on(folder):
    # Three atoms in a row stay in a row by symmetry, and would rather be a triangle. In a process of its own,
    # whose environment asks for float32.
    program = "from mdsens.cli.main import app; app()"
    arguments = [
        "relax",
        folder / "row.xyz",
        "-p",
        "lennard-jones-reduced",
        "--solver",
        "newton",
        "-o",
        folder / "row-relaxed",
    ]
    environment = {**os.environ, "JAX_ENABLE_X64": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 4, done.stderr
    assert "row.xyz: converged to a saddle point" in done.stdout
    assert "the curvature along one mode is -" in " ".join(done.stderr.split())
    results = ms.read_hdf5(folder / "row-relaxed.h5")
    assert results["status"] == "converged to a saddle point"
    assert results["energy"].value.dtype == np.float64
    assert results["course"]["fmax"].value[-1] <= 1e-8


def assert_match(pattern: str, text: str) -> None:
    """`re.search` with a readable failure."""
    assert re.search(pattern, text), f"{pattern!r} not in {text!r}"


def test_formats_of_what_is_read_and_written_may_be_named(folder):
    (folder / "noname").write_bytes((folder / "crystal.extxyz").read_bytes())
    options = ("--format", "extxyz", "--output-format", "vasp", "--max-steps", "1", "-o", folder / "other")
    code, text = run("relax", folder / "noname", *CRYSTAL, *options)
    assert code == 3, text  # one step is not enough
    assert "other.vasp" in text and not (folder / "other.extxyz").exists()
    written = ms.read_structure(folder / "other.vasp", format="vasp")
    assert_allclose(written.cell, ms.read_relaxed(folder / "other.h5").structure.cell, atol=1e-12)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("extxy", "Did you mean 'extxyz'"),
        ("dmol-incoor-x", "is unknown"),
        ("cube-nothing", "is unknown"),
        ("abinit-out", "can be written"),
    ],
)
def test_a_format_that_cannot_be_written_is_said_before_the_work(folder, form, message):
    code, text = run(
        "relax", folder / "crystal.extxyz", *CRYSTAL, "--output-format", form, "-o", folder / "x"
    )
    assert code == 2 and message in text
    assert not list(folder.glob("x.*"))


@pytest.mark.parametrize(
    ("form", "ending"), [("vasp", "vasp"), ("lammps-data", "data"), ("cif", "cif"), ("xsf", "xsf")]
)
def test_files_are_called_by_their_format(form, ending):
    assert structure_files(Path("a/b.c"), ("h5",), form) == {
        "structure": Path(f"a/b.c.{ending}"),
        "h5": Path("a/b.c.h5"),
    }
