"""Errors of observables: how large, in which order, together with what, and out of which parameters."""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from mdsens.io.hdf5 import Quantity, write_hdf5
from mdsens.sensitivity.show import plain_text
from mdsens.uncertainty import show
from mdsens.uncertainty.distribution import ParameterDistribution

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

Square = Float[np.ndarray, "numbers numbers"]


class SecondOrder(NamedTuple):
    """A = L'^T H L' of each number: its curvature in some directions of the parameters, each one sigma long.

    Attributes:
        directions: L'. curvatures: A.
        covered: share of the relative variances of the parameters that lies in these directions.
    """

    directions: Float[np.ndarray, "parameters directions"]
    curvatures: Float[np.ndarray, "numbers directions directions"]
    covered: float

    @property
    def shift(self) -> Float[np.ndarray, "numbers"]:
        """Of the means: tr(A) / 2."""
        return np.trace(self.curvatures, axis1=1, axis2=2) / 2

    @property
    def covariance(self) -> Square:
        """Added to that of first order: tr(A_i A_j) / 2."""
        return np.einsum("ikl,jkl->ij", self.curvatures, self.curvatures) / 2


@dataclasses.dataclass(frozen=True)
class PropagatedUncertainty:
    """What the uncertainty of parameters makes of observables; `propagate` makes one.

    Attributes:
        observables, units: of each number. values: at the means of the parameters.
        distribution: of the parameters. parameter_units: theirs.
        jacobian: dO/dtheta, through relaxation.
        first_covariance: J Sigma J^T.
        nonlinearity: second order by first at one sigma; NaN where it was not looked at.
        second: None if it does not matter or was not wanted.
        samples: of the observables, if they were asked for.
    """

    observables: tuple[str, ...]
    units: tuple[str, ...]
    values: Float[np.ndarray, "numbers"]
    distribution: ParameterDistribution
    parameter_units: tuple[str, ...]
    jacobian: Float[np.ndarray, "numbers parameters"]
    first_covariance: Square
    nonlinearity: Float[np.ndarray, "numbers"]
    second: SecondOrder | None = None
    samples: Float[np.ndarray, "samples numbers"] | None = None

    @property
    def order(self) -> str:
        """In words: of all numbers alike."""
        return "first order" if self.second is None else "second order"

    @property
    def means(self) -> Float[np.ndarray, "numbers"]:
        """Expected values: the values, and the shift of second order."""
        return self.values if self.second is None else self.values + self.second.shift

    @functools.cached_property
    def covariance(self) -> Square:
        """Of the observables, in products of their units."""
        if self.second is None:
            return self.first_covariance
        return self.first_covariance + self.second.covariance

    @property
    def errors(self) -> Float[np.ndarray, "numbers"]:
        """One standard deviation of each number, in its unit."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def correlation(self) -> Square:
        """Of the errors; NaN of a number that has none."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.covariance / np.outer(self.errors, self.errors)

    @property
    def contributions(self) -> Float[np.ndarray, "numbers parameters"]:
        """Share of each parameter in the variance of first order: J_ik (Sigma J_i^T)_k / Var O_i.

        They add up to one; one below zero takes away, through its correlation with others, what these add.
        """
        reach = self.distribution.times(self.jacobian)
        variances = np.diag(self.first_covariance)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.jacobian * reach / variances

    def with_samples(self, n: int, seed: int = 0) -> "PropagatedUncertainty":
        """The same with samples of the observables, by the derivatives that there are."""
        draws = self.distribution.draw(n, seed) - self.distribution.mean
        found = self.values + draws @ self.jacobian.T
        if self.second is not None:
            # z' of a draw, of which what lies in the directions counts
            z = draws @ np.linalg.pinv(self.second.directions).T
            found = found + np.einsum("sk,ikl,sl->si", z, self.second.curvatures, z) / 2
        return dataclasses.replace(self, samples=found)

    # --- to look at and to keep

    def table(self) -> "Table":
        """Each observable with its error, what contributes most, and how straight it is."""
        return show.error_table(self)

    def contribution_table(self, most: int = 8) -> "Table":
        """Shares of the parameters that contribute most, in percent."""
        return show.contribution_table(self, most)

    def plot(self, path: str | Path | None = None, *, overwrite: bool = False) -> "Figure":
        """Correlations of the observables, and what contributes; written to `path` if given."""
        return show.figure(self, path, overwrite)

    def to_csv(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write value, error and the share of each parameter, one observable a line."""
        show.write_csv(self, path, overwrite)

    def to_hdf5(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write everything, with units, for `read_hdf5`."""
        second = self.second
        content = {
            "observables": {
                "name": list(self.observables),
                "unit": list(self.units),
                "value": self.values,
                "mean": self.means,
                "error": self.errors,
                "nonlinearity": self.nonlinearity,
            },
            "parameters": {
                "name": list(self.distribution.names),
                "unit": list(self.parameter_units),
                "mean": self.distribution.mean,
                "error": self.distribution.standard_errors,
            },
            "order": self.order,
            "source": self.distribution.source,
        }
        content["covariance"] = Quantity(self.covariance, "products of units", "observables, observables")
        content["jacobian"] = Quantity(self.jacobian, "ratios of units", "observables, parameters")
        content["contributions"] = Quantity(self.contributions, "1", "observables, parameters")
        if second is not None:
            axes = "observables, directions, directions"
            content["curvatures"] = Quantity(second.curvatures, "units of the observables", axes)
            content["directions"] = second.directions
        if self.samples is not None:
            content["samples"] = Quantity(self.samples, "units of the observables", "samples, observables")
        write_hdf5(path, content, kind="propagated uncertainty", overwrite=overwrite)

    def __rich__(self) -> "Table":
        return self.table()

    def __str__(self) -> str:
        return plain_text(self.table(), 110)
