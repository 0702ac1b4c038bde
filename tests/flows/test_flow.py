"""Densities, their forces, and the losses agree in both directions of the flow, to second derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose
from quick import quick_jit
from shaken import shaken

from mdsens.errors import InputError
from mdsens.flows.coupling import Coupling
from mdsens.flows.flow import Flow, Normal, Uniform
from mdsens.flows.layers import Elementwise, Inverted, Name, Split
from mdsens.flows.losses import Loss
from mdsens.flows.splines import CircularSpline
from mdsens.flows.transforms import CircleMixture, LineMixture

BASE = {"turn": Uniform(1), "number": Normal(1)}


def two_dimensional(direction) -> Flow:
    """A density of (turn, number) on the circle times the line.

    `direction` wraps both layers that have roots to find.
    """
    number = Coupling.create(
        "number",
        ["turn"],
        {"turn": 1, "number": 1},
        LineMixture(2),
        jax.random.key(0),
        periodic=["turn"],
        hidden=(4,),
    )
    turn = Elementwise.zeros("turn", 1, CircleMixture(2))
    split = Split((("x", 2),), (("turn", (0,)), ("number", (1,))))
    return Flow((Name("x"), split, direction(shaken(number)), direction(shaken(turn, 0.5))), BASE)


FLOWS = {
    "explicit density": two_dimensional(lambda layer: layer),
    "density by roots": two_dimensional(Inverted),
}
POINTS = np.array([[0.1, -0.3], [0.45, 0.8], [0.7, -1.6], [0.95, 2.2]])
FORCES = np.array([[1.0, -2.0], [0.3, 0.4], [-0.5, 0.1], [2.0, 1.0]])


@quick_jit
def _at(flow, x):
    return jax.vmap(lambda x: (*flow.energy_and_forces(x), jax.hessian(flow.energy)(x)))(x)


@quick_jit
def energies_and_forces(flow, x):
    return jax.vmap(flow.energy_and_forces)(x)


def at(flow: Flow, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies, forces and Hessians; in pieces of one size, so that this compiles once."""
    size = 500
    padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % size, axis=0)])
    pieces = [_at(flow, padded[k : k + size]) for k in range(0, len(padded), size)]
    energies, forces, hessians = (np.concatenate(parts)[: len(x)] for parts in zip(*pieces, strict=True))
    return energies, forces, hessians


all_flows = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS.keys())


def quadrature() -> tuple[np.ndarray, float]:
    """Points on [0, 1) x [-14, 14] and the area that each stands for: the trapezoid rule."""
    n, m = 100, 101
    turn, number = np.meshgrid(np.arange(n) / n, np.linspace(-14, 14, m), indexing="ij")
    return np.stack([turn.ravel(), number.ravel()], axis=1), 28 / (m - 1) / n


def moments(x: np.ndarray) -> np.ndarray:
    turn, number = 2 * np.pi * x[:, 0], x[:, 1]
    return np.stack([np.cos(turn), np.sin(turn), np.cos(2 * turn), number, number**2, number * np.sin(turn)])


@all_flows
def test_samples_have_the_density_and_it_is_normalized(flow):
    x, area = quadrature()
    p = area * np.exp(-at(flow, x)[0])
    # smooth functions that are periodic or vanish at the ends: the rule converges faster than any power, to
    # 2e-5 here
    assert_allclose(p.sum(), 1, rtol=0, atol=5e-5)
    samples, log_p = flow.sample(jax.random.key(1), 2500, batch=1000)
    assert len(np.unique(samples, axis=0)) == len(log_p) == 2500
    assert_allclose(log_p, -at(flow, samples)[0], rtol=0, atol=1e-10)
    mean = moments(x) @ p
    error = np.sqrt((moments(x) ** 2 @ p - mean**2) / len(samples))
    assert np.all(np.abs(moments(samples).mean(1) - mean) < 4 * error)
    # and neither is that of the base
    assert np.all(np.abs(mean[[0, 5]]) > 4 * error[[0, 5]])


