"""Derivatives by differences come with an error that covers what they are off by."""

import numpy as np
import pytest

from mdsens.potentials.programs.differences import difference

SMOOTH = {
    "sine": (lambda t: np.sin(3 * t + 0.4), 3 * np.cos(0.4)),
    "exponential": (lambda t: np.exp(-2 * t), -2.0),
    "rational": (lambda t: 1 / (1 + t) ** 2, -2.0),
    "quartic": (lambda t: 5 * t**4 + t, 1.0),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("step", [0.1, 4e-3])
def test_the_error_covers_the_deviation_and_is_small(name, step):
    function, exact = SMOOTH[name]
    found, error = difference(lambda t: np.array([function(t)]), step)
    assert abs(found[0] - exact) <= max(error[0], 1e-12)
    assert error[0] < 1e-8


@pytest.mark.parametrize("noise", [1e-10, 1e-7, 1e-5])
def test_noise_widens_the_steps_and_the_error_covers_it(noise):
    random = np.random.default_rng(4)
    within = 0
    for _ in range(20):
        noisy = lambda t: np.array([np.sin(t) + noise * random.uniform(-1, 1)])
        found, error = difference(noisy, 4e-3, noise)
        within += abs(found[0] - 1.0) <= 3 * error[0]
        assert error[0] < 300 * noise ** (2 / 3)  # steps of noise^(1/3)
    assert within >= 18  # the spread of a table is an estimate: of nine in ten, at least


def test_a_polynomial_of_second_degree_takes_two_steps_and_a_constant_has_no_slope():
    calls = []

    def parabola(t):
        calls.append(t)
        return np.array([3 * t + 7 * t**2, 1.0])

    found, error = difference(parabola, 0.5)
    np.testing.assert_allclose(found, [3.0, 0.0], atol=1e-14)
    assert len(calls) == 4
    assert error.max() < 1e-13


def test_every_component_has_its_own_error_and_the_shape_stays():
    function = lambda t: np.array([[np.sin(t), t], [np.exp(5 * t), 0.0]])
    found, error = difference(function, 1e-2)
    np.testing.assert_allclose(found, [[1.0, 1.0], [5.0, 0.0]], atol=1e-8)
    assert found.shape == error.shape == (2, 2)
    assert error[0, 1] < 1e-12
