"""How many samples of a simulation tell as much as one independent sample.

Frames of a trajectory remember those before them. With the normalized correlation function C(t) of a series
of n frames, the variance of its mean is not var / n but

    var(mean) = g var / n,      g = 1 + 2 sum_{t=1}^{n-1} (1 - t/n) C(t),

and g, the statistical inefficiency, is how many frames count as one. The sum ends where C first falls below
zero, for what follows is noise. Replicas are averaged in C around their common mean: where they do not agree
with each other, C does not decay and g says so.

Source: Chodera, Swope, Pitera, Seok, Dill, J. Chem. Theory Comput. 3, 26 (2007), section 2.4; the start of
    equilibrium, Chodera, J. Chem. Theory Comput. 12, 1799 (2016).
"""

import numpy as np
from jaxtyping import Float

from mdsens.checks import whole
from mdsens.errors import InputError, NonFiniteError

SHORTEST = 3  # lags that are counted whatever the sign of C
STARTS = 50  # places at which equilibrium may begin


def statistical_inefficiency(series: Float[np.ndarray, "records *more"]) -> float:
    """g of one series, or of one with replicas: how many frames count as one; at least 1.

    Args:
        series: in the order of time, (records,) or (records, replicas).
    Raises:
        InputError: less than two records, or more axes.
        NonFiniteError: a value is NaN or infinite.
    """
    values = np.asarray(series, float)
    if values.ndim not in (1, 2) or len(values) < 2:
        raise InputError(
            f"a series of shape {values.shape}: give (records,) or (records, replicas), two records or more."
        )
    if not np.isfinite(values).all():
        raise NonFiniteError(
            "the series holds values that are NaN or infinite: leave these frames out, or look at them."
        )
    table = values.reshape(len(values), -1, 1)
    return float(inefficiencies(table)[0])


def inefficiencies(series: Float[np.ndarray, "records replicas columns"]) -> Float[np.ndarray, "columns"]:
    """g of many series at once; 1 for a column that does not vary."""
    correlation = correlation_functions(series)
    n = len(correlation)
    lags = np.arange(n)[:, None]
    # C is summed up to its first value below zero after the shortest lags; the last lag has one product only
    over = (correlation <= 0) & (lags > SHORTEST)
    over[-1] = True
    counted = np.cumsum(over, axis=0) == 0
    counted[0] = False
    weighted = counted * (1 - lags / n) * correlation
    total = 1 + 2 * weighted.sum(0)
    return np.maximum(total, 1.0)


def correlation_functions(
    series: Float[np.ndarray, "records replicas columns"],
) -> Float[np.ndarray, "records columns"]:
    """C(t) of each column, around the mean of all replicas; zero for a column that does not vary."""
    n = len(series)
    deviation = series - series.mean((0, 1))
    # sum_t d(t) d(t + lag) is the inverse transform of |d(w)|², with zeros behind d so that nothing wraps
    length = 1 << (2 * n - 1).bit_length()
    transformed = np.fft.rfft(deviation, length, axis=0)
    power = np.abs(transformed) ** 2
    sums = np.fft.irfft(power, length, axis=0)[:n]
    pairs = n - np.arange(n)
    covariance = sums.mean(1) / pairs[:, None]
    variance = covariance[0]
    size = np.abs(series).max(initial=0.0, axis=(0, 1))
    varies = variance > (1e-14 * size) ** 2
    return np.where(varies, covariance / np.where(varies, variance, 1.0), 0.0)


def standard_errors(
    series: Float[np.ndarray, "frames columns"], replicas: int
) -> Float[np.ndarray, "columns"]:
    """Standard errors of the means of correlated series, sqrt(g var / n).

    Args:
        series: frames in the order of time, those of one time together.
        replicas: frames of one time; 0: all frames are independent.
    """
    n = len(series)
    variance = series.var(0, ddof=1)
    if not replicas:
        return np.sqrt(variance / n)
    by_time = series.reshape(n // replicas, replicas, -1)
    return np.sqrt(inefficiencies(by_time) * variance / n)


def equilibrated_from(series: Float[np.ndarray, "records *more"]) -> int:
    """The record from which on a series has the most uncorrelated frames: what comes before is the start-up.

    Args:
        series: of an energy, say; (records,) or (records, replicas).
    Raises:
        InputError: less than ten records.
    """
    values = np.asarray(series, float)
    n = whole("the number of records", len(values), at_least=10)
    places = np.linspace(0, 0.8 * n, min(STARTS, n // 2))
    starts = np.unique(places.astype(int))
    counts = [(n - start) / statistical_inefficiency(values[start:]) for start in starts]
    return int(starts[int(np.argmax(counts))])
