"""The liquid that three ways tune: its density, its judge, and the script as a user runs it."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from test_workflows import run

import mdsens as ms

SCRIPT = Path(__file__).parents[2] / "workflows" / "tune_liquid.py"


@pytest.fixture(scope="module")
def tune():
    spec = importlib.util.spec_from_file_location("tune_liquid", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tune_liquid"] = module
    spec.loader.exec_module(module)
    return module


def test_the_liquid_has_its_density_and_room_for_the_cutoff(tune):
    found = tune.liquid(3)
    assert found.n_atoms == 108
    assert found.n_atoms / float(ms.volume(found)) * tune.SIGMA**3 == pytest.approx(tune.DENSITY)


def test_an_answer_is_met_from_where_it_stays_within(tune):
    course = tune.Course("fit", [10, 20, 30, 40], [9.0, 1.0, 3.0, 1.5])
    assert tune.met(course, 2.0) == 40 and tune.met(course, 5.0) == 20 and tune.met(course, 1.0) is None
    assert tune.figure([course]).axes[0].get_xlabel() == "force calls"


@pytest.mark.validation
def test_the_script_runs_and_counts_its_force_calls(tmp_path):
    few = ["--cells", "2", "--judge-steps", "1000", "--steps", "500", "--fit-steps", "1"]
    loop = ["--updates", "5", "--settle", "100", "--rest", "4", "--output", "out"]
    text = run("tune_liquid", *few, *loop, folder=tmp_path)
    assert "single loop" in text and "reweighting" in text
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert rows[0] == "method,force_calls,off" and (tmp_path / "out.png").exists()
    last = [row for row in rows if row.startswith("single loop")][-1].split(",")
    assert int(last[1]) == 16 * (100 + 5 * 20) and np.isfinite(float(last[2]))
