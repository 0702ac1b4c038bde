"""Stillinger-Weber: pairs, and bond angles held near a preferred one.

    E = sum_{i<j} A eps [B (s/r)^p - (s/r)^q] exp(s / (r - a s))
      + sum_i sum_{j<k} lambda eps (cos t_jik - c)² g_ij g_ik,   g = exp(gamma s / (r - a s)),  c = costheta0

The cutoff a·sigma moves with both parameters, and so do our derivatives (jax-md keeps it apart and misses
that part).

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

    Two-body parameters belong to unordered pairs, `gamma` to ordered pairs (center first), `lambda_` and
    `costheta0` to triples (center, then the two others). A triple with two different neighbors j, k has the
    strength lambda sqrt(eps_ij eps_ik); the LAMMPS reader scales lambda so that the energy is that of the
    file.

    Attributes: the symbols of the paper; sigma in Å, epsilon in eV, the rest without unit.
    """

    epsilon: Float[Array, "..."] = parameter("eV", lower=0.0, text="energy scale")
    sigma: Float[Array, "..."] = parameter("Å", lower=0.0, text="length scale")
    a: Float[Array, "..."] = parameter("1", lower=0.0, text="cutoff in units of sigma")
    lambda_: Float[Array, "..."] = parameter("1", lower=-np.inf, per="triple", text="three-body strength")
    gamma: Float[Array, "..."] = parameter("1", lower=0.0, per="ordered pair", text="three-body decay")
    costheta0: Float[Array, "..."] = parameter(
        "1", lower=-1.5, upper=1.5, per="triple", text="cosine of the preferred angle"
    )
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
        """Half of each pair's energy, and the angles an atom is the center of, eV."""
        two, three = self._terms(structure, neighbors)
        return three.at[neighbors.i].add(two / 2).at[neighbors.j].add(two / 2)

    def _terms(self, structure: Structure, neighbors: Neighbors):
        n, species = structure.n_atoms, max(len(self.elements), 1)
        i, j = neighbors.i, neighbors.j
        d = neighbors.vectors(structure)
        r = jnp.sqrt(jnp.sum(d * d, axis=-1))
        types = self.types(structure)
        pair = jnp.asarray(pair_table(species))[types[i], types[j]]
        one = (lambda values: values) if species == 1 else (lambda values: values[pair])
        eps, s, cutoff = one(self.epsilon), one(self.sigma), one(self.a * self.sigma)

        # exp(s / (r - a s)) and all its derivatives vanish at the cutoff; beyond it the exponent is never
        # formed.
        inside = r < cutoff
        exponent = s / jnp.where(inside, r - cutoff, -s)
        log_ratio = jnp.log(s / r)
        power = lambda k: jnp.exp(one(k) * log_ratio)  # (s / r)^k
        two = one(self.A) * eps * (one(self.B) * power(self.p) - power(self.q)) * jnp.exp(exponent)
        two = jnp.where(inside, two, 0.0)

        # Three bodies without listing triples. With n = (1, unit vector) and D = diag(-c, 1, 1, 1),
        #     cos t_jik - c = n_j . D n_k    so    (cos - c)² = sum_AB D_A D_B (n_j n_j^T)_AB (n_k n_k^T)_AB,
        # and the sum over pairs of neighbors needs only the moments of the shell, T = sum_j g_j n_j n_j^T (4
        # x 4):
        #     sum_{j<k} (cos - c)² g_j g_k = 1/2 [ sum_AB D_A D_B T_AB² - (1 - c)² sum_j g_j² ],
        # the last term taking out j = k. One pass over pairs. Each species of neighbors has moments of its
        # own, and g_j carries sqrt(eps_ij).
        def decay(gamma):
            return jnp.where(inside, jnp.sqrt(eps) * jnp.exp(gamma * exponent), 0.0)

        if species == 1:
            g_i = g_j = decay(self.gamma)
        else:
            g_i = decay(self.gamma[types[i] * species + types[j]])
            g_j = decay(self.gamma[types[j] * species + types[i]])
        four = jnp.concatenate([jnp.ones_like(r)[:, None], d / r[:, None]], axis=-1)
        outer = four[:, :, None] * four[:, None, :]
        back = jnp.array(np.outer([1, -1, -1, -1], [1, -1, -1, -1]))  # from j, the unit vector points back
        T, squares = jnp.zeros((n * species, 4, 4), d.dtype), jnp.zeros(n * species, d.dtype)
        at_i, at_j = i * species + types[j], j * species + types[i]
        T = T.at[at_i].add(g_i[:, None, None] * outer).at[at_j].add(g_j[:, None, None] * outer * back)
        squares = squares.at[at_i].add(g_i**2).at[at_j].add(g_j**2)
        T, squares = T.reshape(n, species, 4, 4), squares.reshape(n, species)
        # parameters of the triple (center, a, b), symmetric in a and b
        strength, c = self._triples(self.lambda_)[types], self._triples(self.costheta0)[types]
        D = jnp.stack([-c, *(jnp.ones_like(c),) * 3], axis=-1)
        all_pairs = jnp.einsum("nab,nabA,nabB,naAB,nbAB->n", strength, D, D, T, T)
        same = jnp.arange(species)
        themselves = jnp.sum(strength[:, same, same] * (1 - c[:, same, same]) ** 2 * squares, axis=1)
        return two, 0.5 * (all_pairs - themselves)

    def _triples(self, values: Float[Array, "..."]) -> Float[Array, "species species species"]:
        species = max(len(self.elements), 1)
        return jnp.reshape(values, (species, -1))[:, pair_table(species)]
