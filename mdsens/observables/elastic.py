"""Elastic constants of a structure: clamped ions, and ions that relax under the strain.

The Cauchy stress of the structure under a small symmetric strain is sigma(eps, u), where u are displacements
of the atoms beyond those the strain carries along. The ions settle where their forces vanish, g(eps, u) = 0.
Then

    C = d sigma / d eps = sigma_eps + sigma_u u_eps,        H u_eps = - g_eps,      H = g_u,

the first term alone being the clamped-ion constant. At zero stress this is the second derivative of the
energy density; under stress it is the stress-strain coefficient that a tensile test measures.

Source: Born, Huang, Dynamical Theory of Crystal Lattices (1954), section 11.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mdsens.batching import map_rows
from mdsens.errors import InputError
from mdsens.gauge import find_gauge
from mdsens.ghosts import list_with_ghosts, padded
from mdsens.implicit.linear import AbstractLinearSolver, ConjugateGradient, Dense, solve
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential, check_elements, require_potential
from mdsens.potentials.parameters import check_parameters
from mdsens.quantities import concrete, evaluate, neighbors_of
from mdsens.relaxation.equilibrium import DENSE_LIMIT, Equilibrium, Internal
from mdsens.relaxation.relax import Relaxed
from mdsens.strain import strain_matrix, volume_of
from mdsens.structure import Structure, require_structure
from mdsens.units import GPA

# eV/Å: above this force ions are not at rest, and the formula is off by a tenth of a percent or more
STILL = 1e-3


def elastic_constants(
    potential: Potential,
    structure: Structure | Relaxed,
    *,
    clamped: bool = False,
    neighbors: Neighbors | None = None,
    linear_solver: AbstractLinearSolver | None = None,
    check: bool = True,
) -> Float[Array, "6 6"]:
    """Elastic constants of a relaxed structure, eV/Å³, in Voigt order xx yy zz yz xz xy.

    In the axes of the cell as given.

    Differentiable w.r.t. parameters, positions and cell. Fixed coordinates follow the strain.

    Args:
        structure: relaxed: the formula assumes that the forces vanish. A `Relaxed` state brings its Hessian
            along.
        clamped: ions follow the strain; if False they relax under it.
        neighbors: by default found on the host (then not under jit); with a skin it may serve many calls.
        linear_solver: for the internal relaxation; by default the factor of the Hessian up to DENSE_LIMIT
            unknowns, then conjugate gradients.
        check: raise where forces are left; if False, warn.
    Raises:
        InputError: the structure has no volume, or forces above STILL are left on free atoms.
    Source: module docstring; checked against LAMMPS strains and matscipy.
    """
    require_potential(potential)
    state = structure.equilibrium if isinstance(structure, Relaxed) else None
    atoms = structure.structure if isinstance(structure, Relaxed) else require_structure(structure)
    require_bulk(atoms, "elastic constants")
    if neighbors is None:
        check_elements(potential, atoms)
        check_parameters(concrete(potential))
        neighbors = structure.neighbors if isinstance(structure, Relaxed) else neighbors_of(potential, atoms)
    leaves = jax.tree.leaves((potential, atoms, neighbors))
    traced = any(isinstance(leaf, Tracer) for leaf in leaves)
    if state is not None or not traced:
        atoms = padded(potential, atoms)
        neighbors = list_with_ghosts(neighbors, atoms)
    if not traced and not clamped:
        _require_rest(potential, atoms, neighbors, check)
    if linear_solver is not None or clamped or (state is None and traced):
        return clamped_and_relaxed(potential, atoms, neighbors, linear_solver)[0 if clamped else 1]
    if state is None:
        state = Equilibrium.at(potential, atoms)
    return measure_elastic(potential, atoms, neighbors, state.internal)[1]


def require_bulk(structure: Structure, what: str) -> None:
    """Raise unless the structure is periodic in three directions.

    Raises:
        InputError: says which directions are open.
    """
    if not all(structure.pbc):
        raise InputError(
            f"{what} need a structure that is periodic in three directions (pbc = {structure.pbc}): a slab, "
            "a wire or a cluster has no volume of its own."
        )


def _require_rest(potential: Potential, structure: Structure, neighbors: Neighbors, check: bool) -> None:
    result = evaluate(potential, structure, neighbors)
    free = np.where(np.asarray(structure.fixed), 0, np.asarray(result.forces))
    forces = np.linalg.norm(free, axis=1)
    worst = int(np.argmax(forces))
    if forces[worst] <= STILL:
        return
    stress = GPA * float(np.abs(np.asarray(result.stress)).max())
    message = (
        f"the structure is not relaxed: the force on atom {worst} ({structure.symbols[worst]}) is "
        f"{forces[worst]:.2g} eV/Å (allowed {STILL:g}) and the largest stress {stress:.2g} GPa. Elastic "
        "constants with relaxed ions assume that forces vanish: relax first (mdsens.relax), or ask for "
        "clamped=True."
    )
    if check:
        raise InputError(message + " check=False computes them all the same.")
    import warnings

    warnings.warn(message, stacklevel=3)


def clamped_and_relaxed(
    potential: Potential,
    structure: Structure,
    neighbors: Neighbors,
    linear_solver: AbstractLinearSolver | None = None,
) -> tuple[Float[Array, "6 6"], Float[Array, "6 6"]]:
    """Both kinds of elastic constants for the price of one, eV/Å³.

    Works under jit, where no Hessian is known yet.
    """
    gauge = find_gauge(potential, structure, neighbors, 0)
    dense = 3 * structure.n_atoms <= DENSE_LIMIT
    method = linear_solver or (Dense() if dense else ConjugateGradient())
    return measure_elastic(potential, structure, neighbors, Internal(gauge, method))


@eqx.filter_jit
def measure_elastic(
    potential: Potential, structure: Structure, neighbors: Neighbors, internal: Internal
) -> tuple[Float[Array, "6 6"], Float[Array, "6 6"]]:
    """Clamped and relaxed-ion constants, eV/Å³, with what is known of how the ions settle."""
    shape = structure.positions.shape

    def forces_and_stress(u, strain):
        """g (eV/Å) and sigma (eV/Å³, Voigt) at x = (x0 + u)(1 + strain)."""

        # sigma = (1/V) dE/deta for a further strain eta on top
        def energy(u, eta):
            moved = structure.at(structure.positions + u.reshape(shape))
            strained = moved.deformed(jnp.eye(3) + strain_matrix(strain))
            return potential.energy(strained.deformed(jnp.eye(3) + strain_matrix(eta)), neighbors)

        g, virial = jax.grad(energy, argnums=(0, 1))(u, jnp.zeros(6))
        deformation = jnp.eye(3) + strain_matrix(strain)
        volume = volume_of(structure.cell) * jnp.linalg.det(deformation)
        # the virial of an engineering shear is the tensor component itself
        return g, virial / volume

    still, unstrained = jnp.zeros(structure.positions.size), jnp.zeros(6)
    push = _pushed(potential, forces_and_stress, still, unstrained)
    at_once = potential.rows_at_once
    rows = lambda function, of: map_rows(function, of, at_once=at_once)
    g_eps, sigma_eps = rows(lambda e: push(still, e), jnp.eye(6))
    hessian = lambda u: push(u, unstrained)[0]
    settle = lambda g: solve(hessian, -g, solver=internal.method, project=internal.gauge.project)
    u_eps = rows(settle, g_eps)
    change = rows(lambda u: push(u, unstrained)[1], u_eps)
    return sigma_eps.T, (sigma_eps + change).T


def _pushed(potential: Potential, function: Callable[..., Any], *at: Array) -> Callable[..., Any]:
    """Its derivative along directions.

    What a derivative of that keeps of each direction is all that the form computes on the way, three times
    over: of a heavy form, it is computed again instead.
    """
    if not potential.heavy:
        return jax.linearize(function, *at)[1]
    return jax.checkpoint(lambda *directions: jax.jvp(function, at, directions)[1])


def bulk_modulus(constants: Float[Array, "6 6"]) -> Float[Array, ""]:
    """-V dp/dV of a crystal under hydrostatic pressure, from its elastic constants (same unit).

    1 / sum_ij<=3 S_ij.
    """
    return 1 / jnp.sum(jnp.linalg.inv(constants)[:3, :3])


def cubic_constants(constants: Float[Array, "6 6"]) -> tuple[Array, Array, Array]:
    """C11, C12, C44 of a cubic crystal: the means over the entries that symmetry makes equal."""
    C = constants
    return (
        (C[0, 0] + C[1, 1] + C[2, 2]) / 3,
        (C[0, 1] + C[0, 2] + C[1, 2]) / 3,
        (C[3, 3] + C[4, 4] + C[5, 5]) / 3,
    )
