"""Compiled code on disk: kept by itself, where the user says, and never in the way of a computation."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mdsens import compile_cache

# JAX computes before mdsens is imported, as in a script that uses both
PROGRAM = """
import jax, mdsens
jax.jit(lambda x: x + 1)(1.0).block_until_ready()
{before}
mdsens.relax
{after}
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(float(jax.jit(lambda x: jax.numpy.sin(x).sum())(jax.numpy.ones(3))))
"""


def run(before: str = "", after: str = "", **environment: str) -> str:
    """What a small program with one compiled function says on its error stream."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "MDSENS_", "XLA_", "TF_CPP"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(before=before, after=after)],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean | {"JAX_PLATFORMS": "cpu"} | environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2.52"), done.stdout
    return done.stderr


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*-cache"))


def test_compiled_code_is_kept_in_the_cache_folder_of_the_user_and_loaded_without_a_word(tmp_path: Path):
    environment = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path)}
    assert run(**environment) == ""
    kept = entries(tmp_path)
    assert kept and {path.parent.name for path in kept} == {compile_cache.kind_of_machine()}
    assert run(**environment) == ""  # no pages of warnings that the processor might differ
    assert entries(tmp_path) == kept


def test_it_can_be_switched_off(tmp_path: Path):
    assert run(MDSENS_COMPILE_CACHE="off", XDG_CACHE_HOME=str(tmp_path), HOME=str(tmp_path)) == ""
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("way", ["environment", "config before", "config after"])
def test_a_folder_chosen_for_jax_wins(tmp_path: Path, way: str):
    ours, chosen = tmp_path / "ours", tmp_path / "chosen"
    setting = f'jax.config.update("jax_compilation_cache_dir", {str(chosen)!r})'
    match way:
        case "environment":
            run(MDSENS_COMPILE_CACHE=str(ours), JAX_COMPILATION_CACHE_DIR=str(chosen))
        case "config before":
            run(before=setting, MDSENS_COMPILE_CACHE=str(ours))
        case "config after":
            run(after=setting, MDSENS_COMPILE_CACHE=str(ours))
    assert entries(chosen) and not entries(ours)


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    told = run(MDSENS_COMPILE_CACHE=str(tmp_path / "file" / "folder"))
    assert told.count("\n") == 1
    assert "mdsens keeps no compiled code: " in told and "Set MDSENS_COMPILE_CACHE to a folder" in told


def test_a_disk_that_is_nearly_full_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    full = shutil.disk_usage(tmp_path)._replace(free=20 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    with pytest.raises(OSError, match=f"20 MiB are free on the disk of '{tmp_path}', and 256 MiB are asked"):
        compile_cache.make_usable(tmp_path)


def entry(root: Path, name: str, size: int, age: float, kind: str = "linux-jax-1-jaxlib-1-abc") -> Path:
    path = root / kind / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"0" * size)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_what_was_used_longest_ago_goes_first_and_nothing_else(tmp_path: Path):
    old = entry(tmp_path, "f-cache", 70_000, age=3000)
    young = entry(tmp_path, "g-cache", 70_000, age=1000)
    other = entry(tmp_path, "h-cache", 200, age=2000, kind="linux-jax-2-jaxlib-2-def")  # counts as 64 kiB
    letter = entry(tmp_path, "letter.txt", 300_000, age=9000)
    compile_cache.tidy(tmp_path, limit=70_000 + 65_536)
    assert not old.exists()
    assert young.exists() and other.exists() and letter.exists()


@pytest.mark.parametrize("size", [0, 4096])
def test_entries_cut_off_by_a_full_disk_or_a_kill_are_removed(tmp_path: Path, size: int):
    cut = entry(tmp_path, "f-cache", size, age=1000)
    growing = entry(tmp_path, "g-cache", size, age=0)  # another process is writing it
    compile_cache.tidy(tmp_path, limit=10**6)
    assert not cut.exists() and growing.exists()


@pytest.mark.parametrize("text", ["large", "-3", "nan"])
def test_a_limit_that_is_no_size_is_told_and_the_default_taken(
    text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("MDSENS_COMPILE_CACHE_SIZE", text)
    assert compile_cache.limit() == 1024
    assert f"MDSENS_COMPILE_CACHE_SIZE={text}: give a number of MiB above 0" in caplog.text


def test_two_processes_at_once_share_the_folder(tmp_path: Path):
    program = PROGRAM.format(before="", after="")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_", "TF_CPP"))}
    environment |= {"MDSENS_COMPILE_CACHE": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "error", "-c", program]
    both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate(timeout=60)[1] for process in both] == [b"", b""]
    assert entries(tmp_path)
