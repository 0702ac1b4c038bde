"""Flows of molecules whose stiff coordinates come near the ends of their domains."""

import equinox as eqx
import jax
import numpy as np
from numpy.testing import assert_allclose

from mdsens.flows.internal_coordinates import ZMatrix
from mdsens.flows.layers import Unbounded
from mdsens.flows.molecule import MoleculeArchitecture

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
