"""Vashishta's potentials for ionic and covalent solids: screened charges, and bond angles.

    phi(r) = H / r^eta + k Z_i Z_j exp(-r / lambda1) / r - D exp(-r / lambda4) / r⁴ - W / r⁶
    E = sum_{i<j} [phi(r) - phi(rc) - (r - rc) phi'(rc)]
      + sum_i sum_{j<k} B x² / (1 + C x²) exp[gamma_ij / (r_ij - r0_ij) + gamma_ik / (r_ik - r0_ik)]

with x = cos t_jik - costheta0 and k = e² / (4 pi eps0). The energy and the force of a pair end at rc, the
angles at r0.

Source: Vashishta, Kalia, Rino, Ebbsjö, Phys. Rev. B 41, 12197 (1990); LAMMPS pair_style vashishta.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.neighbors import Neighbors
from mdsens.potentials.base import entry, parameter
from mdsens.potentials.shells import ShellPotential, Shells, closest, every_two
from mdsens.structure import Structure

COULOMB = 14.399645  # eV Å, as in LAMMPS
NEAREST = (8,)  # atoms within r0 up to which rows are shortened


class Vashishta(ShellPotential):
    """Vashishta for one or several species, as LAMMPS pair_style vashishta.

    Parameters belong to pairs, the charge to species, and those of an angle to triples (center, then the two
    others).

    Attributes: the symbols of the paper; `D` and `rc`, `r0` as in LAMMPS (D is half of that of some papers).
    """

    H: Float[Array, "..."] = parameter("eV Å^eta", text="strength of repulsion")
    eta: Float[Array, "..."] = parameter("1", lower=0.0, text="exponent of repulsion")
    Z: Float[Array, "..."] = parameter("e", per="species", text="charge")
    lambda1: Float[Array, "..."] = parameter("Å", lower=0.0, text="screening of the charges")
    D: Float[Array, "..."] = parameter("eV Å⁴", text="charge and dipole")
    lambda4: Float[Array, "..."] = parameter("Å", lower=0.0, text="screening of the dipoles")
    W: Float[Array, "..."] = parameter("eV Å⁶", text="dispersion")
    rc: Float[Array, "..."] = parameter("Å", lower=0.0, text="cutoff of the pair")
    gamma: Float[Array, "..."] = parameter("Å", text="decay of the angles")
    r0: Float[Array, "..."] = parameter("Å", lower=-1e-9, text="cutoff of the angles; 0: there are none")
    B: Float[Array, "..."] = parameter("eV", per="triple", text="strength of the angle")
    C: Float[Array, "..."] = parameter("1", per="triple", text="how the strength of the angle levels off")
    costheta0: Float[Array, "..."] = parameter("1", per="triple", text="cosine of the preferred angle")
    elements: tuple[str, ...] = eqx.field(static=True)
    source: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        self.check_shapes()

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.maximum(jnp.max(self.rc), jnp.max(self.r0))

    def ranges(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "..."]:
        return entry(jnp.maximum(self.rc, self.r0), self.pair_index(structure, neighbors))

    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """Half of each pair's energy, and the angles an atom is the center of, eV."""
        near = shells.distances() < jnp.max(self.r0)
        return self._pairs(shells) + closest(self._angles, shells, near, NEAREST)

    def _pairs(self, shells: Shells) -> Float[Array, "atoms"]:
        a, b = np.triu_indices(max(len(self.elements), 1))
        charges = jnp.atleast_1d(self.Z)
        product = COULOMB * charges[a] * charges[b]
        fields = (self.H, self.eta, product, self.lambda1, self.D, self.lambda4, self.W)
        constants = tuple(jnp.broadcast_to(values, (len(a),)) for values in fields)
        rc = jnp.broadcast_to(self.rc, (len(a),))
        phi = lambda r: _phi(r, constants)
        end, slope = jax.jvp(phi, (rc,), (jnp.ones_like(rc),))
        of_pairs = (rc, end, slope, *constants)
        cutoff, end, slope, *mine = (self.by_pair(v, shells) for v in of_pairs)
        r = shells.distances()
        inside = r < cutoff
        r = jnp.where(inside, r, cutoff)
        energies = _phi(r, tuple(mine)) - end - (r - cutoff) * slope
        return 0.5 * jnp.sum(jnp.where(inside, energies, 0.0), axis=1)

    def _angles(self, shells: Shells) -> Float[Array, "atoms"]:
        r = shells.distances()
        r0 = self.by_pair(self.r0, shells)
        gamma = self.by_pair(self.gamma, shells)
        near = r < r0
        exponent = gamma / jnp.where(near, r - r0, -1.0)
        decay = jnp.where(near, jnp.exp(exponent), 0.0)
        fields = (self.B, self.C, self.costheta0)
        B, C, costheta0 = (self.by_triple(values, shells) for values in fields)
        square = (shells.cosines() - costheta0) ** 2
        angles = every_two(decay) * B * square / (1 + C * square)
        return 0.5 * jnp.sum(angles, axis=(1, 2))


def _phi(r: Float[Array, "..."], constants: tuple[Array, ...]) -> Float[Array, "..."]:
    H, eta, product, lambda1, D, lambda4, W = constants
    charges = product * jnp.exp(-r / lambda1) / r
    dipoles = D * jnp.exp(-r / lambda4) / r**4
    repulsion = H * jnp.exp(-eta * jnp.log(r))
    return repulsion + charges - dipoles - W / r**6
