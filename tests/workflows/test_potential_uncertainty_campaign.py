"""The uncertainty of silicon by a campaign: its structures, and the whole script with few draws."""

import csv
import importlib.util
from pathlib import Path

import ase.build
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms

SCRIPT = Path(__file__).parents[2] / "workflows" / "potential_uncertainty_campaign.py"
spec = importlib.util.spec_from_file_location("potential_uncertainty_campaign", SCRIPT)
assert spec is not None and spec.loader is not None
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


def test_both_ends_of_the_hop_are_the_same_vacancy_elsewhere():
    start, end = script.vacancy_ends(ase.build.bulk("Si", "diamond", a=script.EDGE, cubic=True).repeat(2))
    moved = np.linalg.norm(np.asarray(end.positions - start.positions), axis=1)
    # the hopping atom goes along its bond, but for a fifth at each end; the three others of each hole a fifth
    bond = script.EDGE * np.sqrt(3) / 4
    far = np.sort(moved)[::-1]
    assert start.n_atoms == 63
    assert_allclose(far[:7] / bond, [0.6, *[0.2] * 6], rtol=1e-6)
    assert_allclose(far[7:], 0.0, atol=1e-12)


@pytest.mark.validation
def test_the_whole_script_runs_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    words = ["script", "--draws", "3", "--frames", "2", "--output", str(out)]
    monkeypatch.setattr("sys.argv", words)
    script.main()
    with (out / "uncertainty.csv").open() as file:
        found = {row["observable"]: row for row in csv.DictReader(file)}
    assert len(found) == 8 and all(float(row["error"]) > 0 for row in found.values())
    # epsilon is the only energy: d ln(barrier) / d ln(epsilon) = 1
    table = ms.campaign.collect(out / "campaign")
    mean = table.column("task") == "mean/hop"
    epsilon = ms.parameter_values(ms.load_potential(out / "potential.toml"))["epsilon"]
    slope = float(table.column("d barrier / d epsilon")[mean][0])
    assert_allclose(slope * epsilon, float(found["barrier"]["value"]), rtol=1e-6)
    monkeypatch.setattr("sys.argv", [*words, "--overwrite"])
    capsys.readouterr()
    script.main()
    assert "0 done, 12 cached, 0 failed" in capsys.readouterr().out
