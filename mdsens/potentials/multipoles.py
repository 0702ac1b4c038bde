"""Point charges and point dipoles: energies of pairs, fields, and how both are screened.

With the operator q + mu . grad in place of a charge, the energy of two of them at the distance d = x_j - x_i
is, for any phi(r) in place of 1/r,

    (q_i + mu_i . grad_i) (q_j + mu_j . grad_j) phi
        = q_i q_j B0 + (q_j mu_i - q_i mu_j) . d B1 + mu_i . mu_j B1 - (mu_i . d) (mu_j . d) B2,

    B0 = phi,       B1 = -B0' / r,       B2 = -B1' / r.

phi = 1/r gives B1 = 1/r³ and B2 = 3/r⁵. Screened by Gaussians, phi = erfc(alpha r) / r,

    B_n = [(2n - 1) B_n-1 + (2 alpha²)^n / (alpha sqrt(pi)) exp(-alpha² r²)] / r².

A taper S ends each of them at the cutoff: B0 S, B1 S, B2 S. These do not belong to one phi; those of phi S
have terms with the derivatives of S, which couple distant dipoles more strongly than near ones.

Thole. Two points so close that their clouds overlap polarise each other less. With u³ = r³ / sqrt(a_i a_j), a
being polarizabilities, and a cloud ~ exp(-t u³), B1 of a dipole loses exp(-t u³) / r³, and B2 loses
3 (1 + t u³) exp(-t u³) / r⁵. Charges among themselves stay points.

Source: Smith, CCP5 Newsletter 46, 18 (1998); Thole, Chem. Phys. 59, 341 (1981),
    doi:10.1016/0301-0104(81)85176-2; Ponder et al., J. Phys. Chem. B 114, 2549 (2010), doi:10.1021/jp910674d.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.neighbors import Neighbors
from mdsens.potentials.charges import PairsOfAtoms
from mdsens.potentials.shells import Shells
from mdsens.structure import Structure
from mdsens.units import COULOMB

ONSET = 0.8  # of the cutoff: where a taper begins

Values = Float[Array, "..."]


class Kernels(NamedTuple):
    """B0 of charges, B1 and B2 of everything with a dipole, in 1/Å, 1/Å³ and 1/Å⁵."""

    charges: Values
    first: Values
    second: Values


class Interaction(eqx.Module):
    """How the interaction of two points depends on their distance.

    Attributes:
        alpha: inverse width of the Gaussians, 1/Å; 0 for none.
        thole: strength of the damping between dipoles; None for none.
        cutoff_radius: Å. tapered: brought to zero there, with four continuous derivatives; else truncated.
    """

    alpha: Float[Array, ""]
    thole: Float[Array, ""] | None
    cutoff_radius: float = eqx.field(static=True)
    tapered: bool = eqx.field(static=True)

    def kernels(self, r: Values, product: Values) -> Kernels:
        """Those of pairs at the distance r, Å; zero beyond the cutoff.

        Args:
            product: of the two polarizabilities, Å⁶.
        """
        if np.isinf(self.cutoff_radius):
            return self._inside(r, product)
        inside = r < self.cutoff_radius
        found = self._inside(jnp.where(inside, r, self.cutoff_radius), product)
        return Kernels(*(jnp.where(inside, values, 0.0) for values in found))

    def _inside(self, r: Values, product: Values) -> Kernels:
        near, close = screened(r, self.alpha), self._overlap(r, product)
        whole = Kernels(near.charges, near.first - close.first, near.second - close.second)
        return _tapered(whole, r, self.cutoff_radius) if self.tapered else whole

    def _overlap(self, r: Values, product: Values) -> Kernels:
        if self.thole is None:
            return Kernels(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))
        # nothing overlaps with what has no cloud, whatever the derivative of the root there
        clouds = product > 0
        size = jnp.sqrt(jnp.where(clouds, product, 1.0))
        t = self.thole * r**3 / size
        lost = jnp.where(clouds, jnp.exp(-t), 0.0)
        return Kernels(jnp.zeros(()), lost / r**3, 3 * (1 + t) * lost / r**5)


def screened(r: Values, alpha: Float[Array, ""]) -> Kernels:
    """B0, B1 and B2 of erfc(alpha r) / r."""
    square = r * r
    gaussian = jnp.exp(-alpha * alpha * square) / jnp.sqrt(jnp.pi)
    b0 = jax.scipy.special.erfc(alpha * r) / r
    b1 = (b0 + 2 * alpha * gaussian) / square
    b2 = (3 * b1 + 4 * alpha**3 * gaussian) / square
    return Kernels(b0, b1, b2)


def _tapered(b: Kernels, r: Values, cutoff: float) -> Kernels:
    # S = 1 - t⁵ (126 - 420 t + 540 t² - 315 t³ + 70 t⁴), flat to the fourth derivative at t = 0 and 1,
    # where t runs linearly in r²
    begin, end = (ONSET * cutoff) ** 2, cutoff**2
    t = jnp.clip((r * r - begin) / (end - begin), 0.0, 1.0)
    polynomial = 126 - t * (420 - t * (540 - t * (315 - 70 * t)))
    S = 1 - t**5 * polynomial
    return Kernels(b.charges * S, b.first * S, b.second * S)


class PolarizedPairs(PairsOfAtoms):
    """Energy of all pairs of charges and dipoles.

    Attributes:
        charge_of_atom: e. dipole_of_atom: e Å. polarizability_of_atom: Å³, for the damping.
    """

    charge_of_atom: Float[Array, "atoms"]
    dipole_of_atom: Float[Array, "atoms 3"]
    polarizability_of_atom: Float[Array, "atoms"]
    screening: Interaction
    cutoff_radius: float = eqx.field(static=True)
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")

    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """Half of each pair's energy belongs to either atom, eV."""
        i, j = shells.species()
        q, mu, a = self.charge_of_atom, self.dipole_of_atom, self.polarizability_of_atom
        own, other = mu[i][:, None], mu[j]
        d = jnp.stack(shells.d, axis=-1)
        r = shells.distances()
        b = self.screening.kernels(r, a[i][:, None] * a[j])
        dot = lambda u, v: jnp.sum(u * v, axis=-1)
        along_i, along_j = dot(own, d), dot(other, d)
        charges = q[i][:, None] * q[j] * b.charges
        mixed = (q[j] * along_i - q[i][:, None] * along_j) * b.first
        dipoles = dot(own, other) * b.first - along_i * along_j * b.second
        energies = jnp.where(shells.valid, charges + mixed + dipoles, 0.0)
        return COULOMB / 2 * jnp.sum(energies, axis=1)


