"""Barriers as targets of a fit: the saddle point is climbed to and followed, as minima are."""

import dataclasses

import ase.build
import numpy as np
import passes
import pytest
from numpy.testing import assert_allclose

from mdsens.errors import InputError, SaddlePointError
from mdsens.fitting import ParameterSpace, RelaxedTargets, Target, TargetStructure, fit
from mdsens.fitting.config import read_fit_config

INITIAL = TargetStructure(passes.structure(passes.UP))
NEAR_THE_TOP = TargetStructure(passes.structure(0.1, x=0.02), saddle=True)
STATES = {"initial": INITIAL, "saddle": NEAR_THE_TOP}
WANTED = passes.height(0.6, passes.ALPHA, passes.R0)


@pytest.fixture(scope="module")
def targets() -> RelaxedTargets:
    return RelaxedTargets(STATES, [Target("barrier", WANTED, 0.01)])


def test_a_barrier_is_met_by_the_depth_that_its_closed_form_asks_for(targets):
    result = fit(ParameterSpace.of(passes.morse(), ["D0"], scale="linear"), targets)
    # the barrier is linear in the depth: one step
    assert_allclose(result.parameters["D0"], 0.6, rtol=1e-9)
    assert [row.name for row in result.rows] == ["barrier"] and result.rows[0].unit == "eV"


def test_the_jacobian_of_a_barrier_is_that_of_its_closed_form_also_where_the_saddle_is_followed(targets):
    first = targets.evaluate(passes.morse(), ("alpha", "r0"), {})
    moved = passes.morse(alpha=1.45, r0=2.62)
    found = targets.evaluate(moved, ("alpha", "r0"), first.memory)
    h, theta = 1e-6, np.array([1.45, 2.62])
    for k in range(2):
        step = h * (np.arange(2) == k)
        ends = [passes.height(passes.D, *(theta + sign * step)) for sign in (1, -1)]
        assert_allclose(0.01 * found.jacobian[0, k], (ends[0] - ends[1]) / (2 * h), rtol=1e-7)
    barrier = passes.height(passes.D, *theta)
    assert_allclose(WANTED + 0.01 * found.residuals[0], barrier, rtol=1e-10)


def test_a_minimum_in_place_of_the_saddle_point_is_said():
    states = STATES | {"saddle": dataclasses.replace(NEAR_THE_TOP, saddle=False)}
    with pytest.raises(SaddlePointError, match="the state 'saddle'"):
        RelaxedTargets(states, [Target("barrier", 0.3)]).residuals(passes.morse(), ("D0",), {})


def test_what_makes_no_passage_is_refused():
    with pytest.raises(InputError, match=r"no structure 'saddle'\. Structures: initial"):
        RelaxedTargets({"initial": INITIAL}, [Target("barrier", 0.3)])
    with pytest.raises(InputError, match="of the structures initial and saddle: leave on and bulk out"):
        RelaxedTargets(STATES, [Target("barrier", 0.3, on="initial")])
    with pytest.raises(InputError, match="Did you mean 'barrier'"):
        RelaxedTargets(STATES, [Target("barier", 0.3)])
    pressed = dataclasses.replace(NEAR_THE_TOP, pressure=0.1)
    with pytest.raises(InputError, match="climbed to in the cell as it is"):
        RelaxedTargets(STATES | {"saddle": pressed}, [Target("barrier", 0.3)])


CONFIG = """
potential = "cu-morse"
free = ["D0"]
[structures.initial]
file = "a.extxyz"
[structures.saddle]
file = "b.extxyz"
saddle = true
[[targets]]
observable = "barrier"
value = 0.7
"""


def test_a_configuration_names_the_saddle_point(tmp_path):
    for name in ("a", "b"):
        ase.build.bulk("Cu", cubic=True).write(tmp_path / f"{name}.extxyz")
    (tmp_path / "fit.toml").write_text(CONFIG)
    (term,) = read_fit_config(tmp_path / "fit.toml").terms
    assert term.structures["saddle"].saddle and not term.structures["initial"].saddle
    for wrong, message in (("1", "saddle = 1: give true or false"), ('"yes"', "saddle = 'yes'")):
        (tmp_path / "wrong.toml").write_text(CONFIG.replace("saddle = true", f"saddle = {wrong}"))
        with pytest.raises(InputError, match=message):
            read_fit_config(tmp_path / "wrong.toml")
