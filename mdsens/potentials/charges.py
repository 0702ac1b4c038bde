"""Point charges: the energy of pairs, and where the charges come from.

    E = sum_{i<j} q_i q_j f(r_ij),     f(r) = k erfc(alpha r) / r,     k = e² / (4 pi epsilon_0),

brought to zero at a cutoff. Each sum of charges needs such a part, with something of its own beside it.
Charges belong to species (parameters, `charge[Na]`) or to atoms (`Structure.charges`); either way they are
one number per atom here, and derivatives by them flow back to where they came from.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential, parameter
from mdsens.potentials.cutoffs import AbstractCut
from mdsens.potentials.pair import cut_off
from mdsens.potentials.shells import ShellPotential, Shells, Surroundings
from mdsens.structure import Structure
from mdsens.units import COULOMB

ROUNDED = 1e-3  # of the sum of |q|: a total charge below this may come from charges that were rounded


class ChargedPotential(Potential):
    """Base of the forms whose atoms carry charges.

    Attributes:
        charge: e, one per species; None takes those of `Structure.charges`.
        elements: chemical symbols, in the order of `charge`; () for charges of the structure.
    """

    local = False

    charge: Float[Array, "..."] | None = parameter("e", per="species", text="charge", default=None)
    elements: tuple[str, ...] = eqx.field(static=True, default=())

    def check_shapes(self) -> None:
        """Raise unless there is one charge for each element, or none at all.

        Raises:
            InputError: charges without elements, elements without charges, or numbers that differ.
        """
        if (self.charge is None) != (not self.elements):
            raise InputError(
                f"charge = {self.charge} and elements = {self.elements}: give both, one charge (e) for each "
                "element, or neither, and the charges come from the structure (Structure.charges)."
            )
        if self.charge is not None:
            super().check_shapes()

    def charges(self, structure: Structure) -> Float[Array, "atoms"]:
        """Charge of each atom, e; none of a ghost.

        Raises:
            InputError: they are those of the structure, and it has none.
        """
        if self.charge is None:
            return charges_of(structure, type(self).__name__)
        charges = jnp.atleast_1d(self.charge)[self.types(structure)]
        return charges if structure.real is None else jnp.where(structure.real, charges, 0.0)

    def check_structure(self, structure: Structure) -> None:
        """Raise where the structure has no charges, and they are to come from it.

        Raises:
            InputError: says how to set them.
        """
        if self.charge is None:
            charges_of(structure, type(self).__name__)


def charges_of(structure: Structure, who: str) -> Float[Array, "atoms"]:
    """The charges that a structure carries.

    Raises:
        InputError: it carries none.
    """
    if structure.charges is None:
        raise InputError(
            f"{who} takes its charges from the structure, and the structure has none. Give them, "
            "Structure.create(..., charges=[...]) or atoms.set_initial_charges([...]) in ASE, or give the "
            f"potential charges by species, {who}(charge=[1.0, -1.0], elements=('Na', 'Cl'))."
        )
    return structure.charges


class PairsOfAtoms(ShellPotential):
    """Base of pair forms in which each atom counts as a species of its own."""

    reciprocal = True

    cutoff_radius: eqx.AbstractVar[float]

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    def _surroundings(self, structure: Structure, neighbors: Neighbors) -> Surroundings:
        return Surroundings.of(neighbors, jnp.arange(structure.n_atoms), structure.real)


class ScreenedPairs(PairsOfAtoms):
    """sum_{i<j} q_i q_j k erfc(alpha r) / r, ended by a cut.

    Attributes:
        charge_of_atom: e. alpha: 1/Å. cutoff_radius: Å.
    """

    charge_of_atom: Float[Array, "atoms"]
    alpha: Float[Array, ""]
    cutoff_radius: float = eqx.field(static=True)
    cut: AbstractCut = eqx.field(static=True)
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")

    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """Half of each pair's energy belongs to either atom, eV."""

        def phi(r: Float[Array, "..."]) -> Float[Array, "..."]:
            return COULOMB * jax.scipy.special.erfc(self.alpha * r) / r

        per_charge = cut_off(phi, shells.distances(), self.cutoff_radius, self.cut)
        others = jnp.where(shells.valid, self.charge_of_atom[shells.others] * per_charge, 0.0)
        return 0.5 * self.charge_of_atom[shells.center] * jnp.sum(others, axis=1)


def net_charge(charges: Float[Array, "atoms"]) -> float:
    """The sum of all charges, e; 0 where it is what rounded charges leave, or while it is differentiated."""
    if isinstance(charges, Tracer):
        return 0.0
    q = np.asarray(charges)
    size, total = np.abs(q), float(np.sum(q))
    # a thousandth of all, and still no ion too many: not a tenth of the smallest there is
    smallest = float(np.min(size[size > 0], initial=np.inf))
    rounded = min(ROUNDED * float(np.sum(size)), 0.1 * smallest)
    return total if abs(total) > rounded else 0.0
