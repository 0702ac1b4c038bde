"""Data sets out of a potential: exact labels, exact resume, and files that are whole at any moment."""

import subprocess
import sys

import numpy as np
import pytest
from broken_disks import FAULTS
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.datasets import Heat, Rattle, generate, read_dataset
from mdsens.errors import InputError, OutputExistsError, WriteError

SILICON = ms.load_potential("si-stillinger-weber-1985")


def diamond() -> ms.Structure:
    import ase.build

    return ms.Structure.from_ase(ase.build.bulk("Si", cubic=True))


class Stop(Exception):
    pass


def stop_after(n: int):
    def look(now) -> None:
        if now.done == n:
            raise Stop

    return look


def same(one, other) -> None:
    assert one.fingerprint() == other.fingerprint()
    for a, b in zip(one, other, strict=True):
        assert_array_equal(a.structure.positions, b.structure.positions)
        assert_array_equal(a.forces, b.forces)


def test_labels_are_what_the_potential_says_and_displacements_are_as_wide_as_asked():
    data = generate(SILICON, diamond(), Rattle(amplitude=0.1, strain=0.01), count=5)
    for entry in data:
        found = ms.energy_forces_stress(SILICON, entry.structure)
        assert_allclose(entry.energy, found.energy, rtol=1e-12)
        assert_allclose(entry.forces, found.forces, atol=1e-12)
        assert_allclose(entry.stress, found.stress, atol=1e-14)
    strains = [np.asarray(e.structure.cell) / 5.43 - np.eye(3) for e in data]
    assert 0.003 < np.std(strains) < 0.03
    still = generate(SILICON, diamond(), Rattle(amplitude=0.1), count=5)
    moved = [np.asarray(e.structure.positions) - np.asarray(diamond().positions) for e in still]
    assert_allclose(np.std(moved), 0.1, rtol=0.2)  # 120 draws: 6 % is one standard error


@pytest.mark.parametrize("move", [Rattle(0.1), Heat(300.0, every=5, equilibrate=5)], ids=["rattle", "heat"])
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(move, tmp_path):
    whole = generate(SILICON, diamond(), move, count=4)
    with pytest.raises(Stop):
        generate(SILICON, diamond(), move, count=4, output=tmp_path / "a.h5", progress=stop_after(2))
    assert len(read_dataset(tmp_path / "a.h5")) == 2
    resumed = generate(SILICON, diamond(), move, count=4, output=tmp_path / "a.h5", resume=True)
    same(whole, resumed)
    same(whole, read_dataset(tmp_path / "a.h5"))


KILLED = """
import os, sys
import ase.build, jax
jax.config.update("jax_enable_x64", True)
import mdsens as ms
from mdsens.datasets import Rattle, generate

def look(now):
    if now.done == 3:
        os.kill(os.getpid(), 9)

start = ms.Structure.from_ase(ase.build.bulk("Si", cubic=True))
silicon = ms.load_potential("si-stillinger-weber-1985")
generate(silicon, start, Rattle(0.1), count=4, output=sys.argv[1], save_every=0.0, progress=look)
"""


def test_a_run_ended_by_kill_9_loses_at_most_the_sample_it_was_at(tmp_path):
    file = tmp_path / "a.h5"
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False)
    assert done.returncode == -9
    assert len(read_dataset(file)) >= 2
    resumed = generate(SILICON, diamond(), Rattle(0.1), count=4, output=file, resume=True)
    same(resumed, generate(SILICON, diamond(), Rattle(0.1), count=4))
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("fault", FAULTS)
def test_data_that_cannot_be_written_are_said_and_the_last_good_file_stays(fault, tmp_path):
    file, options = tmp_path / "a.h5", {"count": 4, "output": tmp_path / "a.h5"}
    with pytest.raises(Stop):
        generate(SILICON, diamond(), Rattle(0.1), progress=stop_after(2), **options)
    before = file.read_bytes()
    with fault(), pytest.raises(WriteError, match=r"a\.h5' cannot be written, and what stood there stays"):
        generate(SILICON, diamond(), Rattle(0.1), resume=True, **options)
    assert file.read_bytes() == before and list(tmp_path.iterdir()) == [file]
    resumed = generate(SILICON, diamond(), Rattle(0.1), resume=True, **options)
    same(resumed, generate(SILICON, diamond(), Rattle(0.1), count=4))


def test_more_samples_can_be_asked_for_later(tmp_path):
    generate(SILICON, diamond(), Rattle(0.1), count=2, output=tmp_path / "a.h5")
    longer = generate(SILICON, diamond(), Rattle(0.1), count=4, output=tmp_path / "a.h5", resume=True)
    same(longer, generate(SILICON, diamond(), Rattle(0.1), count=4))


def test_a_file_of_another_run_is_neither_continued_nor_replaced(tmp_path):
    generate(SILICON, diamond(), Rattle(0.1), count=1, output=tmp_path / "a.h5")
    with pytest.raises(InputError, match="is of another run: its moves is"):
        generate(SILICON, diamond(), Rattle(0.2), count=1, output=tmp_path / "a.h5", resume=True)
    other = ms.replace_parameters(SILICON, {"epsilon": 2.0})
    with pytest.raises(InputError, match="its potential is"):
        generate(other, diamond(), Rattle(0.1), count=1, output=tmp_path / "a.h5", resume=True)
    with pytest.raises(OutputExistsError):
        generate(SILICON, diamond(), Rattle(0.1), count=1, output=tmp_path / "a.h5")


def test_several_starts_and_moves_are_groups_of_their_own():
    data = generate(SILICON, [diamond(), diamond()], [Rattle(0.05), Rattle(0.1)], count=1)
    assert data.groups == ("rattled 0.05 Å", "rattled 0.1 Å") and len(data) == 4


def test_held_atoms_stay_and_other_faults_are_named():
    held = ms.Structure.create(diamond().positions, ["Si"] * 8, diamond().cell, fixed=np.arange(8) < 3)
    (entry,) = generate(SILICON, held, Rattle(0.1), count=1)
    assert_array_equal(entry.structure.positions[:3], held.positions[:3])
    cluster = ms.Structure.create(diamond().positions, ["Si"] * 8)
    with pytest.raises(InputError, match="periodic along 0 of 3 vectors cannot be strained"):
        generate(SILICON, cluster, Rattle(0.1, strain=0.1), count=1)
    with pytest.raises(InputError, match="nothing would move"):
        Rattle(0.0)
    with pytest.raises(InputError, match="there is nothing to generate"):
        generate(SILICON, [], Rattle(0.1), count=1)
    with pytest.raises(InputError, match=r"a\.xyz': a data set that is generated is kept in HDF5"):
        generate(SILICON, diamond(), Rattle(0.1), count=1, output="a.xyz")
