"""Linear solvers against numpy: definite, indefinite, singular, without symmetry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mdsens.implicit import GMRES, ConjugateGradient, Dense, NearlySymmetric
from mdsens.implicit.linear import conjugate_gradient, gmres, solve

N = 40
rng = np.random.default_rng(1)
Q, _ = np.linalg.qr(rng.normal(size=(N, N)))
DEFINITE = jnp.asarray(Q @ np.diag(np.geomspace(1.0, 1e3, N)) @ Q.T)
CROOKED = jnp.asarray(np.asarray(DEFINITE) + 30 * np.triu(rng.normal(size=(N, N))))
# a Karush-Kuhn-Tucker matrix: symmetric, eigenvalues of both signs, and r . A r = 0 for the first residual
SADDLE = jnp.asarray(np.block([[np.eye(30), np.eye(30, 10)], [np.eye(10, 30), np.zeros((10, 10))]]))
B = jnp.asarray(rng.normal(size=N))
NONE, ONES = jnp.zeros(N), jnp.ones(N)


def distance(A, y, b):
    return float(jnp.linalg.norm(A @ y - b) / jnp.linalg.norm(b))


@jax.jit
def cg(A, b, start=None, shift=NONE, diagonal=ONES):
    """`shift`: a unit vector to project out, or zero."""
    project = lambda v: v - shift * (shift @ v)
    return conjugate_gradient(
        lambda v: A @ v, b, project, lambda v: v / diagonal, rtol=1e-12, max_steps=400, start=start
    )


def test_conjugate_gradients_solve_a_definite_system():
    result = cg(DEFINITE, B)
    assert distance(DEFINITE, result.solution, B) < 1e-11 and not result.negative
    # sqrt(condition) / 2 * ln(2 / rtol) = 450 is the bound. Conjugacy ends it about when the space is full,
    # in 70 to 90 steps: how many exactly is a matter of rounding, and so of the processor.
    assert N / 2 < result.steps <= 450


def test_a_good_start_saves_steps_and_a_perfect_one_all():
    A = DEFINITE / 100 + jnp.eye(N)
    exact = jnp.linalg.solve(A, B)
    cold, near = cg(A, B), cg(A, B, exact + 1e-8 * jnp.ones(N))
    assert near.steps < 0.6 * cold.steps  # eight of the twelve digits are there
    assert_allclose(near.solution, exact, rtol=1e-9)
    there = cg(jnp.eye(N), B, B)
    assert there.steps == 0
    assert_allclose(there.solution, B, atol=0)


def test_the_inverse_as_preconditioner_needs_one_step():
    A = jnp.diag(jnp.linspace(1.0, 1e6, N))
    assert cg(A, B, diagonal=jnp.diag(A)).steps <= 2


def test_a_null_space_is_left_alone():
    t = jnp.ones(N) / np.sqrt(N)
    P = jnp.eye(N) - jnp.outer(t, t)
    singular = P @ DEFINITE @ P
    result = cg(singular, B, shift=t)  # B has a part along t
    assert abs(t @ result.solution) < 1e-14
    assert_allclose(result.solution, jnp.linalg.pinv(singular, rtol=1e-12) @ B, rtol=0, atol=1e-10)


def test_negative_curvature_is_seen_and_leaves_a_way_down():
    values = jnp.linspace(1.0, 2.0, N).at[3].set(-0.5)
    result = cg(jnp.diag(values), B)
    assert result.negative and result.steps < N
    assert B @ result.solution > 0  # a Newton step p = A^-1 (-g) must still go against g = -B
    at_once = cg(-jnp.eye(N), B)
    assert at_once.negative
    assert_allclose(at_once.solution, B, atol=0)


@jax.jit
def run_gmres(A, b, diagonal=ONES):
    return gmres(
        lambda v: A @ v, b, precondition=lambda v: v / diagonal, rtol=1e-12, restart=15, max_steps=3000
    )


@pytest.mark.parametrize(
    "A",
    [DEFINITE / 100 + jnp.eye(N), CROOKED / 30 + 10 * jnp.eye(N), -jnp.eye(N)],
    ids=["symmetric", "crooked", "negative"],
)
def test_gmres_solves_with_a_space_smaller_than_the_system(A):
    y, residual, products = run_gmres(A, B)
    assert distance(A, y, B) < 1e-11
    assert_allclose(residual, jnp.linalg.norm(A @ y - B), rtol=1e-2, atol=1e-14)
    assert products < 400


def test_gmres_solves_a_saddle_matrix_where_the_residual_is_orthogonal_to_its_image():
    # methods that minimise along the residual itself (GCR) break down on this right-hand side
    b = jnp.asarray(np.r_[np.zeros(30), np.ones(10)])
    assert abs(b @ SADDLE @ b) == 0
    y, _, products = run_gmres(SADDLE, b)
    assert distance(SADDLE, y, b) < 1e-11 and products < 20  # few distinct eigenvalues


def test_gmres_uses_a_preconditioner_and_ends_at_once_without_a_load():
    A = jnp.diag(jnp.linspace(1.0, 1e6, N)).at[0, 1].set(5.0)
    assert run_gmres(A, B, jnp.diag(A))[2] < 10
    assert not np.any(run_gmres(A, jnp.zeros(N))[0])


def test_gmres_reports_the_residual_it_really_has():
    # singular: the part of B along the null vector stays
    A = jnp.eye(N).at[5, 5].set(0.0)
    _, residual, products = run_gmres(A, B)
    assert_allclose(residual, abs(B[5]), rtol=1e-9)
    assert products < 200  # stagnation is noticed


@pytest.mark.parametrize(
    "solver",
    [Dense(), GMRES(restart=15), NearlySymmetric(ConjugateGradient(), 3)],
    ids=["dense", "gmres", "nearly symmetric"],
)
def test_solvers_agree_on_a_block_of_loads_and_on_the_transpose(solver):
    K = jnp.zeros((N, N)).at[-3:, -3:].set(jnp.array([[0.0, 8.0, -3.0], [-8.0, 0.0, 1.0], [3.0, -1.0, 0.0]]))
    A = DEFINITE / 100 + jnp.eye(N) + K
    inverse = jnp.linalg.inv(A)
    loads = jnp.asarray(rng.normal(size=(4, N)))
    one = lambda b: solve(lambda v: A @ v, b, solver=solver, symmetric=False)
    assert_allclose(jax.jit(jax.vmap(one))(loads), loads @ inverse.T, atol=1e-10)
    back = jax.jit(jax.vmap(lambda g: jax.vjp(one, B)[1](g)[0]))(loads)
    assert_allclose(back, loads @ inverse, atol=1e-10)


def test_derivatives_of_the_operator_come_with_the_solve():
    A = CROOKED / 30 + 10 * jnp.eye(N)
    f = lambda s: jnp.sum(solve(lambda v: A @ v + s * v, B, solver=Dense(), symmetric=False) ** 2)
    exact = jax.jit(jax.grad(lambda s: jnp.sum(jnp.linalg.solve(A + s * jnp.eye(N), B) ** 2)))(0.3)
    assert_allclose(jax.jit(jax.grad(f))(0.3), exact, rtol=1e-11)
