"""Potentials that are sums over pairs: E = sum_{i<j} phi(r_ij).

Each form states phi(r) and its parameters; species, cutoffs and safe derivatives are shared. A pair at or
beyond the
cutoff is evaluated at the cutoff and then masked: "mask before you divide" keeps every derivative finite
there.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.checks import instance, number
from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import entry, pair_table, parameter
from mdsens.potentials.cutoffs import AbstractCut, ForceShifted, PairFunction, Truncated
from mdsens.potentials.shells import ShellPotential, Shells, inverse, sum_of_row
from mdsens.structure import Structure


class PairPotential(ShellPotential):
    """Base of the pair forms: they give `pair_energies`, and get energies for any number of species."""

    reciprocal = True

    @abstractmethod
    def pair_energies(self, r: Float[Array, "..."], pair: Int[Array, "..."] | None) -> Float[Array, "..."]:
        """Energy of each pair at distance r (Å), eV; `pair` picks its parameters (None: one species)."""

    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """Half of each pair's energy belongs to either atom, eV."""
        energies = self.pair_energies(shells.distances(), shells.labels(pair_table(len(self.elements))))
        return 0.5 * sum_of_row(jnp.where(shells.valid, energies, 0.0))


class CutPairPotential(PairPotential):
    """Base of the pair forms that a cut ends at a radius held fixed: they give `pair_function`."""

    cutoff_radius: eqx.AbstractVar[float]
    cut: eqx.AbstractVar[AbstractCut]

    def __check_init__(self) -> None:
        self.check_shapes()
        check_cutoff(self.cutoff_radius, self.cut)

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    @abstractmethod
    def pair_function(self, pair: Int[Array, "..."] | None) -> PairFunction:
        """phi(r), eV, of these pairs, as if nothing ended it; `pair` picks parameters (None: one species)."""

    def pair_energies(self, r: Float[Array, "..."], pair: Int[Array, "..."] | None) -> Float[Array, "..."]:
        return cut_off(self.pair_function(pair), r, self.cutoff_radius, self.cut)


class LennardJones(CutPairPotential):
    """phi(r) = 4 epsilon [(sigma/r)¹² - (sigma/r)⁶].

    jax-md's all-pairs form gives NaN for the reverse-mode derivative w.r.t. sigma and epsilon; this one does
    not.

    Attributes:
        epsilon: well depth, eV, one per pair of species (one per species with mixing).
        sigma: distance of zero energy, Å, likewise.
        cutoff_radius: Å; inf for none. Held fixed: it does not follow sigma.
        cut: how the interaction ends there.
        mixing: None (explicit pairs), "arithmetic" (Lorentz-Berthelot: mean sigma, geometric epsilon) or
            "geometric" (both geometric).
    Source: LAMMPS pair_style lj/cut, pair_modify mix.
    """

    epsilon: Float[Array, "..."] = parameter("eV", lower=0.0, text="well depth")
    sigma: Float[Array, "..."] = parameter("Å", lower=0.0, text="distance of zero energy")
    elements: tuple[str, ...] = eqx.field(static=True)
    cutoff_radius: float = eqx.field(static=True, default=np.inf)
    cut: AbstractCut = eqx.field(static=True, default_factory=ForceShifted)
    mixing: str | None = eqx.field(static=True, default=None)
    source: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        if self.mixing not in (None, "arithmetic", "geometric"):
            raise InputError(f"mixing '{self.mixing}' is unknown: use None, 'arithmetic' or 'geometric'.")

    @classmethod
    def belongs_to(cls, field: str, settings: Mapping[str, Any]) -> str | None:
        return "species" if settings.get("mixing") else super().belongs_to(field, settings)

    def pair_function(self, pair: Int[Array, "..."] | None) -> PairFunction:
        epsilon, sigma = self.epsilon, self.sigma
        if self.mixing and pair is not None:
            a, b = np.triu_indices(len(self.elements))
            epsilon = jnp.sqrt(epsilon[a] * epsilon[b])
            sigma = jnp.sqrt(sigma[a] * sigma[b]) if self.mixing == "geometric" else (sigma[a] + sigma[b]) / 2
        epsilon, sigma = entry(epsilon, pair), entry(sigma, pair)

        def phi(r):
            sixth = (sigma * inverse(r)) ** 6
            return 4 * epsilon * (sixth * sixth - sixth)

        return phi


