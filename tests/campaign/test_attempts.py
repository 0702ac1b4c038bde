"""A task belongs to one process that lives; deaths are counted, and too many are enough."""

import json
import os
import subprocess
import sys

import pytest

from mdsens.campaign import attempts
from mdsens.campaign.attempts import Claimed, Exhausted, claim, forgive, running
from mdsens.campaign.folder import CampaignFolder

KEY = "ab" + 62 * "0"


@pytest.fixture
def folder(tmp_path):
    return CampaignFolder.made(tmp_path / "out")


def dead_process() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(folder, count, host, pid, age=0.0):
    file = folder.attempt_file(KEY)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"attempts": count, "host": host, "pid": pid, "began": 0}))
    then = file.stat().st_mtime - age
    os.utime(file, (then, then))


def test_a_second_process_leaves_the_task_alone_and_the_end_of_the_first_forgets_it(folder):
    with claim(folder, KEY, 3) as attempt:
        assert attempt == 1 and running(folder) == 1
        with pytest.raises(Claimed), claim(folder, KEY, 3):
            pass
    assert running(folder) == 0
    with pytest.raises(ZeroDivisionError), claim(folder, KEY, 3):
        raise ZeroDivisionError  # an error is an end, and no death
    with claim(folder, KEY, 3) as attempt:
        assert attempt == 1


def test_the_dead_of_this_machine_are_known_at_once_and_those_of_others_by_their_silence(folder):
    host = attempts.socket.gethostname()
    for where, process, age in ((host, dead_process(), 0.0), ("elsewhere", 1, 2 * attempts.SILENT)):
        leave(folder, 1, where, process, age)
        with claim(folder, KEY, 3) as attempt:
            assert attempt == 2
    for where, process, age in ((host, os.getpid(), 2 * attempts.SILENT), ("elsewhere", 1, 1.0)):
        leave(folder, 1, where, process, age)
        with pytest.raises(Claimed), claim(folder, KEY, 3):
            pass


def test_after_as_many_deaths_as_allowed_a_task_is_not_begun(folder):
    leave(folder, 3, attempts.socket.gethostname(), dead_process())
    with pytest.raises(Exhausted) as died, claim(folder, KEY, 3):
        pass
    assert died.value.args == (3,)


def test_processes_ended_on_purpose_are_not_counted(folder):
    leave(folder, 2, attempts.socket.gethostname(), dead_process())
    forgive(folder, KEY)
    with claim(folder, KEY, 3) as attempt:
        assert attempt == 2
    forgive(folder, KEY)  # nothing is there


def test_a_process_shows_that_it_lives(folder, monkeypatch):
    monkeypatch.setattr(attempts, "BEAT", 0.01)
    with claim(folder, KEY, 3):
        file = folder.attempt_file(KEY)
        os.utime(file, (0, 0))
        for _ in range(500):
            if file.stat().st_mtime > 0:
                break
            attempts.time.sleep(0.01)
        assert file.stat().st_mtime > 0
