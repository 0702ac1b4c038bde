"""Screened repulsion of nuclei (Ziegler, Biersack, Littmark): what holds atoms apart in collisions.

    E(r) = Z_i Z_j e² / (4 pi eps0 r) phi(r / a) + S(r),    a = 0.46850 Å / (Z_i^0.23 + Z_j^0.23)
    phi(x) = sum_k w_k exp(-d_k x)

S ends it. From the inner to the outer cutoff it is C + s³ (A/3 + B/4 s), s = r - r_inner, and C below; A, B
and C are such that energy, force and second derivative vanish at r_outer, and all three are continuous at
r_inner. With h = r_outer - r_inner and E, E', E'' of the repulsion at r_outer,

    A = (-3 E' + h E'') / h²,    B = (2 E' - h E'') / h³,    C = -E + h E' / 2 - h² E'' / 12.

Source: Ziegler, Biersack, Littmark, The Stopping and Range of Ions in Solids (1985); LAMMPS pair_style zbl.
"""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.checks import number
from mdsens.errors import InputError
from mdsens.potentials.base import parameter
from mdsens.potentials.pair import PairPotential


class Screening(NamedTuple):
    """phi and its length: weights and decays of the exponentials, numerator of a in Å, e²/(4 pi eps0)."""

    weights: tuple[float, ...]
    decays: tuple[float, ...]
    length: float
    coulomb: float  # eV Å

    def repulsion(
        self, r: Float[Array, "..."], Z_i: Float[Array, "..."], Z_j: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """Energy of two nuclei at a distance, eV."""
        x = r * (Z_i**0.23 + Z_j**0.23) / self.length
        exponentials = zip(self.weights, self.decays, strict=True)
        phi = sum(w * jnp.exp(-d * x) for w, d in exponentials)
        return self.coulomb * Z_i * Z_j / r * phi

    def derivatives(
        self, r: float, Z_i: Float[Array, "..."], Z_j: Float[Array, "..."]
    ) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
        """E, E' and E'' at a distance, eV, eV/Å, eV/Å²."""
        # E = k/r F(r), F = sum w exp(-q r):  E' = k (F'/r - F/r²),  E'' = k (F''/r - 2 F'/r² + 2 F/r³)
        charges = Z_i**0.23 + Z_j**0.23
        q = [d * charges / self.length for d in self.decays]
        terms = list(zip(self.weights, q, strict=True))
        of_order = lambda n: sum(w * (-qk) ** n * jnp.exp(-qk * r) for w, qk in terms)
        F, F1, F2 = of_order(0), of_order(1), of_order(2)
        k = self.coulomb * Z_i * Z_j
        slope = F1 / r - F / r**2
        curvature = F2 / r - 2 * F1 / r**2 + 2 * F / r**3
        return k * F / r, k * slope, k * curvature


UNIVERSAL = Screening(
    weights=(0.18175, 0.50986, 0.28022, 0.02817),
    decays=(3.19980, 0.94229, 0.40290, 0.20162),
    length=0.46850,
    coulomb=14.399645,
)


class ZBL(PairPotential):
    """Universal screened repulsion between nuclei, as LAMMPS pair_style zbl.

    Attributes:
        Z: charge of each nucleus in units of e; `ZBL.of` takes those of the elements.
        elements: chemical symbols.
        inner, cutoff_radius: where the switch to zero begins and ends, Å. Held fixed.
    """

    Z: Float[Array, "..."] = parameter("1", lower=0.0, per="species", text="nuclear charge")
    elements: tuple[str, ...] = eqx.field(static=True)
    inner: float = eqx.field(static=True, kw_only=True)
    cutoff_radius: float = eqx.field(static=True, kw_only=True)
    source: str = eqx.field(static=True, default="Ziegler, Biersack, Littmark (1985)")

    def __check_init__(self) -> None:
        self.check_shapes()
        number("inner", self.inner, "Å", above=0.0)
        number("cutoff_radius", self.cutoff_radius, "Å")
        if not self.inner < self.cutoff_radius:
            raise InputError(
                f"inner = {self.inner} Å, cutoff_radius = {self.cutoff_radius} Å: the switch begins at "
                "`inner` and ends at `cutoff_radius`, which must be larger."
            )

    @classmethod
    def of(cls, elements: Sequence[str], inner: float, outer: float) -> "ZBL":
        """The repulsion between nuclei of these elements.

        Args:
            inner, outer: where the switch to zero begins and ends, Å.
        """
        from ase.data import atomic_numbers

        charges = [float(atomic_numbers.get(symbol, 0)) for symbol in elements]
        Z = jnp.asarray(charges[0] if len(charges) == 1 else charges)
        return cls(Z=Z, elements=tuple(elements), inner=inner, cutoff_radius=outer)

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    def pair_energies(self, r: Float[Array, "..."], pair: Int[Array, "..."] | None) -> Float[Array, "..."]:
        a, b = np.triu_indices(max(len(self.elements), 1))
        charges = jnp.atleast_1d(self.Z)
        Z_i, Z_j = charges[a], charges[b]
        A, B, C = self._switch(Z_i, Z_j)
        place = 0 if pair is None else pair
        Z_i, Z_j, A, B, C = (values[place] for values in (Z_i, Z_j, A, B, C))
        inside = r < self.cutoff_radius
        r = jnp.where(inside, r, self.cutoff_radius)
        s = jnp.maximum(r - self.inner, 0.0)
        rising = A / 3 + B / 4 * s
        switch = C + s**3 * rising
        return jnp.where(inside, UNIVERSAL.repulsion(r, Z_i, Z_j) + switch, 0.0)

    def _switch(self, Z_i: Array, Z_j: Array) -> tuple[Array, Array, Array]:
        E, E1, E2 = UNIVERSAL.derivatives(self.cutoff_radius, Z_i, Z_j)
        h = self.cutoff_radius - self.inner
        A = (-3 * E1 + h * E2) / h**2
        B = (2 * E1 - h * E2) / h**3
        C = -E + h * E1 / 2 - h**2 * E2 / 12
        return A, B, C
