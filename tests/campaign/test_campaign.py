"""A campaign in this process: what is finished stays, what fails is said, nothing is done twice."""

import json
import os
import pickle
import shutil
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from campaign_tasks import SILICON, number_task, silicon
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.campaign import Task, collect, load, run, run_task, status
from mdsens.campaign import driver as driving
from mdsens.campaign.folder import CampaignFolder
from mdsens.errors import CampaignError, InputError, WriteError


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_results_are_files_that_a_second_run_does_not_touch(tmp_path):
    tasks = [number_task(x) for x in (1, 2, 3, -1)]
    first = run(tasks, tmp_path / "out")
    assert (first.done, first.cached, first.failed) == (3, 0, 1)
    assert "x = -1 is below zero" in first.reasons["x-1"]
    before = files(tmp_path / "out" / "tasks")
    second = run(tasks, tmp_path / "out")
    assert (second.done, second.cached, second.failed) == (0, 3, 1)
    assert files(tmp_path / "out" / "tasks") == before
    assert not list((tmp_path / "out").rglob("*.attempt")) and not list(
        (tmp_path / "out" / "unfinished").iterdir()
    )


def test_a_moved_folder_still_reads_and_goes_on(tmp_path):
    run([number_task(x) for x in (1, 2)], tmp_path / "out")
    shutil.move(tmp_path / "out", tmp_path / "moved")
    found = {result.name: result.values for result in load(tmp_path / "moved")}
    assert found == {"x1": {"square": 1.0}, "x2": {"square": 4.0}}
    report = run([number_task(x) for x in (1, 2, 3)], tmp_path / "moved")
    assert (report.done, report.cached) == (1, 2)
    # no file holds the place where it was made
    assert not any(str(tmp_path).encode() in content for content in files(tmp_path / "moved").values())


def test_failed_tasks_begin_anew_only_if_asked_to(tmp_path):
    log = tmp_path / "log"
    task = number_task(-1, "noted", log=str(log))
    for _ in range(2):
        assert run([task], tmp_path / "out").failed == 1
    assert len(log.read_text().splitlines()) == 1
    assert run([task], tmp_path / "out", retry_failed=True).failed == 1
    assert len(log.read_text().splitlines()) == 2


def test_equal_tasks_are_computed_once_and_reported_under_each_name(tmp_path):
    log = str(tmp_path / "log")
    tasks = [number_task(1, "noted", log=log)] * 3
    seen = []
    report = run(tasks, tmp_path / "out", on_receipt=lambda receipt: seen.append(receipt.status))
    assert (report.done, report.cached) == (1, 2) and seen == ["done", "cached", "cached"]
    assert len(Path(log).read_text().splitlines()) == 1


def test_the_numbers_are_those_of_the_functions_themselves(tmp_path):
    options = {"observables": ["energy", "volume"], "parameters": ["epsilon", "sigma"], "fmax": 1e-7}
    changed = {"epsilon": 2.2}
    tasks = [
        Task(silicon(1), SILICON, changed, options, kind="sensitivity", name="one"),
        Task({"a": silicon(1), "b": silicon(2)}, SILICON, changed, options, kind="sensitivity_batch"),
        Task(silicon(1), SILICON, changed, {"fmax": 1e-7}, name="relaxed"),
    ]
    report = run(tasks, tmp_path / "out")
    assert report.done == 3, report.reasons
    one, batch, relaxed = load(tmp_path / "out")
    potential = ms.replace_parameters(ms.load_potential(SILICON), changed)
    state = ms.relax(potential, silicon(1), fmax=1e-7)
    values, jacobian = ms.first_order(state, options["observables"], options["parameters"])
    assert_allclose(one.content["values"], values, rtol=1e-12)
    assert_allclose(
        one.content["jacobian"], jacobian, rtol=1e-8, atol=1e-8
    )  # -16 and 0 eV, by epsilon and sigma
    assert_allclose(batch.content["systems"]["a"]["values"], values, rtol=1e-10)
    assert_allclose(relaxed.content["states"]["structure"]["energy"].value, values[0], rtol=1e-12)
    assert one.params == changed and one.receipt.device
    table = collect(tmp_path / "out")
    assert table.column("system").tolist() == ["", "a", "b", ""] and table.units["volume"] == "Å³"
    assert_allclose(table.column("d energy / d epsilon")[:2], jacobian[0, 0], rtol=1e-8)
    assert np.isnan(table.column("volume")[3])


