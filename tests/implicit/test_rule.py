"""Any solver becomes differentiable: closed forms, finite differences, and what is refused."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mdsens.errors import InputError, NotConvergedError, PrecisionError
from mdsens.implicit import GMRES, ConjugateGradient, Dense, fixed_point, root

MODES = pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev], ids=["forward", "reverse"])
rng = np.random.default_rng(0)


# --- ridge regression: x = (X^T X + lambda)^-1 X^T y, found by a program JAX cannot see into
# -------------------------

FEATURES, TARGETS = jnp.asarray(rng.normal(size=(12, 4))), jnp.asarray(rng.normal(size=12))


def ridge_loss(x, strength, features):
    return 0.5 * jnp.sum((features @ x - TARGETS) ** 2) + 0.5 * strength * jnp.sum(x**2)


def ridge_on_host(init, strength, features):
    X = np.asarray(features)
    return np.linalg.solve(X.T @ X + float(strength) * np.eye(4), X.T @ np.asarray(TARGETS))


def ridge_formula(strength, features):
    return jnp.linalg.solve(features.T @ features + strength * jnp.eye(4), features.T @ TARGETS)


ridge = root(jax.grad(ridge_loss), ridge_on_host, symmetric=True)


@MODES
def test_ridge_regression_moves_as_its_closed_form(mode):
    mine = mode(ridge, argnums=(1, 2))(jnp.zeros(4), jnp.array(0.7), FEATURES)
    exact = jax.jit(mode(ridge_formula, argnums=(0, 1)))(jnp.array(0.7), FEATURES)
    for a, b in zip(mine, exact, strict=True):
        assert_allclose(a, b, rtol=1e-11, atol=1e-13)  # two dense solves of condition number ~10


@pytest.mark.parametrize(
    ("first", "second"),
    [(jax.jacrev, jax.jacfwd), (jax.jacrev, jax.jacrev)],
    ids=["forward-reverse", "reverse-reverse"],
)
def test_second_derivatives_come_from_the_same_rule(first, second):
    mine = second(first(lambda s: ridge(jnp.zeros(4), s, FEATURES)))(jnp.array(0.7))
    exact = jax.hessian(lambda s: ridge_formula(s, FEATURES))(jnp.array(0.7))
    assert_allclose(mine, exact, rtol=1e-10)


def test_the_start_has_no_derivative():
    assert not np.any(jax.jacfwd(ridge)(jnp.ones(4), jnp.array(0.7), FEATURES))


# --- fixed points ---------------------------------------------------------------------------------


def heron(x, a):
    return (x + a / x) / 2


def iterate_heron(init, a):
    return jax.lax.fori_loop(0, 40, lambda _, x: heron(x, a), init)


def test_square_root_by_iteration_has_the_derivatives_of_the_square_root():
    # at the fixed point dT/dx = 0: A = 1, and all of the derivative is dT/da
    square_root = fixed_point(heron, iterate_heron)
    f = lambda a: square_root(jnp.array(1.0), a)
    a = jnp.array(2.0)
    first, second, third = jax.jit(
        lambda a: (jax.grad(f)(a), jax.grad(jax.grad(f))(a), jax.jacfwd(jax.grad(jax.grad(f)))(a))
    )(a)
    assert_allclose([first, second, third], [0.5 / np.sqrt(2), -0.25 * 2**-1.5, 0.375 * 2**-2.5], rtol=1e-13)


def test_plain_numbers_of_python_are_parameters():
    # Kepler: E - e sin E = M, so dE/dM = 1 / (1 - e cos E)
    newton = lambda E, e, M: jax.lax.fori_loop(
        0, 8, lambda _, E: E - (E - e * jnp.sin(E) - M) / (1 - e * jnp.cos(E)), E
    )
    anomaly = root(lambda E, e, M: E - e * jnp.sin(E) - M, newton)
    slope = jax.grad(anomaly, argnums=2)(1.0, 0.3, 1.0)
    assert_allclose(
        slope, 1 / (1 - 0.3 * np.cos(anomaly(1.0, 0.3, 1.0))), rtol=1e-14
    )  # rounding of two divisions


def test_a_solver_jax_can_trace_works_under_jit_and_vmap():
    square_root = fixed_point(heron, iterate_heron)
    a = jnp.array([1.0, 2.0, 5.0])
    slopes = jax.jit(jax.vmap(jax.value_and_grad(lambda a: square_root(jnp.array(1.0), a))))(a)
    assert_allclose(slopes[0], np.sqrt(a), rtol=1e-14)
    assert_allclose(slopes[1], 0.5 / np.sqrt(a), rtol=1e-13)


# --- a quadratic program through its Karush-Kuhn-Tucker conditions
# ----------------------------------------------------

Q = jnp.array([[3.0, 0.5, 0.2], [0.5, 2.0, 0.1], [0.2, 0.1, 1.5]])
E = jnp.array([[1.0, 1.0, 1.0]])
G = jnp.array([[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
QP = (jnp.array([1.0, -1.0, -2.0]), jnp.array([1.0]), jnp.array([0.0, 0.0, 0.4]))  # c, d, h


def karush_kuhn_tucker(x, theta):
    """min z.Qz/2 + c.z with Ez = d, Gz <= h.

    Stationary, feasible, and either a constraint or its multiplier is zero.
    """
    (z, nu, lam), (c, d, h) = x, theta
    return Q @ z + c + E.T @ nu + G.T @ lam, E @ z - d, lam * (G @ z - h)


@functools.partial(jax.jit, static_argnums=1)
def active_system(theta, active):
    c, d, h = theta
    C = jnp.concatenate([E, G[jnp.array(active, int)]])
    matrix = jnp.block([[Q, C.T], [C, jnp.zeros((len(C), len(C)))]])
    solution = jnp.linalg.solve(matrix, jnp.concatenate([-c, d, h[jnp.array(active, int)]]))
    return solution[:3], solution[3:4], jnp.zeros(3).at[jnp.array(active, int)].set(solution[4:])


def try_active_sets(init, theta):
    for size in range(3):
        for active in itertools.combinations(range(3), size):
            z, nu, lam = active_system(theta, active)
            if np.all(np.asarray(G) @ z <= np.asarray(theta[2]) + 1e-12) and np.all(np.asarray(lam) >= 0):
                return z, nu, lam
    raise AssertionError("infeasible")


@MODES
def test_constrained_optimum_and_its_multipliers_move_as_in_closed_form(mode):
    solution = root(karush_kuhn_tucker, try_active_sets)
    start = (jnp.zeros(3), jnp.zeros(1), jnp.zeros(3))
    _, _, multipliers = solution(start, QP)
    active = tuple(np.flatnonzero(multipliers > 0).tolist())
    assert 0 < len(active) < 3  # constraints of both kinds are tested
    mine = mode(lambda theta: solution(start, theta))(QP)
    exact = jax.jit(jax.jacfwd(lambda theta: active_system(theta, active)))(QP)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(exact), strict=True):
        assert_allclose(a, b, atol=1e-13)


# --- operators without symmetry, pytrees, null spaces
# ---------------------------------------------------------------------

COUPLING = jnp.asarray(np.eye(6) * 3 + rng.normal(size=(6, 6)) * 0.5)


def crooked(x, theta):
    return COUPLING @ x + theta["strength"] * jnp.tanh(x) - theta["load"]


def newton(init, theta):
    x = np.asarray(init)
    for _ in range(20):
        x = x - np.linalg.solve(np.asarray(crooked_slope(x, theta)), np.asarray(crooked(x, theta)))
    return x


crooked_slope = jax.jit(jax.jacfwd(crooked))


@pytest.mark.parametrize("linear_solver", [None, GMRES(restart=4)], ids=["default", "gmres"])
def test_without_symmetry_forward_is_reverse_is_finite_difference(linear_solver):
    theta = {"strength": jnp.array(0.8), "load": jnp.arange(6.0)}
    solution = root(crooked, newton, linear_solver=linear_solver)
    f = lambda theta: solution(jnp.zeros(6), theta)
    forward, reverse = jax.jacfwd(f)(theta), jax.jacrev(f)(theta)
    h = 1e-5
    for name, leaf in theta.items():
        assert_allclose(forward[name], reverse[name], atol=1e-11)
        direction = jnp.ones_like(leaf)
        twin = (f(theta | {name: leaf + h}) - f(theta | {name: leaf - h})) / (2 * h)
        # rounding 1e-15 / 1e-5, truncation h² times a third derivative of order one
        assert_allclose(jnp.tensordot(forward[name], direction, leaf.ndim), twin, atol=1e-9)


class Well(eqx.Module):
    """Parameters among other things: a static name, an array of integers."""

    depth: jax.Array
    place: jax.Array
    counts: jax.Array
    name: str = eqx.field(static=True)


def test_x_and_theta_are_any_pytrees():
    def optimality(x, well, scale):
        return {
            "a": well.depth * (x["a"] - well.place),
            "b": well.depth * (x["b"] - scale * well.place) - jnp.sum(well.counts),
        }

    def solver(init, well, scale):
        place, load = np.asarray(well.place), np.sum(np.asarray(well.counts))
        return {
            "a": place,
            "b": scale * place + load / float(well.depth),
            "steps": jnp.array(3),
            "by": "hand",
        }

    well = Well(jnp.array(2.0), jnp.array([1.0, 3.0]), jnp.array([1, 2]), "silicon")
    solution = root(optimality, solver, symmetric=True)
    x = solution(None, well, 1.5)
    assert x["by"] == "hand" and int(x["steps"]) == 3
    slope = eqx.filter_grad(lambda well: jnp.sum(solution(None, well, 1.5)["b"]))(well)
    assert_allclose(slope.place, [1.5, 1.5], rtol=1e-14)
    assert_allclose(slope.depth, -2 * 3 / 4, rtol=1e-14)  # d/d depth of 2 (1 + 2) / depth
    assert slope.counts is None


def chain_energy(x, stiffness):
    # a ring of anharmonic springs: shifting all of it costs nothing
    stretch = jnp.roll(x, -1) - x - jnp.linspace(-1.0, 1.5, x.shape[0])
    return jnp.sum(stiffness * (stretch**2 / 2 + stretch**4 / 4))


@jax.jit
def relax_chain(init, stiffness):
    gradient, hessian = jax.grad(chain_energy), jax.hessian(chain_energy)
    pinned = jnp.ones((init.shape[0],) * 2)  # a weight on the mean: same shape of the chain, mean zero
    step = lambda _, x: (
        x - jnp.linalg.solve(hessian(x, stiffness) + pinned, gradient(x, stiffness) + pinned @ x)
    )
    return jax.lax.fori_loop(0, 30, step, init)


def slide_free(linear_solver):
    solution = root(
        jax.grad(chain_energy),
        relax_chain,
        project=lambda v, x: v - jnp.mean(v),
        symmetric=True,
        linear_solver=linear_solver,
    )
    return lambda stiffness: solution(jnp.zeros(6), stiffness)


def twins(function, at, h=1e-4):
    return jnp.stack(
        [(function(at.at[k].add(h)) - function(at.at[k].add(-h))) / (2 * h) for k in range(6)], axis=-1
    )


@pytest.mark.parametrize("linear_solver", [Dense(), ConjugateGradient()], ids=["dense", "cg"])
def test_motions_that_cost_nothing_are_projected_out(linear_solver):
    f, stiffness = slide_free(linear_solver), jnp.linspace(1.0, 2.0, 6)
    forward, reverse = jax.jit(lambda s: (jax.jacfwd(f)(s), jax.jacrev(f)(s)))(stiffness)
    assert_allclose(forward, reverse, atol=1e-12)
    assert_allclose(jnp.mean(forward, axis=0), 0, atol=1e-14)
    assert_allclose(forward, twins(f, stiffness), atol=1e-8)  # truncation h²


def test_second_derivatives_keep_to_the_projector():
    f, stiffness = slide_free(ConjugateGradient()), jnp.linspace(1.0, 2.0, 6)
    slope = jax.jit(jax.jacrev(f))
    assert_allclose(jax.jit(jax.jacfwd(jax.jacrev(f)))(stiffness), twins(slope, stiffness), atol=1e-7)


@pytest.mark.parametrize("symmetric", [True, False], ids=["cg", "gmres"])
def test_systems_too_large_for_a_matrix_are_solved_by_products(symmetric):
    n = 1500
    skew = 0.0 if symmetric else 0.5
    springs = lambda x: 2.2 * x - (1 + skew) * jnp.roll(x, 1) - (1 - skew) * jnp.roll(x, -1)
    optimality = lambda x, load: springs(x) - load
    matrix = np.asarray(jax.vmap(springs)(jnp.eye(n))).T
    inverse = np.linalg.inv(matrix)
    solution = root(optimality, lambda init, load: inverse @ np.asarray(load), symmetric=symmetric)
    load, weight = jnp.asarray(rng.normal(size=n)), jnp.asarray(rng.normal(size=n))
    f = lambda load: solution(None, load)
    _, forward = jax.jvp(f, (load,), (weight,))
    (reverse,) = jax.vjp(f, load)[1](weight)
    assert_allclose(
        forward, inverse @ weight, rtol=0, atol=1e-9
    )  # rtol 1e-11 of the solver times the condition number
    assert_allclose(reverse, inverse.T @ weight, rtol=0, atol=1e-9)


# --- what is refused ------------------------------------------------------------------------------


def test_a_loss_instead_of_its_gradient_is_refused():
    with pytest.raises(InputError, match=r"as many equations as unknowns.*jax\.grad"):
        root(ridge_loss, ridge_on_host)(jnp.zeros(4), jnp.array(0.7), FEATURES)


def test_a_map_into_another_space_is_refused():
    with pytest.raises(InputError, match="must have the form of x"):
        fixed_point(lambda x, a: jnp.array([x, a]), iterate_heron)(jnp.array(1.0), jnp.array(2.0))


def test_a_point_that_is_no_solution_is_refused():
    lazy = lambda init, a: heron(heron(init, a), a)
    with pytest.raises(NotConvergedError, match=r"above check = 1.0e-06") as caught:
        fixed_point(heron, lazy)(jnp.array(1.0), jnp.array(2.0))
    assert_allclose(caught.value.partial, 17 / 12)
    assert_allclose(fixed_point(heron, lazy, check=0.1)(jnp.array(1.0), jnp.array(2.0)), 17 / 12)
    assert_allclose(fixed_point(heron, lazy, check=None)(jnp.array(1.0), jnp.array(2.0)), 17 / 12)
    with pytest.raises(Exception, match="above check"):
        jax.jit(fixed_point(heron, lazy))(jnp.array(1.0), jnp.array(2.0)).block_until_ready()


@pytest.mark.parametrize("linear_solver", [ConjugateGradient(), GMRES()], ids=["cg", "gmres"])
def test_a_singular_operator_is_an_error_not_a_number(linear_solver):
    # the mean of x is free, nobody projects it out, and the load has a part along it
    solution = root(
        lambda x, a: x - jnp.mean(x) + 0 * a, lambda init, a: jnp.zeros(4), linear_solver=linear_solver
    )
    broken = root(
        lambda x, a: x - jnp.mean(x) + a,
        lambda init, a: jnp.zeros(4),
        linear_solver=linear_solver,
        check=None,
    )
    assert not np.any(jax.jacfwd(lambda a: solution(None, a))(jnp.array(0.0)))
    with pytest.raises(Exception, match="did not converge"):
        jax.block_until_ready(jax.jacfwd(lambda a: broken(None, a))(jnp.array(0.0)))


def test_float32_is_refused():
    with jax.enable_x64(False), pytest.raises(PrecisionError, match="JAX_ENABLE_X64=1"):
        ridge(jnp.zeros(4), jnp.array(0.7), FEATURES)
