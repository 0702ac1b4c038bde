"""Functions compiled with little effort give the same numbers, also where JAX traces them."""

import jax
import jax.numpy as jnp
from numpy.testing import assert_allclose

from mdsens.compiling import compiled_soon


@compiled_soon
def wave(x):
    return jnp.sum(jnp.sin(x) ** 2)


X = jnp.linspace(0.1, 1.0, 5)
VALUE = jnp.sum(jnp.sin(X) ** 2)


def test_plain_numbers_come_out_as_without_it():
    assert_allclose(wave(X), VALUE, rtol=1e-14)


def test_a_derivative_goes_through():
    assert_allclose(jax.grad(wave)(X), jnp.sin(2 * X), rtol=1e-14)


def test_plain_numbers_within_a_traced_function_stay_plain():
    def inside(y):
        assert isinstance(float(wave(X)), float)
        return y * wave(y)

    assert_allclose(jax.jit(inside)(X), X * VALUE, rtol=1e-14)
