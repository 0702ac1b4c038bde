"""Electrostatic energies by sums over pairs alone: charges beyond the cutoff are taken for screened.

In an ionic crystal or melt the charges around an ion shield it, and the energy of a sphere that is made
neutral by charges on its surface comes close to that of Ewald's sum, at the cost of a pair potential:

    E / k = sum_{i<j} q_i q_j [f(r) - ...] - (c + alpha / sqrt(pi)) sum_i q_i²,     f(r) = erfc(alpha r) / r.

Wolf and others subtract f(r_c): the charge on the surface, and c = f(r_c) / 2. Fennell and Gezelter subtract
the tangent of f at r_c, so that the force goes to zero there as well, and c is half of what the tangent is at
r = 0. These are approximations, of any cell, slab or cluster; how good they are says a comparison with
`Ewald`.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.checks import number
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import parameter
from mdsens.potentials.charges import ChargedPotential, ScreenedPairs
from mdsens.potentials.cutoffs import AbstractCut, ForceShifted, Shifted
from mdsens.structure import Structure
from mdsens.units import COULOMB


class DampedCharges(ChargedPotential):
    """Base of the sums over pairs of charges with a self energy.

    Attributes:
        charge: e, one per species; None takes those of `Structure.charges`.
        alpha: damping, 1/Å; 0 for none. Where alpha r_c is about 2, the sum has converged.
        cutoff_radius: Å.
    """

    local = True
    ghosts = True

    alpha: Float[Array, ""] = parameter("1/Å", lower=-1e-300, per=None, text="damping", default=0.2)
    cutoff_radius: float = eqx.field(static=True, default=10.0)
    source: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        self.check_shapes()
        number("cutoff_radius", self.cutoff_radius, "Å", above=0)

    @property
    @abstractmethod
    def cut(self) -> AbstractCut:
        """How the interaction is brought to zero at the cutoff."""

    @abstractmethod
    def self_energy(self) -> Float[Array, ""]:
        """c + alpha / sqrt(pi), 1/Å."""

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        q = self.charges(structure)
        return self._pairs(q).energy(structure, neighbors) + jnp.sum(self._own(q))

    def site_energies(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms"]:
        """Energy of each atom, eV: half of each of its pairs, and its own."""
        q = self.charges(structure)
        return self._pairs(q).site_energies(structure, neighbors) + self._own(q)

    def _pairs(self, q: Float[Array, "atoms"]) -> ScreenedPairs:
        return ScreenedPairs(
            charge_of_atom=q, alpha=self.alpha, cutoff_radius=self.cutoff_radius, cut=self.cut
        )

    def _own(self, q: Float[Array, "atoms"]) -> Float[Array, "atoms"]:
        return -COULOMB * self.self_energy() * q * q

    def _screened(self, r: Float[Array, ""]) -> Float[Array, ""]:
        return jax.scipy.special.erfc(self.alpha * r) / r


class Wolf(DampedCharges):
    """Damped charges, shifted: the force jumps at the cutoff.

    The energy is that of LAMMPS coul/wolf. Forces are its derivatives; those of LAMMPS are not, they have a
    constant added to each pair's that takes the jump away.

    Attributes:
        charge, alpha, cutoff_radius: as in `DampedShiftedForce`.
    Source: Wolf et al., J. Chem. Phys. 110, 8254 (1999), doi:10.1063/1.478738.
    """

    @property
    def cut(self) -> AbstractCut:
        return Shifted()

    def self_energy(self) -> Float[Array, ""]:
        end = jnp.asarray(self.cutoff_radius)
        return self._screened(end) / 2 + self.alpha / jnp.sqrt(jnp.pi)


class DampedShiftedForce(DampedCharges):
    """Damped charges with a force that goes to zero at the cutoff: the second derivative jumps there.

    Equal to LAMMPS coul/dsf.

    Attributes:
        charge: e, one per species; None takes those of `Structure.charges`.
        alpha: damping, 1/Å; 0 for none. cutoff_radius: Å.
    Source: Fennell, Gezelter, J. Chem. Phys. 124, 234104 (2006), doi:10.1063/1.2206581.
    """

    @property
    def cut(self) -> AbstractCut:
        return ForceShifted()

    def self_energy(self) -> Float[Array, ""]:
        # the tangent at r_c, f(r_c) + (r - r_c) f'(r_c), has the value f - r_c f' at r = 0
        end = jnp.asarray(self.cutoff_radius)
        value, slope = jax.value_and_grad(self._screened)(end)
        tangent = value - end * slope
        return tangent / 2 + self.alpha / jnp.sqrt(jnp.pi)
