"""A small network with random weights, another one of jax-md, and a crystal for both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mdsens as ms
from mdsens.potentials.graphs import GraphPotential
from mdsens.potentials.networks import from_jax_md_nequip, jax_md_graph

CUTOFF = 3.2


def network(params, vectors, species, senders, receivers):
    """Two rounds of messages with random weights, on top of a repulsion that keeps atoms apart."""
    r = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    inside = r < CUTOFF
    x = jnp.where(inside, r, 1.0) / CUTOFF
    envelope = jnp.where(inside, (1 - x) ** 4 * (1 + 4 * x), 0.0)
    features = params["embedding"][species]
    for layer in params["layers"]:
        bumps = jnp.tanh(jnp.outer(x, layer["slopes"]))
        messages = features[senders] * (bumps @ layer["radial"]) * envelope[:, None]
        heard = jax.ops.segment_sum(messages, receivers, len(species))
        features = features + jnp.tanh(heard @ layer["mix"])
    pairs = jax.ops.segment_sum(params["core"] * envelope * (x**-6 - 3.0), receivers, len(species))
    return pairs + features @ params["readout"]


def random_params(seed=0, width=3):
    rng = np.random.default_rng(seed)
    layer = lambda: {
        "slopes": rng.uniform(1, 3, 4),
        "radial": rng.normal(size=(4, width)),
        "mix": rng.normal(size=(width, width)) / 4,
    }
    return {
        "embedding": rng.normal(size=(2, width)),
        "layers": [layer(), layer()],
        "core": np.float32(0.5),
        "readout": rng.normal(size=width) / 4,
        "rounds": 2,  # no weight
    }


def potential() -> GraphPotential:
    return GraphPotential(network, random_params(), CUTOFF, ("Si", "O"))


def crystal() -> ms.Structure:
    """Six atoms in a sheared cell that is thinner than two cutoffs."""
    rng = np.random.default_rng(1)
    sites = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1], [2, 1, 1], [2, 0, 0]]) * 2.1
    cell = np.diag([6.3, 4.2, 4.2]) + rng.normal(size=(3, 3)) * 0.1
    return ms.Structure.create(sites + rng.normal(size=(6, 3)) * 0.1, ["Si", "O"] * 3, cell)


def nequip() -> GraphPotential:
    """With random weights."""
    library = pytest.importorskip("jax_md._nn.nequip", reason="jax-md is not installed")
    settings = library.default_config()
    settings.graph_net_steps, settings.n_elements, settings.r_max = 1, 2, CUTOFF
    settings.hidden_irreps, settings.sh_irreps, settings.num_basis = "4x0e+2x1o", "1x0e+1x1o", 4
    settings.radial_net_n_hidden, settings.radial_net_n_layers, settings.scalar_mlp_std = 8, 1, 1.0
    settings.n_neighbors, settings.scale, settings.shift = 10.0, 1.0, 0.0
    model = library.model_from_config(settings)
    spare = jax_md_graph(jnp.eye(2), jnp.ones((1, 3)), jnp.zeros(1, int), jnp.zeros(1, int))
    params = jax.jit(model.init)(jax.random.key(0), spare)
    return from_jax_md_nequip(model, params, ("Si", "O"))
