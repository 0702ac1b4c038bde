"""What is known of parameters: a mean, and a covariance that is never written down where it is large.

The covariance is kept as what makes it,

    Sigma = L L^T + diag(d²),        L (parameters x directions),

so that a product with it costs as much as two with L: posteriors of a million weights are a few directions
and a diagonal. A draw is mean + L z + d e with z and e standard normal.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mdsens.checks import whole
from mdsens.errors import InputError, NonFiniteError
from mdsens.potentials.base import Potential, require_potential
from mdsens.potentials.parameters import parameter_values, replace_by_vector
from mdsens.sensitivity.problem import select

ROUNDING = 1e-10  # of the largest eigenvalue of the correlations: what is below zero by less is zero

Rows = Float[np.ndarray, "rows parameters"]


@dataclasses.dataclass(frozen=True)
class ParameterDistribution:
    """Parameters of a potential with their uncertainty; the classmethods make one.

    Attributes:
        names: flat names. mean: in their units.
        factor: L. errors: d, standard errors of what is independent; zeros where there is none.
        samples: that it was made of, if it was; they need not be normal.
        source: in words.
    """

    names: tuple[str, ...]
    mean: Float[np.ndarray, "parameters"]
    factor: Float[np.ndarray, "parameters directions"]
    errors: Float[np.ndarray, "parameters"]
    samples: Float[np.ndarray, "samples parameters"] | None = None
    source: str = ""

    # --- made of

    @classmethod
    def from_covariance(
        cls, potential: Potential, covariance: Any, names: Sequence[str] | None = None, *, mean: Any = None
    ) -> "ParameterDistribution":
        """Of a matrix.

        Args:
            potential: whose values are the mean, unless told.
            covariance: (parameters, parameters), symmetric, in products of their units.
            names: flat names in the order of the matrix; default all parameters.
            mean: (parameters,).
        Raises:
            InputError: unknown names, another shape; a matrix that is not symmetric or has a direction of
                negative variance. NonFiniteError: a number in it is not finite.
        """
        chosen, start = _chosen(potential, names, mean)
        matrix = _array("covariance", covariance, (len(chosen), len(chosen)))
        return cls(chosen, start, _root(matrix, chosen), np.zeros(len(chosen)), source="covariance")

    @classmethod
    def from_errors(
        cls, potential: Potential, errors: Mapping[str, float] | Any, names: Sequence[str] | None = None
    ) -> "ParameterDistribution":
        """Of standard errors of independent parameters: name -> error, or an array in the order of `names`.

        Raises:
            InputError: unknown names, or an error below zero.
        """
        if isinstance(errors, Mapping):
            names, errors = tuple(errors), list(errors.values())
        chosen, mean = _chosen(potential, names, None)
        sizes = _array("errors", errors, (len(chosen),))
        for name, size in zip(chosen, sizes, strict=True):
            if size < 0:
                raise InputError(f"the error of {name} is {size:g}: a standard error is not negative.")
        return cls(chosen, mean, np.zeros((len(chosen), 0)), sizes, source="standard errors")

    @classmethod
    def from_factor(
        cls, potential: Potential, factor: Any, names: Sequence[str] | None = None, *, mean: Any = None
    ) -> "ParameterDistribution":
        """Of L with Sigma = L L^T: few directions for many parameters, and no matrix of the large size.

        Args:
            factor: (parameters, directions).
        """
        chosen, start = _chosen(potential, names, mean)
        columns = np.shape(factor)[1] if np.ndim(factor) == 2 else 1
        L = _array("factor", factor, (len(chosen), columns))
        return cls(chosen, start, L, np.zeros(len(chosen)), source="factor")

    @classmethod
    def from_samples(
        cls, potential: Potential, samples: Any, names: Sequence[str] | None = None
    ) -> "ParameterDistribution":
        """Of draws, whose mean is the mean: name -> (samples,), or an array (samples, parameters).

        Raises:
            InputError: unknown names, fewer than two draws.
        """
        if isinstance(samples, Mapping):
            columns = [np.asarray(column, float) for column in samples.values()]
            names, samples = tuple(samples), np.stack(columns, axis=1)
        chosen, _ = _chosen(potential, names, None)
        draws = len(samples)
        if draws < 2:
            raise InputError(f"{draws} samples have no scatter: give two or more, one a row.")
        found = _array("samples", samples, (draws, len(chosen)))
        mean = found.mean(0)
        L = (found - mean).T / np.sqrt(draws - 1)
        return cls(chosen, mean, L, np.zeros(len(chosen)), found, f"{draws} samples")

    # --- used

    @property
    def variances(self) -> Float[np.ndarray, "parameters"]:
        """Diagonal of the covariance."""
        return np.sum(self.factor**2, axis=1) + self.errors**2

    @property
    def standard_errors(self) -> Float[np.ndarray, "parameters"]:
        """Of each parameter, in its unit."""
        return np.sqrt(self.variances)

    def times(self, rows: Rows) -> Rows:
        """Each row times the covariance."""
        return (rows @ self.factor) @ self.factor.T + rows * self.errors**2

    @property
    def covariance(self) -> Float[np.ndarray, "parameters parameters"]:
        """Written down: for few parameters."""
        return self.times(np.eye(len(self.names)))

    def draw(self, n: int, seed: int = 0) -> Float[np.ndarray, "draws parameters"]:
        """Parameters at random: of the samples that it was made of, if it was, else normal ones."""
        n = whole("the number of draws", n, at_least=1)
        generator = np.random.default_rng(seed)
        if self.samples is not None:
            return self.samples[generator.integers(len(self.samples), size=n)]
        along = generator.normal(size=(n, self.factor.shape[1]))
        alone = generator.normal(size=(n, len(self.names)))
        return self.mean + along @ self.factor.T + alone * self.errors

    def at_mean(self, potential: Potential) -> Potential:
        """The potential with the means for its parameters; the potential itself where they are its own."""
        return self.moved(potential, np.zeros(len(self.names)))

    def moved(self, potential: Potential, change: Float[np.ndarray, "parameters"]) -> Potential:
        """The potential with the means and a change for its parameters."""
        values = self.mean + change
        select(potential, self.names)
        known = parameter_values(potential)
        if all(known[name] == value for name, value in zip(self.names, values, strict=True)):
            return potential
        return replace_by_vector(potential, self.names, jnp.asarray(values))


def _chosen(
    potential: Potential, names: Sequence[str] | None, mean: Any
) -> tuple[tuple[str, ...], np.ndarray]:
    selection = select(require_potential(potential), names)
    if mean is None:
        return selection.names, selection.values(potential)
    return selection.names, _array("mean", mean, (len(selection.names),))


def _array(what: str, given: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.array(given, float)
    if array.shape != shape:
        raise InputError(
            f"the {what} has the shape {array.shape}, and the parameters ask for {shape}: name the "
            "parameters that it belongs to, in its order (names=[...])."
        )
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = ", ".join(str(k) for k in bad[0])
        raise NonFiniteError(f"the {what} at [{place}] is {array[tuple(bad[0])]}: leave that parameter out.")
    return array


def _root(matrix: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """L with L L^T = the matrix.

    Raises:
        InputError: it is no covariance.
    """
    # in units of the standard errors, so that what is small does not depend on units
    variances = np.diag(matrix)
    low = int(np.argmin(variances))
    if variances[low] < 0:
        raise InputError(f"the variance of {names[low]} is {variances[low]:.3g}: it cannot be negative.")
    sizes = np.sqrt(variances)
    scale = np.where(sizes > 0, sizes, 1.0)
    correlation = matrix / np.outer(scale, scale)
    off = np.abs(correlation - correlation.T)
    if off.max(initial=0.0) > 1e-8:
        i, j = np.unravel_index(np.argmax(off), off.shape)
        one, other = names[i], names[j]
        raise InputError(
            f"the covariance is not symmetric: {matrix[i, j]:.6g} of {one} and {other}, and "
            f"{matrix[j, i]:.6g} of {other} and {one}."
        )
    values, vectors = np.linalg.eigh((correlation + correlation.T) / 2)
    if values[0] < -ROUNDING * max(values[-1], 1.0):
        worst = _in_words(vectors[:, 0], names)
        raise InputError(
            f"the covariance is not positive: in units of the standard errors its lowest eigenvalue is "
            f"{values[0]:.3g}, along {worst}. Its numbers were rounded, or are not those of one "
            "distribution: give from_factor or from_samples what it was made of."
        )
    positive = values > ROUNDING * values[-1]
    lengths = np.sqrt(values[positive])
    return scale[:, None] * vectors[:, positive] * lengths


def _in_words(direction: np.ndarray, names: tuple[str, ...]) -> str:
    from mdsens.fitting.identifiability import in_words

    return in_words(direction, names)
