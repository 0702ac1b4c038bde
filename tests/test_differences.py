"""Central differences: exact for polynomials of their order, for trees of any form, each entry alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mdsens.testing import central_difference
from mdsens.testing.differences import slope_at_zero

NUMBERS = st.floats(-3, 3, allow_subnormal=False)
STEPS = st.sampled_from([1e-3, 0.01, 0.1])


@given(NUMBERS, NUMBERS, NUMBERS, STEPS)
def test_second_order_is_exact_for_parabolas(a, b, x, step):
    slope = central_difference(lambda x: a * x**2 + b * x, x, step)
    # rounding of numbers up to 40, over the step
    assert_allclose(slope, 2 * a * x + b, atol=1e-13 * 40 / step)


@given(st.lists(NUMBERS, min_size=5, max_size=5), NUMBERS, STEPS)
def test_fourth_order_is_exact_for_quartics(coefficients, x, step):
    polynomial = np.polynomial.Polynomial(coefficients)
    slope = central_difference(lambda x: float(polynomial(x)), x, step, order=4)
    assert_allclose(slope, polynomial.deriv()(x), atol=1e-12 * 400 / step)


@given(NUMBERS, NUMBERS)
def test_differences_are_linear(a, b):
    def slope(f):
        return float(central_difference(f, 0.7, 1e-2))

    both = slope(lambda x: a * np.sin(x) + b * np.exp(x))
    assert_allclose(both, a * slope(np.sin) + b * slope(np.exp), atol=1e-11)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 1, 2)])
def test_each_entry_of_an_array_is_moved_alone(shape):
    x = np.arange(float(np.prod(shape))).reshape(shape)
    slope = central_difference(lambda x: np.sum(np.asarray(x) ** 2), x, 1e-2)
    assert np.shape(slope) == shape
    assert_allclose(slope, 2 * x, atol=1e-10)


def test_outputs_and_inputs_may_be_trees():
    def f(tree):
        return {"sum": tree["a"] + np.sum(tree["b"][0]), "product": tree["a"] * tree["b"][1]}

    slope = central_difference(f, {"a": 2.0, "b": [np.array([1.0, 3.0]), 5.0]}, 1e-2)
    assert_allclose(slope["sum"]["a"], 1.0)
    assert_allclose(slope["sum"]["b"][0], [1.0, 1.0])
    assert_allclose(slope["sum"]["b"][1], 0.0)
    assert_allclose(slope["product"]["a"], 5.0)
    assert_allclose(slope["product"]["b"][0], [0.0, 0.0])


@pytest.mark.parametrize("order", [2, 4])
def test_an_even_function_has_no_slope(order):
    assert slope_at_zero(lambda s: {"x": np.cos(s)}, 0.1, order)["x"] == 0.0
