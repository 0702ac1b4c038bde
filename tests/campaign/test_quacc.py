"""The recipes of docs/campaigns.md for quacc and jobflow, where these are installed."""

import re
from pathlib import Path

import ase.build
import pytest
from campaign_tasks import SILICON

from mdsens.campaign import load

PAGE = Path(__file__).parents[2] / "docs" / "campaigns.md"

pytestmark = pytest.mark.filterwarnings("ignore")  # of packages that are not ours


def recipe(package: str):
    """The job of the page, with `job` of a package."""
    (text,) = re.findall(r"```py\n(from quacc import job\n.*?)```", PAGE.read_text(), re.DOTALL)
    namespace = {"__name__": "recipe"}
    exec(text.replace("from quacc import", f"from {package} import"), namespace)
    return namespace["measure_job"]


def silicon():
    return ase.build.bulk("Si", "diamond", a=5.431, cubic=True)


def test_a_job_of_quacc_runs_a_task(tmp_path):
    pytest.importorskip("quacc", reason="quacc is not installed: pip install quacc")
    receipt = recipe("quacc")(silicon(), SILICON, str(tmp_path / "out"), ["energy"])
    assert receipt["status"] == "done"
    assert next(load(tmp_path / "out")).values["energy"] == pytest.approx(-34.69, abs=0.01)


def test_a_job_of_jobflow_runs_a_task(tmp_path):
    jobflow = pytest.importorskip("jobflow", reason="jobflow is not installed: pip install jobflow")
    job = recipe("jobflow")(silicon(), SILICON, str(tmp_path / "out"), ["energy"])
    (outputs,) = jobflow.run_locally(job, ensure_success=True).values()
    assert outputs[1].output["status"] == "done"
    assert [result.receipt.status for result in load(tmp_path / "out")] == ["done"]
