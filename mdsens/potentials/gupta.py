"""Metals in the second-moment approximation of tight binding (Gupta; Rosato, Guillopé, Legrand).

    E = sum_i [ sum_j A_ab exp(-p_ab (r_ij/r0_ab - 1)) - sqrt( sum_j xi_ab² exp(-2 q_ab (r_ij/r0_ab - 1)) ) ],

a and b the species of i and j. The root is the width of the d band of atom i, which grows as the root of its
number of neighbors. It is an embedding energy F(rho) = -sqrt(rho), as in Finnis, Sinclair (1984).

Source: Cleri, Rosato, Phys. Rev. B 48, 22 (1993).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.potentials.base import pair_table, parameter
from mdsens.potentials.cutoffs import AbstractCut, Smooth
from mdsens.potentials.pair import check_cutoff, cut_off
from mdsens.potentials.shells import ShellPotential, Shells


class Gupta(ShellPotential):
    """Second-moment (Gupta) potential of one or several species.

    The cut acts on the repulsion and, under the root, on the squared hopping. An atom loses its last
    neighbor as a root of what is left: there its second derivative is infinite, in a solid it is not.

    Attributes:
        A: repulsion of a pair at r0, eV; each of the two atoms has it once.
        xi: hopping of a pair at r0, eV.
        p, q: decay of repulsion and hopping. r0: distance to which they refer, Å.
        cutoff_radius: Å; inf for none. cut: how both interactions end there.
    """

    A: Float[Array, "..."] = parameter("eV", lower=0.0, text="repulsion at r0")
    xi: Float[Array, "..."] = parameter("eV", lower=0.0, text="hopping at r0")
    p: Float[Array, "..."] = parameter("1", lower=0.0, text="decay of repulsion")
    q: Float[Array, "..."] = parameter("1", lower=0.0, text="decay of hopping")
    r0: Float[Array, "..."] = parameter("Å", lower=0.0, text="distance of reference")
    elements: tuple[str, ...] = eqx.field(static=True)
    cutoff_radius: float = eqx.field(static=True, default=float("inf"))
    cut: AbstractCut = eqx.field(static=True, default_factory=lambda: Smooth(0.92))
    source: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        self.check_shapes()
        check_cutoff(self.cutoff_radius, self.cut)

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """Repulsion and band energy of each atom, eV."""
        pair = shells.labels(pair_table(max(len(self.elements), 1)))
        fields = (self.A, self.xi, self.p, self.q, self.r0)
        A, xi, p, q, r0 = (values if pair is None else values[pair] for values in fields)
        repulsive = lambda r: A * jnp.exp(-p * (r / r0 - 1))
        squared_hopping = lambda r: xi**2 * jnp.exp(-2 * q * (r / r0 - 1))
        r = shells.distances()
        repulsion = cut_off(repulsive, r, self.cutoff_radius, self.cut)
        hopping = cut_off(squared_hopping, r, self.cutoff_radius, self.cut)
        over_shell = lambda values: jnp.sum(jnp.where(shells.valid, values, 0.0), axis=1)
        return over_shell(repulsion) - safe_sqrt(over_shell(hopping))


def safe_sqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Root, and zero with all its derivatives where x is zero: an atom without neighbors."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)
