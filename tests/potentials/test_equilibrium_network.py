"""Networks with an equilibrium layer: one fixed point, contraction, derivatives at both orders."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_network import crystal
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.potentials.equilibrium_network import Contracting, Edges, Subhomogeneous, equilibrium_network

LAYERS = {"contracting": Contracting(0.9), "subhomogeneous": Subhomogeneous(0.5)}
NODES = 5


def made(name):
    return equilibrium_network(("Si", "O"), 3.2, layer=LAYERS[name], features=3, bumps=4)


def graph():
    rng = np.random.default_rng(0)
    edges = Edges(
        jnp.array([0, 1, 2, 3, 4, 0]), jnp.array([1, 0, 3, 2, 0, 4]), jnp.asarray(rng.uniform(0, 3, 6))
    )
    return jnp.asarray(rng.normal(size=(NODES, 3))), edges


@pytest.mark.parametrize("name", LAYERS)
def test_layers_contract_whatever_their_weights_are(name):
    layer, (b, edges) = LAYERS[name], graph()
    params = {key: 30 * value for key, value in made(name).params.items()}
    step = lambda z: layer.step(z, params, b, edges)
    z = layer.start(b)
    if name == "contracting":
        J = jax.jacfwd(step)(z).reshape(3 * NODES, 3 * NODES)
        assert np.abs(J).sum(axis=1).max() < 0.9
        assert ms.contraction(step, z).radius < 0.9
    else:
        flat = lambda v: step(v.reshape(z.shape)).ravel()
        assert ms.homogeneity(flat, z.ravel()) <= 0.5 + 1e-12


@pytest.mark.parametrize("name", LAYERS)
def test_there_is_one_fixed_point_from_any_start(name):
    layer, (b, edges) = LAYERS[name], graph()
    params = made(name).params
    starts = (layer.start(b), jnp.full(b.shape, 0.7))
    ends = [ms.find_fixed_point(layer.step, z, params, b, edges, solver=layer.solver).x for z in starts]
    assert_allclose(ends[0], ends[1], rtol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_forces_follow_the_weights_at_both_orders(name):
    potential, structure = made(name), crystal()
    near = ms.neighbors_of(potential, structure)
    rng = np.random.default_rng(1)
    params, static = eqx.partition(potential, eqx.is_inexact_array)
    direction = jax.tree.map(lambda leaf: 0.3 * jnp.asarray(rng.normal(size=leaf.shape)), params)

    @jax.jit
    def force(t):
        moved = eqx.combine(jax.tree.map(lambda w, d: w + t * d, params, direction), static)
        return -jax.grad(lambda x: moved.energy(structure.at(x), near))(structure.positions)

    slope = jax.jit(lambda t: jax.jvp(force, (t,), (1.0,))[1])
    bend = jax.jit(lambda t: jax.jvp(slope, (t,), (1.0,))[1])
    # sixth order differences: their error is 0.02⁶ of a derivative, and little is lost to rounding
    weights, step = np.array([1, -9, 45, -45, 9, -1]) / 60, 0.02
    places = np.array([3, 2, 1, -1, -2, -3])
    for function, derivative in ((force, slope), (slope, bend)):
        values = np.stack([function(step * k) for k in places])
        twin = np.tensordot(weights, values, 1) / step
        assert_allclose(derivative(0.0), twin, rtol=0, atol=1e-8 * np.abs(twin).max())


def test_layers_that_would_expand_are_refused():
    with pytest.raises(InputError, match="factor = 1"):
        Contracting(1.0)
    with pytest.raises(InputError, match="degree = 2"):
        Subhomogeneous(2.0)
    with pytest.raises(InputError, match="layer must be"):
        equilibrium_network(("Si",), layer="contracting")
    with pytest.raises(InputError, match="features"):
        equilibrium_network(("Si",), features=0)
