"""Forces of a band, in closed form: what is left of the true force, and what the springs add."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mdsens.saddles.band import band_forces, tangents

SPRING = jnp.asarray(2.0)
STILL = jnp.array([False])


def band(*places) -> jnp.ndarray:
    """Images of one atom."""
    return jnp.asarray(places, float).reshape(-1, 1, 3)


CORNER = band([0, 0, 0], [1, 0, 0], [1, 2, 0])


@pytest.mark.parametrize(
    "energies, direction",
    [([0, 1, 2], [0, 1, 0]), ([2, 1, 0], [1, 0, 0])],
    ids=["rising: towards the next", "falling: from the one before"],
)
def test_tangents_point_to_the_higher_neighbor(energies, direction):
    t = tangents(jnp.asarray(energies, float), CORNER)
    assert_allclose(t[0, 0], direction, atol=1e-12)


@pytest.mark.parametrize("energies", [[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]], ids=["maximum", "minimum"])
def test_tangents_at_extrema_weigh_both_neighbors_by_their_energies(energies):
    # of the differences 1 and 0.5 the larger weighs the neighbor of higher energy
    ahead, behind = np.array([0, 2.0, 0]), np.array([1.0, 0, 0])
    next_is_higher = energies[2] > energies[0]
    expected = (1.0 * ahead + 0.5 * behind) if next_is_higher else (0.5 * ahead + 1.0 * behind)
    t = tangents(jnp.asarray(energies), CORNER)
    assert_allclose(t[0, 0], expected / np.linalg.norm(expected), atol=1e-12)


def test_tangents_of_a_flat_band_are_those_of_its_chord():
    t = tangents(jnp.zeros(3), CORNER)
    assert_allclose(t[0, 0], np.array([1, 2, 0]) / np.sqrt(5), atol=1e-12)


def test_an_image_feels_the_true_force_across_and_the_springs_along():
    energies = jnp.array([0.0, 1.0, 2.0])  # the tangent is y
    gradient = jnp.array([[[0.3, 0.7, -0.1]]])
    force, across = band_forces(energies, gradient, CORNER, SPRING, STILL)
    assert_allclose(across[0, 0], [-0.3, 0, 0.1], atol=1e-12)
    # springs: 2 eV/Å² times the difference of the lengths 2 and 1
    assert_allclose(force[0, 0], [-0.3, 2.0, 0.1], atol=1e-12)


def test_the_climbing_image_feels_the_force_along_the_path_upside_down():
    energies = jnp.array([0.0, 1.0, 2.0])
    gradient = jnp.array([[[0.3, 0.7, -0.1]]])
    force, across = band_forces(energies, gradient, CORNER, SPRING, ~STILL)
    assert_allclose(force[0, 0], [-0.3, 0.7, 0.1], atol=1e-12)
    assert_allclose(across, force)
