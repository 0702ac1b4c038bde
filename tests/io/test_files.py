"""What may be written to, and what killed runs leave behind."""

import os
import socket
import subprocess
import sys

import pytest

from mdsens.errors import OutputExistsError
from mdsens.io.files import _machine, check_free, new_file


def test_leftovers_of_dead_processes_are_removed_and_no_others(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    stale = tmp_path / f".{_machine()}.{dead.pid}.0123abcd-a.h5"
    kept = [
        tmp_path / f".{_machine()}.{os.getppid()}.0123abcd-a.h5",  # of a living process
        tmp_path / f".{_machine()}.{dead.pid}.0123abcd-b.h5",  # for another file
        tmp_path / f".00000000.{dead.pid}.0123abcd-a.h5",  # of another machine
        tmp_path / "a.h5",
    ]
    for path in (stale, *kept):
        path.write_text("x")
    with new_file(tmp_path / "a.h5", overwrite=True) as unfinished:
        assert unfinished.suffix == ".h5"
        unfinished.write_text("new")
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert (tmp_path / "a.h5").read_text() == "new"


def test_only_regular_files_are_overwritten(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path in ("/dev/null", tmp_path / "pipe", tmp_path / "socket"):
            with pytest.raises(OutputExistsError, match="only regular files are written"):
                check_free(path, overwrite=True)
    with pytest.raises(OutputExistsError, match="is a link to nothing"):
        check_free(tmp_path / "link", overwrite=True)


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with new_file(tmp_path / "link", overwrite=True) as unfinished:
        unfinished.write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"
