"""How strongly maps contract, against singular values and eigenvalues of matrices; which bounds hold."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError

RNG = np.random.default_rng(1)
POSITIVE = RNG.uniform(0.2, 1.0, size=(5, 5))


def rooted(x):
    return jnp.sqrt(POSITIVE @ x) + 0.1


def matrix(norm):
    values = RNG.normal(size=(5, 5))
    return norm / np.linalg.norm(values, 2) * values


@pytest.mark.parametrize("norm", [0.7, 3.0])
def test_norm_and_radius_are_those_of_the_matrix(norm):
    A = matrix(norm)
    found = ms.contraction(lambda x: A @ x, jnp.ones(5), steps=2000)
    assert_allclose(found.norm, norm, rtol=1e-6)
    # pairs of complex eigenvalues let the growth swing
    assert_allclose(found.radius, np.max(np.abs(np.linalg.eigvals(A))), rtol=1e-2)


def test_the_fixed_point_of_an_affine_map_is_within_the_distance_stated():
    A, b, x = matrix(0.9), RNG.normal(size=5), jnp.ones(5)
    found = ms.contraction(lambda x, b: A @ x + b, x, b)
    exact = np.linalg.solve(np.eye(5) - A, b)
    assert np.linalg.norm(x - exact) <= found.distance
    assert "the map contracts: a step by 0.9 at most" in str(found)


def test_a_map_that_expands_says_so():
    found = ms.contraction(lambda x: 2 * x, jnp.ones(3))
    assert found.distance == np.inf
    assert "the map expands" in str(found)


def test_a_rotation_into_less_contracts_in_the_end():
    A = jnp.array([[0.5, 3.0], [0.0, 0.4]])
    found = ms.contraction(lambda x: A @ x, jnp.ones(2), steps=400)
    assert "contracts in the end" in str(found)
    assert_allclose(found.radius, 0.5, rtol=1e-6)


def test_the_degree_of_a_power_is_its_exponent():
    assert_allclose(ms.homogeneity(lambda x: x**0.3, jnp.array([0.5, 2.0])), 0.3)
    # a root of sums has the degree one half, and what is added takes from it
    assert ms.homogeneity(rooted, jnp.ones(5)) < 0.5


def test_thompsons_distance_is_that_of_the_logarithms():
    assert_allclose(ms.thompson_distance(jnp.array([1.0, 2.0]), jnp.array([2.0, 1.0])), np.log(2))


def test_no_component_is_farther_from_the_fixed_point_than_the_bound_says():
    exact = ms.find_fixed_point(rooted, jnp.ones(5), solver=ms.Anderson(rtol=1e-14)).x
    for rtol in (1e-2, 1e-5, 1e-9):
        solver = ms.PositivePicard(degree=0.5, rtol=rtol)
        found = ms.find_fixed_point(rooted, 100 * jnp.ones(5), solver=solver)
        distance = float(ms.thompson_distance(found.x, exact))
        assert 1e-4 * rtol < distance <= rtol


def test_an_expanding_map_of_positive_numbers_is_refused():
    with pytest.raises(InputError, match=r"degree = 1.0: .*below 1"):
        ms.PositivePicard(degree=1.0)
    with pytest.raises(InputError, match="T\\(x\\) has the entry -1"):
        ms.homogeneity(lambda x: x - 2, jnp.ones(2))
    with pytest.raises(InputError, match="x has the entry 0"):
        ms.homogeneity(rooted, jnp.zeros(5))
