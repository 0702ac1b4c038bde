"""Variants of Tersoff's potential: with the screened repulsion of nuclei, and modified for melting.

Source: Devanathan, Diaz de la Rubia, Weber, J. Nucl. Mater. 253, 47 (1998) (LAMMPS pair_style tersoff/zbl);
    Kumagai, Izumi, Hara, Sakai, Comput. Mater. Sci. 39, 457 (2007) (pair_style tersoff/mod); Schall, Gao,
    Harrison, Phys. Rev. B 77, 115209 (2008) (the c0 of pair_style tersoff/mod/c).
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.potentials.base import parameter
from mdsens.potentials.bond_orders import (
    BondOrderPotential,
    depth,
    weakened,
)
from mdsens.potentials.shells import Shells
from mdsens.potentials.tersoff import Tersoff
from mdsens.potentials.zbl import Screening

# of pair_style tersoff/zbl, with fewer digits than pair_style zbl has
SCREENING = Screening(
    weights=(0.1818, 0.5099, 0.2802, 0.02817),
    decays=(3.2, 0.9423, 0.4029, 0.2016),
    length=0.8854 * 0.529,
    coulomb=1.0 / (4 * np.pi * 0.00552635),
)


class TersoffZBL(Tersoff):
    """Tersoff with the screened repulsion of nuclei at short distances, as LAMMPS pair_style tersoff/zbl.

        V = (1 - F) V_ZBL + F V_Tersoff,    F = 1 / (1 + exp(-ZBLexpscale (r - ZBLcut)))

    Attributes: those of `Tersoff`, and
        Z: charge of each nucleus in units of e.
        ZBLcut, ZBLexpscale: middle (Å) and steepness (1/Å) of the step F.
    """

    Z: Float[Array, "..."] = parameter("1", lower=0.0, per="species", text="nuclear charge")
    ZBLcut: Float[Array, "..."] = parameter("Å", text="middle of the step to the screened repulsion")
    ZBLexpscale: Float[Array, "..."] = parameter("1/Å", text="steepness of that step")

    def _step(self, r: Float[Array, "atoms width"], shells: Shells) -> Float[Array, "atoms width"]:
        scale, middle = self.of_bonds("ZBLexpscale", shells), self.of_bonds("ZBLcut", shells)
        return jax.nn.sigmoid(scale * (r - middle))

    def repulsion(self, r: Float[Array, "atoms width"], shells: Shells) -> Float[Array, "atoms width"]:
        Z_i, Z_j = self.Z, self.Z
        if len(self.elements) > 1:
            center, others = shells.species()
            Z_i, Z_j = self.Z[center][:, None], self.Z[others]
        step = self._step(r, shells)
        near, usual = SCREENING.repulsion(r, Z_i, Z_j), super().repulsion(r, shells)
        return (1 - step) * near + step * usual

    def attraction(self, r: Float[Array, "atoms width"], shells: Shells) -> Float[Array, "atoms width"]:
        return self._step(r, shells) * super().attraction(r, shells)


class TersoffMod(BondOrderPotential):
    """Tersoff as modified by Kumagai and others, as LAMMPS pair_style tersoff/mod and tersoff/mod/c.

        V_R = A exp(-lambda1 r) + c0,    V_A = B exp(-lambda2 r),    b = (1 + (beta zeta)^eta)^(-1/2delta)
        g = c1 + c2 x² / (c3 + x²) (1 + c4 exp(-c5 x²)),    x = costheta0 - cos t
        fC = 1/2 - 9/16 sin(pi s/2) - 1/16 sin(3 pi s/2),    s = (r - R) / D

    and the steepness of the stretch is alpha.

    Attributes: the symbols of the paper; its c0 is zero. `m` and `sharing` as in `Tersoff`.
    """

    of_zeta: ClassVar[tuple[str, ...]] = ("alpha", "c1", "c2", "c3", "c4", "c5", "costheta0", "R", "D")

    A: Float[Array, "..."] = parameter("eV", text="strength of repulsion")
    lambda1: Float[Array, "..."] = parameter("1/Å", text="decay of repulsion")
    c0: Float[Array, "..."] = parameter("eV", text="constant part of a bond")
    B: Float[Array, "..."] = parameter("eV", text="strength of attraction")
    lambda2: Float[Array, "..."] = parameter("1/Å", text="decay of attraction")
    eta: Float[Array, "..."] = parameter("1", lower=0.0, per="species", text="exponent of the bond order")
    delta: Float[Array, "..."] = parameter("1", lower=0.0, per="species", text="second such exponent")
    beta: Float[Array, "..."] = parameter("1", per="species", text="scale of the bond order")
    alpha: Float[Array, "..."] = parameter("1/Å", per="species", text="weight of shorter bonds in zeta")
    c1: Float[Array, "..."] = parameter("1", per="species", text="angular function at its smallest")
    c2: Float[Array, "..."] = parameter("1", per="species", text="strength of the angle")
    c3: Float[Array, "..."] = parameter("1", lower=0.0, per="species", text="sharpness of the angle")
    c4: Float[Array, "..."] = parameter("1", per="species", text="strength of its inner part")
    c5: Float[Array, "..."] = parameter("1", per="species", text="sharpness of its inner part")
    costheta0: Float[Array, "..."] = parameter("1", per="species", text="cosine of the preferred angle")
    R: Float[Array, "..."] = parameter("Å", lower=0.0, text="middle of the cutoff")
    D: Float[Array, "..."] = parameter("Å", lower=-1e-9, text="half the width of the cutoff; 0: a jump")
    elements: tuple[str, ...] = eqx.field(static=True)

    def repulsion(self, r: Float[Array, "atoms width"], shells: Shells) -> Float[Array, "atoms width"]:
        decay = jnp.exp(-self.of_bonds("lambda1", shells) * r)
        bare = self.of_bonds("A", shells) * decay + self.of_bonds("c0", shells)
        return self.bond_cutoff(r, shells) * bare

    def bond_order(self, zeta: Float[Array, "atoms width"], shells: Shells) -> Float[Array, "atoms width"]:
        beta, eta, delta = (self.of_bonds(f, shells) for f in ("beta", "eta", "delta"))
        return weakened(beta * zeta, eta, delta)

    def angular(
        self, cosine: Float[Array, "atoms width width"], shells: Shells
    ) -> Float[Array, "atoms width width"]:
        fields = ("costheta0", "c1", "c2", "c3", "c4", "c5")
        h, c1, c2, c3, c4, c5 = (self.of_triples(f, shells) for f in fields)
        square = (h - cosine) ** 2
        inner = 1 + c4 * jnp.exp(-c5 * square)
        return c1 + c2 * square / (c3 + square) * inner

    def steepness(self, shells: Shells) -> Float[Array, "..."]:
        return self.of_triples("alpha", shells)

    def cutoff_function(self, r: Float[Array, "..."], R: Array, D: Array) -> Float[Array, "..."]:
        s = 0.5 * jnp.pi * depth(r, R, D)
        return 0.5 - (9 * jnp.sin(s) + jnp.sin(3 * s)) / 16
