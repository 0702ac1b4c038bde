"""Terminals that cannot show every character, full disks, readers that have seen enough."""

import os
import subprocess
import sys

import pytest

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
