"""Atoms farther apart than the radius of their list relax, and answer, like any others."""

import jax
import jax.numpy as jnp
import numpy as np
from far_charges import WELL, FarCharges, four
from numpy.testing import assert_allclose

import mdsens as ms


def edge(potential):
    """Edge of the tetrahedron in which four charges come to rest, Å."""
    x = ms.relax(potential, four()).structure.positions
    return jnp.linalg.norm(x[1] - x[0])


def test_charges_beyond_the_list_relax_to_zero_true_force_and_move_with_their_charge():
    charges = FarCharges(1.3, 1.0)
    relaxed = ms.relax(charges, four())
    assert not np.any(relaxed.neighbors.valid)
    forces = -jax.grad(lambda x: charges.energy(four().at(x), relaxed.neighbors))(relaxed.structure.positions)
    assert np.abs(forces).max() < 1e-8
    # In a regular tetrahedron every pair is at rest by itself: q² = k (r - WELL) r², so
    #     dr/dq = 2 q / [k r (3 r - 2 WELL)].
    r = float(edge(charges))
    assert_allclose((r - WELL) * r**2, 1.3**2, rtol=1e-9)
    slope = jax.grad(edge)(charges)
    assert_allclose(slope.q, 2 * 1.3 / (r * (3 * r - 2 * WELL)), rtol=1e-9)
