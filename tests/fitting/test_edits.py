"""The smallest change of weights: what is smallest, what is met, what is kept, what it costs."""

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError, NotConvergedError
from mdsens.fitting import KeptProperties, RelaxedTargets, Target, TargetStructure, edit_weights, label_shifts
from mdsens.fitting.edits import _LeastNorm
from mdsens.fitting.weights import LowRank, WeightVector

SILICON = ms.Structure.from_ase(ase.build.bulk("Si", a=5.0))
RATTLED = SILICON.to_ase()
RATTLED.rattle(0.1, seed=1)
RATTLED = ms.Structure.from_ase(RATTLED)


def energies(params, vectors, species, senders, receivers):
    """Morse-like bonds, and a small network of the density of neighbors on top of them."""
    square = (vectors**2).sum(-1)
    inside = square < 16.0
    r = jnp.sqrt(jnp.where(inside, square, 16.0))
    near = jnp.where(inside, (1 - square / 16.0) ** 3, 0.0)
    bumps = near[:, None] * jnp.exp(-((r[:, None] - jnp.linspace(2.0, 3.5, 4)) ** 2) / 0.5)
    pair = near * 2.0 * (jnp.exp(-4 * (r - 2.1)) - 2 * jnp.exp(-2 * (r - 2.1)))
    density = jax.ops.segment_sum(bumps, receivers, num_segments=len(species))
    bonds = jax.ops.segment_sum(pair, receivers, num_segments=len(species))
    return bonds + jnp.tanh(density @ params["w1"] + params["b1"]) @ params["w2"]


def network() -> ms.GraphPotential:
    rng = np.random.default_rng(0)
    shapes = {"w2": (6,), "w1": (4, 6), "b1": (6,)}
    params = {name: 0.3 * rng.normal(size=shape) for name, shape in shapes.items()}
    return ms.GraphPotential(energies, params, cutoff=4.0, elements=("Si",))


NETWORK = network()


@pytest.fixture(scope="module")
def targets():
    here = float(ms.volume(ms.relax(NETWORK, SILICON, cell="isotropic").structure))
    goal = 1.003 * np.cbrt(4 * here)
    return RelaxedTargets(
        TargetStructure(SILICON, cell="isotropic"), [Target("lattice_constant", goal, 1e-3)]
    )


@pytest.fixture(scope="module")
def edit(targets):
    return edit_weights(NETWORK, targets, within=1e-4)


def vector(potential):
    return WeightVector.of(potential).values(potential)


def relaxed_edge(potential):
    relaxed = ms.relax(potential, SILICON, cell="isotropic")
    return jnp.cbrt(4 * ms.volume(relaxed.structure))


def test_targets_are_met_and_newton_takes_few_steps(edit, targets):
    assert edit.met
    assert len(edit.history) <= 5
    assert float(relaxed_edge(edit.potential)) == pytest.approx(edit.after[0].target, abs=1e-6)
    assert edit.adjoints == len(edit.history)
    assert "|change| / |weights|" in edit.table().title


def test_the_change_is_along_the_gradient_so_that_none_is_smaller(edit):
    # stationary among all changes that meet the target: delta is a multiple of the gradient at the end
    gradient = vector(jax.grad(relaxed_edge)(edit.potential))
    delta = vector(edit.potential) - vector(NETWORK)
    cosine = delta @ gradient / np.linalg.norm(delta) / np.linalg.norm(gradient)
    # the last step was of 1e-4 of the first, and the gradient turned by so much since
    assert abs(cosine) == pytest.approx(1, abs=1e-6)
    assert edit.change == pytest.approx(np.linalg.norm(delta) / np.linalg.norm(vector(NETWORK)))


def test_what_is_kept_stays(edit, targets):
    before = label_shifts(NETWORK, edit.potential, [RATTLED])
    kept = edit_weights(NETWORK, targets, keep=KeptProperties([RATTLED]), within=1e-4)
    after = label_shifts(NETWORK, kept.potential, [RATTLED])
    assert kept.kept == 1 + 3  # an energy, and the forces of two atoms, whose sum is zero
    assert kept.met
    assert kept.change > edit.change
    assert abs(after.energy[0]) < 1e-3 * abs(before.energy[0])
    assert after.forces[0] < 1e-3 * before.forces[0]


def test_some_combinations_of_forces_are_held(targets):
    kept = edit_weights(NETWORK, targets, keep=KeptProperties([RATTLED], combinations=1), within=1e-4)
    assert kept.kept == 2


