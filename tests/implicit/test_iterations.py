"""Fixed points: what the solvers find, how soon they stop, and derivatives of what they found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError, NotConvergedError
from mdsens.implicit.linear import identity

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(6, 6))
MATRIX *= 0.8 / np.linalg.norm(MATRIX, 2)
SHIFT = RNG.normal(size=6)


def affine(x, theta):
    return theta["scale"] * MATRIX @ x + theta["shift"]


THETA = {"scale": jnp.asarray(1.0), "shift": jnp.asarray(SHIFT)}
EXACT = np.linalg.solve(np.eye(6) - MATRIX, SHIFT)


def swinging(x, a):
    return jnp.tanh(a * jnp.roll(x, 1)) + 0.3 * jnp.cos(x)


@pytest.mark.parametrize(
    "solver", [ms.Picard(), ms.Anderson(), ms.Halpern(rtol=1e-4)], ids=lambda s: type(s).__name__
)
def test_every_solver_finds_the_fixed_point_of_an_affine_map(solver):
    found = ms.find_fixed_point(affine, jnp.zeros(6), THETA, solver=solver)
    allowed = solver.rtol * np.linalg.norm(EXACT) / (1 - 0.8)
    assert np.linalg.norm(found.x - EXACT) < allowed
    assert found.status == f"converged in {int(found.steps)} steps"


def test_anderson_ends_after_as_many_steps_as_there_are_unknowns_even_where_the_map_expands():
    theta = {"scale": jnp.asarray(-5.0), "shift": THETA["shift"]}
    found = ms.find_fixed_point(affine, jnp.zeros(6), theta, solver=ms.Anderson(history=6, rtol=1e-10))
    assert_allclose(found.x, np.linalg.solve(np.eye(6) + 5 * MATRIX, SHIFT), rtol=1e-8)
    assert found.steps < 30


def test_halpern_keeps_its_bound_where_picard_circles_for_ever():
    turn = jnp.array([[0.0, -1.0], [1.0, 0.0]])
    map = lambda x: turn @ x
    start = jnp.array([3.0, 4.0])
    halpern = ms.Halpern(rtol=0.0, atol=0.0, max_steps=200)
    found = ms.find_fixed_point(map, start, solver=halpern, throw=False)
    assert found.residual <= ms.Halpern.residual_bound(5.0, 199)
    circling = ms.find_fixed_point(map, start, solver=ms.Picard(max_steps=200), throw=False)
    assert_allclose(circling.residual, 5 * np.sqrt(2))
    assert circling.status == "stopped after 200 steps, 7.1e+00 from its image"


@pytest.mark.parametrize("linear_solver", [None, ms.Iterated(ms.Picard()), ms.Iterated()])
def test_derivatives_of_a_fixed_point_are_right_at_both_orders(linear_solver):
    start = jnp.full(3, 0.1)
    find = lambda a: ms.find_fixed_point(swinging, start, a, linear_solver=linear_solver).x
    a, step = jnp.asarray(0.4), 1e-4
    slope = lambda a: jax.jvp(find, (a,), (1.0,))[1]
    twin = (find(a + step) - find(a - step)) / (2 * step)
    assert_allclose(slope(a), twin, rtol=1e-7)  # step² times the third derivative
    assert_allclose(jax.jacrev(find)(a), slope(a), rtol=1e-10)
    bent = jax.jacfwd(jax.jacrev(find))(a)
    assert_allclose(bent, (slope(a + step) - slope(a - step)) / (2 * step), rtol=1e-6)


def test_a_fixed_point_may_be_looked_for_under_jit():
    found = jax.jit(lambda a: ms.find_fixed_point(swinging, jnp.full(3, 0.1), a).x)(0.4)
    assert_allclose(found, ms.find_fixed_point(swinging, jnp.full(3, 0.1), 0.4).x, rtol=1e-12)


def test_a_map_that_expands_is_reported_with_the_last_point():
    theta = {"scale": jnp.asarray(5.0), "shift": THETA["shift"]}
    with pytest.raises(NotConvergedError, match=r"was not found: .*Anderson") as raised:
        ms.find_fixed_point(affine, jnp.zeros(6), theta, solver=ms.Picard(max_steps=50))
    assert raised.value.partial.x.shape == (6,)


def test_a_map_that_leaves_the_numbers_stops_at_once():
    found = ms.find_fixed_point(lambda x: jnp.log(x - 1.0), jnp.zeros(2), throw=False)
    assert found.status == "diverged within 1 steps"


def test_an_image_of_another_form_is_refused():
    with pytest.raises(InputError, match="must have the form of x"):
        ms.find_fixed_point(lambda x: x[:2], jnp.zeros(3))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ms.Picard(mixing=0.0),
        lambda: ms.Anderson(history=0),
        lambda: ms.Halpern(max_steps=0),
        lambda: ms.Picard(rtol=-1.0),
        lambda: ms.find_fixed_point(jnp.cos, jnp.zeros(2), solver="picard"),
    ],
)
def test_solvers_check_what_they_are_given(wrong):
    with pytest.raises(InputError):
        wrong()


def test_a_linear_solve_by_iteration_is_the_solution():
    product = lambda y: y - MATRIX @ y
    y = ms.Iterated(ms.Picard()).solve(product, jnp.asarray(SHIFT), identity, identity)
    assert_allclose(y, EXACT, rtol=1e-11)


def test_a_linear_solve_by_an_expanding_iteration_is_an_error():
    product = lambda y: y - 5 * MATRIX @ y
    with pytest.raises(Exception, match="the map expands"):
        ms.Iterated(ms.Picard(max_steps=30)).solve(product, jnp.asarray(SHIFT), identity, identity)
