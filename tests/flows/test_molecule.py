"""Flows of molecules whose stiff coordinates come near the ends of their domains."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mdsens.errors import NonFiniteError
from mdsens.flows.flow import Flow, Normal
from mdsens.flows.internal_coordinates import ZMatrix
from mdsens.flows.layers import Elementwise, Name, Unbounded, Whiten
from mdsens.flows.molecule import MoleculeArchitecture
from mdsens.flows.transforms import AffineFamily

WATER = (3, [(0, 1), (0, 2)], [8, 1, 1])


def bent(bonds: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Frames of water, nm."""
    frames = np.zeros((len(angles), 3, 3))
    frames[:, 1, 2] = bonds[:, 0]
    frames[:, 2, 0] = bonds[:, 1] * np.sin(angles)
    frames[:, 2, 2] = bonds[:, 1] * np.cos(angles)
    return frames


def test_samples_of_a_very_floppy_angle_and_bond_are_finite():
    rng = np.random.default_rng(0)
    # a Gaussian of such angles or bonds has one sample in 100 outside (0, pi), or below 0
    angles = np.pi - np.abs(rng.normal(0.6, 0.3, 1000)) - 0.01
    bonds = np.stack([rng.normal(0.1, 0.003, 1000), 0.1 * np.exp(rng.normal(0, 0.4, 1000))], 1)
    architecture = MoleculeArchitecture(stiff_layers=0)
    flow = architecture.build(ZMatrix.from_topology(WATER), bent(bonds, angles), jax.random.key(0))
    opened = [layer for layer in flow.layers.layers if isinstance(layer, Unbounded)]
    assert [(layer.field, len(layer.elements)) for layer in opened] == [("bonds", 1), ("angles", 1)]
    for precise in (flow, flow.astype(np.float32)):
        positions, log_p = precise.sample(jax.random.key(1), 5000)
        assert np.isfinite(positions).all() and np.isfinite(log_p).all()
    positions, log_p = flow.sample(jax.random.key(1), 5000)
    anew = eqx.filter_jit(lambda flow, x: jax.vmap(flow.log_density)(x))(flow, positions)
    assert_allclose(anew, log_p, atol=1e-9)


def without_ends(flow: Flow, frames: np.ndarray) -> Flow:
    """The flow as models had it before angles near a line got a layer of their own."""
    layers = [layer for layer in flow.layers.layers if not isinstance(layer, Unbounded)]
    fields = jax.vmap(lambda x: flow.layers.layers[0].forward(x)[0])(frames)
    stiff = np.concatenate([fields["angles"], fields["bonds"]], axis=1)  # as `Split` has them
    kept = [Whiten.of("stiff", stiff) if isinstance(layer, Whiten) else layer for layer in layers]
    return Flow(tuple(kept), flow.base)


def test_an_older_model_of_a_floppy_molecule_draws_finite_samples_too():
    rng = np.random.default_rng(0)
    bonds, angles = (
        0.1 + 0.002 * rng.normal(size=(1000, 2)),
        np.pi - np.abs(rng.normal(0.5, 0.2, 1000)) - 0.01,
    )
    architecture, frames = MoleculeArchitecture(stiff_layers=0), bent(bonds, angles)
    new = architecture.build(ZMatrix.from_topology(WATER), frames, jax.random.key(0))
    old = without_ends(new, frames)
    key, n = jax.random.key(1), 4000
    raw, raw_log_p = old._draws(key, n, 1024)
    lost = ~np.isfinite(raw_log_p)
    assert 5 < lost.sum() < 0.05 * n  # of a Gaussian of width 0.2 that is 0.5 from the end, 0.6 %
    positions, log_p = old.sample(key, n)
    assert np.isfinite(log_p).all() and np.isfinite(positions).all()
    assert_array_equal(positions[~lost], raw[~lost])
    # log p is that of the flow at the samples; 1 / sin of an angle near the line takes some digits
    anew = eqx.filter_jit(lambda flow, x: jax.vmap(flow.log_density)(x))(old, positions)
    assert_allclose(anew, log_p, atol=1e-8)


def test_a_model_that_draws_nothing_finite_says_so():
    broken = Flow((Name("x"), Elementwise("x", AffineFamily(), jnp.full((1, 2), jnp.nan))), {"x": Normal(1)})
    with pytest.raises(NonFiniteError, match="10 of 10 samples have no finite log p"):
        broken.sample(jax.random.key(0), 10)
