"""A Gaussian state as a task: its numbers with their Jacobian, as `gaussian_state` gives them."""

import ase.build
import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.campaign import Task, collect, load, run
from mdsens.errors import InputError

ARGON = "ar-lennard-jones"
OPTIONS = {"temperature": 20.0, "members": 32, "fmax": 1e-8}


def argon() -> ms.Structure:
    return ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.3, cubic=True))


def test_a_task_without_derivatives_has_numbers_and_the_state(tmp_path):
    task = Task(argon(), ARGON, options={**OPTIONS, "seed": 3}, kind="gaussian")
    assert run([task], tmp_path / "out").reasons == {}
    (result,) = load(tmp_path / "out")
    assert list(result.values) == ["free_energy", "energy", "volume", "displacement"]
    assert -0.3 < result.values["energy"] < result.values["free_energy"] < 0.0  # the modes are stiff at 20 K
    assert float(result.content["gaussian"]["temperature"].value) == 20.0


@pytest.mark.validation
def test_numbers_and_jacobian_are_those_of_the_state(tmp_path):
    task = Task(argon(), ARGON, options={**OPTIONS, "parameters": ["epsilon"]}, kind="gaussian", name="argon")
    assert run([task], tmp_path / "out").reasons == {}
    (result,) = load(tmp_path / "out")
    potential = ms.load_potential(ARGON)
    start = ms.relax(potential, argon(), fmax=1e-8).structure

    def free_energy(epsilon):
        changed = ms.replace_parameters(potential, {"epsilon": epsilon})
        return ms.gaussian_state(changed, start, 20.0, members=32).free_energy

    value, slope = jax.value_and_grad(free_energy)(ms.parameter_values(potential)["epsilon"])
    assert_allclose(result.values["free_energy"], value, rtol=1e-9)
    assert_allclose(np.asarray(result.content["jacobian"])[0, 0], slope, rtol=1e-7)
    assert result.content["gaussian"]["force_constants"].value.shape == (12, 12)
    table = collect(tmp_path / "out")
    assert {"free_energy", "volume", "d free_energy / d epsilon"} <= set(table.columns)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": 32}, "needs the option 'temperature'"),
        ({"temprature": 20.0}, "Did you mean 'temperature'"),
    ],
)
def test_what_is_wrong_is_said_when_the_task_is_made(options, message):
    with pytest.raises(InputError, match=message):
        Task(argon(), ARGON, options=options, kind="gaussian")
