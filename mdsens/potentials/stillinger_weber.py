"""Stillinger-Weber: pairs, and bond angles held near a preferred one.

    E = sum_{i<j} A eps [B (s/r)^p - (s/r)^q] exp(s / (r - a s))
      + sum_i sum_{j<k} lambda eps (cos t_jik - c)² g_ij g_ik,   g = exp(gamma s / (r - a s)),  c = costheta0

The cutoff a·sigma moves with both parameters, and so do our derivatives (jax-md keeps it apart and misses
that part).

Source: Stillinger, Weber, Phys. Rev. B 31, 5262 (1985); LAMMPS pair_style sw.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mdsens.potentials.angle_curvatures import AngularShell, Curvatures, Radial
from mdsens.potentials.base import pair_table, parameter
from mdsens.potentials.shells import Rows, ShellPotential, Shells, Surroundings, by_blocks
from mdsens.structure import Structure

Function = Callable[[Array], Array]


class StillingerWeber(ShellPotential):
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

    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """Half of each pair's energy, and the angles an atom is the center of, eV."""
        two, g = self._radial(shells)
        r = shells.distances()
        pairs = jnp.sum(two(r), axis=1)
        unit = tuple(dk / r for dk in shells.d)
        return pairs + self._angles(shells, g(r), unit)

    def _radial(self, shells: Shells) -> tuple[Function, Function]:
        """Half of a pair's energy, and g with the root of its energy scale, as functions of the distances."""
        species = max(len(self.elements), 1)
        pair = shells.labels(pair_table(species))
        one = (lambda values: values) if pair is None else (lambda values: values[pair])
        eps, s = one(self.epsilon), one(self.sigma)
        cutoff = one(self.a * self.sigma)
        ordered = shells.labels(np.arange(species**2).reshape(species, species))
        gamma = self.gamma if ordered is None else self.gamma[ordered]

        # exp(s / (r - a s)) and all its derivatives vanish at the cutoff; beyond it the exponent is never
        # formed.
        def exponent(r: Array) -> Array:
            return s / jnp.where(r < cutoff, r - cutoff, -s)

        def two(r: Array) -> Array:
            log_ratio = jnp.log(s / r)
            power = lambda k: jnp.exp(one(k) * log_ratio)  # (s / r)^k
            well = one(self.B) * power(self.p) - power(self.q)
            energy = one(self.A) * eps * well * jnp.exp(exponent(r))
            return 0.5 * jnp.where(r < cutoff, energy, 0.0)

        def g(r: Array) -> Array:
            decay = jnp.sqrt(eps) * jnp.exp(gamma * exponent(r))
            return jnp.where(r < cutoff, decay, 0.0)

        return two, g

    def shell_curvatures(
        self, structure: Structure, around: Surroundings, rows: Rows
    ) -> Float[Array, "atoms width width 3 3"]:
        return _curvatures(self, structure, around, rows)

    # Three bodies without listing triples. With n = (1, unit vector) and D = diag(-c, 1, 1, 1),
    #     cos t_jik - c = n_j . D n_k    so    (cos - c)² = sum_AB D_A D_B (n_j n_j^T)_AB (n_k n_k^T)_AB,
    # and the sum over pairs of neighbors needs only the moments of the shell, T = sum_j g_j n_j n_j^T (4 x
    # 4):
    #     sum_{j<k} (cos - c)² g_j g_k = 1/2 [ sum_AB D_A D_B T_AB² - (1 - c)² sum_j g_j² ],
    # the last term taking out j = k. T is symmetric: its ten different entries do. Each species of neighbors
    # has moments of its own, and g_j carries sqrt(eps_ij).
    def _angles(self, shells: Shells, g: Array, unit: tuple[Array, ...]) -> Float[Array, "atoms"]:
        species = max(len(self.elements), 1)
        of_species = lambda b: g if species == 1 else jnp.where(shells.others == b, g, 0.0)
        moments = [_moments(of_species(b), unit) for b in range(species)]
        strengths, cosines = self._triples(self.lambda_), self._triples(self.costheta0)
        energies = jnp.zeros(g.shape[0], g.dtype)
        for a, b in itertools.product(range(species), repeat=2):
            strength = self._of_center(strengths[:, a, b], shells)
            c = self._of_center(cosines[:, a, b], shells)
            all_pairs = _contracted(c, moments[a], moments[b])
            themselves = (1 - c) ** 2 * moments[a].squares if a == b else 0.0
            energies = energies + 0.5 * strength * (all_pairs - themselves)
        return energies

    def _of_triples(self, values: Float[Array, "..."], shells: Shells) -> Float[Array, "..."]:
        """Of a shape that fits (width, width, atoms)."""
        if shells.center is None:
            return jnp.reshape(values, ())
        center, others = shells.species()
        found = self._triples(values)[center[:, None, None], others[:, :, None], others[:, None, :]]
        return jnp.transpose(found, (1, 2, 0))

    def _of_center(self, values: Float[Array, "species"], shells: Shells) -> Float[Array, "..."]:
        return values[0] if shells.center is None else values[shells.center]

    def _triples(self, values: Float[Array, "..."]) -> Float[Array, "species species species"]:
        species = max(len(self.elements), 1)
        return jnp.reshape(values, (species, -1))[:, pair_table(species)]


@eqx.filter_jit
def _curvatures(
    potential: StillingerWeber, structure: Structure, around: Surroundings, rows: Rows
) -> Float[Array, "atoms width width 3 3"]:
    def block(shells: Shells, real: Bool[Array, "atoms"]) -> Curvatures:
        two, g = potential._radial(shells)
        r = shells.distances()
        strength, cosine = (
            potential._of_triples(v, shells) for v in (potential.lambda_, potential.costheta0)
        )
        shell = AngularShell(shells.d, Radial.of(two, r), Radial.of(g, r), strength, cosine)
        return shell.curvatures()

    return by_blocks(block, structure, around, rows).together()


class _Moments(NamedTuple):
    """T_00; T_0k; T_km for k <= m; and sum_j g_j², of each atom."""

    zeroth: Float[Array, "atoms"]
    first: list[Float[Array, "atoms"]]
    second: list[Float[Array, "atoms"]]
    squares: Float[Array, "atoms"]


KM = tuple(itertools.combinations_with_replacement(range(3), 2))


def _moments(g: Float[Array, "atoms width"], unit: tuple[Array, ...]) -> _Moments:
    over_shell = lambda values: jnp.sum(values, axis=1)
    weighted = [g * u for u in unit]
    first = [over_shell(w) for w in weighted]
    second = [over_shell(weighted[k] * unit[m]) for k, m in KM]
    return _Moments(over_shell(g), first, second, over_shell(g * g))


def _contracted(c: Float[Array, "..."], T: _Moments, U: _Moments) -> Float[Array, "atoms"]:
    # sum_AB D_A D_B T_AB U_AB
    vectors = zip(T.first, U.first, strict=True)
    mixed = sum(t * u for t, u in vectors)
    times = [1 if k == m else 2 for k, m in KM]
    tensors = zip(times, T.second, U.second, strict=True)
    tensor = sum(n * t * u for n, t, u in tensors)
    return c * c * T.zeroth * U.zeroth - 2 * c * mixed + tensor
