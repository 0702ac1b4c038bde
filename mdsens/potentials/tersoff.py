"""Tersoff's potentials for silicon, carbon and their relatives.

    V_R = A exp(-lambda1 r),    V_A = B exp(-lambda2 r),    b = (1 + (beta zeta)^n)^(-1/2n)
    g = gamma (1 + c²/d² - c²/(d² + (costheta0 - cos t)²))

(see mdsens/potentials/bond_orders.py for the energy they enter).

Source: Tersoff, Phys. Rev. B 37, 6991 (1988); 38, 9902 (1988); 39, 5566 (1989); LAMMPS pair_style tersoff.
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.potentials.base import parameter
from mdsens.potentials.bond_orders import BondOrderPotential, weakened
from mdsens.potentials.shells import Shells


class Tersoff(BondOrderPotential):
    """Tersoff for one or several species, as LAMMPS pair_style tersoff.

    Attributes: the symbols of the papers, where lambda1, lambda2 are also written lambda, mu, and costheta0
        is h; chi and omega are part of B and gamma.

        m: exponent of the stretch in zeta, 3 or 1: one for all, or one for each ordered triple (center,
            bonded, third). Of no effect where lambda3 = 0.
        sharing: parameters whose entries belong to something else than declared, see `BondOrderPotential`.
    """

    of_zeta: ClassVar[tuple[str, ...]] = ("gamma", "lambda3", "c", "d", "costheta0", "R", "D")

    A: Float[Array, "..."] = parameter("eV", text="strength of repulsion")
    lambda1: Float[Array, "..."] = parameter("1/Å", text="decay of repulsion")
    B: Float[Array, "..."] = parameter("eV", text="strength of attraction")
    lambda2: Float[Array, "..."] = parameter("1/Å", text="decay of attraction")
    n: Float[Array, "..."] = parameter("1", lower=0.0, per="species", text="exponent of the bond order")
    beta: Float[Array, "..."] = parameter("1", per="species", text="scale of the bond order")
    gamma: Float[Array, "..."] = parameter("1", per="species", text="scale of zeta")
    lambda3: Float[Array, "..."] = parameter("1/Å", per="species", text="weight of shorter bonds in zeta")
    c: Float[Array, "..."] = parameter("1", per="species", text="strength of the angle")
    d: Float[Array, "..."] = parameter("1", lower=0.0, per="species", text="sharpness of the angle")
    costheta0: Float[Array, "..."] = parameter("1", per="species", text="cosine of the preferred angle")
    R: Float[Array, "..."] = parameter("Å", lower=0.0, text="middle of the cutoff")
    D: Float[Array, "..."] = parameter("Å", lower=-1e-9, text="half the width of the cutoff; 0: a jump")
    elements: tuple[str, ...] = eqx.field(static=True)

    def repulsion(self, r: Float[Array, "atoms width"], shells: Shells) -> Float[Array, "atoms width"]:
        decay = jnp.exp(-self.of_bonds("lambda1", shells) * r)
        return self.bond_cutoff(r, shells) * self.of_bonds("A", shells) * decay

    def bond_order(self, zeta: Float[Array, "atoms width"], shells: Shells) -> Float[Array, "atoms width"]:
        n = self.of_bonds("n", shells)
        return weakened(self.of_bonds("beta", shells) * zeta, n, n)

    def angular(
        self, cosine: Float[Array, "atoms width width"], shells: Shells
    ) -> Float[Array, "atoms width width"]:
        fields = ("gamma", "c", "d", "costheta0")
        gamma, c, d, h = (self.of_triples(f, shells) for f in fields)
        # 1 + c²/d² - c²/(d² + x²) = 1 + (c/d)² x² / (d² + x²): no small difference of large numbers
        square = (h - cosine) ** 2
        bent = (c / d) ** 2 * square / (d**2 + square)
        return gamma * (1 + bent)

    def steepness(self, shells: Shells) -> Float[Array, "..."]:
        return self.of_triples("lambda3", shells)
