"""What a fit makes small: a sum of squares, term by term.

    loss(theta) = sum over terms of |r(theta)|^2,     r = (value - target) / tolerance

Relaxed properties, forces of a data set and priors are terms like any other: each gives its residuals and
their exact derivatives by the parameters asked for. With tolerances that are standard errors the loss is chi
squared, and (J^T J)^-1 the covariance of the parameters.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from mdsens.fitting.space import ParameterSpace
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import parameter_values

# arrays by name, written to the file of a fit as they are
Memory = Mapping[str, Any]


class TermRow(NamedTuple):
    """One line of a report: a target, or many residuals in one number.

    Attributes:
        name, unit: of the value.
        value, target: now, and wished for.
        tolerance: what a residual of one means, in the unit.
        count: residuals that the row stands for; they follow each other, in the order of the rows.
    """

    name: str
    unit: str
    value: float
    target: float
    tolerance: float
    count: int = 1


class TermValue(NamedTuple):
    """A term at some potential.

    Attributes:
        residuals: without unit.
        jacobian: d residuals / d theta.
        rows: what reports show; their counts add up to the number of residuals.
        memory: what the next call may start from, such as relaxed states; it goes to the file of the fit.
        reach: |change of ln(theta)| of each parameter beyond which the term has no meaning, such as the
            distance to where a minimum disappears; None where none is near.
        relaxations: how many it took.
    """

    residuals: Float[np.ndarray, "rows"]
    jacobian: Float[np.ndarray, "rows parameters"]
    rows: tuple[TermRow, ...]
    memory: Memory = MappingProxyType({})
    reach: Float[np.ndarray, "parameters"] | None = None
    relaxations: int = 0


class FitTerm(Protocol):
    """Anything that has residuals with exact derivatives."""

    @property
    def name(self) -> str:
        """For messages and reports; terms of one fit have different names."""
        ...

    def evaluate(self, potential: Potential, parameters: tuple[str, ...], memory: Memory) -> TermValue:
        """Residuals and their derivatives.

        Args:
            potential: at which they are asked for.
            parameters: flat names of the parameters to differentiate by.
            memory: of the last step that was taken; {} at the first call. The result depends on the
                arguments alone, so that a fit that is resumed ends with the same bits.
        Raises:
            NotConvergedError, SaddlePointError, CellCollapseError, NonFiniteError: it has no meaning at
                these parameters; the fit then steps back.
        """
        ...


class PriorTerm:
    """Gaussian priors of the variables of a space: (z - z_mean) / width, in the scale of each."""

    name = "priors"

    def __init__(self, space: ParameterSpace):
        self.priors = [(v, space.priors[v.name]) for v in space.variables if v.name in space.priors]

    def evaluate(self, potential: Potential, parameters: tuple[str, ...], memory: Memory) -> TermValue:
        """Residuals and their derivatives."""
        values = parameter_values(potential)
        residuals = np.zeros(len(self.priors))
        jacobian = np.zeros((len(self.priors), len(parameters)))
        rows = []
        for k, (variable, prior) in enumerate(self.priors):
            value = values[variable.name]
            change = np.log(value / prior.mean) if variable.log else value - prior.mean
            slope = 1 / value if variable.log else 1.0
            residuals[k] = change / prior.width
            jacobian[k, parameters.index(variable.name)] = slope / prior.width
            tolerance = prior.width * abs(prior.mean) if variable.log else prior.width
            rows.append(TermRow(f"prior of {variable.name}", variable.unit, value, prior.mean, tolerance))
        return TermValue(residuals, jacobian, tuple(rows))


class SumValue(NamedTuple):
    """All terms at one z.

    Attributes:
        residuals: of all terms, one after another.
        jacobian: d residuals / dz.
        rows: of all terms. memories: by name of the term.
        reach: largest change of each z, inf where there is no limit.
        relaxations: how many it took.
    """

    residuals: Float[np.ndarray, "rows"]
    jacobian: Float[np.ndarray, "rows variables"]
    rows: tuple[TermRow, ...]
    memories: Mapping[str, Memory]
    reach: Float[np.ndarray, "variables"]
    relaxations: int

    @property
    def loss(self) -> float:
        """Sum of squares."""
        return float(self.residuals @ self.residuals)


def evaluate_sum(
    terms: Sequence[FitTerm],
    space: ParameterSpace,
    z: Float[np.ndarray, "variables"],
    memories: Mapping[str, Memory],
) -> SumValue:
    """All terms at z.

    Raises:
        Whatever a term raises.
    """
    potential = space.at(z)
    found = [term.evaluate(potential, space.parameters, memories.get(term.name, {})) for term in terms]
    jacobian = np.concatenate([space.pull(z, value.jacobian) for value in found])
    return SumValue(
        np.concatenate([value.residuals for value in found]),
        jacobian,
        tuple(row for value in found for row in value.rows),
        {term.name: value.memory for term, value in zip(terms, found, strict=True)},
        _reach(space, z, [value.reach for value in found if value.reach is not None]),
        sum(value.relaxations for value in found),
    )


def _reach(space: ParameterSpace, z: np.ndarray, reaches: list[np.ndarray]) -> np.ndarray:
    """The smallest reach of the parameters that each variable drives, in z."""
    result = np.full(len(z), np.inf)
    for reach in reaches:
        # on the linear scale dz = z dln(theta); on the log scale dz = dln(theta); zeros change by amounts
        log = np.array([variable.log for variable in space.variables])
        per = np.where(log | (z == 0), 1.0, np.abs(z))
        np.minimum.at(result, space.owner, reach * per[space.owner])
    return result
