"""Errors of observables out of errors of parameters, where they are known in closed form."""

from types import SimpleNamespace

import numpy as np
import pytest
import triangle
from numpy.testing import assert_allclose
from triangle import ARGON, COVARIANCE, EPSILON, ERRORS, OBSERVED, SIDE, SIGMA, TRIANGLE

import mdsens as ms
from mdsens.errors import InputError
from mdsens.uncertainty import MonteCarlo, ParameterDistribution, monte_carlo, propagate

DENSITY_OF = -3 * EPSILON / (SIDE * SIGMA) ** 3


@pytest.fixture(scope="module")
def relaxed():
    return ms.relax(ARGON, TRIANGLE, fmax=1e-10)


@pytest.fixture(scope="module")
def first(relaxed):
    return propagate(OBSERVED, ARGON, relaxed, triangle.distribution(), second_order=False)


@pytest.fixture(scope="module")
def second(relaxed):
    return propagate(OBSERVED, ARGON, relaxed, triangle.distribution(), second_order=True)


def test_errors_of_energy_and_distance_are_those_of_epsilon_and_sigma(first):
    assert first.observables == ("energy", "distance", "density") and first.order == "first order"
    assert_allclose(first.values, [-3 * EPSILON, SIDE * SIGMA, DENSITY_OF], rtol=1e-10)
    # E = -3 epsilon, r = 2^(1/6) sigma, and E/r³ has the relative changes e - 3 s
    relative = np.sqrt(0.02**2 + 9 * 0.01**2 - 6 * 0.5 * 0.02 * 0.01)
    assert_allclose(first.errors, [3 * ERRORS[0], SIDE * ERRORS[1], relative * -DENSITY_OF], rtol=1e-9)
    # a larger sigma comes with a larger epsilon, and that with a lower energy
    assert_allclose(first.correlation[0, 1], -0.5, rtol=1e-9)
    assert np.isnan(first.nonlinearity).all()


def test_shares_of_the_parameters_add_up_to_the_variance(first):
    assert_allclose(first.contributions.sum(1), 1, rtol=1e-12)
    assert_allclose(first.contributions[:2], [[1, 0], [0, 1]], atol=1e-9)
    # (a + b)² = a (a + rho b) + b (b + rho a), of a = 2 % and b = -3 %
    a, b, rho = 0.02, -0.03, 0.5
    total = a * a + b * b + 2 * rho * a * b
    assert_allclose(first.contributions[2], [a * (a + rho * b) / total, b * (b + rho * a) / total], rtol=1e-8)


def test_second_order_is_that_of_the_closed_form(second):
    # D = c epsilon sigma^-3: in relative changes D (e - 3 s - 3 e s + 6 s²)
    H = DENSITY_OF * np.array([[0, -3], [-3, 12]]) / np.outer([EPSILON, SIGMA], [EPSILON, SIGMA])
    assert_allclose(second.second.shift[2], np.trace(H @ COVARIANCE) / 2, rtol=1e-5)
    assert_allclose(second.second.covariance[2, 2], np.trace(H @ COVARIANCE @ H @ COVARIANCE) / 2, rtol=1e-5)
    assert_allclose(second.second.shift[:2], 0, atol=1e-9)
    assert_allclose(second.means, second.values + second.second.shift)
    assert_allclose(second.second.covered, 1, rtol=1e-12)
    # along its own direction D moves by sigma_D, and its curvature there is u^T H u
    u = COVARIANCE @ second.jacobian[2] / np.sqrt(second.first_covariance[2, 2])
    bend = abs(u @ H @ u) / (2 * np.sqrt(second.first_covariance[2, 2]))
    # differences over a tenth of sigma feel the fourth order, 1e-3 of it
    assert_allclose(second.nonlinearity, [0, 0, bend], rtol=1e-2, atol=1e-7)


def test_the_order_is_the_one_that_is_needed(relaxed):
    narrow = propagate(OBSERVED, ARGON, relaxed, triangle.distribution())
    assert narrow.second is None and narrow.nonlinearity.max() < 0.1
    wide = propagate(OBSERVED, ARGON, relaxed, triangle.distribution(10.0))
    assert wide.second is not None and wide.nonlinearity.max() > 0.1
    assert "second order" in wide.table().title and "first order" in narrow.table().title


