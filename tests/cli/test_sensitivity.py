"""`mdsens sensitivity` on files, as a user calls it."""

import csv
from pathlib import Path

import pytest
from ase.io import read
from embedded import TWO, alloy, tables_of
from typer.testing import CliRunner

import mdsens as ms
from mdsens.cli.main import app
from mdsens.cli.sensitivity import _states, read_beside

DIAMOND = str(Path(__file__).parents[2] / "data" / "si-diamond.extxyz")
COMMON = ["sensitivity", DIAMOND, "--potential", "si-stillinger-weber-1985", "--cell", "isotropic"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    return lambda *words: CliRunner().invoke(app, [*COMMON, *words])


def test_table_and_files_of_a_crystal(run, tmp_path):
    words = [
        "-O",
        "lattice_constant",
        "-O",
        "energy_per_atom",
        "--parameter",
        "sigma",
        "--parameter",
        "a",
        "--check",
        "-o",
        "si",
    ]
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "lattice_constant" in result.output and "came back to the same minimum" in result.output
    with (tmp_path / "si.csv").open() as file:
        rows = {(r["observable"], r["parameter"]): float(r["dlnO_dln_theta"]) for r in csv.DictReader(file)}
    # sigma is the only length; the second is LAMMPS's (tests/data/references/stillinger_weber.json)
    assert rows["lattice_constant", "sigma"] == pytest.approx(1, abs=1e-10)
    assert rows["lattice_constant", "a"] == pytest.approx(2.6822111483 / 5.4309497784, abs=1e-9)
    assert {p.suffix for p in tmp_path.iterdir()} == {".csv", ".h5", ".png", ".extxyz"}
    relaxed = read(tmp_path / "si.extxyz")
    assert relaxed.cell[0, 0] == pytest.approx(5.4309497784, abs=1e-9)
    assert abs(relaxed.get_stress()).max() < 1e-8
    assert relaxed.arrays["dx_dsigma"].shape == relaxed.positions.shape

    again = run(*words)  # nothing is overwritten silently
    assert again.exit_code == 5 and "--overwrite" in again.output


def test_options_from_a_file(run, tmp_path):
    (tmp_path / "o.toml").write_text(
        'observable = ["volume"]\nparameter = ["sigma"]\nkind = "plain"\nrange = false\n'
    )
    result = run("--config", "o.toml", "--mode", "reverse")
    assert result.exit_code == 0, result.output
    assert "dO / dθ" in result.output and "volume" in result.output


@pytest.mark.parametrize(
    "words, message",
    [
        (["-O", "lattice_constnt"], "Did you mean 'lattice_constant'"),
        (["-O", "formation"], "--bulk"),
        (["--parameter", "sigm"], "Did you mean 'sigma'"),
        (["--set", "sigma=-1"], "outside its bounds"),
        (["--cell", "sideways"], "isotropic"),
    ],
)
def test_wrong_input_ends_with_code_2_and_a_remedy(run, words, message):
    result = run(*words)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


LAMMPS = "title\n\n1 atoms\n1 atom types\n0 5.4 xlo xhi\n0 5.4 ylo yhi\n0 5.4 zlo zhi\n\nAtoms\n\n1 1 0 0 0\n"


def test_crystals_and_reservoirs_have_formats_and_species_of_their_own(tmp_path):
    (tmp_path / "start").write_text(LAMMPS)
    argon = read_beside(tmp_path / "start", "lammps-data", "Ar")
    assert argon.symbols == ["Ar"]
    # what --species says of LAMMPS data does not disturb other files
    assert read_beside(Path(DIAMOND), None, "Ar").symbols == ["Si"] * len(
        read_beside(Path(DIAMOND), None, None).symbols
    )
    states = _states(argon, argon, {"Ar": str(tmp_path / "start"), "Kr": "-0.1"}, lambda _: argon)
    assert set(states) == {"defect", "bulk", "reservoir Ar"}


@pytest.mark.parametrize("option", ["--format", "--bulk-format", "--output-format"])
def test_a_misspelled_format_is_said(run, option):
    result = run("--bulk", DIAMOND, option, "extxy")
    assert result.exit_code == 2 and "Did you mean 'extxyz'" in " ".join(result.output.split())


def test_a_misspelled_format_of_a_reservoir_is_said(run):
    words = ["--bulk", DIAMOND, "--references", f"Si={DIAMOND}", "--reference-format", "extxy"]
    assert "Did you mean 'extxyz'" in " ".join(run(*words).output.split())


@pytest.fixture
def embedded(tmp_path, monkeypatch):
    """Runs on an alloy whose potential is tables of 400 knots."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    ms.save_potential(tables_of(TWO, 400), tmp_path / "tables.toml")
    ms.write_structure(tmp_path / "alloy.extxyz", alloy())
    words = ["sensitivity", "alloy.extxyz", "--potential", "tables.toml", "--cell", "isotropic"]
    return lambda *more: CliRunner().invoke(app, [*words, *more])


def test_derivatives_by_functions_as_curves(embedded, tmp_path):
    result = embedded("--functional", "-O", "volume", "--parameter", "phi[Ni-Cu]", "-o", "v")
    assert result.exit_code == 0, result.output
    assert "phi[Ni-Cu]" in result.output and "largest at" in result.output
    with (tmp_path / "v.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["function"] for row in rows} == {"phi[Ni-Cu]"} and len(rows) > 20
    assert {p.name for p in tmp_path.glob("v.*")} == {"v.csv", "v.png", "v.extxyz"}


def test_thousands_of_knots_are_no_table_of_derivatives(embedded):
    result = embedded()
    assert result.exit_code != 0
    assert "EAM has 3600 parameters, from F[Ni][0] to rphi[Cu-Cu][399]" in " ".join(result.output.split())
    assert "--functional" in result.output
    refused = embedded("--functional", "--check")
    assert refused.exit_code != 0 and "has no --check" in refused.output
    unknown = embedded("--functional", "--parameter", "psi")
    assert unknown.exit_code != 0 and "there is no function 'psi'" in unknown.output
