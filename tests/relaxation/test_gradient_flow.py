"""Steepest descent: its own basin, as an integrator of differential equations finds it, and its minimum."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.integrate import solve_ivp

import mdsens as ms
from mdsens.errors import InputError

PAIRS = ms.LennardJones(1.0, 1.0, ("Ar",), np.inf, ms.Truncated())
N = 7


def start(seed):
    """Seven atoms at random, none too close to another."""
    rng = np.random.default_rng(seed)
    points = []
    while len(points) < N:
        x = 1.3 * rng.uniform(-1, 1, 3)
        if all(np.linalg.norm(x - y) > 0.85 for y in points):
            points.append(x)
    return np.array(points)


def force(_, flat):
    x = flat.reshape(N, 3)
    d = x[:, None] - x
    r2 = np.sum(d * d, axis=-1) + np.eye(N)
    strength = 24 * (2 * r2**-7 - r2**-4) * (1 - np.eye(N))
    return np.sum(strength[..., None] * d, axis=1).ravel()


def energy_of(x):
    return float(ms.energy(PAIRS, ms.Structure.create(x, ["Ar"] * N)))


def by_integration(x):
    """Energy of the minimum that the flow leads to."""
    flow = solve_ivp(force, (0, 400), x.ravel(), method="LSODA", rtol=1e-9, atol=1e-10)
    return energy_of(flow.y[:, -1].reshape(N, 3))


def by_relaxer(x, solver):
    return ms.relax(PAIRS, ms.Structure.create(x, ["Ar"] * N), solver=solver, fmax=1e-8, check_minimum=False)


def test_the_flow_ends_in_the_basin_that_an_integrator_finds():
    for seed in range(4):
        found = by_relaxer(start(seed), ms.GradientFlow())
        assert_allclose(found.energy, by_integration(start(seed)), atol=1e-5)
        assert float(found.fmax) < 1e-8


@pytest.mark.validation
def test_fast_relaxers_miss_basins_that_the_flow_keeps():
    starts = [start(seed) for seed in range(40)]
    exact = np.array([by_integration(x) for x in starts])
    missed = {}
    for name, solver in {"flow": ms.GradientFlow(), "fire": ms.FIRE(dt_max=0.1), "lbfgs": ms.LBFGS()}.items():
        found = np.array([float(by_relaxer(x, solver).energy) for x in starts])
        missed[name] = int(np.sum(np.abs(found - exact) > 1e-4))
    print(missed)
    assert missed["flow"] <= 1
    assert missed["lbfgs"] > missed["flow"]


def test_the_first_steps_follow_the_forces():
    x = start(0)
    solver = ms.GradientFlow(first=1e-6, tolerance=1e-6)
    moved = ms.relax(
        PAIRS,
        ms.Structure.create(x, ["Ar"] * N),
        solver=solver,
        max_steps=1,
        throw=False,
        check_minimum=False,
    )
    step = np.asarray(moved.structure.positions) - x
    along = force(0, x.ravel()).reshape(N, 3)
    cosine = np.sum(step * along) / np.linalg.norm(step) / np.linalg.norm(along)
    assert_allclose(cosine, 1.0, atol=1e-6)


@pytest.mark.parametrize("wrong", [dict(tolerance=0.0), dict(first=-1.0), dict(tolerance=jnp.nan)])
def test_what_has_no_meaning_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        ms.GradientFlow(**wrong)
