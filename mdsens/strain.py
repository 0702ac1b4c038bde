"""Strain, Voigt order and the sign of stress, all in one place.

Cell vectors are rows, so a deformation F acts from the right: cell -> cell F, x -> x F. Only symmetric
F = 1 + strain are used: a rotation costs no energy. Voigt order is xx yy zz yz xz xy (ASE, LAMMPS), shear
strains are engineering strains (twice the tensor component), stress is positive in tension.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
VOIGT_NAMES = ("xx", "yy", "zz", "yz", "xz", "xy")


def _unit_strains() -> np.ndarray:
    # engineering shear e4 = 2 eps_yz: the tensor carries one half on either side of the diagonal
    units = np.zeros((6, 3, 3))
    for k, (a, b) in enumerate(VOIGT):
        units[k, a, b] += 0.5
        units[k, b, a] += 0.5
    return units


UNIT_STRAINS = _unit_strains()  # (6, 3, 3): strain tensor of each Voigt component, in engineering strain


def strain_matrix(voigt: Float[Array, "6"]) -> Float[Array, "3 3"]:
    """Strain tensor of six Voigt components (engineering shear, dimensionless)."""
    return jnp.einsum("k,kab->ab", voigt, UNIT_STRAINS)


def to_voigt(tensor: Float[Array, "3 3"]) -> Float[Array, "6"]:
    """Six Voigt components xx yy zz yz xz xy of a symmetric tensor such as stress (no factor 2)."""
    return jnp.stack([tensor[a, b] for a, b in VOIGT])


def from_voigt(voigt: Float[Array, "6"]) -> Float[Array, "3 3"]:
    """Symmetric tensor of six stress-like Voigt components (no factor 2)."""
    xx, yy, zz, yz, xz, xy = voigt
    return jnp.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def volume_of(cell: Float[Array, "3 3"]) -> Float[Array, ""]:
    """Volume of a cell, Å³; zero where a cell vector is missing."""
    a, b, c = cell
    return jnp.abs(jnp.dot(a, jnp.cross(b, c)))
