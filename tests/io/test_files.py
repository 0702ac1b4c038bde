"""What may be written to, and what killed runs leave behind."""

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import ase.build
import numpy as np
import pytest

import mdsens as ms
from mdsens.errors import OutputExistsError, WriteError
from mdsens.io.files import _machine, check_free, new_file, new_hdf5
from mdsens.io.frames import write_frames
from mdsens.io.trajectory import write_structure


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


@contextmanager
def full_disk(room: int = 4096) -> Iterator[None]:
    """No file may grow beyond `room` bytes: writers meet an OSError, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def copper(n: int) -> ms.Structure:
    return ms.Structure.from_ase(ase.build.bulk("Cu", cubic=True) * (n, n, n))


def frames(path) -> None:
    write_frames(path, np.zeros((4, 300, 3)), [29] * 300, overwrite=True)


WRITERS = {
    "results.h5": lambda path: ms.write_hdf5(path, {"x": np.zeros(10_000)}, overwrite=True),
    "many.h5": lambda path: ms.write_hdf5(path, {f"x{k}": np.zeros(30) for k in range(60)}, overwrite=True),
    "a.extxyz": lambda path: write_structure(path, copper(6), overwrite=True),
    "a.traj": lambda path: write_structure(path, copper(6), overwrite=True),
    "POSCAR": lambda path: write_structure(path, copper(6), overwrite=True),
    "a.data": lambda path: write_structure(path, copper(6), overwrite=True),
    "frames.nc": frames,
    "frames.pdb": frames,
    "set.toml": lambda path: ms.save_potential(potential_of_many_words(), path, overwrite=True),
}


def potential_of_many_words() -> ms.LennardJones:
    return ms.LennardJones(epsilon=0.01, sigma=3.4, elements=("Ar",), source="x " * 5000)


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_said_and_leaves_the_old_file_whole(tmp_path, name):
    path = tmp_path / name
    path.write_text("old")
    with (
        full_disk(),
        pytest.raises(WriteError, match=f"{name}' cannot be written, and what stood there stays"),
    ):
        WRITERS[name](path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]  # and nothing unfinished beside it


def test_a_folder_that_is_not_ones_own_is_said(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(WriteError, match=r"nothing was left there.*Permission denied.*choose a folder"):
        ms.write_hdf5(tmp_path / "a.h5", {"x": 1})
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path):
    (tmp_path / "a.h5").write_text("old")
    with pytest.raises(KeyboardInterrupt), new_hdf5(tmp_path / "a.h5", overwrite=True) as file:
        file["x"] = 1
        raise KeyboardInterrupt
    assert (tmp_path / "a.h5").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
