"""Charges: those of structures where a potential has none, and net charges that rounding leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mdsens as ms
from mdsens.errors import InputError
from mdsens.potentials.charges import charges_of, net_charge


def test_charges_come_from_the_structure_or_the_remedy_is_said():
    with_charges = ms.Structure.create(np.eye(3)[:2], ["Na", "Cl"], charges=[1.0, -1.0])
    np.testing.assert_array_equal(charges_of(with_charges, "Ewald"), [1.0, -1.0])
    with pytest.raises(InputError, match=r"Ewald takes its charges from the structure.*Ewald\(charge="):
        charges_of(ms.Structure.create(np.eye(3)[:2], ["Na", "Cl"]), "Ewald")


@pytest.mark.parametrize(
    ("charges", "net"),
    [
        ([1.0, -1.0], 0.0),
        ([0.9999, -1.0] * 4, 0.0),  # rounded in a file
        ([1.0, -1.0, 1.0], 1.0),  # an ion too many
        ([0.417, 0.417, -0.834], 0.0),
        ([0.417, 0.417, -0.8341], 0.0),
        ([1e-3, -2e-3], -1e-3),  # small charges are charges
        ([0.0, 0.0], 0.0),
        ([], 0.0),
    ],
)
def test_a_net_charge_is_no_rounding(charges, net):
    assert net_charge(jnp.asarray(charges, float)) == pytest.approx(net)


@given(st.integers(1, 500), st.floats(0.1, 4.0))
def test_one_ion_too_many_is_never_taken_for_rounding(pairs, charge):
    neutral = np.tile([charge, -charge], pairs)
    assert net_charge(jnp.asarray(neutral)) == 0.0
    assert net_charge(jnp.asarray(np.append(neutral, charge))) == pytest.approx(charge)


def test_nobody_knows_the_net_charge_while_it_is_differentiated():
    found = []
    jax.grad(lambda q: found.append(net_charge(q)) or jnp.sum(q))(jnp.array([1.0, 1.0]))
    assert found == [0.0]