@all_flows
def test_forces_and_hessian_are_derivatives_of_the_energy(flow):
    h = 1e-5
    steps = h * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    energies, forces, hessian = (
        part.reshape(5, 4, *part.shape[1:]) for part in at(flow, (POINTS + steps[:, None]).reshape(-1, 2))
    )
    # steps leave h² = 1e-10 times third and fourth derivatives, which are 1e4 times the first for such ramps;
    # energies by roots carry 1e-12, and 1e-12 / h = 1e-7
    slopes = ((energies[1:3] - energies[3:]) / (2 * h)).T
    assert_allclose(forces[0], -slopes, rtol=0, atol=1e-6 * np.abs(forces[0]).max())
    curvature = -np.moveaxis((forces[1:3] - forces[3:]) / (2 * h), 0, 2)
    assert_allclose(hessian[0], curvature, rtol=0, atol=1e-6 * np.abs(hessian).max())
    assert_allclose(hessian, np.swapaxes(hessian, 2, 3), rtol=0, atol=1e-11 * np.abs(hessian).max())
    assert np.abs(hessian[0, :, 0, 1]).min() > 1e-3  # turn and number are coupled


@all_flows
def test_gradients_of_the_losses_are_those_of_central_differences(flow):
    """Along random directions of all parameters; likelihood, force matching and reverse KL each by itself."""
    coupling_only = Flow(flow.layers.layers[:-1], BASE)  # half of the flow compiles in half of the time
    trained, fixed = eqx.partition(coupling_only, eqx.is_inexact_array)
    numbers, flow_of = ravel_pytree(trained)
    loss = Loss(
        likelihood=1.0,
        force=1.0,
        reverse_kl=1.0,
        energy=lambda x: jnp.cos(2 * np.pi * x[0]) + 0.5 * x[1] ** 2,
        n_draws=4,
    )

    def terms(numbers):
        total, parts = loss(
            eqx.combine(flow_of(numbers), fixed), jnp.asarray(POINTS), jnp.asarray(FORCES), jax.random.key(2)
        )
        vector = jnp.stack([parts["nll"], parts["force_mse"], parts["reverse_kl"]])
        return vector, (vector, total)

    differentiate = quick_jit(jax.jacrev(terms, has_aux=True))
    gradient, (values, total) = differentiate(numbers)
    assert_allclose(total, values.sum(), rtol=1e-14)
    h = 1e-4
    for direction in np.random.default_rng(3).normal(size=(3, numbers.size)):
        value = {k: np.asarray(differentiate(numbers + k * h * direction)[1][0]) for k in (-2, -1, 1, 2)}
        slope = (8 * (value[1] - value[-1]) - (value[2] - value[-2])) / (12 * h)
        # the error of the stencil is h^4 = 1e-16 times fifth derivatives, that of roots 1e-12 / h
        assert_allclose(gradient @ direction, slope, rtol=1e-6)


def one_dimensional(family, raw) -> Flow:
    return Flow((Name("turn"), Elementwise("turn", family, jnp.asarray(raw)[None])), {"turn": Uniform(1)})


def jump_of_force(flow: Flow, x: float) -> float:
    beside = x + 1e-7 * np.array([-3.0, -1.0, 1.0, 3.0])
    force = np.asarray(energies_and_forces(flow, beside[:, None])[1])[:, 0]
    return abs(force[2] - force[1]) - abs(force[3] - force[2]) - abs(force[1] - force[0])


