"""The states of all values of one number, and how to get from one to the next.

Newton's method from a prediction, and nothing but Newton's method: a relaxation could slide into another
minimum; Newton's steps stay on the branch, or fail and say so.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from mdsens.continuation.control import AbstractControl
from mdsens.continuation.path_terms import placed
from mdsens.ghosts import padded, without_ghosts
from mdsens.neighbors import Neighbors
from mdsens.quantities import neighbors_of
from mdsens.relaxation.equilibrium import Equilibrium, structure_at
from mdsens.relaxation.landscape import Landscape, Vector

STEPS = 12
LONGEST = 0.3  # Å: a correction longer than this has left the branch


@dataclasses.dataclass(frozen=True)
class Family:
    """One landscape for each value of a number s.

    Attributes:
        base: the landscape that the control turns at; its own neighbor list does not count.
        skin: of the lists, Å.
    """

    control: AbstractControl
    base: Landscape
    skin: float

    def around(self, neighbors: Neighbors) -> Landscape:
        """What the control turns at, with a list."""
        return dataclasses.replace(self.base, neighbors=neighbors)

    def state(self, s: float, w: Vector, neighbors: Neighbors) -> Equilibrium:
        """The state of s at w, solved or not, with a list that is complete there."""
        landscape = placed(self.control, self.around(neighbors), jnp.asarray(s))
        structure = structure_at(landscape.coordinates, w)
        if float(neighbors.slack(structure, landscape.potential.cutoff)) <= 0:
            fresh = neighbors_of(landscape.potential, structure, self.skin, neighbors.capacity)
            landscape = dataclasses.replace(landscape, neighbors=fresh)
        return Equilibrium.settled(landscape, w)

    def corrected(self, state: Equilibrium, s: float, fmax: float) -> Equilibrium | None:
        """The solution at s near a state of s; None where Newton's method finds none nearby."""
        start, off = state.w, residual_of(state)
        for _ in range(STEPS):
            if off <= fmax:
                return state
            move = -state.solve(state.gradient[None])[0]
            w = state.w + move
            # not a number compares as false
            if not float(jnp.max(jnp.abs(w - start))) < LONGEST:
                return None
            trial = self.state(s, w, state.landscape.neighbors)
            left = residual_of(trial)
            if not left < off and off < 1e3 * fmax:
                return state if off <= 10 * fmax else None  # as far as rounding allows
            state, off = trial, left
        return state if off <= fmax else None

    def rebased(self, state: Equilibrium) -> "Family":
        """The same family with w = 0 where a state of it is."""
        old = self.base.coordinates
        if self.base.n_strains:
            reference = padded(self.base.potential, without_ghosts(state.structure))
        else:
            n = old.reference.n_atoms
            reference = old.reference.at(old.reference.positions + state.w[: 3 * n].reshape(n, 3))
        base = dataclasses.replace(self.base, coordinates=dataclasses.replace(old, reference=reference))
        return dataclasses.replace(self, base=base)


def residual_of(state: Equilibrium) -> float:
    """Largest force, and largest stress off target as a force, eV/Å."""
    stress = state.landscape.stress_in_force_units(state.w, jnp.asarray(state.stress_error))
    return max(state.fmax, float(np.asarray(stress)))
