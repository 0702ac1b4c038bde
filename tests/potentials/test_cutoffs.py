"""How interactions end: what each cut promises at the cutoff, and what it leaves alone inside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.errors import InputError
from mdsens.potentials.cutoffs import CUTS

END = 5.0
INSIDE = jnp.linspace(2.0, END, 61)


def phi(r):
    """A Morse pair in round numbers."""
    return jnp.exp(-2 * (r - 2.5)) - 2 * jnp.exp(-(r - 2.5))


def derivative(cut, order: int):
    """d^order / dr^order of the cut energy at each distance."""

    def function(r):
        return cut(phi, r, END)

    for _ in range(order):
        function = jax.grad(function)
    return jax.vmap(function)


ONSETS = [ms.Smooth(), ms.Smooth(onset=0.0), ms.Smooth(onset=0.55), ms.Smooth(onset=0.95)]
# derivatives of the energy that vanish at the cutoff
PROMISED = [(ms.Truncated(), 0), (ms.Shifted(), 1), (ms.ForceShifted(), 2), *((cut, 3) for cut in ONSETS)]


@pytest.mark.parametrize(("cut", "continuous"), PROMISED)
def test_so_many_derivatives_vanish_at_the_cutoff_and_the_next_jumps(cut, continuous):
    end = jnp.array([END])
    for order in range(continuous):
        # sums of terms of order 1, of which the switch of onset 0.95 makes 1e4 by two derivatives
        assert_allclose(derivative(cut, order)(end), 0, atol=1e-8, err_msg=f"derivative {order}")
    assert abs(float(derivative(cut, continuous)(end * (1 - 1e-6))[0])) > 1e-3


def test_truncation_changes_nothing_inside():
    assert_array_equal(ms.Truncated()(phi, INSIDE, END), phi(INSIDE))


def test_shifts_change_no_more_than_a_straight_line():
    shifted = ms.Shifted()(phi, INSIDE, END) - phi(INSIDE)
    assert_allclose(shifted, shifted[0], rtol=1e-12)
    line = np.asarray(ms.ForceShifted()(phi, INSIDE, END) - phi(INSIDE))
    assert_allclose(np.diff(line, 2), 0, atol=1e-14)
    # its slope is minus that of the pair at the cutoff
    slope = float(jax.grad(phi)(END))
    assert_allclose(np.diff(line) / np.diff(np.asarray(INSIDE)), -slope, rtol=1e-9)


@pytest.mark.parametrize("cut", ONSETS)
def test_a_switch_leaves_alone_what_lies_before_its_onset(cut):
    before = INSIDE[cut.onset * END >= INSIDE]
    assert_array_equal(cut(phi, before, END), phi(before))
    between = INSIDE[cut.onset * END < INSIDE]
    share = np.asarray(cut(phi, between, END) / phi(between))
    assert np.all(np.diff(share) <= 1e-12) and np.all((share >= -1e-12) & (share <= 1 + 1e-12))


@pytest.mark.parametrize("cut", ONSETS)
def test_a_switch_is_smooth_where_it_begins(cut):
    onset = jnp.array([cut.onset * END])
    if cut.onset == 0:
        return
    for order in range(3):
        below, above = derivative(cut, order)(onset - 1e-7), derivative(cut, order)(onset + 1e-7)
        assert_allclose(below, above, atol=1e-2 if order == 2 else 1e-5)


@pytest.mark.parametrize("onset", [-0.1, 1.0, 1.5, np.nan, "0.8", None])
def test_an_onset_that_is_no_share_of_the_cutoff_is_refused(onset):
    with pytest.raises(InputError, match="onset"):
        ms.Smooth(onset=onset)


def test_cuts_have_names_in_files():
    assert {name: type(cut) for name, cut in CUTS.items()} == {
        "truncated": ms.Truncated,
        "shifted": ms.Shifted,
        "force-shifted": ms.ForceShifted,
        "smooth": ms.Smooth,
    }


@pytest.mark.parametrize(("cut", "continuous"), PROMISED)
def test_derivatives_by_parameters_vanish_with_the_energy(cut, continuous):
    # dE/dD of D phi is E / D: it ends as the energy does
    value, slope = jax.value_and_grad(lambda D: cut(lambda r: D * phi(r), jnp.asarray(3.0), END))(1.7)
    assert_allclose(slope, value / 1.7, rtol=1e-12)
    if continuous:
        assert_allclose(
            jax.grad(lambda D: cut(lambda r: D * phi(r), jnp.asarray(END), END))(1.7), 0, atol=1e-12
        )


@pytest.mark.parametrize("cut", ["smooth", "force-shifted", 3, None, ms.Smooth])
def test_a_cut_is_an_object_and_no_text(cut):
    with pytest.raises(InputError, match="cut"):
        ms.LennardJones(0.01, 3.4, ("Ar",), 8.0, cut)


@pytest.mark.parametrize("radius", [0.0, -1.0, np.nan, "8", None, [8.0], 1j])
def test_a_cutoff_that_is_no_length_is_refused(radius):
    with pytest.raises(InputError, match="cutoff_radius"):
        ms.LennardJones(0.01, 3.4, ("Ar",), radius)
