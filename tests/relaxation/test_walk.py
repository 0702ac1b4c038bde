"""A walk ends where others end, whatever the units, the list, or what the potential can give."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from states import cluster

import mdsens as ms
from mdsens import errors
from mdsens.relaxation import memory


def glass() -> tuple[ms.Potential, ms.Structure]:
    """32 particles of a stiff binary mixture in units where the distance of two is one.

    Curvatures of a thousand.
    """
    potential = ms.LennardJones(
        [1.0, 1.5, 0.5], [1.0, 0.8, 0.88], elements=("Ar", "Kr"), cutoff_radius=2.5, cut=ms.ForceShifted()
    )
    edge = (32 / 1.2) ** (1 / 3)
    grid = (np.indices((4, 4, 2)).reshape(3, 32).T + 0.5) * edge / np.array([4, 4, 2])
    positions = grid + 0.05 * np.random.default_rng(0).normal(size=(32, 3))
    return potential, ms.Structure.create(positions, ["Ar"] * 26 + ["Kr"] * 6, [edge] * 3)


def test_the_default_ends_where_small_steps_end_in_stiff_units():
    potential, start = glass()
    course = []
    options = dict(fmax=1e-6, check_minimum=False)
    bottom = ms.relax(potential, start, **options).structure
    for seed in range(4):
        rattled = bottom.at(bottom.positions + 0.02 * np.random.default_rng(seed).normal(size=(32, 3)))
        default = ms.relax(potential, rattled, progress=course.append, **options)
        newton = ms.relax(potential, rattled, solver=ms.NewtonCG(), **options)
        assert_allclose(default.energy, newton.energy, rtol=1e-9)
        assert max(step.energy for step in course) <= course[0].energy + 1e-6  # it never climbs
        course.clear()


@pytest.mark.parametrize("skin", [0.0, 1e-15])
def test_a_list_without_skin_comes_to_an_end(skin):
    potential = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=6.5)
    positions = np.array([[0.2, 0, 0], [0, 2.65, 2.65], [2.65, 0, 2.65], [2.65, 2.65, 0]])
    crystal = ms.Structure.create(positions, ["Ar"] * 4, [5.3] * 3)
    relaxed = ms.relax(potential, crystal, skin=skin)
    assert relaxed.status is ms.Status.CONVERGED


class Springs(ms.Potential):
    """Springs between all atoms of a cluster, known by energy and forces alone."""

    length: jax.Array = ms.parameter("Å")
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")
    twice_differentiable: ClassVar[bool] = False
    local: ClassVar[bool] = False

    @property
    def cutoff(self):
        return jnp.asarray(jnp.inf)

    def energy(self, structure, neighbors):
        return _springs(structure.positions, self.length)


@jax.custom_jvp
def _springs(x, length):
    return _on_host(x, length)[0]


@_springs.defjvp
def _(primals, tangents):
    energy, forces = _on_host(*primals)
    return energy, -jnp.sum(forces * tangents[0])


def _on_host(x, length):
    def evaluate(x, length):
        d = x[:, None] - x[None]
        r = np.linalg.norm(d, axis=-1) + np.eye(len(x))
        off = (r - length) * (1 - np.eye(len(x)))
        return np.asarray(0.25 * np.sum(off**2)), -np.sum((off / r)[..., None] * d, axis=1)

    shapes = (jax.ShapeDtypeStruct((), float), jax.ShapeDtypeStruct(x.shape, float))
    return jax.pure_callback(evaluate, shapes, x, length, vmap_method="sequential")


@pytest.mark.parametrize("solver", [None, ms.FIRE(), ms.LBFGS()], ids=["default", "FIRE", "L-BFGS"])
def test_forces_alone_are_enough_to_relax(solver):
    triangle = ms.Structure.create([[0, 0, 0], [2.6, 0, 0], [0.2, 1.4, 0.1]], ["Ar"] * 3)
    relaxed = ms.relax(Springs(2.0), triangle, solver=solver, check_minimum=False, fmax=1e-6)
    x = np.asarray(relaxed.structure.positions)
    assert_allclose([np.linalg.norm(x[i] - x[j]) for i, j in ((0, 1), (0, 2), (1, 2))], 2.0, atol=1e-5)


def test_what_forces_alone_cannot_give_is_refused():
    triangle = ms.Structure.create([[0, 0, 0], [2.6, 0, 0], [0.2, 1.4, 0.1]], ["Ar"] * 3)
    with pytest.raises(errors.InputError, match=r"look at the curvature.*check_minimum=False"):
        ms.relax(Springs(2.0), triangle)
    with pytest.raises(errors.InputError, match=r"Newton steps need: use solver=LBFGS\(\)"):
        ms.relax(Springs(2.0), triangle, solver=ms.NewtonCG(), check_minimum=False)


def test_a_plan_is_made_of_steppers():
    with pytest.raises(errors.InputError, match=r"robust must be .*not AutoRelaxer"):
        ms.AutoRelaxer(robust=ms.AutoRelaxer())


def test_the_memory_of_relaxations_is_bounded(monkeypatch):
    potential, start = cluster()
    memory.forget()
    monkeypatch.setattr(memory, "SIZE", 1)
    for scale in (1.0, 1.01, 1.02):
        ms.relax(potential, start.at(start.positions * scale))
    assert len(memory._remembered) == 1


def test_states_that_are_no_minimum_are_not_differentiated_unless_asked_for():
    potential, start = cluster()
    length = lambda check: (
        lambda p: jnp.sum(
            ms.relax(p, start, max_steps=1, throw=False, check_minimum=check).structure.positions ** 2
        )
    )
    with pytest.raises((errors.NotConvergedError, errors.SaddlePointError)):
        jax.grad(length(True))(potential)
    assert np.isfinite(jax.grad(length(False))(potential).sigma).all()


def test_a_relaxed_state_carries_its_equilibrium():
    potential, start = cluster()
    relaxed = ms.relax(potential, start, fmax=1e-10)
    state = relaxed.equilibrium
    assert_allclose(state.structure.positions, relaxed.structure.positions, atol=0)
    # response and pullback are each other's transposes: <c, dw> = <pullback(c), d theta>
    direction = jax.tree.map(
        lambda leaf: jnp.zeros_like(leaf), eqx.filter(state.landscape, eqx.is_inexact_array)
    )
    direction = eqx.tree_at(lambda s: s.potential.sigma, direction, jnp.asarray([0.1, -0.2, 0.3]))
    dw = state.response(state.landscape, state.w, direction)
    c = jnp.asarray(np.random.default_rng(1).normal(size=len(dw)))
    pulled = state.pullback(c)
    assert_allclose(c @ dw, pulled.potential.sigma @ jnp.asarray([0.1, -0.2, 0.3]), rtol=1e-9)
