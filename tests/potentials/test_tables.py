"""Tables: cubics between knots, exact where the function is one, linear in the knots, and smooth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mdsens.potentials.tables import Tables, knot_slopes

H = 0.25
X = H * np.arange(9)


def table(values, start=0.0):
    return Tables.through(jnp.asarray(values)[None, :], H, start)


def value(tables, x):
    return tables.held(tables.place(jnp.asarray(x)), None)


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 4])
def test_slopes_of_polynomials_are_exact_up_to_the_degree_that_their_neighbors_can_see(degree):
    slopes = np.asarray(knot_slopes(jnp.asarray(X**degree))) / H
    exact = degree * X ** max(degree - 1, 0)
    assert_allclose(slopes[2:-2], exact[2:-2], atol=1e-12)  # four neighbors: up to degree 4
    if degree <= 2:
        assert_allclose(slopes[[1, -2]], exact[[1, -2]], atol=1e-12)  # two
    if degree <= 1:
        assert_allclose(slopes[[0, -1]], exact[[0, -1]], atol=1e-12)  # one


def test_cubics_are_followed_exactly_between_inner_knots():
    inner = np.linspace(X[2], X[-3], 41)
    assert_allclose(value(table(X**3 - X), inner), inner**3 - inner, atol=1e-13)


def test_knots_are_met_and_value_and_slope_are_continuous_there():
    values = np.random.default_rng(0).normal(size=len(X))
    tables = table(values)
    assert_allclose(value(tables, X), values, atol=1e-13)
    slope = jax.vmap(jax.grad(lambda x: value(tables, x)))
    left, right = X[1:-1] * (1 - 1e-13), X[1:-1] * (1 + 1e-13)
    assert_allclose(value(tables, left), value(tables, right), atol=1e-11)
    assert_allclose(slope(left), slope(right), atol=1e-11)


def test_a_table_is_linear_in_its_knots_and_feels_each_within_three_spacings():
    at = jnp.linspace(0, X[-1], 81)
    by_knot = jax.jacfwd(lambda values: value(table(values), at))(jnp.zeros(len(X)))
    values = np.random.default_rng(1).normal(size=len(X))
    assert_allclose(by_knot @ values, value(table(values), at), atol=1e-13)
    assert_allclose(by_knot @ np.ones(len(X)), 1.0, atol=1e-13)  # a constant is one
    far = np.abs(np.asarray(at)[:, None] - X) > 3 * H * (1 + 1e-12)
    assert not np.asarray(by_knot)[far].any()


def test_behind_the_last_knot_a_table_is_held_or_goes_on_straight():
    tables = table(X**2)
    slope = (X[-1] ** 2 - X[-2] ** 2) / H
    beyond = jnp.array([X[-1] + 0.1, X[-1] + 7.0])
    place = tables.place(beyond)
    assert_allclose(tables.held(place, None), X[-1] ** 2)
    assert_allclose(tables.prolonged(place, None), X[-1] ** 2 + slope * (beyond - X[-1]))
    assert_allclose(tables.prolonged(tables.place(jnp.asarray(X[-1])), None), X[-1] ** 2)


def test_a_grid_that_begins_elsewhere_is_the_same_table_shifted():
    values = np.cos(X)
    shifted = table(values, start=-1.0)
    at = jnp.linspace(0, X[-1], 33)
    assert_allclose(value(shifted, at - 1.0), value(table(values), at), atol=1e-14)
    # before its first knot, a straight line too
    place = shifted.place(jnp.array([-1.5]))
    slope = (values[1] - values[0]) / H
    assert_allclose(shifted.prolonged_both_ways(place, None), values[0] - 0.5 * slope)


def test_several_tables_are_told_apart_by_their_number():
    tables = Tables.through(jnp.asarray([X, X**2]), H)
    place = tables.place(jnp.array([1.1, 1.1]))
    first, second = tables.held(place, jnp.array([0, 1]))
    assert_allclose([first, second], [1.1, 1.21], atol=1e-13)