class Morse(CutPairPotential):
    """phi(r) = D0 [exp(-2 alpha (r - r0)) - 2 exp(-alpha (r - r0))].

    Attributes:
        D0: well depth, eV. alpha: inverse width, 1/Å. r0: equilibrium distance of a pair, Å.
        cutoff_radius, cut: as in `LennardJones`.
    Source: Morse, Phys. Rev. 34, 57 (1929); LAMMPS pair_style morse.
    """

    D0: Float[Array, "..."] = parameter("eV", lower=0.0, text="well depth")
    alpha: Float[Array, "..."] = parameter("1/Å", lower=0.0, text="inverse width")
    r0: Float[Array, "..."] = parameter("Å", lower=0.0, text="distance of the minimum")
    elements: tuple[str, ...] = eqx.field(static=True)
    cutoff_radius: float = eqx.field(static=True, default=np.inf)
    cut: AbstractCut = eqx.field(static=True, default_factory=ForceShifted)
    source: str = eqx.field(static=True, default="")

    def pair_function(self, pair: Int[Array, "..."] | None) -> PairFunction:
        D0, alpha, r0 = entry(self.D0, pair), entry(self.alpha, pair), entry(self.r0, pair)

        def phi(r):
            decay = jnp.exp(-alpha * (r - r0))
            return D0 * (decay * decay - 2 * decay)

        return phi


class SoftSphere(PairPotential):
    """phi(r) = epsilon / alpha (1 - r / s)^alpha for r < s, s the mean diameter of the two particles.

    The cutoff is the contact itself and moves with the diameters. alpha = 2 gives harmonic, 5/2 Hertzian
    spheres.

    Attributes:
        diameter: Å, one per species. epsilon: stiffness, eV. alpha: exponent, above 1.
    Source: O'Hern et al., Phys. Rev. E 68, 011306 (2003); the system of Blondel et al., arXiv:2105.15183.
    """

    diameter: Float[Array, "..."] = parameter("Å", lower=0.0, per="species", text="diameter")
    epsilon: Float[Array, ""] = parameter("eV", lower=0.0, per=None, text="stiffness")
    alpha: Float[Array, ""] = parameter("1", lower=1.0, per=None, text="exponent")
    elements: tuple[str, ...] = eqx.field(static=True)
    source: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        self.check_shapes()

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.max(self.diameter)

    def ranges(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "..."] | Float[Array, ""]:
        # a small disc can be clear of all others and yet closer to them than two large ones in contact
        return self._contact(self.pair_index(structure, neighbors))

    def _contact(self, pair: Int[Array, "..."] | None) -> Float[Array, "..."]:
        if pair is None:
            return self.diameter
        a, b = np.triu_indices(len(self.elements))
        return ((self.diameter[a] + self.diameter[b]) / 2)[pair]

    def pair_energies(self, r: Float[Array, "..."], pair: Int[Array, "..."] | None) -> Float[Array, "..."]:
        overlap = 1 - r / self._contact(pair)
        # (0)^alpha has no derivative in alpha, nor a second one in r for alpha < 2: mask before the power.
        touching = overlap > 0
        return (
            self.epsilon
            / self.alpha
            * jnp.where(touching, jnp.where(touching, overlap, 1.0) ** self.alpha, 0.0)
        )


def cut_off(
    phi: PairFunction, r: Float[Array, "..."], cutoff: float, cut: AbstractCut
) -> Float[Array, "..."]:
    """phi(r) brought to zero at the cutoff, eV; finite in every derivative at and beyond it."""
    if np.isinf(cutoff):
        return phi(r)
    inside = r < cutoff
    return jnp.where(inside, cut(phi, jnp.where(inside, r, cutoff), cutoff), 0.0)


def check_cutoff(cutoff: float, cut: AbstractCut) -> None:
    """Raise unless these two go together.

    Raises:
        InputError: says which of them cannot be.
    """
    number("cutoff_radius", cutoff, "Å; inf for none", finite=False)
    instance("cut", cut, AbstractCut, "Write cut=ms.Smooth(), or ForceShifted(), Shifted(), Truncated().")
    if not cutoff > 0:
        raise InputError(f"cutoff_radius = {cutoff} Å: it must be positive (inf for none).")
    if np.isinf(cutoff) and not isinstance(cut, (Truncated, ForceShifted)):
        raise InputError(f"{type(cut).__name__} needs a finite cutoff_radius.")
