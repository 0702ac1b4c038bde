"""Motions that cost no energy, and how to leave them out of a linear solve.

The energy does not change when a crystal shifts, when a free cluster also turns, when an atom without
neighbors (a rattler) moves at all. The Hessian is singular along these motions. They are projected out, never
regularised away.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mdsens.neighbors import Neighbors
from mdsens.structure import Structure


class Gauge(eqx.Module):
    """Projector onto the motions that count, for unknowns (displacements, then strains).

    Attributes:
        free: (unknowns,) False for fixed coordinates and rattlers.
        rigid: (6, 3 atoms) orthonormal rigid motions that cost no energy; zero rows where there are fewer
            than six.
    """

    free: Bool[Array, "unknowns"]
    rigid: Float[Array, "6 coordinates"]

    def project(self, v: Float[Array, "unknowns"]) -> Float[Array, "unknowns"]:
        """Remove what is fixed, and the rigid motions: P v = m v - sum_k t_k (t_k . m v)."""
        v = jnp.where(self.free, v, 0.0)
        n = self.rigid.shape[1]
        return v.at[:n].add(-self.rigid.T @ (self.rigid @ v[:n]))

    @property
    def rank(self) -> int:
        """How many directions are left (for concrete values)."""
        return int(np.sum(np.asarray(self.free)) - np.sum(np.sum(np.asarray(self.rigid) ** 2, axis=1) > 0.5))


def find_gauge(
    structure: Structure,
    neighbors: Neighbors,
    cutoff: Float[Array, "pairs"] | Float[Array, ""],
    n_strains: int,
) -> Gauge:
    """Gauge of a structure: its fixed coordinates, rattlers and rigid motions.

    Rotations count for free clusters, and about the axis of a wire (one periodic direction). A rigid motion
    that would move a fixed coordinate costs energy and stays in. Works under jit.

    Args:
        cutoff: Å, one for all pairs or one a pair (`Potential.ranges`): atoms beyond it of all others are
            rattlers.
        n_strains: strains among the unknowns, all free.
    """
    # The projector belongs to the state around which one differentiates, and is held while the state moves:
    # then derivatives of any order stay orthogonal to the same motions (for rotations: Eckart's condition).
    structure, neighbors, cutoff = jax.lax.stop_gradient((structure, neighbors, cutoff))
    x = structure.positions
    d = neighbors.vectors(structure)
    inside = (jnp.sum(d * d, axis=-1) < cutoff**2) & neighbors.valid
    contacts = jnp.zeros(x.shape[0], jnp.int32).at[neighbors.i].add(inside).at[neighbors.j].add(inside)
    rattler = contacts == 0
    free = ~structure.fixed & ~rattler[:, None]

    # Six generators: e_k, and e_k x (x - centre); scaled so that all have comparable norms.
    centred = x - jnp.mean(x, axis=0)
    shifts = jnp.broadcast_to(jnp.eye(3)[:, None, :], (3, *x.shape))
    turns = jnp.cross(_turning_axes(structure)[:, None, :], centred[None])
    turns = turns / jnp.sqrt(jnp.mean(jnp.sum(centred**2, axis=-1)) + 1e-30)
    motions = jnp.concatenate([shifts, turns]).reshape(6, -1)
    motions = motions * jnp.repeat(~rattler, 3)

    # A combination sum_k a_k m_k is allowed if it leaves fixed coordinates alone: |sum_k a_k m_k|_fixed = 0.
    held = motions * structure.fixed.reshape(-1)
    cost, combinations = jnp.linalg.eigh(held @ held.T)
    allowed = cost < 1e-9 * x.shape[0]
    motions = jnp.where(allowed[:, None], combinations.T, 0.0) @ motions
    motions = motions * free.reshape(-1)
    # Orthonormal rows; what has no norm (a turn about the axis of a linear molecule) becomes a zero row.
    size, V = jnp.linalg.eigh(motions @ motions.T)
    real = size > 1e-9 * x.shape[0]
    rigid = jnp.where(real, 1 / jnp.sqrt(jnp.where(real, size, 1.0)), 0.0)[:, None] * (V.T @ motions)
    return Gauge(jnp.concatenate([free.reshape(-1), jnp.ones(n_strains, bool)]), rigid)


def _turning_axes(structure: Structure) -> Float[Array, "3 3"]:
    match sum(structure.pbc):
        case 0:
            return jnp.eye(3)
        case 1:
            axis = structure.cell[structure.pbc.index(True)]
            return jnp.zeros((3, 3)).at[0].set(axis / jnp.linalg.norm(axis))
        case _:
            return jnp.zeros((3, 3))
