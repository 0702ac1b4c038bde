"""What a fit says about the parameters, and what it says about the form.

With J = dr/dz in variables whose unit is a change by the parameter itself, J = U S V^T:

    a step along v_i changes the residuals by s_i: of s_i >> 1 the targets know the combination v_i, of
    s_i << 1 they do not (a sloppy direction);
    (J^T J)^-1 is the covariance of z (Laplace), if tolerances are standard errors;
    at the optimum J^T r = 0: what is left, n = r / |r|, is a combination of targets that no free parameter
    moves to first order. It is the floor, and n says which targets it is made of.

Source: Transtrum et al., J. Chem. Phys. 143, 010901 (2015).
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from mdsens.fitting.space import ParameterSpace
from mdsens.fitting.step import condensed

UNKNOWN = 1e-9  # of the largest singular value: a direction below has no error bar
MISSED = 1.0  # a residual above means that the value is off by more than its tolerance


@dataclasses.dataclass(frozen=True)
class Identifiability:
    """Singular values and directions of the log-Jacobian.

    Attributes:
        names: of the variables.
        singular: s_i, from large to small; zeros where there are fewer residuals than variables.
        directions: v_i in rows.
        covariance: of z; infinite on the diagonal for variables that are not determined.
    """

    names: tuple[str, ...]
    singular: Float[np.ndarray, "variables"]
    directions: Float[np.ndarray, "variables variables"]
    covariance: Float[np.ndarray, "variables variables"]

    @classmethod
    def of(cls, names: tuple[str, ...], jacobian: Float[np.ndarray, "rows variables"]) -> "Identifiability":
        """Of a Jacobian of residuals by variables."""
        n = len(names)
        if len(jacobian) > n:
            jacobian = condensed(jacobian)
        _, found, directions = np.linalg.svd(jacobian, full_matrices=True)
        singular = np.zeros(n)
        singular[: len(found)] = found
        known = singular > UNKNOWN * max(singular[0], np.finfo(float).tiny)
        inverse = np.where(known, 1 / np.where(known, singular, 1.0), 0.0)
        covariance = (directions.T * inverse**2) @ directions
        # a variable with a share in an unknown direction is not determined at all
        share = np.sum(directions[~known] ** 2, axis=0)
        lost = share > UNKNOWN
        covariance[lost, :] = covariance[:, lost] = 0.0
        covariance[lost, lost] = np.inf
        return cls(names, singular, directions, covariance)

    @property
    def errors(self) -> Float[np.ndarray, "variables"]:
        """One standard error of each z."""
        return np.sqrt(np.diag(self.covariance))

    @property
    def correlation(self) -> Float[np.ndarray, "variables variables"]:
        """Of the errors; NaN for variables that are not determined."""
        with np.errstate(invalid="ignore"):
            return self.covariance / np.outer(self.errors, self.errors)

    @property
    def pinned(self) -> tuple[str, ...]:
        """Variables that the targets know to better than 10 %."""
        return tuple(name for name, error in zip(self.names, self.errors, strict=True) if error < 0.1)

    @property
    def sloppy(self) -> list[tuple[float, str]]:
        """Directions that cost less than one tolerance for a change by the parameter itself."""
        low = np.flatnonzero(self.singular < 1.0)
        return [(float(self.singular[k]), in_words(self.directions[k], self.names)) for k in low]


def in_words(direction: np.ndarray, names: tuple[str, ...], most: int = 4) -> str:
    """A direction as text, largest components first: "0.82 A - 0.57 B"."""
    order = np.argsort(-np.abs(direction))[:most]
    first = order[0]
    sign = np.sign(direction[first]) or 1.0
    parts = [(sign * direction[k], names[k]) for k in order if abs(direction[k]) > 0.05]
    text = " ".join(f"{'+' if x >= 0 else '-'} {abs(x):.2f} {name}" for x, name in parts)
    return text.removeprefix("+ ")


def errors_of_parameters(
    space: ParameterSpace, z: np.ndarray, found: Identifiability
) -> Float[np.ndarray, "parameters"]:
    """Standard errors of the parameters in their own units."""
    one = np.abs(space.push(z, np.ones(len(z))))
    return one * found.errors[space.owner]
