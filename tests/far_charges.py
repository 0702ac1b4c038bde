"""Equal charges in wells of their own distance, farther apart than the radius of the neighbor list."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import mdsens as ms
from mdsens.potentials.base import parameter

WELL = 4.0  # Å


class FarCharges(ms.Potential):
    """E = sum_{i<j} q² / r + k/2 (r - WELL)² over all pairs, none of which is in the list."""

    local = False
    q: Float[Array, ""] = parameter("e", text="charge")
    k: Float[Array, ""] = parameter("eV/Å²", lower=0.0, text="stiffness of the wells")
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(2.0)

    def energy(self, structure: ms.Structure, neighbors: ms.Neighbors) -> Float[Array, ""]:
        i, j = np.triu_indices(structure.n_atoms, 1)
        d = structure.positions[i] - structure.positions[j]
        r = jnp.sqrt(jnp.sum(d * d, axis=-1))
        return jnp.sum(self.q**2 / r + 0.5 * self.k * (r - WELL) ** 2)


def four() -> ms.Structure:
    """Four atoms on the way to a regular tetrahedron."""
    positions = [[0, 0, 0], [4.1, 0, 0], [0, 4.1, 0], [0, 0, 4.1]]
    return ms.Structure.create(positions, ["Ar"] * 4)
