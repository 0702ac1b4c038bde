"""Runs that are cut off, by Ctrl-C or by kill -9, and go on to the same bits."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import ase.build
import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import mdsens as ms
from mdsens.dynamics import Trajectory, langevin, npt, nvt_nose_hoover
from mdsens.errors import FileFormatError, InputError, OutputExistsError, WriteError

pytest.importorskip("jax_md", reason="jax-md is not installed")

LJ = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=5.0, cut=ms.Smooth())
ARGON = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.3, cubic=True))
# lists of 0.4 Å run out every few records, and lists decide the last bit
OPTIONS = dict(temperature=60.0, timestep=10.0, steps=600, record_every=6, skin=0.4, replicas=4)
CASES = [
    (langevin, {"friction": 0.01}),
    (nvt_nose_hoover, {"thermostat_time": 500.0}),
    (npt, {"cell": "full", "friction": 0.002, "barostat_time": 1000.0, "pressure": 1e-3}),
]
KILLED = """
import os, signal, sys, ase.build
import mdsens as ms
LJ = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=5.0, cut=ms.Smooth())
argon = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.3, cubic=True))
def look(now):
    if now.step > 10:
        os.kill(os.getpid(), signal.SIGKILL)
ms.dynamics.langevin(LJ, argon, output=sys.argv[1], note_every=0.0, progress=look, friction=0.01, **OPTIONS)
"""


def same_bits(one: Trajectory, other: Trajectory) -> None:
    for name in ("time", "positions", "velocities", "forces", "potential", "conserved", "stress", "cell"):
        assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def stop_at(step: int):
    def look(now):
        if now.step > step:
            raise KeyboardInterrupt

    return look


@pytest.mark.parametrize(("move", "options"), CASES)
def test_a_run_ended_by_ctrl_c_goes_on_to_the_bits_of_one_that_never_was(tmp_path, move, options):
    options, file = OPTIONS | options, tmp_path / "md.h5"
    whole = move(LJ, ARGON, **options)
    # at the first look, after one record, and once more: later ones come when a fast machine is done already
    for step in (0, 10):
        with pytest.raises(KeyboardInterrupt) as caught:
            move(LJ, ARGON, output=file, resume=step > 0, progress=stop_at(step), **options)
        assert "resume=True (--resume)" in caught.value.__notes__[0]
    assert 1 < len(Trajectory.from_hdf5(file).time) < 101
    same_bits(move(LJ, ARGON, output=file, resume=True, **options), whole)
    same_bits(Trajectory.from_hdf5(file), whole)
    assert list(tmp_path.iterdir()) == [file]
    # what is finished is not made again
    seen = []
    same_bits(move(LJ, ARGON, output=file, resume=True, progress=seen.append, **options), whole)
    assert not seen


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is of POSIX")
def test_a_run_ended_by_kill_9_goes_on_to_the_bits_of_one_that_never_was(tmp_path):
    file, options = tmp_path / "md.h5", OPTIONS | {"friction": 0.01}
    script = f"OPTIONS = {OPTIONS!r}\nimport jax\njax.config.update('jax_enable_x64', True)\n{KILLED}"
    killed = subprocess.run([sys.executable, "-c", script, file], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not file.exists()
    with h5py.File(tmp_path / "md.h5.unfinished" / "state.h5") as state:
        assert 0 < state.attrs["done"] < 600
    # what it had begun to write does not count
    (tmp_path / "md.h5.unfinished" / "records-00000099.h5").write_bytes(b"half a file")
    same_bits(langevin(LJ, ARGON, output=file, resume=True, **options), langevin(LJ, ARGON, **options))
    assert list(tmp_path.iterdir()) == [file]


def cut_off(file):
    with pytest.raises(KeyboardInterrupt):
        langevin(LJ, ARGON, output=file, progress=stop_at(6), friction=0.01, **OPTIONS)


def test_another_run_is_not_gone_on_with_and_not_replaced_unasked(tmp_path):
    file = tmp_path / "md.h5"
    cut_off(file)
    file.unlink()
    again = dict(output=file, friction=0.01) | OPTIONS
    with pytest.raises(
        OutputExistsError, match=r"md\.h5\.unfinished' holds a run that was cut off.*--resume"
    ):
        langevin(LJ, ARGON, **again)
    other = ms.LennardJones(0.0105, 3.405, elements=("Ar",), cutoff_radius=5.0, cut=ms.Smooth())
    for system, changes, name in (
        (LJ, {"timestep": 5.0}, "timestep is 10.0, and here 5.0"),
        (LJ, {"seed": 3}, "seed is 0, and here 3"),
        (LJ, {"temperature": 61.0}, "temperature"),
        (LJ, {"friction": 0.02}, "friction"),
        (other, {}, "potential"),
    ):
        with pytest.raises(InputError, match=rf"holds another run: its {name}"):
            langevin(system, ARGON, resume=True, **(again | changes))
    with pytest.raises(InputError, match=r"steps = 6: the run in .* has made \d+ already"):
        langevin(LJ, ARGON, resume=True, **(again | {"steps": 6}))
    short = again | {"steps": 60, "overwrite": True}
    assert len(langevin(LJ, ARGON, **short).time) == 11
    assert list(tmp_path.iterdir()) == [file]


def test_a_damaged_note_is_said(tmp_path):
    file = tmp_path / "md.h5"
    cut_off(file)
    state = tmp_path / "md.h5.unfinished" / "state.h5"
    with h5py.File(state, "a") as content:
        settings = json.loads(content.attrs["settings"])
        assert settings["timestep"] == 10.0
        content.attrs["format"] = "mdsens-unfinished-run-0"
    with pytest.raises(FileFormatError, match=r"go on with the version of mdsens that began the run"):
        langevin(LJ, ARGON, output=file, resume=True, friction=0.01, **OPTIONS)
    state.write_bytes(state.read_bytes()[:500])
    with pytest.raises(FileFormatError, match=r"is damaged: .*--overwrite"):
        langevin(LJ, ARGON, output=file, resume=True, friction=0.01, **OPTIONS)


def test_a_run_is_begun_where_there_is_nothing_to_go_on_from(tmp_path):
    file = tmp_path / "md.h5"
    run = langevin(LJ, ARGON, output=file, resume=True, friction=0.01, **(OPTIONS | {"steps": 60}))
    assert len(run.time) == 11 and np.isfinite(run.total).all()
    longer = langevin(LJ, ARGON, **(OPTIONS | {"steps": 120, "friction": 0.01}))
    same = ("positions", "conserved")
    for name in same:
        assert_array_equal(getattr(run, name), getattr(longer, name)[:11])


def test_a_disk_that_fills_while_a_run_goes_leaves_the_last_point_to_go_on_from(tmp_path, monkeypatch):
    file, options = tmp_path / "md.h5", OPTIONS | {"friction": 0.01}
    write, room = Path.write_bytes, [5]  # files that still fit on the disk

    def full(path, content):
        room[0] -= 1
        if room[0] < 0:
            write(path, content[:100])
            raise OSError(28, "No space left on device")
        return write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(WriteError, match=r"No space left on device\. Make room on the disk"):
            langevin(LJ, ARGON, output=file, note_every=0.0, **options)
    assert room[0] < 0 and not file.exists()
    names = {path.name for path in (tmp_path / "md.h5.unfinished").iterdir()}
    assert "state.h5" in names and all(name.startswith(("state", "records")) for name in names)
    same_bits(langevin(LJ, ARGON, output=file, resume=True, **options), langevin(LJ, ARGON, **options))
    assert list(tmp_path.iterdir()) == [file]


def test_a_place_where_nothing_may_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(WriteError, match=r"md\.h5.*cannot be written, and nothing was left there"):
        langevin(LJ, ARGON, output=tmp_path / "file" / "md.h5", friction=0.01, **(OPTIONS | {"steps": 60}))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
