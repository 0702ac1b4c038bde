"""Averages over the space group of a crystal: what is left of the noise of a finite ensemble.

A space group is a product: the translations that belong to it, and one operation for each rotation. The
average over the whole group is that over the translations, followed by that over the others: a few tens of
operations in place of thousands.
"""

import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.structure import Structure

PRECISION = 1e-3  # Å, within which an atom counts as the image of another


class Operations(NamedTuple):
    """Some operations of a space group.

    Attributes:
        images: atom k goes where images[k] stood. rotations: in Cartesian coordinates.
    """

    images: Int[Array, "operations atoms"]
    rotations: Float[Array, "operations 3 3"]


class SpaceGroup(eqx.Module):
    """Averages over a space group.

    Attributes:
        translations, others: the two factors. size: operations in all.
    """

    translations: Operations
    others: Operations
    size: int = eqx.field(static=True)

    @classmethod
    def of(cls, structure: Structure) -> "SpaceGroup":
        """That of a structure; nothing but identity of one that is not periodic or has fixed coordinates."""
        found = _found(structure)
        if found is None:
            return cls.of_identity(structure.n_atoms)
        images, rotations, whole = found
        pure = np.all(np.isclose(whole, np.eye(3)), axis=(1, 2))
        _, first = np.unique(whole.reshape(len(whole), 9), axis=0, return_index=True)
        take = lambda chosen: Operations(jnp.asarray(images[chosen]), jnp.asarray(rotations[chosen]))
        return cls(take(np.flatnonzero(pure)), take(first), len(images))

    @classmethod
    def of_identity(cls, n_atoms: int) -> "SpaceGroup":
        """That of no symmetry."""
        still = Operations(jnp.arange(n_atoms)[None], jnp.eye(3)[None])
        return cls(still, still, 1)

    def vector(self, v: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
        """The part of a vector on each atom that has the symmetry."""

        def turned(images: Array, rotation: Array) -> Array:
            return v_now[images] @ rotation

        v_now = v
        for operations in (self.translations, self.others):
            v_now = jnp.mean(jax.vmap(turned)(*operations), axis=0)
        return v_now

    def tensor(self, t: Float[Array, "3 3"]) -> Float[Array, "3 3"]:
        """The part of a tensor of the whole crystal that has the symmetry."""
        R = self.others.rotations
        return jnp.einsum("gca,cd,gdb->ab", R, t, R) / len(R)

    def matrix(self, H: Float[Array, "coordinates coordinates"]) -> Float[Array, "coordinates coordinates"]:
        """The part of force constants that has the symmetry."""
        n = len(H) // 3
        blocks = H.reshape(n, 3, n, 3).transpose(0, 2, 1, 3)
        for operations in (self.translations, self.others):
            blocks = _average(blocks, operations)
        return blocks.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)


def _average(
    blocks: Float[Array, "atoms atoms 3 3"], operations: Operations
) -> Float[Array, "atoms atoms 3 3"]:
    def add(total: Array, operation: tuple[Array, Array]) -> tuple[Array, None]:
        images, R = operation
        moved = blocks[images[:, None], images]
        return total + jnp.einsum("ca,ijcd,db->ijab", R, moved, R), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(blocks), operations)
    return total / len(operations.rotations)


def _found(structure: Structure) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Images, rotations in Cartesian coordinates and in those of the cell; None where there are none."""
    if not all(structure.pbc) or bool(np.any(np.asarray(structure.fixed))):
        return None
    import spglib

    h = np.asarray(structure.cell)
    fractions = np.asarray(structure.positions) @ np.linalg.inv(h)
    crystal: Any = (h, fractions, np.asarray(structure.species))
    with warnings.catch_warnings():
        # how spglib says that it found nothing changes between its versions
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            found = spglib.get_symmetry(crystal, symprec=PRECISION)
        except Exception:
            found = None
    if found is None:
        return None
    images, kept = [], []
    for k, (W, t) in enumerate(zip(found["rotations"], found["translations"], strict=True)):
        moved = fractions @ W.T + t
        d = moved[:, None] - fractions
        d -= np.round(d)
        distance = np.linalg.norm(d @ h, axis=-1)
        # a list cannot be averaged over an operation that an atom has no image under
        if np.all(distance.min(axis=1) < 10 * PRECISION):
            images.append(distance.argmin(axis=1))
            kept.append(k)
    whole = np.asarray(found["rotations"], float)[kept]
    rotations = h.T @ whole @ np.linalg.inv(h.T)
    return np.asarray(images), rotations, whole
