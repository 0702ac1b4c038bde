"""Long waves in crystals of ions: the field that they make of themselves.

A long longitudinal wave of ions with the charges Z_i makes a macroscopic field along its direction n, which
an infinite crystal at q = 0 (surrounded by a conductor, as in Ewald's sum) does not have. It adds

    D_ij = (4 pi k / V) (n . Z_i) (n . Z_j) / sqrt(m_i m_j),      k = e² / (4 pi epsilon_0),

to the dynamical matrix, and lifts the longitudinal optical modes above the transverse ones. Point ions do not
polarize: their Born charges are their own charges, and the dielectric constant of the clamped crystal is one.
How ions move against each other is in D itself. (Shells would polarize; there are none here.)

Source: Cochran, Cowley, J. Phys. Chem. Solids 23, 447 (1962); Wang, Wang, Wang, Mei, Shang, Chen, Liu, J.
Phys. Condens. Matter 22, 202201 (2010), for waves between those that repeat with a supercell.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.observables.primitive import PrimitiveCell
from mdsens.potentials.base import Potential
from mdsens.potentials.ewald import Ewald
from mdsens.potentials.sums import SumPotential
from mdsens.strain import volume_of
from mdsens.structure import Structure
from mdsens.units import COULOMB


def coulomb_parts(potential: Potential) -> list[tuple[float, Ewald]]:
    """The Coulomb sums in a potential, with their weights."""
    if isinstance(potential, SumPotential):
        parts = zip(potential.weights, potential.parts, strict=True)
        return [(w, part) for w, part in parts if isinstance(part, Ewald)]
    return [(1.0, potential)] if isinstance(potential, Ewald) else []


def require_ions(potential: Potential, what: str) -> None:
    """Raise unless there is a Coulomb sum.

    Raises:
        InputError: there is none.
    """
    if not coulomb_parts(potential):
        raise InputError(
            f"{what}: {type(potential).__name__} has no Coulomb sum (Ewald), so that long waves do not "
            "depend on their direction: leave direction out."
        )


def field_of_wave(
    potential: Potential, structure: Structure, primitive: PrimitiveCell, direction: Any
) -> Float[Array, "modes modes"]:
    """What the macroscopic field adds to D of a long wave along a direction, eV/Å²/u.

    Args:
        direction: in fractions of the reciprocal primitive cell.
    """
    first = jnp.array(primitive.first)
    cell = primitive.cell(structure)
    k = jnp.asarray(direction, float) @ jnp.linalg.inv(cell).T
    n = k / jnp.linalg.norm(k)
    roots = jnp.sqrt(structure.masses[first])
    total = jnp.zeros((3 * primitive.n_atoms, 3 * primitive.n_atoms))
    for weight, part in coulomb_parts(potential):
        charges = part.charges(structure)[first] / roots
        along = (charges[:, None] * n).ravel()
        strength = 4 * jnp.pi * COULOMB * weight / volume_of(cell)
        total = total + strength * jnp.outer(along, along)
    return total
