"""Elastic constants of a structure: clamped ions, and ions that relax under the strain.

The Cauchy stress of the structure under a small symmetric strain is sigma(eps, u), where u are displacements
of the atoms beyond those the strain carries along. The ions settle where their forces vanish, g(eps, u) = 0.
Then

    C = d sigma / d eps = sigma_eps + sigma_u u_eps,        H u_eps = - g_eps,      H = g_u,

the first term alone being the clamped-ion constant. At zero stress this is the second derivative of the
energy density; under stress it is the stress-strain coefficient that a tensile test measures.

Source: Born, Huang, Dynamical Theory of Crystal Lattices (1954), section 11.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.gauge import find_gauge
from mdsens.implicit.linear import AbstractLinearSolver, ConjugateGradient, solve
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.quantities import neighbors_of
from mdsens.strain import strain_matrix, volume_of
from mdsens.structure import Structure

DENSE_LIMIT = 1200  # unknowns up to which the internal relaxation is solved by factorisation


def elastic_constants(
    potential: Potential,
    structure: Structure,
    *,
    clamped: bool = False,
    neighbors: Neighbors | None = None,
    linear_solver: AbstractLinearSolver | None = None,
) -> Float[Array, "6 6"]:
    """Elastic constants of a relaxed structure, eV/Å³, in Voigt order xx yy zz yz xz xy.

    Differentiable w.r.t. parameters, positions and cell. Fixed coordinates follow the strain.

    Args:
        structure: relaxed: the formula assumes that the forces vanish.
        clamped: ions follow the strain; if False they relax under it.
        neighbors: by default found on the host (then not under jit); with a skin it may serve many calls.
        linear_solver: for the internal relaxation; by default dense up to DENSE_LIMIT unknowns, then
            conjugate gradients.
    Raises:
        InputError: the structure has no volume.
    Source: module docstring; checked against LAMMPS strains and matscipy.
    """
    if not all(structure.pbc):
        raise InputError(
            "elastic constants need a structure that is periodic in three directions (pbc = "
            f"{structure.pbc})."
        )
    neighbors = neighbors_of(potential, structure) if neighbors is None else neighbors
    return clamped_and_relaxed(potential, structure, neighbors, linear_solver)[0 if clamped else 1]


@eqx.filter_jit
def clamped_and_relaxed(
    potential: Potential,
    structure: Structure,
    neighbors: Neighbors,
    linear_solver: AbstractLinearSolver | None = None,
) -> tuple[Float[Array, "6 6"], Float[Array, "6 6"]]:
    """Both kinds of elastic constants for the price of one, eV/Å³; works under jit."""
    shape = structure.positions.shape
    gauge = find_gauge(potential, structure, neighbors, 0)

    def forces_and_stress(u, strain):
        """g (eV/Å) and sigma (eV/Å³, Voigt) at x = (x0 + u)(1 + strain)."""

        # sigma = (1/V) dE/deta for a further strain eta on top
        def energy(u, eta):
            moved = structure.at(structure.positions + u.reshape(shape))
            return potential.energy(
                moved.deformed(jnp.eye(3) + strain_matrix(strain)).deformed(jnp.eye(3) + strain_matrix(eta)),
                neighbors,
            )

        g, virial = jax.grad(energy, argnums=(0, 1))(u, jnp.zeros(6))
        volume = volume_of(structure.cell) * jnp.linalg.det(jnp.eye(3) + strain_matrix(strain))
        # the virial of an engineering shear is the tensor component itself
        return g, virial / volume

    still, unstrained = jnp.zeros(structure.positions.size), jnp.zeros(6)
    still, unstrained = jnp.zeros(structure.positions.size), jnp.zeros(6)
    _, push = jax.linearize(forces_and_stress, still, unstrained)
    n = still.size
    if linear_solver is None and n <= DENSE_LIMIT:
        # All columns of [[H, g_eps], [sigma_u, sigma_eps]] from one compiled product, in blocks that bound
        # the memory.
        unit = jnp.eye(n + 6)
        block = min(n + 6, 64)
        rows = jnp.pad(unit, ((0, -(n + 6) % block), (0, 0))).reshape(-1, block, n + 6)
        columns = jax.lax.map(jax.vmap(lambda v: jnp.concatenate(push(v[:n], v[n:]))), rows).reshape(
            -1, n + 6
        )[: n + 6]
        H, g_eps, sigma_u, sigma_eps = columns[:n, :n].T, columns[n:, :n], columns[:n, n:], columns[n:, n:]
        P = jax.vmap(gauge.project)(jnp.eye(n))
        # singular along the gauge: s (1 - P) there leaves the answer on the image of P unchanged
        H = P @ H @ P + jnp.max(jnp.abs(jnp.diagonal(H))) * (jnp.eye(n) - P)
        change = jnp.linalg.solve(H, -(P @ g_eps.T)).T @ P @ sigma_u
    else:
        g_eps, sigma_eps = jax.vmap(lambda e: push(still, e))(jnp.eye(6))
        method = linear_solver or ConjugateGradient()
        u_eps = jax.lax.map(
            lambda b: solve(lambda u: push(u, unstrained)[0], -b, solver=method, project=gauge.project), g_eps
        )
        change = jax.vmap(lambda u: push(u, unstrained)[1])(u_eps)
    return sigma_eps.T, (sigma_eps + change).T


def bulk_modulus(constants: Float[Array, "6 6"]) -> Float[Array, ""]:
    """-V dp/dV of a crystal under hydrostatic pressure, from its elastic constants (same unit): 1 / sum_ij<=3 S_ij."""
    return 1 / jnp.sum(jnp.linalg.inv(constants)[:3, :3])


def cubic_constants(constants: Float[Array, "6 6"]) -> tuple[Array, Array, Array]:
    """C11, C12, C44 of a cubic crystal: the means over the entries that symmetry makes equal."""
    C = constants
    return (
        (C[0, 0] + C[1, 1] + C[2, 2]) / 3,
        (C[0, 1] + C[0, 2] + C[1, 2]) / 3,
        (C[3, 3] + C[4, 4] + C[5, 5]) / 3,
    )
