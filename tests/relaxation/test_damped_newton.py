"""Damped Newton: the length of its steps, its bound, and what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.relaxation.newton import step_length


@pytest.mark.parametrize("order", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("G", [1e-9, 0.1, 1.0, 50.0, 1e6])
def test_the_step_is_where_the_model_is_lowest(order, G):
    a = float(step_length(jnp.asarray(G), order))
    assert 0 < a <= 1
    # at the root of its slope
    assert_allclose(1 - a, G * a ** (1 + order) / (1 + order), rtol=1e-9, atol=1e-12)


def test_the_cubic_step_is_that_of_aicn():
    G = 3.0
    assert_allclose(step_length(jnp.asarray(G), 1.0), (np.sqrt(1 + 2 * G) - 1) / G, rtol=1e-14)


@pytest.mark.parametrize("wrong", [dict(order=0.0), dict(order=1.5), dict(constant=0.0), dict(max_step=-1.0)])
def test_what_has_no_meaning_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        ms.DampedNewton(**wrong)
