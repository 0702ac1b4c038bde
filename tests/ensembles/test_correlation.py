"""How many frames count as one: closed forms, pymbar as the twin, and error bars against scatter."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mdsens.ensembles.correlation import (
    correlation_functions,
    equilibrated_from,
    inefficiencies,
    standard_errors,
    statistical_inefficiency,
)
from mdsens.errors import InputError, NonFiniteError


def autoregressive(memory: float, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """x_t = memory x_{t-1} + noise, in equilibrium from the start: C(t) = memory^t, g = (1+m)/(1-m)."""
    noise = np.random.default_rng(seed).normal(size=shape)
    x = noise.copy()
    for t in range(1, len(x)):
        x[t] = memory * x[t - 1] + np.sqrt(1 - memory**2) * noise[t]
    return x


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_a_series_with_a_memory_has_its_inefficiency(memory):
    found = statistical_inefficiency(autoregressive(memory, (20_000, 4)))
    # the sum over C has an error of some percent from the noise in its tail
    assert_allclose(found, (1 + memory) / (1 - memory), rtol=0.1)


@pytest.mark.peer
@pytest.mark.parametrize("memory", [0.0, 0.6, 0.95])
def test_inefficiencies_are_those_of_pymbar(memory):
    timeseries = pytest.importorskip("pymbar.timeseries", reason="pymbar is not installed")
    one = autoregressive(memory, (1500,), seed=1)
    assert_allclose(statistical_inefficiency(one), timeseries.statistical_inefficiency(one), rtol=1e-10)
    several = autoregressive(memory, (700, 3), seed=2)
    if memory < 0.9:  # pymbar counts ten lags of several series in any case, and three of a single one
        return
    twin = timeseries.statistical_inefficiency_multiple(list(several.T))
    assert_allclose(statistical_inefficiency(several), twin, rtol=1e-10)


def test_many_columns_at_once_are_each_of_them_alone():
    series = np.stack([autoregressive(m, (300, 2), seed=3) for m in (0.0, 0.7, 0.9)], axis=-1)
    alone = [statistical_inefficiency(series[..., k]) for k in range(3)]
    assert_allclose(inefficiencies(series), alone, rtol=1e-12)
    lag = 7
    d = series - series.mean((0, 1))
    by_hand = (d[:-lag] * d[lag:]).mean((0, 1)) / (d**2).mean((0, 1))
    assert_allclose(correlation_functions(series)[lag], by_hand, rtol=1e-10)


def test_replicas_that_do_not_agree_are_one_sample_each():
    apart = autoregressive(0.0, (500, 4)) + 30.0 * np.arange(4)
    assert statistical_inefficiency(apart) > 0.9 * 500


@pytest.mark.parametrize("value", [0.0, 3.3, -1e9])
def test_a_series_that_stands_still_has_no_memory_and_no_error(value):
    constant = np.full((50, 2), value)
    assert statistical_inefficiency(constant) == 1.0
    assert_allclose(standard_errors(constant.reshape(-1, 1), 2), 0.0, atol=1e-15 * abs(value))


def test_errors_of_means_are_their_scatter():
    means, errors = [], []
    for seed in range(60):
        x = autoregressive(0.8, (400, 2), seed)
        means.append(x.mean())
        errors.append(standard_errors(x.reshape(-1, 1), 2)[0])
    # the scatter of 60 means is known to 9 percent
    assert_allclose(np.mean(errors), np.std(means), rtol=0.25)
    independent = standard_errors(autoregressive(0.0, (400, 1)), 0)
    assert_allclose(independent, 1 / 20, rtol=0.1)


def test_the_way_to_equilibrium_is_left_out():
    x = autoregressive(0.5, (1000, 2))
    x[:200] += np.linspace(20, 0, 200)[:, None]
    start = equilibrated_from(x)
    assert 120 <= start <= 320
    assert equilibrated_from(autoregressive(0.5, (1000,))) < 400


@pytest.mark.parametrize(
    ("series", "kind", "message"),
    [
        (np.zeros(1), InputError, "two records or more"),
        (np.zeros((4, 2, 2)), InputError, r"shape \(4, 2, 2\)"),
        (np.array([0.0, np.nan, 1.0]), NonFiniteError, "NaN or infinite"),
    ],
)
def test_series_that_are_none_are_refused(series, kind, message):
    with pytest.raises(kind, match=message):
        statistical_inefficiency(series)


def test_an_equilibrium_needs_records():
    with pytest.raises(InputError, match="the number of records = 5"):
        equilibrated_from(np.zeros(5))
