"""What a campaign asks of engines, and what it gives back when workers, drivers and tasks die.

Fourteen tasks, one of which kills every process that begins it: thirteen results and one failure with its
reason, whatever the engine; a second run computes nothing.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from campaign_tasks import SILICON, number_task, silicon
from engines import ENGINES, HERE, workers_find

from mdsens.campaign import Task, load, run, status
from mdsens.errors import WriteError

pytestmark = pytest.mark.filterwarnings("ignore")  # of the engines' own threads and sockets


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, tmp_path_factory):
    """An executor with two processes."""
    with ENGINES[request.param](tmp_path_factory.mktemp(request.param)) as engine:
        yield engine


def tasks_with(bad: str, log: Path, *more: Task) -> list[Task]:
    """Fourteen, with a task that something is wrong with."""
    count = 13 - len(more)
    numbers = [number_task(x, "noted", log=str(log), seconds=0.02) for x in range(count)]
    return [*numbers[:3], number_task(-1, bad), *more, *numbers[3:]]


def executions(log: Path) -> Counter:
    return Counter(line.split()[0] for line in log.read_text().splitlines())


def check(report, out, log, reason):
    assert (report.done, report.cached, report.failed) == (13, 0, 1), report
    assert reason in report.reasons["x-1"]
    assert set(executions(log).values()) == {1}
    assert len(list(load(out))) == 13 and status(out).left == 0


def test_contract_in_this_process(tmp_path):
    # the poison is an error: what kills a process would kill this one
    log, out = tmp_path / "log", tmp_path / "out"
    tasks = tasks_with("square", log)
    check(run(tasks, out), out, log, "below zero")
    again = run(tasks, out)
    assert (again.done, again.cached, again.failed) == (0, 13, 1) and set(executions(log).values()) == {1}


def test_contract_of_engines(engine, tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    relaxed = Task(silicon(1), SILICON, options={"fmax": 1e-6}, name="si")
    tasks = tasks_with("poison", log, relaxed)
    check(run(tasks, out, engine, max_attempts=2), out, log, "2 processes died while they computed it")
    again = run(tasks, out, engine)
    assert (again.done, again.cached, again.failed) == (0, 13, 1)
    assert set(executions(log).values()) == {1}


def test_a_killed_worker_loses_no_more_than_what_it_had_in_hand(engine, tmp_path):
    if type(engine).__module__.startswith("parsl"):
        pytest.skip("the contract kills workers of Parsl, which notices seconds later")
    log, out = tmp_path / "log", tmp_path / "out"
    tasks = [number_task(x, "noted", log=str(log), seconds=0.3) for x in range(12)]

    def kill_one():
        while not log.exists() or not log.read_text().strip():
            time.sleep(0.05)
        os.kill(int(log.read_text().split()[1]), signal.SIGKILL)

    threading.Thread(target=kill_one, daemon=True).start()
    report = run(tasks, out, engine)
    assert (report.done, report.failed) == (12, 0), report
    counts = executions(log)
    assert sum(counts.values()) <= 13 and len(counts) == 12  # one worker, one task in hand


def test_a_full_disk_on_a_worker_stops_the_campaign(engine, tmp_path):
    tasks = [number_task(1, "fills_the_disk")]
    with pytest.raises(WriteError, match="Make room on the disk"):
        run(tasks, tmp_path / "out", engine)
    assert status(tmp_path / "out").failed == 0


# --- drivers

DRIVER = """
import sys
from pathlib import Path
import jax
jax.config.update("jax_enable_x64", True)
from campaign_tasks import number_task
from mdsens.campaign import run

if __name__ == "__main__":
    out, log = sys.argv[1:3]
    tasks = [number_task(x, "noted", log=log, seconds=float(sys.argv[3])) for x in range(12)]
    print(run(tasks, out))
"""


def driver(folder: Path, seconds: float) -> subprocess.Popen:
    """A process that computes twelve tasks, one after the other."""
    command = [sys.executable, "-c", DRIVER, str(folder / "out"), str(folder / "log"), str(seconds)]
    with workers_find(HERE):
        os.environ["PYTHONPATH"] += os.pathsep + str(HERE.parent)
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ.copy())


def test_a_killed_driver_loses_nothing_finished_and_repeats_only_what_was_in_hand(tmp_path):
    first = driver(tmp_path, 0.2)
    while status_or_none(tmp_path / "out") is None or status(tmp_path / "out").done < 3:
        time.sleep(0.05)
    first.kill()
    first.wait()
    before = status(tmp_path / "out").done
    tasks = [number_task(x, "noted", log=str(tmp_path / "log"), seconds=0.2) for x in range(12)]
    report = run(tasks, tmp_path / "out")
    assert report.failed == 0 and report.cached >= before >= 3 and report.done == 12 - report.cached
    assert sum(executions(tmp_path / "log").values()) <= 13


def test_two_drivers_on_one_folder_share_the_work(tmp_path):
    both = [driver(tmp_path, 0.1) for _ in range(2)]
    printed = [process.communicate()[0] for process in both]
    done = [int(text.split(" done")[0]) for text in printed]
    assert sum(done) == 12 and set(executions(tmp_path / "log").values()) == {1}
    assert status(tmp_path / "out").done == 12


def status_or_none(out: Path):
    return status(out) if (out / "campaign.json").is_file() else None


def test_ctrl_c_leaves_a_state_that_goes_on_and_counts_no_attempt(tmp_path):
    tasks = [number_task(x, "noted", log=str(tmp_path / "log"), seconds=0.01) for x in range(6)]
    seen = []

    def stop(receipt):
        seen.append(receipt)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as threads, pytest.raises(KeyboardInterrupt):
        run(tasks, tmp_path / "out", threads, on_receipt=stop)
    report = run(tasks, tmp_path / "out")
    assert report.done + report.cached == 6 and report.cached >= 2
    receipts = [result.receipt for result in load(tmp_path / "out")]
    assert {receipt.attempts for receipt in receipts} == {1}
