"""Fits to averages: residuals and their derivatives, frames used again, and walkers that move along."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.errors import InputError
from mdsens.fitting import ParameterSpace, ThermalTarget, ThermalTargets, fit, single_loop
from mdsens.potentials.base import parameter
from mdsens.units import BOLTZMANN

pytest.importorskip("jax_md", reason="jax-md is not installed")

T = 100.0
kT = BOLTZMANN * T


class Mixture(ms.Potential):
    """exp(-U / kT) is a mixture of two Gaussians along x: at -1 Å, and at +1 Å with the odds exp(tilt)."""

    tilt: Array = parameter("1")
    elements: tuple[str, ...] = eqx.field(static=True, default=("Ar",))
    source: str = eqx.field(static=True, default="")
    uses_neighbors = False

    @property
    def cutoff(self):
        return jnp.asarray(jnp.inf)

    def energy(self, structure, neighbors):
        x = structure.positions[0, 0]
        left, right = -((x + 1) ** 2), self.tilt - (x - 1) ** 2
        return -kT * jnp.logaddexp(left, right)


ATOM = ms.Structure.create([[0.0, 0.0, 0.0]], ["Ar"], fixed=[[False, True, True]])
SAMPLING = dict(steps=2000, record_every=40, timestep=20.0, friction=5e-3, replicas=32)


def place(potential, states):
    return (states["structure"].structure.positions[0, 0],)


PLACE = ms.Observable(("x",), ("Å",), place)
WANTED = 0.4  # <x> = tanh(tilt / 2) of two Gaussians of one width


def targets(**options):
    return ThermalTargets(ATOM, T, ThermalTarget(PLACE, WANTED, 0.02), **(SAMPLING | options))


@pytest.fixture(scope="module")
def term():
    return targets()


@pytest.fixture(scope="module")
def sampled(term):
    return term.evaluate(Mixture(0.2), ("tilt",), {})


def test_residuals_and_their_derivatives_are_those_of_the_mixture(sampled):
    exact = np.tanh(0.1)
    slope = (1 - exact**2) / 2
    # 32 walkers of 45 frames each: some hundreds of independent ones, <x> good to 0.1
    assert abs(sampled.residuals[0] * 0.02 + WANTED - exact) < 0.15
    assert abs(sampled.jacobian[0, 0] * 0.02 - slope) < 0.1
    assert sampled.rows[0].name == "x" and sampled.rows[0].target == WANTED
    assert sampled.relaxations == 1


def test_frames_are_used_again_until_too_few_of_them_count(term, sampled):
    near = term.evaluate(Mixture(0.4), ("tilt",), sampled.memory)
    assert near.relaxations == 0
    assert_array_equal(near.memory["positions"], sampled.memory["positions"])
    # the same frames: to first order the change is that of the derivative
    assert_allclose(near.residuals - sampled.residuals, 0.2 * sampled.jacobian[:, 0], rtol=0.1)
    far = term.evaluate(Mixture(-5.0), ("tilt",), sampled.memory)
    assert far.relaxations == 1 and int(far.memory["samplings"]) == 2
    again = targets(least_share=1.0).evaluate(Mixture(0.21), ("tilt",), sampled.memory)
    assert again.relaxations == 1


def test_a_fit_to_an_average_finds_the_parameter(term, tmp_path):
    file = tmp_path / "fit.h5"
    found = fit(Mixture(0.2), term, max_steps=4, throw=False, checkpoint=file)
    tilt = ms.parameter_values(found.potential)["tilt"]
    assert abs(np.tanh(tilt / 2) - WANTED) < 0.15
    assert abs(found.rows[0].value - WANTED) < 0.02
    # what is kept goes to the file and comes back
    again = fit(Mixture(0.2), term, max_steps=4, throw=False, checkpoint=file, resume=True)
    assert ms.parameter_values(again.potential)["tilt"] == tilt


def test_parameters_and_walkers_that_move_together_find_it_too(term):
    options = dict(updates=24, steps_per_update=80, walkers=32, settle=400, rest=6, rate=0.3, horizon=8)
    motion = {name: SAMPLING[name] for name in ("timestep", "friction")}
    seen = []
    space = ParameterSpace.of(Mixture(-0.8), scale="linear")
    found = single_loop(space, term, progress=seen.append, **options, **motion)
    tilt = ms.parameter_values(found.potential)["tilt"]
    exact = 2 * np.arctanh(WANTED)
    assert abs(tilt - exact) < 0.5  # some hundreds of independent walkers, each 1.2 Å wide
    assert found.force_calls == 32 * (400 + 24 * 80 + 6 * 80)
    assert found.path.shape == (24, 1) and len(seen) == 24 and seen[-1].update == 24
    assert 0 < found.shares.min() <= 1
    fast = found._replace(shares=np.array([1.0, 0.2]), hysteresis=np.array([-3.0]))
    assert fast.lags and "Lower rate" in fast.notes[0] and "moves on by -3.0 tolerances" in fast.notes[1]
    calm = found._replace(shares=np.array([0.9]), hysteresis=np.array([0.5]))
    assert not calm.lags and not calm.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": []}, "no targets are given"),
        ({"targets": ["pressure"]}, "a target must be a ThermalTarget, not str"),
        ({"targets": ThermalTarget(PLACE, 0.0, 0.0)}, "the tolerance of x = 0"),
        ({"temperature": -1.0}, "temperature = -1"),
        ({"least_share": 1.5}, "least_share = 1.5"),
        ({"seed": 0, "resume": True}, "resume is no option of the samplings of a fit"),
    ],
)
def test_targets_that_cannot_be_met_are_refused(change, message):
    options = {"structure": ATOM, "temperature": T, "targets": ThermalTarget(PLACE, 0.1, 0.1)} | change
    with pytest.raises(InputError, match=message):
        ThermalTargets(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"updates": 2}, "updates = 2"),
        ({"rate": 0.0}, "rate = 0"),
        ({"walkers": 1}, "walkers = 1"),
        ({"steps_per_update": 0}, "steps_per_update = 0"),
    ],
)
def test_loops_that_cannot_be_are_refused(term, options, message):
    with pytest.raises(InputError, match=message):
        single_loop(Mixture(0.2), term, **options)


def test_a_loop_looks_at_what_is_asked_for_before_it_begins():
    pressure = ThermalTargets(ATOM, T, ThermalTarget("pressure", 0.1, 0.1))
    with pytest.raises(InputError, match="pressure needs a structure that is periodic"):
        single_loop(Mixture(0.2), pressure)
    with pytest.raises(InputError, match="targets of a single loop are ThermalTargets"):
        single_loop(Mixture(0.2), [ThermalTarget(PLACE, 0.1, 0.1)])
