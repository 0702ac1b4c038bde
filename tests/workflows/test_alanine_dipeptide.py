"""Alanine dipeptide, from frames to a potential: the whole script, with a small flow."""

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_workflows import run

import mdsens as ms


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "out" / "table.csv").open() as file:
        return {row["quantity"]: row for row in csv.DictReader(file)}


@pytest.mark.validation
def test_a_small_flow_is_trained_measured_and_moved(tmp_path: Path):
    small = (
        "--steps",
        "40",
        "--size",
        "8",
        "--layers",
        "0",
        "--samples",
        "50",
        "--md-steps",
        "20",
        "--replicas",
        "2",
    )
    run("alanine_dipeptide", *small, "--kinds", "smooth", "--output", "out", folder=tmp_path)
    table = rows(tmp_path)
    # half an hour of training later it is 11 kT/nm and -219.2 kT
    assert 0 < float(table["force RMSE on data (kT/nm)"]["smooth"]) < 150
    assert float(table["NLL (kT)"]["smooth"]) < -214
    assert float(table["std of total energy per d.o.f. (kJ/mol)"]["smooth"]) < 0.02
    assert ms.flows.load(tmp_path / "out" / "smooth.h5").n_atoms == 22
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "smooth.h5",
        "smooth.png",
        "smooth-training.png",
        "table.csv",
    }


def test_the_script_that_makes_data_adds_to_its_file(tmp_path: Path):
    pytest.importorskip("openmm", reason="OpenMM makes the data")
    run("alanine_dipeptide_data", "--frames", "2", "--output", "new.h5", folder=tmp_path)
    run("alanine_dipeptide_data", "--frames", "3", "--output", "new.h5", "--continue", folder=tmp_path)
    run("alanine_dipeptide_data", "--frames", "2", "--phi", "60", "--output", "left.h5", folder=tmp_path)
    assert list(ms.flows.read_force_data(tmp_path / "left.h5").weights) == [0, 0]  # no frequencies to learn
    data = ms.flows.read_force_data(tmp_path / "new.h5")
    assert data.n_frames == 3 and data.temperature == 300.0
    assert list(data.weights) == [1, 1, 1]
    with h5py.File(tmp_path / "new.h5") as file:
        assert np.isfinite(file["potential_energy"][:]).all()
