"""Terminals that cannot show every character, full disks, readers that have seen enough."""

import os
import subprocess
import sys

import pytest
from command_line import run

from mdsens.cli.outcome import exit_code
from mdsens.errors import WriteError

PROGRAM = "from mdsens.cli.main import app; app()"


def program(*arguments, encoding="utf-8", **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "120"}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_tables_are_shown_where_there_are_few_characters(encoding):
    done = program("potentials", "ar-lennard-jones", encoding=encoding, stdout=subprocess.PIPE)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert "epsilon" in text and "?" not in text
    assert (" A " in text) == (encoding == "ascii")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_is_one_line_and_exit_code_6():
    with open("/dev/full", "w") as full:
        done = program("potentials", stdout=full)
    assert done.returncode == 6
    assert done.stderr.decode().strip().splitlines() == ["Error: [Errno 28] No space left on device"]


def test_a_reader_that_leaves_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = program("potentials", stdout=write)
    os.close(write)
    assert done.stderr == b""


def test_ctrl_c_is_one_line_and_exit_code_130(monkeypatch):
    def stop():
        error = KeyboardInterrupt()
        error.add_note("'md.h5' holds the run up to 12 fs.")
        raise error

    monkeypatch.setattr("mdsens.potentials.parameter_sets.available_potentials", stop)
    code, text = run("potentials")
    assert (code, text) == (130, "interrupted. 'md.h5' holds the run up to 12 fs.")


def test_what_cannot_be_written_is_exit_code_6():
    assert exit_code(WriteError("the disk is full")) == 6
