"""The derivative of a relaxed state.

Forward = reverse = finite differences of re-relaxation, for all it depends on.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from states import SHEAR, cluster, copper

import mdsens as ms

FMAX = 1e-10


def random(*shape, seed=5):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def central_difference(function, x, direction, h):
    """Derivative of a pytree-valued function along a direction, to order h⁴."""
    at = lambda s: function(jax.tree.map(lambda a, d: a + s * h * d, x, direction))
    return jax.tree.map(lambda a, b, c, d: (8 * (b - c) - (a - d)) / (12 * h), at(2), at(1), at(-1), at(-2))


def random_like(tree):
    """A direction that changes every number by its own size, so that no parameter goes untested."""
    rng = np.random.default_rng(5)
    return jax.tree.map(
        lambda a: jnp.asarray(rng.uniform(0.5, 1.5, np.shape(a))) * jnp.where(a == 0, 0.001, a), tree
    )


def along(jacobian, direction):
    pairs = zip(jax.tree.leaves(jacobian), jax.tree.leaves(direction), strict=True)
    return sum(np.tensordot(j, d, np.ndim(d)) for j, d in pairs)


# --- a free cluster: parameters of both species, rotations in the gauge
# ------------------------------------------------


def test_cluster_forward_is_reverse_with_the_matrix_and_with_products():
    potential, start = cluster()
    positions = lambda p, linear_solver=None: (
        ms.relax(p, start, fmax=FMAX, linear_solver=linear_solver).structure.positions
    )
    forward = jax.jacfwd(positions)(potential)
    for reverse in (
        jax.jacrev(positions)(potential),
        jax.jacrev(lambda p: positions(p, ms.ConjugateGradient()))(potential),
    ):
        for a, b in zip(jax.tree.leaves(forward), jax.tree.leaves(reverse), strict=True):
            assert_allclose(
                a, b, rtol=0, atol=1e-9
            )  # conjugate gradients stop at 1e-11 of a response of order one


def test_cluster_derivatives_are_finite_differences():
    potential, start = cluster()
    relaxed = ms.relax(potential, start, fmax=1e-11)
    here = relaxed.structure
    direction = random_like(potential)
    # start from the relaxed state: the rigid motion of a start is kept
    positions = lambda p: ms.relax(p, here, fmax=1e-11).structure.positions
    _, mine = jax.jvp(positions, (potential,), (direction,))
    # the walk may turn the cluster at second order: superposed on the unmoved one, sum_i x_i x dx_i = 0, as
    # in the gauge
    twin = central_difference(positions, potential, direction, 1e-3)
    motion = twin - mine
    spin = np.cross(here.positions - here.positions.mean(0), motion).sum(0)
    turned = np.cross(np.linalg.solve(inertia(here.positions), spin), here.positions - here.positions.mean(0))
    assert_allclose(motion - turned - motion.mean(0), 0, atol=1e-8)


def inertia(x):
    x = np.asarray(x - np.mean(x, axis=0))
    return np.sum(x * x) * np.eye(3) - x.T @ x


def test_free_starting_positions_have_no_derivative():
    potential, start = cluster()
    final = lambda x: ms.relax(potential, start.at(x), fmax=FMAX).structure.positions
    assert not np.any(jax.jvp(final, (start.positions,), (random(13, 3),))[1])
    assert not np.any(jax.vjp(final, start.positions)[1](random(13, 3))[0])


def test_all_of_a_structure_can_be_differentiated_at_once():
    potential, start = cluster()
    inertia = lambda s: jnp.sum(
        (r := ms.relax(potential, s, fmax=FMAX).structure).masses[:, None] * r.positions**2
    )
    slope = eqx.filter_grad(inertia)(start)
    x = ms.relax(potential, start, fmax=FMAX).structure.positions
    assert_allclose(slope.masses, jnp.sum(x**2, axis=1), rtol=1e-14)  # masses move nothing, and pass through
    assert not np.any(slope.positions) and not np.any(slope.cell)


def test_what_is_found_under_jacfwd_is_remembered_as_plain_numbers():
    # jacfwd is a vmap, and wraps what is computed inside: kept in memory that would be a tracer of a trace
    # that has ended
    potential, start = cluster()
    start = start.at(start.positions * 1.0003)
    jax.jacfwd(lambda p: ms.relax(p, start).structure.positions)(potential)
    leaves = jax.tree.leaves(ms.relax(potential, start))
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


def test_positions_of_fixed_atoms_are_parameters_like_any_other():
    potential, start = cluster()
    fixed = np.zeros((13, 3), bool)
    fixed[[1, 2, 3]] = True
    fixed[4, 2] = True  # one coordinate of another atom
    held = ms.Structure.create(start.positions, start.symbols, fixed=fixed)
    final = lambda x: ms.relax(potential, held.at(x), fmax=FMAX).structure.positions
    direction, weight = random(13, 3), random(13, 3, seed=6)
    _, mine = jax.jvp(final, (held.positions,), (direction,))
    assert_allclose(mine[fixed], direction[fixed], atol=1e-14)  # held coordinates follow themselves alone
    (pulled,) = jax.vjp(final, held.positions)[1](weight)
    assert not np.any(np.asarray(pulled)[~fixed])
    assert_allclose(np.sum(pulled * direction), np.sum(weight * mine), rtol=1e-9)
    twin = central_difference(final, held.positions, jnp.where(fixed, direction, 0.0), 5e-4)
    assert_allclose(mine, twin, rtol=0, atol=1e-8)


# --- a crystal under load: cell and positions together
# ---------------------------------------------------------------------

WEIGHT = random(7, 3)


def shape(relaxed):
    return jnp.concatenate(
        [relaxed.structure.positions - jnp.mean(relaxed.structure.positions, axis=0), relaxed.structure.cell]
    )


def relax_copper(parameters, load, start_cell, linear_solver=None, **options):
    start = copper()[1]
    kind = {"stress" if jnp.ndim(load) else "pressure": load}
    return shape(
        ms.relax(
            parameters,
            start.at(start.positions, start_cell),
            fmax=FMAX,
            linear_solver=linear_solver,
            **kind,
            **options,
        )
    )


@pytest.mark.parametrize(
    ("cell", "load"),
    [
        ("full", jnp.asarray(SHEAR)),
        ((True, False, True, False, True, False), jnp.array(0.01)),
        (None, jnp.array(0.0)),
    ],
    ids=["full-shear", "mask-pressure", "held"],
)
def test_a_crystal_follows_parameters_load_and_what_is_held_of_its_cell(cell, load):
    potential, start = copper()
    final = lambda args: relax_copper(*args, cell=cell)
    args = (potential, load, start.cell)
    stretch = random(3, 3) * 0.1
    direction = (
        random_like(potential),
        0.0 * load if cell is None else random_like(load),
        start.cell @ stretch,
    )
    _, mine = jax.jvp(final, (args,), (direction,))
    # A pair that crosses the cutoff within the step would show: its second derivative jumps there. So h is
    # small, and what is left is 1e-10 eV/Å over a curvature of 0.4 eV/Å² over h.
    assert_allclose(mine, central_difference(final, args, direction, 5e-4), rtol=0, atol=1e-6)
    (pulled,) = jax.vjp(final, args)[1](WEIGHT)
    assert_allclose(along(pulled, direction), np.sum(WEIGHT * mine), rtol=1e-9)


def test_under_shear_conjugate_gradients_agree_with_the_factorized_matrix_in_both_modes():
    # the Jacobian has no symmetry in its strain block: small, dense, and wrong by percents if it were ignored
    potential, start = copper()
    forward, reverse = [], []
    for linear_solver in (None, ms.ConjugateGradient()):
        final = lambda load, linear_solver=linear_solver: relax_copper(
            potential, load, start.cell, linear_solver, cell="full"
        )
        forward.append(jax.jvp(final, (jnp.asarray(SHEAR),), (jnp.ones(6),))[1])
        reverse.append(jax.vjp(final, jnp.asarray(SHEAR))[1](WEIGHT)[0])
    for dense, products in (forward, reverse):
        assert_allclose(products, dense, rtol=0, atol=1e-8 * np.abs(dense).max())
    assert_allclose(np.sum(WEIGHT * forward[1]), np.sum(reverse[1]), rtol=1e-8)
