"""Weights whose sums are known: effective samples, free energies and averages by counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from mdsens.ensembles import (
    bennett,
    effective_sample_size,
    free_energy_difference,
    joint_log_weights,
    log_weights,
    reweighted_average,
)
from mdsens.errors import InputError, NonFiniteError, NotConvergedError

N = 24
LOG_W = arrays(float, N, elements=st.floats(-30, 30))
SHIFTS = st.floats(-200, 200)
VALUES = arrays(float, N, elements=st.floats(-1e3, 1e3))


def two_kinds(n_light: int, ratio: float) -> np.ndarray:
    """n_light weights of 1, and `ratio` for the others."""
    return np.where(np.arange(N) < n_light, 0.0, np.log(ratio))


@given(SHIFTS)
def test_equal_weights_all_count(shift):
    assert_allclose(effective_sample_size(np.full(N, shift)), 1.0, rtol=1e-12)


@given(SHIFTS, st.integers(0, N - 1))
def test_one_weight_above_all_others_counts_alone(shift, k):
    log_w = np.full(N, shift)
    log_w[k] += 500.0
    assert_allclose(effective_sample_size(log_w), 1 / N, rtol=1e-12)


@given(st.integers(1, N - 1), st.floats(0.01, 100.0))
def test_two_kinds_of_weights_count_as_kish_says(n_light, ratio):
    n_heavy = N - n_light
    exact = (n_light + n_heavy * ratio) ** 2 / (n_light + n_heavy * ratio**2) / N
    assert_allclose(effective_sample_size(two_kinds(n_light, ratio)), exact, rtol=1e-12)


@given(LOG_W, SHIFTS)
def test_a_constant_in_the_energy_changes_no_share_and_shifts_the_free_energy(log_w, shift):
    assert_allclose(effective_sample_size(log_w + shift), effective_sample_size(log_w), rtol=1e-9)
    here = free_energy_difference(log_w, min_effective=0)
    there = free_energy_difference(log_w + shift, min_effective=0)
    assert_allclose(there.value, here.value - shift, rtol=1e-12, atol=1e-10)
    assert_allclose(there.error, here.error, rtol=1e-8, atol=1e-12)


@given(LOG_W)
def test_shares_lie_between_one_sample_and_all(log_w):
    share = float(effective_sample_size(log_w))
    assert 1 / N - 1e-12 <= share <= 1 + 1e-12
    # Kish's number is that of the weights clipped at nothing
    assert_allclose(effective_sample_size(log_w, clip=0.0), share, rtol=1e-12)


@given(LOG_W, st.floats(0.05, 0.9))
def test_clipping_never_lowers_the_share(log_w, clip):
    assert effective_sample_size(log_w, clip=clip) >= effective_sample_size(log_w) - 1e-12


@given(st.integers(1, N - 1), st.floats(0.01, 100.0))
def test_the_free_energy_is_minus_the_log_of_the_mean_weight(n_light, ratio):
    exact = -np.log((n_light + (N - n_light) * ratio) / N)
    found = free_energy_difference(two_kinds(n_light, ratio), min_effective=0)
    assert_allclose(found.value, exact, atol=1e-12)


@given(LOG_W, VALUES)
def test_an_average_is_that_of_the_weights_by_hand(log_w, values):
    w = np.exp(log_w - log_w.max())
    found = reweighted_average(values, log_w, min_effective=0)
    assert_allclose(found.value, np.sum(w * values) / np.sum(w), rtol=1e-9, atol=1e-9)
    assert values.min() - 1e-9 <= float(found.value) <= values.max() + 1e-9


@given(LOG_W, VALUES, st.floats(-10, 10), st.floats(-10, 10))
def test_averages_are_linear(log_w, values, scale, shift):
    plain = reweighted_average(values, log_w, min_effective=0)
    found = reweighted_average(scale * values + shift, log_w, min_effective=0)
    assert_allclose(found.value, scale * plain.value + shift, rtol=1e-8, atol=1e-7)
    assert_allclose(found.error, abs(scale) * plain.error, rtol=1e-6, atol=1e-6)


@given(LOG_W)
def test_a_constant_has_no_error(log_w):
    found = reweighted_average(np.full(N, 3.0), log_w, min_effective=0)
    assert_allclose([found.value, found.error], [3.0, 0.0], atol=1e-12)


def test_samples_of_no_weight_may_have_no_value():
    log_w = np.where(np.arange(N) < 20, 0.0, -np.inf)
    values = np.where(np.arange(N) < 20, 2.0, np.nan)
    assert_allclose(reweighted_average(values, log_w).value, 2.0)
    values[3] = np.nan
    with pytest.raises(NonFiniteError, match="the average is not finite"):
        reweighted_average(values, log_w)


@given(SHIFTS)
def test_two_ends_with_the_same_weights_everywhere_have_exactly_that_free_energy(shift):
    # u + log p is the same number at every sample: F is that number
    found = bennett(np.full(N, -shift), np.full(N, -shift))
    assert_allclose(found.value, shift, rtol=1e-9, atol=1e-9)
    assert_allclose(found.error, 0, atol=1e-6)


@given(arrays(float, N, elements=st.floats(-3, 3)), SHIFTS)
def test_bennett_of_exchanged_ends_has_the_other_sign(log_w, shift):
    one, other = log_w + shift, log_w[::-1] * 0.5 + shift
    there = bennett(one, other, min_effective=0)
    back = bennett(-other, -one, min_effective=0)
    assert_allclose(there.value, -back.value, rtol=1e-8, atol=1e-7)


@given(arrays(float, N, elements=st.floats(-3, 3)))
def test_joint_weights_give_bennetts_value(log_w):
    reference, target = log_w, 0.5 * log_w[::-1] + 1.0
    joint = joint_log_weights(reference, target)
    assert joint.shape == (2 * N,)
    found = free_energy_difference(joint, min_effective=0).value
    assert_allclose(found, bennett(reference, target, min_effective=0).value, rtol=1e-8, atol=1e-8)


def test_weights_are_minus_energy_minus_log_density():
    x, log_p = np.linspace(-1, 1, N), np.linspace(-3, 0, N)
    log_w = log_weights(lambda x, k: 0.5 * k * x**2, x, log_p, 2.0)
    assert_allclose(log_w, -(x**2) - log_p, rtol=1e-14)
    # an energy without end is a sample without weight
    walled = log_weights(lambda x: jnp.where(x > 0, jnp.inf, 0.0), x, log_p)
    assert np.all(np.isneginf(np.asarray(walled)[x > 0])) and np.isfinite(np.asarray(walled)[x <= 0]).all()


@pytest.mark.parametrize(
    ("log_w", "kind", "message"),
    [
        (np.zeros(1), InputError, "two samples or more"),
        (np.array([0.0, np.nan]), NonFiniteError, "1 of 2 log weights are NaN or inf, .* sample 1"),
        (np.array([np.inf, 0.0]), NonFiniteError, "sample 0: inf"),
        (np.full(3, -np.inf), NonFiniteError, "all 3 weights are zero"),
    ],
)
@pytest.mark.parametrize("function", [effective_sample_size, free_energy_difference])
def test_weights_that_are_none_are_refused(function, log_w, kind, message):
    with pytest.raises(kind, match=message):
        function(log_w)


@pytest.mark.parametrize("clip", [-0.1, 1.0, 2.0, np.nan])
def test_a_share_to_clip_that_is_none_is_refused(clip):
    with pytest.raises(InputError, match="at least 0 and below 1"):
        effective_sample_size(np.zeros(N), clip=clip)


def test_few_effective_samples_are_an_error_that_carries_the_numbers():
    log_w = np.zeros(N)
    log_w[0] = 100.0
    with pytest.raises(NotConvergedError, match="only 1 count, below min_effective = 10") as raised:
        free_energy_difference(log_w)
    assert_allclose(raised.value.partial.value, np.log(N) - 100.0)
    assert_allclose(raised.value.partial.effective_samples, 1.0)


def test_numbers_of_samples_must_agree():
    with pytest.raises(InputError, match="3 samples and 4 densities or weights"):
        log_weights(lambda x: x, np.zeros(3), np.zeros(4))
    with pytest.raises(InputError, match="3 samples and 4"):
        reweighted_average(np.zeros(3), np.zeros(4))


def test_the_free_energy_of_a_wider_well_is_that_of_its_integral():
    # at the ends and middles of equal shares of a Gaussian, weights need no luck: u = k x² / 2, p of k = 1
    n = 4001
    x = np.asarray(jax.scipy.special.ndtri((np.arange(n) + 0.5) / n))
    log_p = -0.5 * x**2 - 0.5 * np.log(2 * np.pi)
    for k in (0.8, 1.0, 1.5):
        found = free_energy_difference(-0.5 * k * x**2 - log_p)
        # F = -log sqrt(2 pi / k); what the ends of the Gaussian lack is 1e-3 for the wider well
        assert_allclose(found.value, -0.5 * np.log(2 * np.pi / k), atol=2e-3)
