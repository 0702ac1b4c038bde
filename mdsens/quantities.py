"""Energy, forces and stress of a structure as it stands: nothing here solves anything."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mdsens.errors import NonFiniteError, TracedError
from mdsens.ghosts import first, padded
from mdsens.neighbors import Capacity, Neighbors, find_neighbors
from mdsens.potentials.base import Potential, check_elements, require_potential
from mdsens.potentials.parameters import check_parameters
from mdsens.precision import require_x64
from mdsens.strain import volume_of
from mdsens.structure import Structure, require_structure


class EnergyForcesStress(NamedTuple):
    """energy (eV), forces (atoms, 3) in eV/Å, stress (3, 3) in eV/Å³ (tension > 0; 0 without volume)."""

    energy: Float[Array, ""]
    forces: Float[Array, "atoms 3"]
    stress: Float[Array, "3 3"]


@eqx.filter_jit
def evaluate(potential: Potential, structure: Structure, neighbors: Neighbors) -> EnergyForcesStress:
    """Energy, forces and stress with a neighbor list that is known to be complete; works under jit."""

    # stress = (1/V) dE/dstrain at zero strain, for the homogeneous deformation x -> x (1 + strain)
    def energy(positions, strain):
        deformation = jnp.eye(3) + (strain + strain.T) / 2
        return potential.energy(structure.at(positions).deformed(deformation), neighbors)

    differentiated = jax.value_and_grad(energy, argnums=(0, 1))
    value, (gradient, virial) = differentiated(structure.positions, jnp.zeros((3, 3)))
    volume = volume_of(structure.cell)
    per_volume = virial / jnp.where(volume > 0, volume, 1.0)
    stress = jnp.where(volume > 0, per_volume, 0.0)
    return EnergyForcesStress(value, -gradient, stress)


def energy_forces_stress(
    potential: Potential, structure: Structure, neighbors: Neighbors | None = None
) -> EnergyForcesStress:
    """Energy, forces and stress of a structure.

    Differentiable w.r.t. parameters, positions and cell.

    Args:
        neighbors: list to use; by default one is found on the host (then not under jit).
    Returns:
        energy (eV), forces (atoms, 3) in eV/Å, stress (3, 3) in eV/Å³, positive in tension; the stress of a
        structure without volume is zero.
    Raises:
        InputError: an element without parameters, a parameter outside its bounds.
        NonFiniteError: energy or forces are not finite: atoms at the same place, or NaN positions.
    """
    require_x64()
    if neighbors is not None:
        return evaluate(potential, structure, neighbors)
    _check_inputs(potential, structure)
    n, structure = structure.n_atoms, padded(potential, structure)
    neighbors = neighbors_of(potential, structure)
    result = evaluate(potential, structure, neighbors)
    if not isinstance(result.energy, Tracer):
        check_finite(result, structure, neighbors)
    return result._replace(forces=first(result.forces, n))


def energy(
    potential: Potential, structure: Structure, neighbors: Neighbors | None = None
) -> Float[Array, ""]:
    """Potential energy, eV. Differentiable w.r.t. parameters, positions and cell.

    Args:
        neighbors: list to use; by default one is found on the host (then not under jit).
    Raises:
        InputError: an element without parameters, a parameter outside its bounds.
        NonFiniteError: the energy is not finite: atoms at the same place, or NaN positions.
        PrecisionError: float64 is off.
        ForkError: this process was forked off after JAX had been used.
    """
    require_x64()
    if neighbors is not None:
        return _energy(potential, structure, neighbors)
    _check_inputs(potential, structure)
    structure = padded(potential, structure)
    neighbors = neighbors_of(potential, structure)
    value = _energy(potential, structure, neighbors)
    if not isinstance(value, Tracer):
        check_finite(EnergyForcesStress(value, jnp.zeros((0, 3)), jnp.zeros((3, 3))), structure, neighbors)
    return value


def _check_inputs(potential: Potential, structure: Structure) -> None:
    require_potential(potential)
    require_structure(structure)
    check_elements(potential, structure)
    check_parameters(potential)


@eqx.filter_jit
def _energy(potential: Potential, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
    return potential.energy(structure, neighbors)


def neighbors_of(
    potential: Potential, structure: Structure, skin: float = 0.0, capacity: Capacity | None = None
) -> Neighbors:
    """The list this potential needs for this structure, with the values behind any derivative being taken.

    It holds the pairs within the potential's cutoff and the waves it sums over.
    """
    cutoff = float(concrete(potential.cutoff))
    wave, each = potential.shortest_wave, potential.bytes_per_pair if potential.heavy else None
    return find_neighbors(structure, cutoff, skin, capacity, shortest_wave=wave, bytes_per_pair=each)


def concrete(tree: Any) -> Any:
    """The plain numbers behind values that are being differentiated, in an array or any pytree of arrays.

    Raises:
        TracedError: under jit or vmap, where there are none.
    """
    leaves, form = jax.tree.flatten(tree)
    if not any(isinstance(leaf, Tracer) for leaf in leaves):
        return tree

    # JAX unwraps one derivative after the other before it calls the body of a custom rule for the last time.
    # That call alone sees numbers, and whatever it returns is wrapped again: a list outside is the only way
    # out for them.
    seen: list[Any] = []

    @jax.custom_jvp
    def look(leaves: list[Any]) -> list[Any]:
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            raise TracedError(
                "values are needed on the host, and under jax.jit or jax.vmap there are none. Call this "
                "outside and jit what comes after: jax.grad, jacfwd, jacrev and hessian work without jit; "
                "loop in Python over structures or parameters."
            )
        seen[:] = leaves
        return leaves

    @look.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        return look(*primals), tangents[0]

    look(leaves)
    return jax.tree.unflatten(form, seen)


def check_finite(result: EnergyForcesStress, structure: Structure, neighbors: Neighbors) -> None:
    """Raise if energy or forces are not finite, naming the two closest atoms.

    Raises:
        NonFiniteError
    """
    if bool(jnp.isfinite(result.energy)) and bool(jnp.all(jnp.isfinite(result.forces))):
        return
    raise NonFiniteError(
        f"energy or forces are not finite ({_closest(structure, neighbors)}). Remove duplicate atoms or move "
        "them apart; if they are not close, a parameter lies where the potential is not defined."
    )


def _closest(structure: Structure, neighbors: Neighbors) -> str:
    lengths = np.linalg.norm(np.asarray(neighbors.vectors(structure)), axis=1)
    r = np.where(np.asarray(neighbors.valid), lengths, np.inf)
    if not np.isfinite(r).any():
        return "no two atoms are close"
    k = int(np.nanargmin(r))
    i, j = int(neighbors.i[k]), int(neighbors.j[k])
    symbols = structure.symbols
    return f"atoms {i} ({symbols[i]}) and {j} ({symbols[j]}) are {r[k]:.2e} Å apart"
