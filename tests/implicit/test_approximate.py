"""Cheap solves are off by what their formulas say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.implicit.approximate import Neumann, Ridge, TruncatedCG
from mdsens.implicit.linear import identity

VALUES = np.array([0.01, 0.3, 1.0, 4.0])
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
A = TURN @ np.diag(VALUES) @ TURN.T
B = jnp.asarray(TURN @ np.ones(4))
PARTS = {  # what each mode is of what it should be
    "neumann": (Neumann(terms=50, step=0.25), 1 - (1 - 0.25 * VALUES) ** 50),
    "ridge": (Ridge(0.1), VALUES / (VALUES + 0.1)),
    "truncated, to the end": (TruncatedCG(4), np.ones(4)),
}


@pytest.mark.parametrize("name", PARTS)
def test_each_mode_is_off_by_the_formula(name):
    solver, part = PARTS[name]
    y = solver.solve(lambda v: A @ v, B, identity, identity)
    assert_allclose(TURN.T @ y * VALUES, part, rtol=1e-8)


def test_an_unrolled_descent_is_neumanns_series():
    theta, K, s = jnp.asarray(0.7), 12, 0.25
    loss = lambda x, theta: x @ A @ x / 2 - theta * B @ x
    solution = jnp.linalg.solve(A, theta * B)

    def unrolled(theta):
        x = solution
        for _ in range(K):
            x = x - s * jax.grad(loss)(x, theta)
        return x

    series = Neumann(terms=K, step=s).solve(lambda v: A @ v, B, identity, identity)
    assert_allclose(jax.jacfwd(unrolled)(theta), series, rtol=1e-12)


def test_truncated_conjugate_gradients_are_nearer_than_neumanns_series_of_as_many_products():
    exact = np.linalg.solve(A, B)
    error = lambda solver: np.linalg.norm(solver.solve(lambda v: A @ v, B, identity, identity) - exact)
    assert error(TruncatedCG(3)) < error(Neumann(terms=3, step=0.25))


def test_a_relaxation_takes_them_for_its_derivative():
    trimer = ms.Structure.create([[0, 0, 0], [1.1, 0, 0], [0.5, 1.0, 0]], ["Ar"] * 3)

    def spread(epsilon, solver):
        pairs = ms.LennardJones(epsilon, 1.0, ("Ar",), np.inf, ms.Truncated())
        springs = ms.Morse(1.0, 2.0, 1.3, ("Ar",), cutoff_radius=np.inf, cut=ms.Truncated())
        x = ms.relax(pairs + springs, trimer, fmax=1e-10, linear_solver=solver).structure.positions
        return jnp.linalg.norm(x[1] - x[0])

    slopes = [float(jax.grad(spread)(1.0, solver)) for solver in (None, Ridge(1e-8), Ridge(50.0))]
    assert_allclose(slopes[1], slopes[0], rtol=1e-6)
    assert abs(slopes[2]) < 0.9 * abs(slopes[0])


@pytest.mark.parametrize(
    "wrong", [lambda: Neumann(0, 0.1), lambda: Neumann(3, -1.0), lambda: Ridge(0.0), lambda: TruncatedCG(0)]
)
def test_what_has_no_meaning_is_refused(wrong):
    with pytest.raises(InputError):
        wrong()
