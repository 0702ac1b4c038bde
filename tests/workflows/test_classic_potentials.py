"""The table of classic potentials: its identities, what stays on disk, and the script as a user runs it."""

import csv
import dataclasses
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from test_workflows import run

import mdsens as ms

SCRIPT = Path(__file__).parents[2] / "workflows" / "classic_potentials.py"
ARGON = "ar-lennard-jones"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("classic_potentials", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Argon's crystal, computed by the script."""
    there = tmp_path_factory.mktemp("table")
    run("classic_potentials", "--only", ARGON, "--measure", "crystal", "--output", "out", folder=there)
    return there / "out"


@pytest.fixture(scope="module")
def argon(script, folder):
    report = ms.SensitivityReport.from_hdf5(folder / ARGON / "crystal.h5")
    return {row.observable: row for row in script.rows_of(report)}


def test_argon_obeys_all_its_identities(script, argon):
    found = list(script.identities(ARGON, argon))
    # energies of nine observables, no relaxation in the energy, Cauchy in the value and in two derivatives
    assert len(found) == 13
    assert all(one.holds for one in found)


@pytest.mark.validation  # compiles a form for one number
def test_what_the_lengths_lack_is_the_share_of_the_cutoff(script, argon):
    columns, matrix = script.matrix_of(ARGON, argon)
    assert columns == ["epsilon", "sigma", "(cutoff)"]
    potential, setting = ms.load_potential(ARGON), script.SETTINGS[ARGON]
    edges, step = [], 1e-5
    for sign in (1, -1):
        longer = potential.cutoff_radius * (1 + sign * step)
        changed = dataclasses.replace(potential, cutoff_radius=longer)
        relaxed = ms.relax(changed, setting.crystal, cell="isotropic", fmax=1e-11)
        edges.append(np.cbrt(4 * float(ms.volume(relaxed.structure))))
    twin = np.log(edges[0] / edges[1]) / (2 * step)
    assert_allclose(matrix[0, 2], twin, rtol=1e-5)


def test_an_expansion_scales_with_nothing_and_has_no_share_of_the_cutoff(script):
    found = {"epsilon": -2.2, "sigma": 1.6}
    name = "thermal_expansion(T=40, mesh=[4, 4, 4])"
    row = script.Row(name, 2e-3, "1/K", found, dict.fromkeys(found, 0.0), dict.fromkeys(found, 0.0))
    assert list(script.identities(ARGON, {name: row})) == []
    lines = script.markdown_of(ARGON, {name: row})
    assert "| expansion, 40 K | 0.002 1/K | −2.200 | 1.600 |  |" in lines


def test_a_broken_identity_is_told(script, argon):
    row = argon["C12_cubic"]
    wrong = dataclasses.replace(row, elasticities=row.elasticities | {"epsilon": 1.001})
    found = script.identities(ARGON, argon | {"C12_cubic": wrong})
    lines = script.failures(ARGON, list(found))
    assert lines == [
        f"{ARGON}: C12_cubic: energies differs by 1.0e-03",
        f"{ARGON}: Cauchy: C12 and C44 by epsilon differs by 1.0e-03",
    ]


def test_the_table_as_csv_has_every_number_with_its_error(folder, argon):
    with (folder / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 2 * len(argon)
    for line in lines:
        row = argon[line["observable"]]
        assert_allclose(float(line["dlnO_dln_theta"]), row.elasticities[line["parameter"]], rtol=1e-8)
        assert 0 <= float(line["error"]) < 1e-9
    assert (folder / "table.png").stat().st_size > 5e3
    assert "| a | 5.3053 Å | 0 | 1.040 | −0.040 |" in (folder / "table.md").read_text()


def test_what_is_finished_is_not_computed_again(script, folder, monkeypatch):
    path = folder / ARGON / "crystal.h5"
    os.utime(path, (0, 0))
    refuse = lambda potential, setting: pytest.fail("computed again")
    monkeypatch.setitem(script.MEASUREMENTS, "crystal", refuse)
    script.computed(folder, ARGON, "crystal")
    assert path.stat().st_mtime == 0
    # what belongs to other parameters is
    stronger = ms.replace_parameters(ms.load_potential(ARGON), {"epsilon": 0.02})
    assert script.kept(path, stronger) is None


@pytest.mark.validation  # compiles a form for one number
def test_the_curvature_of_the_embedding_is_all_that_parts_C12_from_C44(script):
    potential = ms.load_potential("cu-gupta-1993")
    relaxed = ms.relax(potential, script.SETTINGS["cu-gupta-1993"].crystal, cell="isotropic", fmax=1e-10)
    edge = np.cbrt(4 * float(ms.volume(relaxed.structure)))
    constants = ms.observables.elastic(["C12_cubic", "C44_cubic"])
    values, _ = ms.first_order(relaxed, constants, ["xi"])
    assert_allclose(script.embedding_curvature(potential, edge), values[0] - values[1], rtol=1e-9)


def test_ions_leave_in_pairs_and_no_charged_cell_hops(script):
    setting = dataclasses.replace(script.SETTINGS["mgo-lewis-catlow"], cells=1)
    cube = ms.Structure.from_ase(setting.crystal.to_ase())
    assert setting.is_ionic and cube.n_atoms == 2
    assert not script.has(setting, "hop") and script.has(setting, "vacancy")
    silicon = script.SETTINGS["si-edip-1998"]
    assert script.has(silicon, "hop") and not silicon.is_ionic


def test_numbers_are_short_and_zero_is_a_digit(script):
    assert [script.rounded(x) for x in (0.0, 4e-4, -1.23456, 12.0)] == ["0", "0", "−1.235", "12.000"]