def test_a_change_of_low_rank_is_one(targets):
    low = edit_weights(NETWORK, targets, rank=1, within=1e-4)
    change = {name: low.potential.weights[name] - NETWORK.weights[name] for name in ("w1", "w2", "b1")}
    singular = np.linalg.svd(change["w1"])[1]
    assert singular[1] < 1e-12 * singular[0]
    assert not np.any(change["w2"]) and not np.any(change["b1"])
    assert low.met


def test_the_cost_of_a_target_is_what_leaving_it_out_saves():
    rng = np.random.default_rng(0)
    A, b, theta = rng.normal(size=(3, 7)), rng.normal(size=3), rng.normal(size=7)
    delta, costs = _LeastNorm(A, b, ("x", "y", "z")).smallest(theta)
    assert_allclose(A @ delta, b, rtol=1e-10)
    for k in range(3):
        rest = np.arange(3) != k
        shorter = np.linalg.pinv(A[rest]) @ b[rest]
        assert costs[k].saved == pytest.approx(1 - shorter @ shorter / (delta @ delta))
        assert costs[k].alone == pytest.approx(abs(b[k]) / np.linalg.norm(A[k]) / np.linalg.norm(theta))


def test_conditions_that_say_the_same_count_once():
    A = np.array([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0]])
    delta, _ = _LeastNorm(A, np.ones(2), ("x", "y")).smallest(np.ones(3))
    assert_allclose(delta, [0.2, 0.4, 0.0], atol=1e-12)


def test_low_rank_keeps_the_largest_directions_of_the_gradients():
    found = WeightVector(("m", "v"), ((3, 4), (2,)))
    row = np.concatenate([np.outer([1.0, 0, 2], [1.0, 0, 0, 1]).ravel(), [5.0, 6.0]])
    projected = LowRank.of(found, row[None], 1).project(row[None])[0]
    assert_allclose(projected, [*row[:12], 0.0, 0.0], atol=1e-12)
    with pytest.raises(InputError, match="no parameter array of this potential is a matrix"):
        LowRank.of(WeightVector(("v",), ((2,),)), np.ones((1, 2)), 1)


def test_targets_out_of_reach_are_said(targets):
    with pytest.raises(NotConvergedError, match="are not met after 1 steps: raise max_steps") as error:
        edit_weights(NETWORK, targets, within=1e-9, max_steps=1)
    assert not error.value.partial.met
    assert len(error.value.partial.history) == 1


def test_what_makes_no_sense_is_refused(targets):
    with pytest.raises(InputError, match="targets must be a RelaxedTargets, not str"):
        edit_weights(NETWORK, "C11")
    with pytest.raises(InputError, match="nothing is kept"):
        KeptProperties()
    with pytest.raises(InputError, match="no weight that may change moves x"):
        _LeastNorm(np.zeros((1, 3)), np.ones(1), ("x",)).smallest(np.ones(3))


def test_nearly_dependent_targets_are_said_by_name():
    # y is x with a little of a third direction; z stands alone
    x, little, z = np.eye(4)[:3]
    A = np.array([2.0 * x, x + 1e-3 * little, 3.0 * z])
    known = _LeastNorm(A, np.array([0.0, 1.0, 1.0]), ("x", "y", "z")).independence()
    assert_allclose(known.singular_values, [np.sqrt(2), 1, 1e-3 / np.sqrt(2)], rtol=1e-5)
    # 2 y - x is moved by the little alone
    assert_allclose(np.abs(known.weakest), np.array([1, 2, 0]) / np.sqrt(5), atol=1e-6)
    assert known.nearly_dependent and known.share > 0.99
    assert "hardly any weight that may change moves 0.89 y - 0.45 x (in tolerances), which takes 100%" in str(
        known
    )
    assert "nearly dependent" not in str(_LeastNorm(A[[0, 2]], np.ones(2), ("x", "z")).independence())


def test_what_is_kept_can_make_targets_dependent():
    x, y, _ = np.eye(3)
    # x + y is kept: then neither moves without the other
    A = np.array([x, y, x + y])
    known = _LeastNorm(A, np.array([1.0, -1.0, 0.0]), ("x", "y")).independence()
    assert_allclose(known.singular_values, [1.0, 0.0], atol=1e-7)
    assert known.nearly_dependent and known.share < 1e-6  # and nobody asks for it
