"""EDIP, the environment-dependent interatomic potential: pairs and angles that know the coordination.

    Z_i = sum_j f(r_ij),    E = sum_i [ sum_j V2(r_ij, Z_i) + sum_{j<k} V3(r_ij, r_ik, cos t_jik, Z_i) ]
    V2 = A [(B/r)^rho - exp(-beta Z²)] exp[sigma / (r - a)]
    V3 = lambda [1 - exp(-Q x²) + eta Q x²] exp[gamma_ij / (r_ij - a_ij) + gamma_ik / (r_ik - a_ik)]
    Q = Q0 exp(-mu Z),    x = cos t + tau(Z),    tau = u1 + u2 [u3 exp(-u4 Z) - exp(-2 u4 Z)]

The coordination counts a neighbor within c as one, one beyond a as none, and between as
f = exp[alpha / (1 - s^-3)], s = (r - c) / (a - c). Here a and c are called cutoffA and cutoffC, as in LAMMPS.

Source: Justo, Bazant, Kaxiras, Bulatov, Yip, Phys. Rev. B 58, 2539 (1998); several species: Jiang, Morgan,
Szlufarska, Phys. Rev. B 86, 144118 (2012); LAMMPS pair_style edip/multi. (LAMMPS pair_style edip looks its
functions up in tables, and agrees with edip/multi to about six digits.)
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.neighbors import Neighbors
from mdsens.potentials.base import entry, parameter
from mdsens.potentials.shells import ShellPotential, Shells, closest, every_two
from mdsens.structure import Structure

NEAREST = (4, 8)  # atoms within the cutoff up to which rows are shortened


class EDIP(ShellPotential):
    """EDIP for one or several species, as LAMMPS pair_style edip/multi.

    Parameters belong to pairs; those of an angle to triples (center, then the two others).

    Attributes: the symbols of the paper.
    """

    A: Float[Array, "..."] = parameter("eV", text="strength of the pair")
    B: Float[Array, "..."] = parameter("Å", lower=0.0, text="length of the repulsion")
    rho: Float[Array, "..."] = parameter("1", text="exponent of the repulsion")
    sigma: Float[Array, "..."] = parameter("Å", lower=0.0, text="decay of the pair")
    beta: Float[Array, "..."] = parameter("1", text="how coordination weakens the attraction")
    gamma: Float[Array, "..."] = parameter("Å", lower=0.0, text="decay of the angles")
    alpha: Float[Array, "..."] = parameter("1", lower=0.0, text="decay of the coordination")
    cutoffA: Float[Array, "..."] = parameter("Å", lower=0.0, text="cutoff")
    cutoffC: Float[Array, "..."] = parameter("Å", lower=0.0, text="end of full coordination")
    lambda_: Float[Array, "..."] = parameter("eV", per="triple", text="strength of the angle")
    eta: Float[Array, "..."] = parameter("1", per="triple", text="harmonic part of the angle")
    Q0: Float[Array, "..."] = parameter("1", per="triple", text="stiffness of the angle")
    mu: Float[Array, "..."] = parameter("1", per="triple", text="how coordination softens the angle")
    u1: Float[Array, "..."] = parameter("1", per="triple", text="preferred angle: constant")
    u2: Float[Array, "..."] = parameter("1", per="triple", text="preferred angle: strength of the change")
    u3: Float[Array, "..."] = parameter("1", per="triple", text="preferred angle: part that decays slowly")
    u4: Float[Array, "..."] = parameter("1", per="triple", text="preferred angle: decay with coordination")
    elements: tuple[str, ...] = eqx.field(static=True)
    source: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        self.check_shapes()

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.max(self.cutoffA)

    def ranges(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "..."]:
        return entry(self.cutoffA, self.pair_index(structure, neighbors))

    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """The pairs of each atom as it sees them, and the angles it is the center of, eV."""
        return closest(self._energies, shells, shells.distances() < self.cutoff, NEAREST)

    def _energies(self, shells: Shells) -> Float[Array, "atoms"]:
        r = shells.distances()
        a = self.by_pair(self.cutoffA, shells)
        near = r < a
        # Mask before anything is formed: beyond the cutoff, distances are halfway and count for nothing.
        length = jnp.where(near, r, 0.5 * a)
        Z = jnp.sum(jnp.where(near, self._counted(length, shells), 0.0), axis=1)
        energies = self._pairs(length, Z[:, None], shells)
        pairs = jnp.sum(jnp.where(near, energies, 0.0), axis=1)
        gamma = self.by_pair(self.gamma, shells)
        decay = jnp.where(near, jnp.exp(gamma / (length - a)), 0.0)
        both = every_two(decay)
        angles = self._angles(shells.cosines(), Z[:, None, None], shells)
        return pairs + 0.5 * jnp.sum(both * angles, axis=(1, 2))

    def _counted(self, r: Float[Array, "atoms width"], shells: Shells) -> Float[Array, "atoms width"]:
        fields = (self.cutoffA, self.cutoffC, self.alpha)
        a, c, alpha = (self.by_pair(v, shells) for v in fields)
        partly = r > c
        s = jnp.where(partly, (r - c) / (a - c), 0.5)
        # 1 / (1 - s^-3) = s³ / (s³ - 1)
        cube = s**3
        return jnp.where(partly, jnp.exp(alpha * cube / (cube - 1)), 1.0)

    def _pairs(
        self, r: Float[Array, "atoms width"], Z: Float[Array, "atoms 1"], shells: Shells
    ) -> Float[Array, "atoms width"]:
        fields = (self.A, self.B, self.rho, self.sigma, self.beta, self.cutoffA)
        A, B, rho, sigma, beta, a = (self.by_pair(v, shells) for v in fields)
        repulsion = jnp.exp(rho * jnp.log(B / r))
        bond_order = jnp.exp(-beta * Z * Z)
        return A * (repulsion - bond_order) * jnp.exp(sigma / (r - a))

    def _angles(
        self, cosine: Float[Array, "atoms width width"], Z: Float[Array, "atoms 1 1"], shells: Shells
    ) -> Float[Array, "atoms width width"]:
        of_h, of_tau = (self.lambda_, self.eta, self.Q0, self.mu), (self.u1, self.u2, self.u3, self.u4)
        strength, eta, Q0, mu = (self.by_triple(v, shells) for v in of_h)
        u1, u2, u3, u4 = (self.by_triple(v, shells) for v in of_tau)
        falling = u3 * jnp.exp(-u4 * Z) - jnp.exp(-2 * u4 * Z)
        tau = u1 + u2 * falling
        stiffness = Q0 * jnp.exp(-mu * Z)
        stretched = stiffness * (cosine + tau) ** 2
        return strength * (-jnp.expm1(-stretched) + eta * stretched)