def test_forces_are_continuous_where_a_ramp_ends_and_jump_where_a_spline_has_a_knot():
    smooth = one_dimensional(CircleMixture(1), [0.0, 1.0, 0.5, 1.0, 0.2])
    layer = smooth.layers.layers[1]
    mixture = layer.family.build(layer.raw[0])
    for side in (-1, 1):
        end = float(mixture.center[0] + side * 0.5 / mixture.sharpness[0])
        assert abs(jump_of_force(smooth, end)) < 1e-6
    rng = np.random.default_rng(0)
    spline = one_dimensional(CircularSpline(3), rng.normal(size=10))
    layer = spline.layers.layers[1]
    for knot in np.asarray(layer.family.build(layer.raw[0]).x)[1:-1]:
        assert jump_of_force(spline, float(knot)) > 0.1


@all_flows
def test_a_flow_in_float32_computes_in_float32(flow):
    single = flow.astype(jnp.float32)
    assert single.dtype == np.float32 and flow.dtype == np.float64
    loss = Loss(force=1.0, reverse_kl=1.0, energy=lambda x: jnp.sum(x * x))
    key, x = jax.random.key(0), jnp.zeros((4, 2), jnp.float32)
    outputs = jax.eval_shape(
        lambda: (
            single.forward(x[0]), single.energy_and_forces(x[0]), single.draw(key), loss(single, x, x, key),
        )
    )  # fmt: skip
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {np.dtype(np.float32)}
    parameters = lambda flow: jax.tree.leaves(eqx.filter(flow, eqx.is_inexact_array))
    for one, other in zip(parameters(single.astype(jnp.float64)), parameters(flow), strict=True):
        assert one.dtype == np.float64
        assert_allclose(one, other, rtol=1e-7)


@all_flows
def test_energies_and_forces_far_out_are_finite_and_those_of_a_gaussian(flow):
    x = np.array(
        [[turn, number] for turn in (0.0, 0.3, 0.999) for number in (-1e3, -30.0, -10.0, 10.0, 30.0, 1e3)]
    )
    energies, forces, hessians = at(flow, x)
    assert np.isfinite(energies).all() and np.isfinite(forces).all() and np.isfinite(hessians).all()
    # out there a component is straight: its force is linear in x, as that of a Gaussian
    far = np.abs(x[:, 1]) >= 30
    assert np.all(np.sign(forces[far, 1]) == -np.sign(x[far, 1]))
    single_energies, single_forces = energies_and_forces(flow.astype(jnp.float32), x.astype(np.float32))
    assert_allclose(single_energies, energies, rtol=1e-5)
    assert_allclose(
        single_forces / np.abs(forces).max(1, keepdims=True),
        forces / np.abs(forces).max(1, keepdims=True),
        atol=1e-4,
    )


def test_a_flow_without_parameters_has_the_density_of_its_base():
    flow = Flow((Name("number"),), {"number": Normal(2)})
    x, log_p = flow.draw(jax.random.key(0))
    assert x.dtype == flow.dtype == np.float64
    assert_allclose(log_p, -0.5 * np.sum(np.asarray(x) ** 2) - np.log(2 * np.pi), rtol=1e-14)
    with pytest.raises(InputError, match="n = 0"):
        flow.sample(jax.random.key(0), 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"likelihood": -1.0}, "none may be negative"),
        ({"likelihood": 0.0, "force": 0.0}, "one must be positive"),
        ({"reverse_kl": 0.5}, "reverse_kl = 0.5 needs an energy"),
        ({"n_draws": 0}, "n_draws = 0"),
    ],
)
def test_losses_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Loss(**wrong)


def test_a_loss_looks_only_at_what_has_a_weight():
    flow, x, key = Flow((Name("number"),), {"number": Normal(2)}), jnp.asarray(POINTS), jax.random.key(0)
    terms = lambda loss, forces: set(jax.eval_shape(lambda: loss(flow, x, forces, key))[1])
    assert terms(Loss(force=0.0), jnp.full_like(x, jnp.nan)) == {"nll"}
    assert terms(Loss(), x) == {"nll", "force_mse"}
    assert terms(Loss(likelihood=0.0, force=0.0, reverse_kl=1.0, energy=lambda x: x @ x), x) == {"reverse_kl"}
