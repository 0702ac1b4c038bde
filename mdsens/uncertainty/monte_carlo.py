"""The same by brute force: draw parameters, relax again, measure. What derivatives are checked against."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mdsens.checks import whole
from mdsens.errors import MDSensError, NotConvergedError
from mdsens.observables.observable import Observable
from mdsens.potentials.base import Potential
from mdsens.relaxation.relax import Relaxed
from mdsens.structure import Structure
from mdsens.uncertainty.distribution import ParameterDistribution
from mdsens.uncertainty.propagate import nearby_states
from mdsens.uncertainty.result import PropagatedUncertainty


class DrawsProgress(NamedTuple):
    """What a callback sees after each draw."""

    done: int
    draws: int
    lost: int


@dataclasses.dataclass(frozen=True)
class MonteCarlo:
    """Observables of relaxed states of parameters drawn at random.

    Attributes:
        observables, units: of each number.
        values: of the draws whose states could be followed.
        lost: why the others could not, by their number.
    """

    observables: tuple[str, ...]
    units: tuple[str, ...]
    values: Float[np.ndarray, "draws numbers"]
    lost: dict[int, str]

    @property
    def means(self) -> Float[np.ndarray, "numbers"]:
        """Of the draws."""
        return self.values.mean(0)

    @property
    def mean_errors(self) -> Float[np.ndarray, "numbers"]:
        """Standard errors of the means."""
        return self.errors / np.sqrt(len(self.values))

    @property
    def errors(self) -> Float[np.ndarray, "numbers"]:
        """Standard deviations of the draws."""
        return self.values.std(0, ddof=1)

    @property
    def error_errors(self) -> Float[np.ndarray, "numbers"]:
        """Standard errors of the standard deviations: s sqrt((kurtosis - 1) / 4 n)."""
        off = self.values - self.means
        spread = self.errors
        scale = np.where(spread > 0, spread, 1.0)
        kurtosis = np.mean((off / scale) ** 4, axis=0)
        # of few draws it comes out too small: that of a normal distribution at least
        excess = np.maximum(kurtosis, 3.0) - 1
        return spread * np.sqrt(excess / (4 * len(self.values)))

    def against(self, found: PropagatedUncertainty) -> tuple[np.ndarray, np.ndarray]:
        """(Propagated - drawn) in standard errors of the draws: of the means, of the standard deviations."""
        of_means = _in_errors(found.means - self.means, self.mean_errors)
        return of_means, _in_errors(found.errors - self.errors, self.error_errors)


def _in_errors(off: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Differences by their errors; what no draw moves is not off."""
    there = errors > 0
    return np.where(there, off / np.where(there, errors, 1.0), 0.0)


def monte_carlo(
    observables: Sequence[Observable | str] | Observable | str,
    potential: Potential,
    structure: Structure | Relaxed | Mapping[str, Structure | Relaxed],
    distribution: ParameterDistribution,
    *,
    draws: int = 500,
    seed: int = 0,
    cell: Any = None,
    pressure: float = 0.0,
    fmax: float = 1e-10,
    progress: Callable[[DrawsProgress], None] | None = None,
    **relax_options: Any,
) -> MonteCarlo:
    """Relax again for each of some draws of the parameters: as many relaxations, each from the mean's.

    Args:
        draws: how many.
        seed: of the draws.
        progress: called after each.
    For the others see `propagate`.
    Raises:
        NotConvergedError: more than half of the states could not be followed: the distribution is wider than
            what the structure stands.
    """
    options = {"cell": cell, "pressure": pressure, "fmax": fmax, **relax_options}
    nearby = nearby_states(observables, potential, structure, distribution, **options)
    draws = whole("draws", draws, at_least=2)
    changes = distribution.draw(draws, seed) - distribution.mean
    values, lost = [], {}
    for k, change in enumerate(changes):
        try:
            values.append(nearby.values_at(change))
        except MDSensError as error:
            lost[k] = str(error)
        if progress is not None:
            progress(DrawsProgress(k + 1, draws, len(lost)))
    if len(lost) > draws // 2:
        raise NotConvergedError(
            f"{len(lost)} of {draws} states could not be followed to the parameters drawn: the distribution "
            f"is wider than what the structure stands. The first: {next(iter(lost.values()))}"
        )
    problem = nearby.problem
    return MonteCarlo(problem.names, problem.units, np.array(values), lost)
