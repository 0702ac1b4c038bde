"""The elastic preconditioner: symmetric, positive definite, and what it is for.

Steps that do not grow with the box.
"""

import ase.build
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.implicit.linear import conjugate_gradient
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.strain import UNIT_STRAINS


def vacancy(cubes):
    """State of an ideal silicon vacancy, cell free.

    A minimum with zero forces, so nothing has to be relaxed first.
    """
    atoms = ase.build.bulk("Si", cubic=True, a=5.430949778405213) * (cubes, cubes, cubes)
    del atoms[0]
    structure = ms.Structure.from_ase(atoms)
    potential = references.potential(references.table("stillinger_weber")["sw-si-vacancy-63"])
    state = Equilibrium.at(potential, structure, UNIT_STRAINS, skin=0.0)
    return state, state.w


def response_to_a_dipole(state, w, use):
    return _response(state.landscape, state.gauge, state.preconditioner, w, use)


@eqx.filter_jit
def _response(landscape, gauge, preconditioner, w, use):
    """Products needed to find how the crystal gives way to forces that push two neighbors apart."""
    x = landscape.coordinates.reference.positions
    away = jnp.sum(x**2, axis=1)
    i, j = jnp.argsort(away)[:2]
    pull = jnp.zeros_like(x).at[i].set(x[i] - x[j]).at[j].set(x[j] - x[i])
    b = jnp.concatenate([pull.reshape(-1), jnp.zeros(w.shape[0] - x.size)])
    precondition = lambda v: jnp.where(use, preconditioner(v), v)
    return conjugate_gradient(lambda v: landscape.product(w, v), b, gauge.project, precondition, rtol=1e-9)


@pytest.fixture(scope="module")
def medium():
    return vacancy(3)


def test_it_is_symmetric_and_positive_definite_strains_included(medium):
    scene, w = medium
    assert np.prod(scene.preconditioner.grid) > 1  # the waves are there
    M = jax.jit(jax.vmap(scene.preconditioner))(jnp.eye(len(w)))
    assert_allclose(M, M.T, rtol=0, atol=1e-14 * float(jnp.max(jnp.abs(M))))
    values = np.linalg.eigvalsh(M)
    assert values[0] > 0 and values[-1] / values[0] < 1e4


def test_it_saves_steps_and_changes_nothing_else(medium):
    with_it, without = (response_to_a_dipole(*medium, jnp.array(use)) for use in (True, False))
    assert not with_it.negative
    assert_allclose(
        with_it.solution, without.solution, rtol=0, atol=1e-7 * float(jnp.max(jnp.abs(without.solution)))
    )
    assert with_it.steps < 0.8 * without.steps


def test_steps_hardly_grow_from_two_hundred_to_a_thousand_atoms(medium):
    few, many = (int(response_to_a_dipole(*scene, jnp.array(True)).steps) for scene in (medium, vacancy(5)))
    assert many <= 1.3 * few, (few, many)  # without it: in proportion to the edge of the box
