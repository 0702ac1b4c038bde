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


@pytest.mark.validation  # a cheaper twin: derivatives of the stiff flow above
def test_a_packing_in_a_sheared_liquid_comes_to_rest_where_drag_and_contacts_balance():
    turns = np.arange(6) * np.pi / 3
    ring = 0.95 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    # off the symmetric arrangement, in which some discs would balance on others
    discs = np.concatenate([np.zeros((1, 2)), ring]) + 0.05 * np.random.default_rng(0).normal(size=(7, 2))
    flat = ms.Structure.create(np.pad(discs, ((0, 0), (0, 1))), ["Ar"] * 7)
    near = ms.find_neighbors(flat, 3.0)

    def balance(x, rate, diameter):
        """Seven soft discs, pressed into a channel, in a liquid whose speed along x grows with y."""
        spheres = ms.SoftSphere(diameter=diameter, epsilon=1.0, alpha=2.0, elements=("Ar",))
        energy = lambda x: spheres.energy(flat.at(jnp.pad(x, ((0, 0), (0, 1)))), near)
        liquid = rate * x[:, 1:] * jnp.array([1.0, 0.0])
        return liquid - jax.grad(energy)(x) - jnp.array([0.1, 0.4]) * x

    @jax.jit
    def rest(rate, diameter):
        return ms.steady_state(balance, jnp.asarray(discs), rate, diameter, tolerance=1e-12).x

    x = rest(0.05, 1.0)
    J = jax.jacfwd(lambda v: balance(v.reshape(7, 2), 0.05, 1.0).ravel())(x.ravel())
    assert np.linalg.eigvals(J).real.max() < 0
    assert np.abs(J - J.T).max() > 0.04  # no energy has this matrix
    by_rate, by_diameter = jax.jacfwd(rest, argnums=(0, 1))(0.05, 1.0)
    h = 1e-4  # second order in h, with third derivatives of some tens: 1e-6 of slopes of the order of one
    assert_allclose(by_rate, (rest(0.05 + h, 1.0) - rest(0.05 - h, 1.0)) / (2 * h), rtol=0, atol=1e-5)
    assert_allclose(by_diameter, (rest(0.05, 1 + h) - rest(0.05, 1 - h)) / (2 * h), rtol=0, atol=1e-5)


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
