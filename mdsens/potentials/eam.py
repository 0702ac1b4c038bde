"""Embedded atoms: pairs, and the energy of putting each atom into the electron density of the others.

    E = sum_{i<j} phi_ab(r_ij) + sum_i F_a(rho_i),      rho_i = sum_{j != i} rho_b(r_ij),

where a and b are the species of i and j. In Finnis-Sinclair files the density rho_ab(r) depends on both. An
atom's own density is not counted.

F, rho and r phi(r) are tables; their knots are the parameters. Adding c rho to F and taking 2 c rho(r) from
phi(r), or stretching rho and F together, changes no energy: only energies have a meaning, not the three
apart.

A density may be negative where an atom takes electrons out of its surroundings, as helium in palladium does:
F then begins at a negative density.

Source: Daw, Baskes, Phys. Rev. B 29, 6443 (1984); Finnis, Sinclair, Philos. Mag. A 50, 45 (1984); tables as
LAMMPS pair_style eam, eam/alloy, eam/fs and eam/he interpolate them.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import number
from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import pair_table, parameter
from mdsens.potentials.curves import Curve
from mdsens.potentials.shells import ShellPotential, Shells
from mdsens.potentials.tables import FEWEST_KNOTS, Tables, knot_positions
from mdsens.structure import Structure


class EAM(ShellPotential):
    """Embedded-atom potential of one or several species from tables.

    Between the knots lie LAMMPS' own cubics (`mdsens.potentials.tables`), so that energies, forces and
    stress are those of LAMMPS. Outside the densities of its table F goes on as a straight line. Where the
    cutoff lies behind the last distance, rho and r phi are constant there, as in LAMMPS, and the force is the
    slope of that; LAMMPS' own is not. Second derivatives jump at the knots, and third derivatives, which are
    in the sensitivities of elastic constants, are constant between them: such numbers are as smooth as the
    table.

    Attributes:
        F: energy of embedding into the density first_density + k drho, eV, (species, knots).
        rho: density at the distance k dr of an atom, in the units of the file: a row for each species, or
            for each ordered pair (atom that feels it first) with `finnis_sinclair`.
        rphi: distance times pair energy at the distance k dr, eV Å, a row for each pair of species.
        drho, dr: spacings of the knots, the latter in Å.
        cutoff_radius: Å. What the tables say beyond does not count.
        finnis_sinclair: the density depends on both species of a pair.
        first_density: of the first knot of F, in the units of rho; 0 but where densities may be negative.
    """

    F: Float[Array, "..."] = parameter(
        "eV", per="species", axes=("density_knot",), text="embedding energy at a density"
    )
    rho: Float[Array, "..."] = parameter(
        "1", per="species", axes=("distance_knot",), text="density at a distance from an atom"
    )
    rphi: Float[Array, "..."] = parameter("eV Å", axes=("distance_knot",), text="distance times pair energy")
    elements: tuple[str, ...] = eqx.field(static=True)
    drho: float = eqx.field(static=True, kw_only=True)
    dr: float = eqx.field(static=True, kw_only=True)
    cutoff_radius: float = eqx.field(static=True, kw_only=True)
    finnis_sinclair: bool = eqx.field(static=True, default=False)
    source: str = eqx.field(static=True, default="")
    first_density: float = eqx.field(static=True, default=0.0)

    def __check_init__(self) -> None:
        self.check_shapes()
        if not self.elements:
            raise InputError("EAM needs elements, such as ('Cu',): whose tables are these?")
        number("drho", self.drho, "the units of rho", above=0)
        number("dr", self.dr, "Å", above=0)
        number("first_density", self.first_density, "the units of rho", at_most=0)
        for name in self.parameter_fields():
            if (n := jnp.shape(getattr(self, name))[-1]) < FEWEST_KNOTS:
                raise InputError(f"{name} has {n} knots; a table needs {FEWEST_KNOTS} or more.")
        end = self.dr * jnp.shape(self.rho)[-1]
        number(
            "cutoff_radius", self.cutoff_radius, "Å; where the tables end", above=0, at_most=end * (1 + 1e-6)
        )

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    @classmethod
    def belongs_to(cls, field: str, settings: Mapping[str, Any]) -> str | None:
        both = field == "rho" and settings.get("finnis_sinclair")
        return "ordered pair" if both else super().belongs_to(field, settings)

    def curves(self) -> tuple[Curve, ...]:
        """F(rho), rho(r) and phi(r) of each species or pair, as functions."""
        r = knot_positions(jnp.shape(self.rho)[-1], self.dr)
        rho = knot_positions(jnp.shape(self.F)[-1], self.drho, self.first_density)
        embeddings = self._curves_of("F", "F", "rho", "1", rho, np.ones_like(rho))
        densities = self._curves_of("rho", "rho", "r", "Å", r, np.ones_like(r))
        pairs = self._curves_of("rphi", "phi", "r", "Å", r, r)
        return (*embeddings, *densities, *pairs)

    def _curves_of(
        self, field: str, name: str, argument: str, argument_unit: str, x: np.ndarray, factor: np.ndarray
    ) -> list[Curve]:
        unit = "1" if field == "rho" else "eV"
        found = []
        for label in self.labels(field) or ("",):
            mark = f"[{label}]" if label else ""
            knots = tuple(f"{field}{mark}[{k}]" for k in range(len(x)))
            found.append(Curve(name + mark, unit, argument, argument_unit, x, knots, factor))
        return found

    ghosts = True

    # The slopes at all knots are formed once for all atoms, not again in each block of them.
    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        return self._with_slopes().energy(structure, neighbors)

    def site_energies(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms"]:
        """Energy of each atom, eV: half of each of its pairs, and its embedding."""
        return self._with_slopes().site_energies(structure, neighbors)

    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """Half of each pair's energy, and the embedding of the atom in the middle, eV."""
        return self._with_slopes().shell_energies(shells)

    def _with_slopes(self) -> "_Interpolated":
        table = lambda knots, spacing, start=0.0: Tables.through(jnp.atleast_2d(knots), spacing, start)
        return _Interpolated(
            F=table(self.F, self.drho, self.first_density),
            rho=table(self.rho, self.dr),
            rphi=table(self.rphi, self.dr),
            elements=self.elements,
            cutoff_radius=self.cutoff_radius,
            finnis_sinclair=self.finnis_sinclair,
            source=self.source,
        )


