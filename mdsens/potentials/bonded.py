"""Bonds, angles and dihedrals of molecules: springs between atoms that are known by number.

    E = 1/2 sum_bonds k (r - r0)² + 1/2 sum_angles k (theta - theta0)²
        + sum_dihedrals k [1 + cos(n phi - phi0)].

Each sum is a form of its own, and a molecule is their sum with forms for what is not bonded
(`mdsens.potentials.nonbonded`). Parameters belong to types: all bonds "C-H" share one k and one r0, and a
sensitivity names them, `HarmonicBonds.k[C-H]`.

Straight angles. theta = pi - delta, where delta = arcsin(s) and s = |u x v| / |u| |v|. As a function of
positions s has a tip at s = 0, and s² has none: so has delta², a power series in s². Hence

    (theta - theta0)² = delta² - 2 delta (pi - theta0) + (pi - theta0)²

is smooth where theta0 = pi, a molecule that wants to be straight, and is evaluated so. Elsewhere the tip is
in the energy itself: at exactly 180° the mean of the two slopes is taken, which is zero.

A dihedral whose first or last three atoms lie in a line has no phi. Its energy there is that of phi = 0, and
its force zero: no force field is meant for such a point, and a number is better than none on the way past it.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential, parameter
from mdsens.potentials.indices import (
    Indices,
    check_atoms,
    check_images,
    nearest_vectors,
    require_kinds,
    require_table,
)
from mdsens.structure import Structure

UNLISTED = 1.0  # Å, of a list that nobody reads: who is bonded is known without one
STRAIGHT = 1e-2  # of sin², below which delta² is its series
IN_LINE = 1e-24  # of sin², below which atoms lie in a line, to rounding


class TypedPotential(Potential):
    """Base of the forms that know atoms by number, and whose parameters belong to named types."""

    local: ClassVar[bool] = False
    knows_atoms: ClassVar[bool] = True
    types: eqx.AbstractVar[tuple[str, ...]]

    @classmethod
    def labels_for(
        cls, field: str, elements: tuple[str, ...], settings: Mapping[str, Any]
    ) -> tuple[str, ...]:
        """The types, for parameters that belong to one."""
        return tuple(settings["types"]) if cls.belongs_to(field, settings) == "type" else ()


class BondedPotential(TypedPotential):
    """Base of bonds, angles and dihedrals: energies of tuples of atoms."""

    atoms_each: ClassVar[int]
    what: ClassVar[str]
    atoms: eqx.AbstractVar[Indices]
    kind: eqx.AbstractVar[Indices]

    def __check_init__(self) -> None:
        self.check_shapes()
        require_table("atoms", self.atoms, self.atoms_each)
        require_kinds("kind", self.kind, len(self.atoms), self.types, self.what)

    @property
    def cutoff(self) -> Float[Array, ""]:
        """Of no meaning: bonds need no list of neighbors."""
        return jnp.asarray(UNLISTED)

    @abstractmethod
    def term_energies(self, structure: Structure) -> Float[Array, "terms"]:
        """Energy of each bond, angle or dihedral, eV."""

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        return jnp.sum(self.term_energies(structure))

    def site_energies(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms"]:
        """Energy of each atom, eV: its equal share of each bond, angle or dihedral."""
        shares = jnp.repeat(self.term_energies(structure) / self.atoms_each, self.atoms_each)
        members = self._table().reshape(-1)
        return jnp.zeros(structure.n_atoms).at[members].add(shares)

    def contacts(self, structure: Structure, neighbors: Neighbors) -> Bool[Array, "atoms"]:
        """True for each atom that is bonded."""
        members = self._table().reshape(-1)
        return jnp.zeros(structure.n_atoms, bool).at[members].set(True)

    def check_structure(self, structure: Structure) -> None:
        """Raise where the atoms are not those of the structure, or images that belong together are unknown.

        Raises:
            InputError: says which atoms.
        """
        who = type(self).__name__
        check_atoms(who, self._table(), structure)
        check_images(who, np.concatenate(self._pairs()), structure)

    def _table(self) -> np.ndarray:
        return self.atoms.array.reshape(-1, self.atoms_each)

    def _pairs(self) -> list[np.ndarray]:
        """Each atom of the tuples with the next, (terms, 2) for each place."""
        table = self._table()
        return [table[:, k : k + 2] for k in range(self.atoms_each - 1)]

    def _steps(self, structure: Structure) -> list[Float[Array, "terms 3"]]:
        """Vectors from each atom of the tuples to the next, Å."""
        return [nearest_vectors(structure, pairs) for pairs in self._pairs()]


class HarmonicBonds(BondedPotential):
    """E = 1/2 sum k (r - r0)².

    Attributes:
        k: stiffness, eV/Å², one per type; twice that of Amber and LAMMPS, which leave out the 1/2.
        r0: length without force, Å.
        types: names of the types, such as "C-H".
        atoms: (bonds, 2). kind: (bonds,) type of each.
    Source: OpenMM HarmonicBondForce; Cornell et al., J. Am. Chem. Soc. 117, 5179 (1995).
    """

    atoms_each: ClassVar[int] = 2
    what: ClassVar[str] = "bonds"

    k: Float[Array, "types"] = parameter("eV/Å²", per="type", text="stiffness of a bond")
    r0: Float[Array, "types"] = parameter("Å", lower=0.0, per="type", text="length of a bond")
    types: tuple[str, ...] = eqx.field(static=True, converter=tuple)
    atoms: Indices = eqx.field(static=True, converter=Indices.of)
    kind: Indices = eqx.field(static=True, converter=Indices.of)
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")

    def term_energies(self, structure: Structure) -> Float[Array, "bonds"]:
        (d,) = self._steps(structure)
        kind = self.kind.array
        squares = jnp.sum(d * d, axis=1)
        apart = squares > 0  # two atoms at one place: no direction, no force
        r = jnp.where(apart, jnp.sqrt(jnp.where(apart, squares, 1.0)), 0.0)
        return 0.5 * self.k[kind] * (r - self.r0[kind]) ** 2


class HarmonicAngles(BondedPotential):
    """E = 1/2 sum k (theta - theta0)².

    Attributes:
        k: stiffness, eV/rad², one per type; twice that of Amber and LAMMPS.
        theta0: angle without force, rad.
        types: names of the types, such as "H-C-H", the middle atom in the middle.
        atoms: (angles, 3), the middle atom in the middle. kind: (angles,) type of each.
    Source: OpenMM HarmonicAngleForce; Cornell et al., J. Am. Chem. Soc. 117, 5179 (1995).
    """

    atoms_each: ClassVar[int] = 3
    what: ClassVar[str] = "angles"

    k: Float[Array, "types"] = parameter("eV/rad²", per="type", text="stiffness of an angle")
    theta0: Float[Array, "types"] = parameter("rad", per="type", text="angle without force")
    types: tuple[str, ...] = eqx.field(static=True, converter=tuple)
    atoms: Indices = eqx.field(static=True, converter=Indices.of)
    kind: Indices = eqx.field(static=True, converter=Indices.of)
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")

    def term_energies(self, structure: Structure) -> Float[Array, "angles"]:
        first, second = self._steps(structure)
        kind = self.kind.array
        squares = _squared_difference(-first, second, self.theta0[kind])
        return 0.5 * self.k[kind] * squares


def _squared_difference(
    u: Float[Array, "angles 3"], v: Float[Array, "angles 3"], theta0: Float[Array, "angles"]
) -> Float[Array, "angles"]:
    """(theta - theta0)² of the angles between u and v, rad²."""
    cross = jnp.cross(u, v)
    over_axes = lambda products: jnp.sum(products, axis=1)
    along, across = over_axes(u * v), over_axes(cross * cross)
    scale = over_axes(u * u) * over_axes(v * v)
    there = scale > 0  # two atoms at one place: no angle
    sine2 = across / jnp.where(there, scale, 1.0)
    bent = sine2 > IN_LINE
    sine = jnp.where(bent, jnp.sqrt(jnp.where(bent, across, 1.0)), 0.0)
    delta = jnp.arctan2(sine, jnp.where(there, -along, 1.0))
    off = jnp.pi - theta0
    straight = (sine2 < STRAIGHT) & (along < 0)
    series = _arcsine_squared(jnp.where(straight, sine2, 0.0))
    nearly_straight = series - 2 * delta * off + off**2
    return jnp.where(straight, nearly_straight, (delta - off) ** 2)


def _arcsine_coefficient(n: int) -> float:
    # arcsin² s = 1/2 sum_n (4 s²)^n / (n² C(2n, n))
    return 0.5 * 4**n / (n * n * math.comb(2 * n, n))


_ARCSINE = [_arcsine_coefficient(n) for n in range(1, 10)]  # to rounding for s² < STRAIGHT


def _arcsine_squared(x: Float[Array, "..."]) -> Float[Array, "..."]:
    total = jnp.zeros_like(x)
    for coefficient in reversed(_ARCSINE):
        total = (total + coefficient) * x
    return total


class PeriodicDihedrals(BondedPotential):
    """E = sum k [1 + cos(n phi - phi0)], proper dihedrals and impropers alike.

    phi is 0 where the first and the last atom are on the same side (cis), and positive where, seen along the
    bond in the middle, the last one is turned clockwise (IUPAC).

    Attributes:
        k: half the barrier, eV, one per type. phi0: phase, rad.
        n: (types,) minima in a turn.
        types: names of the types, such as "H-C-C-H:3".
        atoms: (dihedrals, 4). kind: (dihedrals,) type of each.
    Source: OpenMM PeriodicTorsionForce; Cornell et al., J. Am. Chem. Soc. 117, 5179 (1995).
    """

    atoms_each: ClassVar[int] = 4
    what: ClassVar[str] = "dihedrals"

    k: Float[Array, "types"] = parameter("eV", per="type", text="half the barrier of a dihedral")
    phi0: Float[Array, "types"] = parameter("rad", per="type", text="phase of a dihedral")
    n: Indices = eqx.field(static=True, converter=Indices.of)  # pyright: ignore
    types: tuple[str, ...] = eqx.field(static=True, converter=tuple)
    atoms: Indices = eqx.field(static=True, converter=Indices.of)
    kind: Indices = eqx.field(static=True, converter=Indices.of)
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        if self.n.array.shape != (len(self.types),):
            raise InputError(
                f"n has shape {self.n.array.shape}: give the minima in a turn for each of the "
                f"{len(self.types)} types."
            )

    def term_energies(self, structure: Structure) -> Float[Array, "dihedrals"]:
        kind = self.kind.array
        phi = dihedral_angles(*self._steps(structure))
        phase = self.n.array[kind] * phi - self.phi0[kind]
        return self.k[kind] * (1 + jnp.cos(phase))


def dihedral_angles(
    a: Float[Array, "dihedrals 3"], b: Float[Array, "dihedrals 3"], c: Float[Array, "dihedrals 3"]
) -> Float[Array, "dihedrals"]:
    """Angles between the planes of (a, b) and (b, c), rad, -pi to pi; 0 where one is no plane.

    Args:
        a, b, c: vectors from each of four atoms to the next, Å.
    """
    square = lambda v: jnp.sum(v * v, axis=1)
    m, n = jnp.cross(a, b), jnp.cross(b, c)
    first = square(m) > IN_LINE * square(a) * square(b)
    second = square(n) > IN_LINE * square(b) * square(c)
    planes = first & second
    length = jnp.sqrt(jnp.where(planes, square(b), 1.0))
    # m . n = |m| |n| cos phi,   |b| a . n = |m| |n| sin phi
    cosine = jnp.where(planes, jnp.sum(m * n, axis=1), 1.0)
    sine = jnp.where(planes, length * jnp.sum(a * n, axis=1), 0.0)
    return jnp.arctan2(sine, cosine)
