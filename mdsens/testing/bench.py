"""What is tested, its list, and how finely numbers can be told apart there."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mdsens.errors import InputError
from mdsens.neighbors import Capacity, Neighbors
from mdsens.potentials.base import Potential
from mdsens.quantities import evaluate, neighbors_of
from mdsens.structure import Structure, volume
from mdsens.testing.differences import slope_at_zero
from mdsens.testing.probe import skin_for

Path = Callable[[float], tuple[Potential, Structure]]  # potential and structure at each s
Measured = Callable[[Potential, Structure, Neighbors], Any]


class Bench:
    """The structure under test, its list, and how finely numbers can be told apart here."""

    def __init__(self, potential: Potential, structure: Structure, rtol: float, seed: int):
        self.potential, self.structure, self.rtol = potential, structure, rtol
        self.random = np.random.default_rng(seed)
        self.cutoff = float(potential.cutoff)
        # room for the steps of all differences, also for those the cutoff takes when it moves with a
        # parameter
        self.skin, self.large_skin = skin_for(self.cutoff, 0.05), skin_for(self.cutoff, 0.25)
        needed = neighbors_of(potential, structure, self.large_skin).capacity
        # one shape of list for all
        self.capacity = Capacity(needed.pairs + 16, needed.width + 2, needed.images + 16, needed.waves)
        self.neighbors = self.list_of(structure)
        self.here = jax.tree.map(np.asarray, evaluate(potential, structure, self.neighbors))
        vectors = np.asarray(self.neighbors.vectors(structure))
        r = np.linalg.norm(vectors[np.asarray(self.neighbors.valid)], axis=-1)
        if not len(r) and not potential.local:  # the interaction is not that of the list
            x = np.asarray(structure.positions)
            distances = np.linalg.norm(x[:, None] - x, axis=-1)
            r = distances[np.triu_indices(len(x), 1)]
        if not len(r):
            raise InputError(
                "no two atoms of this structure interact: take one whose atoms are within the cutoff of each "
                "other."
            )
        self.shortest = float(r.min())
        energy = abs(float(self.here.energy)) + 1e-300
        work = float(np.sum(np.abs(self.here.forces))) * self.shortest
        self.rounding = 1e-14 * max(energy, work)  # eV
        largest_force = float(np.abs(self.here.forces).max())
        self.force = max(largest_force, energy / structure.n_atoms / self.shortest)  # eV/Å, typical
        virial = float(np.abs(self.here.stress).max()) * float(volume(structure))
        self.energy = max(energy, virial)  # eV, typical
        self.left_out: list[str] = []

    def list_of(self, structure: Structure, skin: float | None = None) -> Neighbors:
        skin = self.skin if skin is None else skin
        return neighbors_of(self.potential, structure, skin, self.capacity)

    def slope(self, at: Path, step: float, of: Measured = evaluate) -> tuple[Any, float]:
        """What is measured (energy, forces and stress) differentiated along a path, and the step used.

        A form whose derivatives jump at its cutoff has no difference quotient across it: the step is halved
        until no pair crosses.
        """

        def inside(s: float) -> np.ndarray:
            return np.asarray(_within_range(*at(s), self.neighbors))

        here = inside(0.0)
        while step > 1e-7 and any(np.any(inside(s) != here) for s in (-2 * step, 2 * step)):
            step /= 2
        return slope_at_zero(lambda s: of(*at(s), self.neighbors), step), step


@eqx.filter_jit
def _within_range(potential: Potential, structure: Structure, neighbors: Neighbors) -> Array:
    squares = jnp.sum(neighbors.vectors(structure) ** 2, axis=-1)
    return squares < potential.ranges(structure, neighbors) ** 2
