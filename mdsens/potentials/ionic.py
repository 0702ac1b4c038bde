"""Short-range interactions of ions: repulsion that decays exponentially, and dispersion.

The attraction -C/r⁶ wins over any exponential where r goes to zero: inside of the last maximum of phi(r) the
formula pulls two atoms together without end. No atom belongs there. Such a distance gets an infinite energy,
which a line search does not step over and which is reported with the names of the two atoms; or the bare
formula is kept (`wall=False`), for sums with a repulsion of one's own.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mdsens.potentials.base import entry, parameter
from mdsens.potentials.cutoffs import AbstractCut, ForceShifted, PairFunction
from mdsens.potentials.pair import CutPairPotential


class Buckingham(CutPairPotential):
    """phi(r) = A exp(-r / rho) - C / r⁶.

    With charges it is a sum, `Buckingham(...) + Ewald(...)`.

    Attributes:
        A: strength of the repulsion, eV, one per pair of species. rho: its range, Å. C: dispersion, eV Å⁶.
        cutoff_radius, cut: as in `LennardJones`.
        wall: infinite energy inside of the last maximum of phi, where the formula collapses. A pair with
            A = 0 has no such maximum and no wall.
    Source: Buckingham, Proc. R. Soc. A 168, 264 (1938), doi:10.1098/rspa.1938.0173; LAMMPS pair_style buck.
    """

    A: Float[Array, "..."] = parameter("eV", text="strength of the repulsion")
    rho: Float[Array, "..."] = parameter("Å", lower=0.0, text="range of the repulsion")
    C: Float[Array, "..."] = parameter("eV Å⁶", text="dispersion")
    elements: tuple[str, ...] = eqx.field(static=True)
    cutoff_radius: float = eqx.field(static=True, default=10.0)
    cut: AbstractCut = eqx.field(static=True, default_factory=ForceShifted)
    wall: bool = eqx.field(static=True, default=True)
    source: str = eqx.field(static=True, default="")

    def pair_function(self, pair: Int[Array, "..."] | None) -> PairFunction:
        parameters = (self.A, self.rho, self.C)
        A, rho, C = (entry(values, pair) for values in parameters)
        repulsion = lambda r: A * jnp.exp(-r / rho)

        def phi(r: Float[Array, "..."]) -> Float[Array, "..."]:
            return repulsion(r) - C / r**6

        def inside(r: Float[Array, "..."]) -> Bool[Array, "..."]:
            return _pulled_in(r, rho, repulsion(r), 6 * C / r**7)

        return _walled(phi, inside) if self.wall else phi


class BornMayerHuggins(CutPairPotential):
    """phi(r) = A exp((sigma - r) / rho) - C / r⁶ - D / r⁸.

    With charges it is a sum, `BornMayerHuggins(...) + Ewald(...)`. D is minus that of LAMMPS.

    Attributes:
        A: repulsion at the contact r = sigma, eV, one per pair of species. sigma: sum of the radii, Å.
        rho: range of the repulsion, Å. C, D: dispersion, eV Å⁶ and eV Å⁸.
        cutoff_radius, cut: as in `LennardJones`. wall: as in `Buckingham`.
    Source: Tosi, Fumi, J. Phys. Chem. Solids 25, 45 (1964), doi:10.1016/0022-3697(64)90160-X; LAMMPS
        pair_style born.
    """

    A: Float[Array, "..."] = parameter("eV", text="repulsion at contact")
    sigma: Float[Array, "..."] = parameter("Å", lower=0.0, text="sum of the radii")
    rho: Float[Array, "..."] = parameter("Å", lower=0.0, text="range of the repulsion")
    C: Float[Array, "..."] = parameter("eV Å⁶", text="dispersion, dipole-dipole")
    D: Float[Array, "..."] = parameter("eV Å⁸", text="dispersion, dipole-quadrupole")
    elements: tuple[str, ...] = eqx.field(static=True)
    cutoff_radius: float = eqx.field(static=True, default=10.0)
    cut: AbstractCut = eqx.field(static=True, default_factory=ForceShifted)
    wall: bool = eqx.field(static=True, default=True)
    source: str = eqx.field(static=True, default="")

    def pair_function(self, pair: Int[Array, "..."] | None) -> PairFunction:
        parameters = (self.A, self.sigma, self.rho, self.C, self.D)
        A, sigma, rho, C, D = (entry(values, pair) for values in parameters)

        repulsion = lambda r: A * jnp.exp((sigma - r) / rho)

        def phi(r: Float[Array, "..."]) -> Float[Array, "..."]:
            return repulsion(r) - C / r**6 - D / r**8

        def inside(r: Float[Array, "..."]) -> Bool[Array, "..."]:
            attraction = 6 * C / r**7 + 8 * D / r**9
            return _pulled_in(r, rho, repulsion(r), attraction)

        return _walled(phi, inside) if self.wall else phi


def _pulled_in(
    r: Float[Array, "..."],
    rho: Float[Array, "..."],
    repulsion: Float[Array, "..."],
    attraction: Float[Array, "..."],
) -> Bool[Array, "..."]:
    """Whether r lies inside of the last maximum of phi.

    Args:
        repulsion: its energy, eV. attraction: its force, eV/Å.
    """
    # The ratio of the two forces, g(r) ~ r⁷ exp(-r / rho), rises up to r = 7 rho at least (8 / r⁹ only adds
    # to the powers of r). Below that g < 1, where attraction wins, means: inside of the maximum of phi.
    return (repulsion > 0) & (r < 7 * rho) & (repulsion / rho < attraction)


def _walled(phi, inside):
    def walled(r: Float[Array, "..."]) -> Float[Array, "..."]:
        # mask before you divide: a derivative of the masked branch is that of a constant
        lost = inside(r)
        return jnp.where(lost, jnp.inf, phi(jnp.where(lost, 1.0, r)))

    return walled
