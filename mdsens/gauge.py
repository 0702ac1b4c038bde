"""Motions that cost no energy, and how to leave them out of a linear solve.

The energy does not change when a crystal shifts, when a free cluster also turns, when an atom that touches
nothing (a rattler) moves at all. The Hessian is singular along these motions. They are projected out, never
regularised away.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.structure import Structure
from mdsens.threads import in_one_thread


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
        along = self.rigid @ v[:n]
        return v.at[:n].add(-self.rigid.T @ along)

    @in_one_thread
    def project_rows(self, rows: Float[np.ndarray, "rows unknowns"]) -> Float[np.ndarray, "rows unknowns"]:
        """`project` of each row, on the host: cheaper than products with `matrix`."""
        free, rigid = np.asarray(self.free), np.asarray(self.rigid)
        n = rigid.shape[1]
        projected = np.where(free, rows, 0.0)
        along = projected[:, :n] @ rigid.T
        projected[:, :n] -= along @ rigid
        return projected

    @in_one_thread
    def project_matrix(
        self, H: Float[np.ndarray, "unknowns unknowns"]
    ) -> Float[np.ndarray, "unknowns unknowns"]:
        """P H P, on the host."""
        # With m H m in place of H, and T for the rows t_k, P = 1 - T^T T and
        #     P H P = H - T^T (T H - T H T^T T) - (H T^T) T.
        free = np.asarray(self.free)
        H = H if free.all() else np.where(free[:, None] & free, H, 0.0)
        T = self._moving
        to_rigid, of_rigid = T @ H, H @ T.T
        left = to_rigid - (to_rigid @ T.T) @ T
        projected = np.array(H, order="C")
        subtract_product(projected, np.vstack([T, of_rigid.T]), np.vstack([left, T]))
        return projected

    @in_one_thread
    def lift(self, H: Float[np.ndarray, "unknowns unknowns"], above: float) -> None:
        """Make P H P + above (1 - P) of a symmetric matrix, in its place, on the host."""
        # P H P as above; what P leaves out are the coordinates that are not free, and the image of T^T T
        still = np.flatnonzero(~np.asarray(self.free))
        H[still] = 0.0
        H[:, still] = 0.0
        H[still, still] = above
        T = self._moving
        to_rigid = T @ H
        left = to_rigid - (to_rigid @ T.T) @ T - above * T
        subtract_product(H, np.vstack([T, to_rigid]), np.vstack([left, T]))

    @property
    def _moving(self) -> Float[np.ndarray, "few unknowns"]:
        """The rigid motions that there are, as vectors of all unknowns."""
        rigid = np.asarray(self.rigid)
        rigid = rigid[rigid.any(axis=1)]
        return np.pad(rigid, ((0, 0), (0, len(self.free) - rigid.shape[1])))

    @property
    @in_one_thread
    def matrix(self) -> np.ndarray:
        """P as a matrix, made on the host (for concrete values)."""
        T = self._moving
        projector = -T.T @ T
        projector[np.diag_indices(len(projector))] += np.asarray(self.free)
        return projector

    @property
    def rank(self) -> int:
        """How many directions are left (for concrete values)."""
        squares = np.sum(np.asarray(self.rigid) ** 2, axis=1)
        return int(np.sum(np.asarray(self.free)) - np.sum(squares > 0.5))


def subtract_product(H: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """H <- H - a^T b, in its place."""
    from scipy import linalg

    blas: Any = linalg.blas
    # BLAS reads columns: there H^T <- H^T - b^T a
    blas.dgemm(-1.0, b.T, a.T, 1.0, H.T, trans_b=1, overwrite_c=1)


def find_gauge(
    potential: Potential,
    structure: Structure,
    neighbors: Neighbors,
    n_strains: int,
    *,
    settled: bool | Bool[Array, ""] = True,
) -> Gauge:
    """Gauge of a structure: its fixed coordinates, rattlers and rigid motions.

    Rotations count for free clusters, and about the axis of a wire (one periodic direction). A rigid motion
    that would move a fixed coordinate costs energy and stays in. Works under jit.

    Args:
        potential: says which atoms interact with something (`Potential.contacts`); the others are rattlers.
        n_strains: strains among the unknowns, all free.
        settled: atoms stay where they are. False while they walk: an atom that has a neighbor in the list may
            come into contact on the way, and is free.
    """
    # The projector belongs to the state around which one differentiates, and is held while the state moves:
    # then derivatives of any order stay orthogonal to the same motions (for rotations: Eckart's condition).
    potential, structure, neighbors = _held((potential, structure, neighbors))
    touching = potential.contacts(structure, neighbors)
    if settled is not True:
        listed = neighbors.atoms_of(neighbors.valid)
        touching = touching | (listed & jnp.logical_not(settled))
    if structure.real is not None:
        touching = touching & structure.real
    free = touching[:, None] & ~structure.fixed
    motions = _rigid_motions(structure) * jnp.repeat(touching, 3)
    motions = _leave_alone(motions, structure.fixed.reshape(-1), structure.count)
    motions = motions * free.reshape(-1)
    unknowns = jnp.concatenate([free.reshape(-1), jnp.ones(n_strains, bool)])
    return Gauge(unknowns, orthonormal(motions, structure.count))


def _held(tree: Any) -> Any:
    hold = lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf
    return jax.tree.map(hold, tree)


def _rigid_motions(structure: Structure) -> Float[Array, "6 coordinates"]:
    # Six generators for the atoms x_i with the centre c:
    #     shift along axis k:  e_k,        turn about axis k:  e_k x (x_i - c).
    # A turn is divided by the root mean square distance from c, so that all six have comparable norms.
    real = jnp.ones(structure.n_atoms, bool) if structure.real is None else structure.real
    sum_of_real = lambda values: jnp.sum(jnp.where(real[:, None], values, 0.0), axis=0)
    centre = sum_of_real(structure.positions) / structure.count
    centred = jnp.where(real[:, None], structure.positions - centre, 0.0)
    mean_square = jnp.sum(sum_of_real(centred**2)) / structure.count
    size = jnp.sqrt(mean_square + 1e-30)
    shifts = jnp.broadcast_to(jnp.eye(3)[:, None, :], (3, *centred.shape))
    turns = jnp.cross(_turning_axes(structure)[:, None, :], centred[None]) / size
    return jnp.concatenate([shifts, turns]).reshape(6, -1)


def _turning_axes(structure: Structure) -> Float[Array, "3 3"]:
    # A free cluster turns about every axis, a wire about its own. Otherwise the lattice would not follow.
    match sum(structure.pbc):
        case 0:
            return jnp.eye(3)
        case 1:
            vector = structure.cell[structure.pbc.index(True)]
            axis = vector / jnp.linalg.norm(vector)
            return jnp.zeros((3, 3)).at[0].set(axis)
        case _:
            return jnp.zeros((3, 3))


def _leave_alone(
    motions: Float[Array, "6 coordinates"], fixed: Bool[Array, "coordinates"], count: int | Array
) -> Float[Array, "6 coordinates"]:
    # With the rows m_k, a combination sum_k a_k m_k costs nothing if it leaves fixed coordinates alone:
    #     |sum_k a_k m_k|²_fixed = a^T G a = 0,      G_kl = m_k . m_l over the fixed coordinates.
    # The eigenvectors of G with eigenvalue zero are these combinations; the others become zero rows.
    held = motions * fixed
    cost, combinations = jnp.linalg.eigh(held @ held.T)
    allowed = cost < 1e-9 * count
    return jnp.where(allowed[:, None], combinations.T, 0.0) @ motions


def orthonormal(motions: Float[Array, "6 coordinates"], count: int | Array) -> Float[Array, "6 coordinates"]:
    """Orthonormal rows that span what these rows span; the rows left over are zero.

    Args:
        count: the square of a norm that rows may have, such as a number of atoms; 1e-9 of it counts as zero.
    """
    # Gram matrix M M^T = V s V^T; the rows of s^-1/2 V^T M are orthonormal.
    # What has no norm (a turn about the axis of a linear molecule) becomes a zero row.
    size, V = jnp.linalg.eigh(motions @ motions.T)
    real = size > 1e-9 * count
    scale = jnp.where(real, 1 / jnp.sqrt(jnp.where(real, size, 1.0)), 0.0)
    return scale[:, None] * (V.T @ motions)