def test_what_cannot_be_relaxed_fails_alone(tmp_path):
    atoms = silicon()
    collapsed = atoms.at(atoms.positions.at[1].set(atoms.positions[0] + 1e-6))
    copper = ms.Structure.create([[0, 0, 0]], ["Cu"], cell=[3.6] * 3)
    tasks = [Task(copper, SILICON, name="copper"), Task(collapsed, SILICON, name="collapsed"), number_task(2)]
    report = run(tasks, tmp_path / "out")
    assert (report.done, report.failed) == (1, 2)
    assert "no parameters for Cu" in report.reasons["copper"]


def test_status_tells_what_is_done_what_failed_and_what_remains(tmp_path):
    tasks = [number_task(x) for x in (1, 2, -1, 4, 5)]
    seen = []

    def stop(receipt):
        seen.append(receipt)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interrupt:
        run(tasks, tmp_path / "out", on_receipt=stop)
    assert "2 of 5 tasks are finished" in interrupt.value.__notes__[0]
    now = status(tmp_path / "out")
    assert (now.total, now.done, now.failed, now.left, now.running) == (5, 2, 1, 2, 0)
    assert "below zero" in now.failures["x-1"] and now.rate > 0 and now.remaining > 0
    run(tasks, tmp_path / "out")
    assert status(tmp_path / "out").left == 0


