"""Systems that walk side by side end where each of them ends alone."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import ase.build
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.relaxation import memory

SCRIPT = """
import sys
import jax
import numpy as np
jax.config.update("jax_enable_x64", True)
import mdsens as ms
from test_lanes import argon, crystals

assert jax.device_count() == 4
batch = ms.relax_batch(argon(), crystals(), fmax=1e-8, lanes=4, solver=ms.FIRE())
np.save(sys.argv[1], np.stack([relaxed.structure.positions for relaxed in batch.values()]))
"""


def argon():
    return ms.load_potential("ar-lennard-jones")


def crystals():
    """Six cells of four atoms, some far from rest: lanes end at different times."""
    found = []
    for seed, far in enumerate((0.02, 0.3, 0.05, 0.2, 0.1, 0.01)):
        atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
        atoms.rattle(far, seed=seed)
        found.append(ms.Structure.from_ase(atoms))
    return found


@pytest.fixture(scope="module")
def alone():
    memory.forget()
    return [ms.relax(argon(), crystal, fmax=1e-8, solver=ms.FIRE()) for crystal in crystals()]


@pytest.mark.parametrize("lanes", [2, 4])
def test_each_lane_takes_the_steps_that_it_takes_alone(alone, lanes):
    memory.forget()
    batch = ms.relax_batch(argon(), crystals(), fmax=1e-8, lanes=lanes, solver=ms.FIRE())
    for relaxed, other in zip(batch.values(), alone, strict=True):
        assert int(relaxed.steps) == int(other.steps) > 0
        assert_allclose(relaxed.structure.positions, other.structure.positions, atol=1e-9)


def test_the_default_plan_walks_in_lanes_and_a_lane_that_fails_spoils_no_other(alone):
    memory.forget()
    both = {"good": crystals()[0], "bad": crystals()[1]}
    batch = ms.relax_batch(argon(), both, fmax=1e-8, lanes=2, max_steps=3)
    assert "max_steps" in batch.failures["bad"]
    assert set(batch) | set(batch.failures) == set(both)
    memory.forget()
    batch = ms.relax_batch(argon(), both, fmax=1e-8, lanes=2)
    assert_allclose(batch["good"].energy, alone[0].energy, rtol=1e-12)


def test_lanes_share_four_devices_and_give_the_same_numbers(alone, tmp_path):
    path = tmp_path / "positions.npy"
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(path)]
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
    here = Path(__file__).parent
    places = os.pathsep.join(map(str, (here, here.parent, here.parents[1])))
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": places, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = np.stack([relaxed.structure.positions for relaxed in alone])
    assert_allclose(np.load(path), expected, atol=1e-9)


def test_the_number_of_lanes_is_a_number():
    with pytest.raises(ms.errors.InputError, match="lanes"):
        ms.relax_batch(argon(), crystals()[:1], lanes=0)
