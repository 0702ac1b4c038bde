"""Relaxed states of parameters nearby: where the states that observables are measured on move to."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from mdsens.errors import MDSensError
from mdsens.potentials.base import Potential
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.relaxation.relax import follow
from mdsens.sensitivity.first_order import checked_derivative, differentiate
from mdsens.sensitivity.problem import SensitivityProblem
from mdsens.uncertainty.distribution import ParameterDistribution

Change = Float[np.ndarray, "parameters"]


@dataclasses.dataclass(frozen=True)
class Nearby:
    """What is measured, around which states, and by which parameters they move.

    Attributes:
        problem: of the parameters of the distribution, at its mean.
        distribution: says what a change is.
        fmax: to which states are followed, eV/Å.
    """

    problem: SensitivityProblem
    distribution: ParameterDistribution
    fmax: float

    @functools.cached_property
    def values(self) -> Float[np.ndarray, "numbers"]:
        """At the mean."""
        return self.problem.values()

    @functools.cached_property
    def mode(self) -> str:
        """In which derivatives take fewer solves."""
        few = len(self.problem.selection.names) <= len(self.problem.names)
        return "forward" if few else "reverse"

    @functools.cached_property
    def jacobian(self) -> Float[np.ndarray, "numbers parameters"]:
        """At the mean."""
        return self._jacobian(self.problem)

    def values_at(self, change: Change) -> Float[np.ndarray, "numbers"]:
        """Where the parameters are off the mean by a change; the states are followed there.

        Raises:
            NotConvergedError, SaddlePointError, ...: they cannot be followed, or have lost their curvature.
        """
        return self._at(change).values()

    def jacobian_at(self, change: Change) -> Float[np.ndarray, "numbers parameters"]:
        """The same for derivatives."""
        return self._jacobian(self._at(change))

    def _jacobian(self, problem: SensitivityProblem) -> np.ndarray:
        return checked_derivative(problem, differentiate(problem, self.mode, problem.origin, None))

    def _at(self, change: Change) -> SensitivityProblem:
        states = self._followed(self.problem.states, change, 0.0)
        return dataclasses.replace(self.problem, potential=_potential_of(states), states=states)

    def _followed(
        self, states: Mapping[str, Equilibrium], change: Change, begun: float
    ) -> dict[str, Equilibrium]:
        """States of a change; halfway first where Newton's steps do not get there at once."""
        potential = self.distribution.moved(self.problem.potential, change)
        try:
            return {key: self._follow(state, potential) for key, state in states.items()}
        except MDSensError:
            if begun > 0:
                raise
        middle = self._followed(states, change / 2, 0.5)
        return {key: self._follow(state, potential) for key, state in middle.items()}

    def _follow(self, state: Equilibrium, potential: Potential) -> Equilibrium:
        found = follow(state, potential, state.structure, self.fmax).equilibrium
        if state.is_minimum and not found.is_minimum:
            raise found.certificate.error("a state of changed parameters")
        return found


def _potential_of(states: Mapping[str, Equilibrium]) -> Any:
    return next(iter(states.values())).potential
