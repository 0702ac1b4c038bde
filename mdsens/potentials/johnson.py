"""Johnson's analytic embedded-atom method for fcc metals and their alloys, with nearest neighbors.

    E = 1/2 sum_ij phi_ab(r_ij) + sum_i F_a(rho_i),        rho_i = sum_j f_b(r_ij),
    f(r) = f_e exp(-beta (r/r_e - 1)),                     phi_aa(r) = phi_e exp(-gamma (r/r_e - 1)),
    F(rho) = -E_c (1 - alpha/beta ln x) x^(alpha/beta) - 6 phi_e x^(gamma/beta),        x = rho / (12 f_e),
    phi_ab = 1/2 [f_b/f_a phi_aa + f_a/f_b phi_bb].

In a crystal with twelve neighbors at r, x = exp(-beta (r/r_e - 1)), the pairs and the last term of F cancel,
and the energy of an atom is Rose's curve -E_c (1 + t) exp(-t), t = alpha (r/r_e - 1).

Source: Johnson, Phys. Rev. B 37, 3924 (1988); Phys. Rev. B 39, 12554 (1989).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.potentials.base import parameter
from mdsens.potentials.cutoffs import AbstractCut, Smooth
from mdsens.potentials.pair import check_cutoff, cut_off
from mdsens.potentials.shells import ShellPotential, Shells

NEAREST = 12  # neighbors of an atom in a fcc crystal


class Johnson(ShellPotential):
    """Johnson's analytic embedded-atom potential of one or several species.

    The model is one of nearest neighbors: the cut belongs between the first and the second shell.

    Attributes:
        E_c: cohesive energy, eV. r_e: distance of nearest neighbors, Å.
        alpha: decay of the energy of the crystal, alpha² = 9 (bulk modulus) (atomic volume) / E_c.
        f_e: density of a neighbor at r_e; only ratios between species count. beta: its decay.
        phi_e: pair energy at r_e, eV. gamma: its decay.
        cutoff_radius: Å. cut: how pair energy and density end there.
    """

    E_c: Float[Array, "..."] = parameter("eV", lower=0.0, per="species", text="cohesive energy")
    r_e: Float[Array, "..."] = parameter("Å", lower=0.0, per="species", text="distance of nearest neighbors")
    alpha: Float[Array, "..."] = parameter(
        "1", lower=0.0, per="species", text="decay of the crystal's energy"
    )
    f_e: Float[Array, "..."] = parameter("1", lower=0.0, per="species", text="density of a neighbor at r_e")
    beta: Float[Array, "..."] = parameter("1", lower=0.0, per="species", text="decay of the density")
    phi_e: Float[Array, "..."] = parameter("eV", lower=0.0, per="species", text="pair energy at r_e")
    gamma: Float[Array, "..."] = parameter("1", lower=0.0, per="species", text="decay of the pair energy")
    elements: tuple[str, ...] = eqx.field(static=True)
    cutoff_radius: float = eqx.field(static=True, kw_only=True)
    cut: AbstractCut = eqx.field(static=True, default_factory=Smooth)
    source: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        self.check_shapes()
        check_cutoff(self.cutoff_radius, self.cut)

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """Half of each pair's energy, and the embedding of the atom in the middle, eV."""
        r = shells.distances()
        over_shell = lambda values: jnp.sum(jnp.where(shells.valid, values, 0.0), axis=1)
        density = over_shell(self._ended(lambda r: self._density(r, shells.others), r))
        pairs = over_shell(self._ended(lambda r: self._pair(r, shells), r))
        return 0.5 * pairs + self._embedding(density, shells.center)

    def _ended(self, function, r: Array) -> Array:
        return cut_off(function, r, self.cutoff_radius, self.cut)

    def _density(self, r: Array, kind: Array | None) -> Array:
        f_e, beta, r_e = _of(kind, self.f_e, self.beta, self.r_e)
        return f_e * jnp.exp(-beta * (r / r_e - 1))

    def _like_pair(self, r: Array, kind: Array | None) -> Array:
        phi_e, gamma, r_e = _of(kind, self.phi_e, self.gamma, self.r_e)
        return phi_e * jnp.exp(-gamma * (r / r_e - 1))

    def _pair(self, r: Array, shells: Shells) -> Array:
        if shells.center is None:
            return self._like_pair(r, None)
        center = shells.center[:, None]
        ratio = self._density(r, shells.others) / self._density(r, center)
        own, others = self._like_pair(r, center), self._like_pair(r, shells.others)
        return 0.5 * (ratio * own + others / ratio)

    def _embedding(self, density: Array, kind: Array | None) -> Array:
        E_c, alpha, f_e, beta = _of(kind, self.E_c, self.alpha, self.f_e, self.beta)
        phi_e, gamma = _of(kind, self.phi_e, self.gamma)
        # an atom without neighbors has no energy, and the logarithm is never formed
        there = density > 0
        rho_e = NEAREST * f_e
        ln_x = jnp.log(jnp.where(there, density, rho_e) / rho_e)
        slow = alpha / beta * ln_x
        cohesion = -E_c * (1 - slow) * jnp.exp(slow)
        pairs = NEAREST / 2 * phi_e * jnp.exp(gamma / beta * ln_x)
        return jnp.where(there, cohesion - pairs, 0.0)


def _of(kind: Array | None, *values: Array) -> list[Array]:
    return [v if kind is None else v[kind] for v in values]
