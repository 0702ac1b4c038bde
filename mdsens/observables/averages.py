"""Elastic constants as a number for all directions, and as derivatives of the energy.

Averages over all orientations of a crystal, for any symmetry: Voigt's (uniform strain, from the stiffness C)
is an upper bound, Reuss's (uniform stress, from the compliance S) a lower one, and Hill's is their mean.

    9 K_V = C11 + C22 + C33 + 2 (C12 + C13 + C23)
    15 G_V = C11 + C22 + C33 - (C12 + C13 + C23) + 3 (C44 + C55 + C66)
    1 / K_R = S11 + S22 + S33 + 2 (S12 + S13 + S23)
    15 / G_R = 4 (S11 + S22 + S33) - 4 (S12 + S13 + S23) + 3 (S44 + S55 + S66)

Under a stress sigma there are two kinds of constants. Those of `mdsens.observables.elastic` are the change of
the stress with the strain, what a tensile test and a sound wave feel. Second derivatives of the energy by the
Lagrangian strain, per volume, are

    C^E_ijkl = C_ijkl - 1/2 (s_ik d_jl + s_jk d_il + s_il d_jk + s_jl d_ik) + s_ij d_kl,

with s the stress (tension positive) and d the unit tensor. Without stress both are the same.

Source: Hill, Proc. Phys. Soc. A 65, 349 (1952); Wallace, Thermodynamics of Crystals (1972), section 3;
Barron, Klein, Proc. Phys. Soc. 85, 523 (1965).
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Stiffness = Float[Array, "6 6"]
FIRST = np.array([0, 1, 2, 1, 0, 0])  # directions of each Voigt index
SECOND = np.array([0, 1, 2, 2, 2, 1])


def bulk_voigt(C: Stiffness) -> Float[Array, ""]:
    """K_V, in the unit of C."""
    return jnp.sum(C[:3, :3]) / 9


def shear_voigt(C: Stiffness) -> Float[Array, ""]:
    """G_V, in the unit of C."""
    stretches, shears = jnp.trace(C[:3, :3]), jnp.trace(C[3:, 3:])
    mixed = (jnp.sum(C[:3, :3]) - stretches) / 2
    return (stretches - mixed + 3 * shears) / 15


def bulk_reuss(C: Stiffness) -> Float[Array, ""]:
    """K_R, in the unit of C: the bulk modulus of the crystal under hydrostatic pressure."""
    return 1 / jnp.sum(jnp.linalg.inv(C)[:3, :3])


def shear_reuss(C: Stiffness) -> Float[Array, ""]:
    """G_R, in the unit of C."""
    S = jnp.linalg.inv(C)
    stretches, shears = jnp.trace(S[:3, :3]), jnp.trace(S[3:, 3:])
    mixed = (jnp.sum(S[:3, :3]) - stretches) / 2
    return 15 / (4 * stretches - 4 * mixed + 3 * shears)


def bulk_hill(C: Stiffness) -> Float[Array, ""]:
    """The mean of K_V and K_R."""
    return (bulk_voigt(C) + bulk_reuss(C)) / 2


def shear_hill(C: Stiffness) -> Float[Array, ""]:
    """The mean of G_V and G_R."""
    return (shear_voigt(C) + shear_reuss(C)) / 2


def young_hill(C: Stiffness) -> Float[Array, ""]:
    """Young's modulus of the isotropic body with Hill's K and G."""
    K, G = bulk_hill(C), shear_hill(C)
    return 9 * K * G / (3 * K + G)


def poisson_hill(C: Stiffness) -> Float[Array, ""]:
    """Poisson's ratio of the isotropic body with Hill's K and G."""
    K, G = bulk_hill(C), shear_hill(C)
    return (3 * K - 2 * G) / (6 * K + 2 * G)


def energy_constants(C: Stiffness, stress: Float[Array, "3 3"]) -> Stiffness:
    """Second derivatives of the energy by the Lagrangian strain, out of stress-strain constants.

    Args:
        C: stress-strain constants. stress: in the same unit, positive in tension.
    """
    d = jnp.eye(3)
    mixed = jnp.einsum("ik,jl->ijkl", stress, d)
    swapped = mixed.transpose(1, 0, 2, 3)
    pairs = mixed + swapped + mixed.transpose(0, 1, 3, 2) + swapped.transpose(0, 1, 3, 2)
    tensor = jnp.einsum("ij,kl->ijkl", stress, d) - pairs / 2
    i, j = FIRST[:, None], SECOND[:, None]
    return C + tensor[i, j, FIRST[None], SECOND[None]]


AVERAGES = {
    "K_voigt": bulk_voigt,
    "K_reuss": bulk_reuss,
    "K_hill": bulk_hill,
    "G_voigt": shear_voigt,
    "G_reuss": shear_reuss,
    "G_hill": shear_hill,
    "E_hill": young_hill,
    "nu_hill": poisson_hill,
}