class _Interpolated(ShellPotential):
    """The tables of an `EAM` with their slopes."""

    F: Tables
    rho: Tables
    rphi: Tables
    elements: tuple[str, ...] = eqx.field(static=True)
    cutoff_radius: float = eqx.field(static=True)
    finnis_sinclair: bool = eqx.field(static=True)
    source: str = eqx.field(static=True)

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """Half of each pair's energy, and the embedding of the atom in the middle, eV."""
        r = shells.distances()
        inside = r < self.cutoff_radius
        r = jnp.where(inside, r, 0.5 * self.cutoff_radius)
        over_shell = lambda values: jnp.sum(jnp.where(inside, values, 0.0), axis=1)

        at = self.rho.place(r)  # the two tables have the same grid
        density = over_shell(self.rho.held(at, self._density_label(shells)))
        pair = shells.labels(pair_table(len(self.elements)))
        pairs = over_shell(self.rphi.held(at, pair) / r)
        return 0.5 * pairs + self._embedded(density, shells.center)

    def _embedded(self, density: Float[Array, "atoms"], center: Array | None) -> Float[Array, "atoms"]:
        at = self.F.place(density)
        if self.F.start == 0.0:  # densities are not negative
            return self.F.prolonged(at, center)
        return self.F.prolonged_both_ways(at, center)

    def _density_label(self, shells: Shells) -> Array | None:
        if not self.finnis_sinclair:
            return shells.others
        n = len(self.elements)
        return shells.labels(np.arange(n * n).reshape(n, n))