class FieldSources(NamedTuple):
    """What fields are made of: for each atom its neighbors, the vectors to them, and their kernels."""

    j: Int[Array, "atoms width"]
    d: Float[Array, "atoms width 3"]
    kernels: Kernels

    @classmethod
    def of(
        cls,
        structure: Structure,
        neighbors: Neighbors,
        polarizabilities: Float[Array, "atoms"],
        screening: Interaction,
    ) -> "FieldSources":
        """Those of a list."""
        table = neighbors.table()
        d = table.vectors(structure)
        r = jnp.sqrt(jnp.sum(d * d, axis=-1))
        products = polarizabilities[:, None] * polarizabilities[table.j]
        found = screening.kernels(r, products)
        there = lambda values: jnp.where(table.valid, values, 0.0)
        return cls(table.j, d, Kernels(*map(there, found)))

    @classmethod
    def of_all_pairs(
        cls, structure: Structure, polarizabilities: Float[Array, "atoms"], screening: Interaction
    ) -> "FieldSources":
        """Those of a cluster without a list: every atom sees every other one."""
        n, x, a = structure.n_atoms, structure.positions, polarizabilities
        other = ~jnp.eye(n, dtype=bool)
        d = jnp.where(other[..., None], x - x[:, None], jnp.array([1.0, 0.0, 0.0]))
        r = jnp.sqrt(jnp.sum(d * d, axis=-1))
        found = screening.kernels(r, a[:, None] * a)
        there = lambda values: jnp.where(other, values, 0.0)
        j = jnp.broadcast_to(jnp.arange(n), (n, n))
        return cls(j, d, Kernels(*map(there, found)))

    def energy(self, q: Float[Array, "atoms"], mu: Float[Array, "atoms 3"]) -> Float[Array, ""]:
        """Of all pairs, e²/Å."""
        charges = q[self.j] * self.kernels.charges
        of_charges = jnp.sum(q[:, None] * charges) / 2
        field = self.field_of_charges(q) + self.field_of_dipoles(mu) / 2
        return of_charges - jnp.sum(mu * field)

    def field_of_charges(self, q: Float[Array, "atoms"]) -> Float[Array, "atoms 3"]:
        """e/Å²: -sum_j q_j B1 d."""
        weights = q[self.j] * self.kernels.first
        return -jnp.einsum("ij,ijk->ik", weights, self.d)

    def field_of_dipoles(self, mu: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
        """e/Å²: sum_j [(mu_j . d) d B2 - mu_j B1]."""
        other = mu[self.j]
        along = jnp.einsum("ijk,ijk->ij", other, self.d) * self.kernels.second
        pulled = jnp.einsum("ij,ijk->ik", along, self.d)
        return pulled - jnp.einsum("ij,ijk->ik", self.kernels.first, other)
