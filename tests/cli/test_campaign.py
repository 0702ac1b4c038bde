"""`mdsens campaign`, `campaign-status` and `campaign-collect`, as typed."""

import csv

import ase.build
import ase.io
import pytest
from command_line import run

PLAN = """
kind = "observables"
potential = "si-stillinger-weber-1985"
observables = ["energy"]
[options]
fmax = 1e-6
[[structures]]
files = ["si.extxyz", "cu.extxyz", "broken.cif"]
[grid]
epsilon = [2.1, 2.2]
"""
SITE = """
from concurrent.futures import ThreadPoolExecutor

def make():
    return ThreadPoolExecutor(1)

def wrong():
    return 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A plan with a structure that fits, one that does not, and one that is none; a file with an executor."""
    folder = tmp_path_factory.mktemp("campaign")
    ase.io.write(folder / "si.extxyz", ase.build.bulk("Si", "diamond", a=5.431, cubic=True))
    ase.io.write(folder / "cu.extxyz", ase.build.bulk("Cu", cubic=True))
    (folder / "broken.cif").write_text("no structure")
    (folder / "plan.toml").write_text(PLAN)
    (folder / "site.py").write_text(SITE)
    return folder


def test_a_plan_is_computed_told_about_and_collected(folder):
    code, text = run("campaign", folder / "plan.toml", "--out", folder / "out")
    assert code == 0, text
    assert "left out" in text and "broken.cif" in text
    assert "2 done, 0 cached, 2 failed" in text and "failed cu/0: InputError: StillingerWeber has no" in text
    site = f"{folder / 'site.py'}:make"
    code, text = run("campaign", folder / "plan.toml", "--out", folder / "out", "--executor", site)
    assert code == 0 and "0 done, 2 cached, 2 failed" in text
    code, text = run("campaign-status", folder / "out")
    assert code == 0 and "4 tasks" in text and "cu/1: InputError" in text
    code, text = run("campaign-collect", folder / "out", "-o", folder / "table.csv")
    assert code == 0 and "4 rows" in text
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    # the energy is proportional to epsilon
    energies = [float(row["energy (eV)"]) / float(row["set epsilon"]) for row in rows if row["energy (eV)"]]
    assert energies[0] == pytest.approx(energies[1], rel=1e-12) and len(energies) == 2
    code, text = run("campaign-collect", folder / "out", "-o", folder / "table.csv")
    assert code == 5 and "overwrite" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan.toml", "--executor", "locl"), "Did you mean 'local'"),
        (("plan.toml", "--executor", "none.py:make"), "no file with an executor"),
        (("plan.toml", "--executor", "site.py:mak"), "Did you mean 'make'"),
        (("plan.toml", "--executor", "site.py:wrong"), "gave int, and an executor is needed"),
        (("none.toml",), "no plan"),
    ],
)
def test_what_is_wrong_with_a_command_is_said(folder, arguments, message, monkeypatch):
    monkeypatch.chdir(folder)
    code, text = run("campaign", *arguments, "--out", "other")
    assert code == 2 and message in text


def test_folders_of_something_else_and_tables_of_other_endings_are_refused(folder):
    code, text = run("campaign-status", folder)
    assert code == 2 and "no folder of a campaign" in text
    code, text = run("campaign", folder / "plan.toml", "--out", folder)
    assert code == 2 and "holds other files" in text
    code, text = run("campaign-collect", folder / "out", "-o", folder / "table.xlsx")
    assert code == 2 and ".parquet" in text
