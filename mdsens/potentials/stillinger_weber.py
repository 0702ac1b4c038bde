"""Stillinger-Weber: pairs, and bond angles held near a preferred one.

    E = sum_{i<j} A eps [B (s/r)^p - (s/r)^q] exp(s / (r - a s))
      + sum_i sum_{j<k} lambda eps (cos t_jik - c)² g_ij g_ik,      g = exp(gamma s / (r - a s)),  c = costheta0

The cutoff a·sigma moves with both parameters, and so do our derivatives (jax-md keeps it apart and misses that part).

Source: Stillinger, Weber, Phys. Rev. B 31, 5262 (1985); LAMMPS pair_style sw.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential, pair_table, parameter
from mdsens.structure import Structure


class StillingerWeber(Potential):
    """Stillinger-Weber for one or several species.

    Two-body parameters belong to unordered pairs, `gamma` to ordered pairs (centre first), `lambda_` and `costheta0`
    to triples (centre, then the two others). A triple with two different neighbors j, k has the strength
    lambda sqrt(eps_ij eps_ik); the LAMMPS reader scales lambda so that the energy is that of the file.

    Attributes: the symbols of the paper; sigma in Å, epsilon in eV, the rest without unit.
    """

    epsilon: Float[Array, "..."] = parameter("eV", lower=0.0, text="energy scale")
    sigma: Float[Array, "..."] = parameter("Å", lower=0.0, text="length scale")
    a: Float[Array, "..."] = parameter("1", lower=0.0, text="cutoff in units of sigma")
    lambda_: Float[Array, "..."] = parameter("1", lower=-np.inf, per="triple", text="three-body strength")
    gamma: Float[Array, "..."] = parameter("1", lower=0.0, per="ordered pair", text="three-body decay")
    costheta0: Float[Array, "..."] = parameter("1", lower=-1.5, upper=1.5, per="triple", text="cosine of the preferred angle")
    A: Float[Array, "..."] = parameter("1", lower=0.0, text="two-body strength")
    B: Float[Array, "..."] = parameter("1", lower=0.0, text="repulsion relative to attraction")
    p: Float[Array, "..."] = parameter("1", lower=0.0, text="exponent of repulsion")
    q: Float[Array, "..."] = parameter("1", lower=-1.0, text="exponent of attraction")
    elements: tuple[str, ...] = eqx.field(static=True)
    source: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        self.check_shapes()

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.max(self.a * self.sigma)

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        two, three = self._terms(structure, neighbors)
        return jnp.sum(two) + jnp.sum(three)

    def site_energies(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms"]:
        """Half of each pair's energy, and the angles an atom is the centre of, eV."""
        two, three = self._terms(structure, neighbors)
        return three.at[neighbors.i].add(two / 2).at[neighbors.j].add(two / 2)

    def _terms(self, structure: Structure, neighbors: Neighbors):
        n, species = structure.n_atoms, len(self.elements)
        i, j = neighbors.i, neighbors.j
        d = neighbors.vectors(structure)
        r = jnp.sqrt(jnp.sum(d * d, axis=-1))
        types = self.types(structure)
        pair = jnp.asarray(pair_table(species))[types[i], types[j]]
        one = lambda values: values if species == 1 else values[pair]
        eps, s, cutoff = one(self.epsilon), one(self.sigma), one(self.a * self.sigma)

        # exp(s / (r - a s)) and all its derivatives vanish at the cutoff; beyond it the exponent is never formed.
        inside = r < cutoff
        r = jnp.where(inside, r, 0.5 * cutoff)
        ratio = s / r
        two = one(self.A) * eps * (one(self.B) * ratio ** one(self.p) - ratio ** one(self.q))
        exponent = s / jnp.where(inside, r - cutoff, -s)
        two = jnp.where(inside, two * jnp.exp(exponent), 0.0)

        # Three bodies without listing triples: with unit vectors n_j, cos t_jik = n_j . n_k, so a sum over pairs of
        # neighbors (j, k) of a polynomial in n_j . n_k is a polynomial in the moments of the neighbor shell,
        #     M0 = sum_j g_j,   M1 = sum_j g_j n_j,   M2 = sum_j g_j n_j n_j^T,
        #     sum_{j<k} (cos - c)² g_j g_k = 1/2 [ M2:M2 - 2 c M1.M1 + c² M0² - (1 - c)² sum_j g_j² ],
        # the last term taking out j = k. Cost: one pass over pairs. Neighbors of each species have their own moments,
        # and g_j carries sqrt(eps_ij).
        unit = d / jnp.sqrt(jnp.sum(d * d, axis=-1))[:, None]
        def shell(gamma):
            return jnp.where(inside, jnp.sqrt(eps) * jnp.exp(gamma * exponent), 0.0)
        if species == 1:
            g_i = g_j = shell(self.gamma)
        else:
            ordered = types[i] * species + types[j], types[j] * species + types[i]
            g_i, g_j = shell(self.gamma[ordered[0]]), shell(self.gamma[ordered[1]])
        x, y, z = unit.T
        even = jnp.stack([jnp.ones_like(x), x * x, y * y, z * z, y * z, x * z, x * y], axis=-1)
        moments = jnp.zeros((n * species, 11), d.dtype)
        # seen from j the vector points back: odd moments change sign
        moments = moments.at[i * species + types[j]].add(jnp.concatenate([g_i[:, None] * even, g_i[:, None] * unit, g_i[:, None] ** 2], -1))
        moments = moments.at[j * species + types[i]].add(jnp.concatenate([g_j[:, None] * even, -g_j[:, None] * unit, g_j[:, None] ** 2], -1))
        moments = moments.reshape(n, species, 11)
        M0, M2, M1, squares = moments[..., 0], moments[..., 1:7], moments[..., 7:10], moments[..., 10]
        twice = jnp.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])  # off-diagonal entries of a symmetric matrix count twice
        c2 = jnp.einsum("nak,nbk,k->nab", M2, M2, twice)
        c1 = jnp.einsum("nak,nbk->nab", M1, M1)
        c0 = M0[:, :, None] * M0[:, None, :]
        # parameters of the triple (centre, a, b), symmetric in a and b
        strength, c = self._triples(self.lambda_)[types], self._triples(self.costheta0)[types]
        all_pairs = jnp.sum(strength * (c2 - 2 * c * c1 + c * c * c0), axis=(1, 2))
        diagonal = jnp.arange(species)
        same = jnp.sum(strength[:, diagonal, diagonal] * (1 - c[:, diagonal, diagonal]) ** 2 * squares, axis=1)
        return two, 0.5 * (all_pairs - same)

    def _triples(self, values: Float[Array, "..."]) -> Float[Array, "species species species"]:
        species = len(self.elements)
        return jnp.reshape(values, (species, -1))[:, pair_table(species)]