def test_fewer_directions_say_what_they_cover(relaxed):
    found = propagate(OBSERVED, ARGON, relaxed, triangle.distribution(), second_order=True, directions=1)
    assert found.second.curvatures.shape == (3, 1, 1) and 0 < found.second.covered < 1


def test_draws_that_are_relaxed_again_are_those_of_the_closed_form(relaxed, second):
    drawn = monte_carlo(OBSERVED, ARGON, relaxed, triangle.distribution(), draws=40, seed=3)
    epsilon, sigma = triangle.distribution().draw(40, 3).T
    exact = np.stack([-3 * epsilon, SIDE * sigma, -3 * epsilon / (SIDE * sigma) ** 3], axis=1)
    assert_allclose(drawn.values, exact, rtol=1e-9)
    assert not drawn.lost
    for off in drawn.against(second):
        assert np.abs(off).max() < 4
    # samples without relaxations: third order, (3 %)³ times ten
    made = second.with_samples(40, 3)
    assert_allclose(made.samples[:, :2], exact[:, :2], rtol=1e-8)
    assert_allclose(made.samples[:, 2], exact[:, 2], rtol=2e-3)


def test_three_draws_are_enough_for_an_error_of_their_error():
    alike = MonteCarlo(("a", "b"), ("eV", "eV"), np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]), {})
    assert_allclose(alike.errors, [1, 0])
    # at least s / sqrt(2 n); b does not move
    assert_allclose(alike.error_errors, [1 / np.sqrt(6), 0])
    found = SimpleNamespace(means=np.array([1.0, 1.0]), errors=np.array([2.0, 0.0]))
    assert_allclose(alike.against(found), [[0, 0], [np.sqrt(6), 0]])


def test_independent_errors_are_those_of_a_diagonal_matrix(relaxed):
    names = {"sigma": ERRORS[1], "epsilon": ERRORS[0]}
    alone = ParameterDistribution.from_errors(ARGON, names)
    found = propagate(OBSERVED, ARGON, relaxed, alone, second_order=True)
    matrix = ParameterDistribution.from_covariance(ARGON, np.diag(ERRORS**2))
    other = propagate(OBSERVED, ARGON, relaxed, matrix, second_order=True)
    assert found.distribution.names == ("sigma", "epsilon")
    assert_allclose(found.covariance, other.covariance, rtol=1e-8, atol=1e-16)


def test_means_are_put_into_the_potential(relaxed):
    other = ParameterDistribution.from_covariance(ARGON, COVARIANCE, mean=[2 * EPSILON, SIGMA])
    found = propagate(["energy"], ARGON, relaxed, other, second_order=False)
    assert_allclose(found.values, -6 * EPSILON, rtol=1e-10)


def test_what_cannot_be_propagated_is_refused(relaxed):
    with pytest.raises(InputError, match=r"the distribution must be a ParameterDistribution, not ndarray"):
        propagate(OBSERVED, ARGON, relaxed, COVARIANCE)
    morse = ms.Morse(0.1, 1.0, 3.0, elements=("Ar",))
    foreign = ParameterDistribution.from_errors(morse, {"D0": 0.01})
    with pytest.raises(InputError, match=r"D0"):
        propagate(OBSERVED, ARGON, relaxed, foreign)
    with pytest.raises(InputError, match=r"cell has no entry for structure"):
        propagate(["energy"], ARGON, TRIANGLE, triangle.distribution(), cell={"bulk": None})
    with pytest.raises(InputError, match=r"directions = 0"):
        propagate(OBSERVED, ARGON, relaxed, triangle.distribution(), directions=0)


def test_reports_are_written_and_read(first, second, tmp_path):
    lines = (tmp_path / "u.csv", tmp_path / "u.h5", tmp_path / "u.png")
    second.with_samples(5).to_hdf5(lines[1])
    first.to_csv(lines[0])
    first.plot(lines[2])
    read = ms.read_hdf5(lines[1])
    assert read["order"] == "second order" and read["samples"].value.shape == (5, 3)
    assert_allclose(read["covariance"].value, second.covariance)
    rows = lines[0].read_text().splitlines()
    assert rows[0].startswith("observable,unit,value,mean,error") and rows[1].startswith("energy,eV,-0.0312")
    assert first.table().row_count == first.contribution_table().row_count == 3
    assert lines[2].stat().st_size > 1000
