"""Steady states without an energy: against scipy, derivatives at both orders, what never comes to rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import fsolve

import mdsens as ms
from mdsens.errors import InputError, NotConvergedError

STIFF = jnp.array([[-1.0, 2.0, 0.0], [-2.0, -1.5, 0.5], [0.3, 0.0, -1000.0]])


def driven(x, drive):
    """A stiff, non-conservative flow: no symmetric matrix of derivatives."""
    return STIFF @ x - 0.2 * x**3 + drive * jnp.array([1.0, 0.5, 20.0])


def circling(x):
    """Van der Pol's oscillator."""
    return jnp.stack([x[1], (1 - x[0] ** 2) * x[1] - x[0]])


START = jnp.array([0.5, -1.0, 2.0])


def test_the_state_is_that_of_scipy_and_found_in_few_steps():
    found = ms.steady_state(driven, START, 1.5)
    exact = fsolve(lambda x: np.asarray(driven(x, 1.5)), found.x, xtol=1e-13)
    assert_allclose(found.x, exact, rtol=1e-9)
    assert found.speed <= 1e-10 and found.steps < 200


def test_derivatives_are_right_at_both_orders_and_modes():
    find = lambda drive: ms.steady_state(driven, START, drive, tolerance=1e-12).x
    step = 1e-3
    slope = jax.jacfwd(find)
    assert_allclose(slope(1.5), (find(1.5 + step) - find(1.5 - step)) / (2 * step), rtol=1e-5)
    assert_allclose(jax.jacrev(find)(1.5), slope(1.5), rtol=1e-10)
    bend = jax.jacfwd(jax.jacrev(find))(1.5)
    assert_allclose(bend, (slope(1.5 + step) - slope(1.5 - step)) / (2 * step), rtol=1e-5)


def test_a_start_leads_to_the_steady_state_of_its_own_basin():
    f = lambda x: x - x**3
    assert_allclose(ms.steady_state(f, jnp.array([0.01])).x, 1.0)
    assert_allclose(ms.steady_state(f, jnp.array([-0.01])).x, -1.0)


def test_what_circles_for_ever_is_reported():
    with pytest.raises(NotConvergedError, match="did not come to rest in 300 steps") as raised:
        ms.steady_state(circling, jnp.array([2.0, 0.0]), max_steps=300)
    assert raised.value.partial.time > 1
    assert not ms.steady_state(circling, jnp.array([2.0, 0.0]), max_steps=300, throw=False).converged


@pytest.mark.parametrize(
    ("options", "match"),
    [(dict(tolerance=0.0), "tolerance"), (dict(accuracy=-1.0), "accuracy"), (dict(max_steps=0), "max_steps")],
)
def test_what_is_wrong_is_said(options, match):
    with pytest.raises(InputError, match=match):
        ms.steady_state(driven, START, 1.5, **options)


def test_a_flow_of_another_form_and_too_many_unknowns_are_refused():
    with pytest.raises(InputError, match="f returns arrays of shapes"):
        ms.steady_state(lambda x: x[:1], START)
    with pytest.raises(InputError, match="5000 unknowns"):
        ms.steady_state(lambda x: -x, jnp.zeros(5000))


def test_a_flow_of_other_containers_is_refused_too():
    with pytest.raises(InputError, match="must have the form of x"):
        ms.steady_state(lambda x: (x["a"], x["b"]), {"a": jnp.zeros(2), "b": jnp.zeros(2)})