def test_tables_are_written_as_csv_and_hdf5_and_other_endings_are_refused(tmp_path):
    run([number_task(x) for x in (2, -1)], tmp_path / "out")
    table = collect(tmp_path / "out")
    table.write(tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "task,tag x,square (eV),status,seconds,error"
    assert lines[1].startswith("x2,2.0,4.0,done,") and lines[2].startswith("x-1,-1.0,,failed,")
    table.write(tmp_path / "t.h5")
    squares = ms.read_hdf5(tmp_path / "t.h5")["columns"]["square"]
    assert squares.unit == "eV" and squares.value[0] == 4.0
    with pytest.raises(InputError, match=r"written as \.csv, \.h5, \.parquet"):
        table.write(tmp_path / "t.xlsx")
    with pytest.raises(InputError, match="no column 'cube'"):
        table.column("cube")


def test_parquet_is_written_where_pyarrow_is_and_refused_where_it_is_not(tmp_path):
    run([number_task(2)], tmp_path / "out")
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        with pytest.raises(CampaignError, match="pip install pyarrow"):
            collect(tmp_path / "out").write(tmp_path / "t.parquet")
        return
    collect(tmp_path / "out").write(tmp_path / "t.parquet")
    assert parquet.read_table(tmp_path / "t.parquet")["square (eV)"].to_pylist() == [4.0]


# --- folders


def test_folders_that_are_no_campaign_of_this_schema_are_refused(tmp_path):
    for reader in (status, collect, lambda out: list(load(out))):
        with pytest.raises(CampaignError, match="no folder of a campaign"):
            reader(tmp_path)
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(CampaignError, match="holds other files"):
        run([number_task(1)], tmp_path)
    other = tmp_path / "other"
    run([number_task(1)], other)
    mark = other / "campaign.json"
    mark.write_text(json.dumps({"format": "mdsens-campaign-0", "mdsens": "0.0.9"}))
    for function in (status, lambda out: run([number_task(1)], out)):
        with pytest.raises(CampaignError, match=r"'mdsens-campaign-0' \(written by mdsens 0\.0\.9\)"):
            function(other)
    CampaignFolder.made(tmp_path / "empty")
    with pytest.raises(CampaignError, match="nothing to collect"):
        collect(tmp_path / "empty")


def test_a_full_disk_stops_the_campaign_and_is_no_fault_of_the_task(tmp_path):
    with pytest.raises(WriteError, match="Make room on the disk"):
        run([number_task(1), number_task(1, "fills_the_disk")], tmp_path / "out")
    now = status(tmp_path / "out")
    assert (now.done, now.failed, now.left) == (1, 0, 1)
    assert not list((tmp_path / "out").rglob("*.attempt"))


def test_a_disk_that_fills_while_a_result_is_written_stops_the_campaign(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(WriteError, match="No space left on device"):
            run([number_task(1)], tmp_path / "out")
    assert status(tmp_path / "out").left == 1
    assert run([number_task(1)], tmp_path / "out").done == 1


def test_a_worker_that_does_not_see_the_folder_makes_none(tmp_path):
    with pytest.raises(CampaignError, match="does not see the folder"):
        run_task(number_task(1), tmp_path / "nowhere", version=ms.__version__)
    assert not (tmp_path / "nowhere").exists()


def test_a_result_whose_file_is_gone_is_computed_again(tmp_path):
    task = number_task(3)
    run([task], tmp_path / "out")
    CampaignFolder.there(tmp_path / "out").result(task.key).unlink()
    assert status(tmp_path / "out").left == 1
    assert run([task], tmp_path / "out").done == 1


def test_run_task_needs_no_driver(tmp_path):
    receipt = run_task(number_task(3), tmp_path / "out")
    assert receipt["status"] == "done" and len(pickle.dumps(receipt)) < 10_000
    assert run_task(number_task(3), tmp_path / "out")["status"] == "cached"
    assert next(load(tmp_path / "out")).values == {"square": 9.0}
    assert not receipt["path"].startswith("/") and (tmp_path / "out" / receipt["path"]).is_file()


def test_kinds_that_this_process_cannot_import_fail_with_words(tmp_path):
    for kind in ("no_such_module:f", "campaign_kinds:no_such_function"):
        receipt = run_task(Task(kind=kind), tmp_path / "out")
        assert receipt["status"] == "failed" and "cannot import" in receipt["error"]


# --- engines that do not work


class Engine:
    """Every future has this error."""

    def __init__(self, error: BaseException, at_once: bool = False):
        self.error, self.at_once, self.submitted = error, at_once, 0

    def submit(self, function, *args, **options):
        self.submitted += 1
        if self.at_once:
            raise self.error
        future: Future = Future()
        future.set_exception(self.error)
        return future


@pytest.mark.parametrize(
    ("error", "at_once", "message"),
    [
        (
            ModuleNotFoundError("No module named 'mdsens'", name="mdsens"),
            False,
            "workers cannot import mdsens",
        ),
        (pickle.PicklingError("Can't pickle it"), False, "cannot send tasks to its workers"),
        (TypeError("cannot pickle '_thread.lock' object"), True, "cannot send tasks to its workers"),
        (RuntimeError("shut down"), True, "does not work any more"),
        (CampaignError("this worker has mdsens 9"), False, "this worker has mdsens 9"),
    ],
)
def test_engines_that_cannot_work_stop_the_campaign(tmp_path, error, at_once, message):
    engine = Engine(error, at_once)
    with pytest.raises(CampaignError, match=message):
        run([number_task(x) for x in range(5)], tmp_path / "out", engine)
    now = status(tmp_path / "out")
    assert (now.done, now.failed) == (0, 0)


def test_an_engine_that_loses_one_task_loses_that_one_and_one_that_loses_all_is_stopped(tmp_path):
    engine = Engine(RuntimeError("worker lost"))
    report = run([number_task(1)], tmp_path / "one", engine, max_attempts=2)
    assert report.failed == 1 and "gave no result 3 times" in report.reasons["x1"] and engine.submitted == 3
    with pytest.raises(CampaignError, match="does not work any more"):
        run([number_task(x) for x in range(99)], tmp_path / "all", engine)


def test_workers_with_another_version_refuse(tmp_path):
    with pytest.raises(CampaignError, match=r"started with 9\.9: install one version"):
        run_task(number_task(1), tmp_path / "out", version="9.9")


def test_what_is_no_task_is_refused(tmp_path):
    with pytest.raises(InputError, match="a task must be a Task"):
        run([1], tmp_path / "out")
    with pytest.raises(InputError, match="window = 0"):
        run([], tmp_path / "out", window=0)


def test_tasks_may_come_one_by_one_and_a_driver_holds_no_more_than_its_window(tmp_path, monkeypatch):
    out = []

    class Counting(driving.InThisProcess):
        def submit(self, *args, **options):
            out.append(len(driver_of().out))
            return super().submit(*args, **options)

    made = []
    original = driving._Driver.__init__

    def remember(self, *args):
        made.append(self)
        original(self, *args)

    monkeypatch.setattr(driving._Driver, "__init__", remember)
    driver_of = lambda: made[-1]
    report = run((number_task(x) for x in range(9)), tmp_path / "out", Counting(), window=3)
    assert report.done == 9 and max(out) <= 2  # before each is handed out
    assert status(tmp_path / "out").total == 9 and len(os.listdir(tmp_path / "out" / "lists")) == 3
