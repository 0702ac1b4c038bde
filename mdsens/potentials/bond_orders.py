"""Bond-order potentials: pairs whose attraction weakens as the bonds around crowd.

    E = 1/2 sum_i sum_{j != i} fC(r_ij) [ V_R(r_ij) - b_ij V_A(r_ij) ]
    b_ij = b(zeta_ij),    zeta_ij = sum_{k != i, j} fC(r_ik) g(cos t_jik) exp[(lambda3 (r_ij - r_ik))^m]

fC goes from 1 at R - D to 0 at R + D. A form states V_R, V_A, b, g and fC; here stands what all share: the
sum over pairs of neighbors, and which species a parameter belongs to.

A bond i-j has a center i and is counted from either end, so its parameters may differ between the two. A
parameter of zeta belongs to a triple: center i, bonded atom j, third atom k. Most sets need less. What the
entries of a parameter belong to is declared for the usual case, and `sharing` says where a set differs.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import pair_table
from mdsens.potentials.shells import ShellPotential, Shells, closest
from mdsens.structure import Structure

BOND_KINDS = ("species", "pair", "ordered pair")
TRIPLE_KINDS = (*BOND_KINDS, "ordered triple")
# Atoms within the cutoff up to which rows are shortened: what sums over triples cost grows with the square of
# that. Most atoms in crystals that bonds hold together have four.
NEAREST = (4, 8)
# exp(69.0776) = 1e30: LAMMPS goes no higher.
LARGEST_EXPONENT = 69.0776

Sharing = tuple[tuple[str, str], ...]


def as_pairs(value: Mapping[str, str] | Sharing) -> Sharing:
    """What a file or a caller gives for `sharing`, as a static field holds it."""
    try:
        return tuple((str(name), str(kind)) for name, kind in dict(value).items())
    except (TypeError, ValueError) as error:
        raise InputError(
            f"sharing = {value!r}: give the names of parameters and what an entry of each belongs to, such "
            "as {'B': 'ordered pair'}."
        ) from error


def as_powers(value: Any) -> int | tuple[int, ...]:
    """What a file or a caller gives for `m`, as a static field holds it."""
    return tuple(value) if isinstance(value, list | tuple | np.ndarray) else value


class BondOrderPotential(ShellPotential):
    """Base of the bond-order forms.

    A subclass declares its parameters, among them B, lambda2, R and D; those of zeta are named in `of_zeta`.
    They belong, as declared or as `sharing` says, to a species (the center), a pair, an ordered pair (center
    first) or an ordered triple. Where a parameter of zeta belongs to a pair, that is the pair of the center
    and the third atom.

    Attributes:
        m: exponent of the stretch in zeta, 3 or 1: one for all, or one for each ordered triple.
        sharing: parameters whose entries belong to something else than declared: {"B": "ordered pair"}.
    """

    of_zeta: eqx.AbstractClassVar[tuple[str, ...]]
    R: eqx.AbstractVar[Float[Array, "..."]]
    D: eqx.AbstractVar[Float[Array, "..."]]
    elements: eqx.AbstractVar[tuple[str, ...]]
    m: int | tuple[int, ...] = eqx.field(static=True, kw_only=True, default=3, converter=as_powers)
    sharing: Sharing = eqx.field(static=True, kw_only=True, default=(), converter=as_pairs)
    source: str = eqx.field(static=True, kw_only=True, default="")

    def __check_init__(self) -> None:
        self._check_sharing()
        self._check_powers()
        self.check_shapes()

    def _check_powers(self) -> None:
        wanted = max(len(self.elements), 1) ** 3
        given = self.m if isinstance(self.m, tuple) else (self.m,) * wanted
        if len(given) != wanted or not set(given) <= {1, 3}:
            raise InputError(
                f"m = {self.m}: give 3 or 1, or one of them for each of the {wanted} ordered triples "
                "(center, bonded, third)."
            )

    def _check_sharing(self) -> None:
        for name, kind in self.sharing:
            if name not in self.parameter_fields():
                raise InputError(
                    f"sharing names '{name}', which is no parameter of {type(self).__name__}; those are "
                    f"{', '.join(self.parameter_fields())}."
                )
            kinds = TRIPLE_KINDS if name in self.of_zeta else BOND_KINDS
            if kind not in kinds:
                raise InputError(f"sharing: {name} belongs to '{kind}'; choose one of {', '.join(kinds)}.")

    @classmethod
    def belongs_to(cls, field: str, settings: Mapping[str, Any]) -> str | None:
        return dict(settings.get("sharing", ())).get(field, super().belongs_to(field, settings))

    # --- what a form states

    @abstractmethod
    def repulsion(self, r: Float[Array, "atoms width"], shells: Shells) -> Float[Array, "atoms width"]:
        """fC V_R of each bond, eV."""

    def attraction(self, r: Float[Array, "atoms width"], shells: Shells) -> Float[Array, "atoms width"]:
        """V_A of each bond, eV, without fC: B exp(-lambda2 r)."""
        return self.of_bonds("B", shells) * jnp.exp(-self.of_bonds("lambda2", shells) * r)

    @abstractmethod
    def bond_order(self, zeta: Float[Array, "atoms width"], shells: Shells) -> Float[Array, "atoms width"]:
        """b of each bond."""

    @abstractmethod
    def angular(
        self, cosine: Float[Array, "atoms width width"], shells: Shells
    ) -> Float[Array, "atoms width width"]:
        """g of each center, bonded atom and third atom."""

    @abstractmethod
    def steepness(self, shells: Shells) -> Float[Array, "..."]:
        """lambda3 of each triple, 1/Å, of a shape that fits (atoms, width, width)."""

    def cutoff_function(self, r: Float[Array, "..."], R: Array, D: Array) -> Float[Array, "..."]:
        """fC: 1 up to R - D, 0 from R + D, half a wave of a sine between. D = 0 makes a step."""
        phase = 0.5 * jnp.pi * depth(r, R, D)
        return 0.5 - 0.5 * jnp.sin(phase)

    def bond_cutoff(self, r: Float[Array, "atoms width"], shells: Shells) -> Float[Array, "atoms width"]:
        """fC of each bond."""
        return self.cutoff_function(r, self.of_bonds("R", shells), self.of_bonds("D", shells))

    # --- what all share

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.max(self._cutoffs())

    def _cutoffs(self) -> Float[Array, "species species species"]:
        """R + D by center, bonded atom and third atom, Å."""
        n = max(len(self.elements), 1)
        of_triples = lambda field: jnp.broadcast_to(getattr(self, field)[self._table(field)], (n, n, n))
        return of_triples("R") + of_triples("D")

    def ranges(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "..."]:
        if len(self.elements) <= 1:
            return self.cutoff
        reach = jnp.max(self._cutoffs(), axis=1)
        types = self.types(structure)
        i, j = types[neighbors.i], types[neighbors.j]
        return jnp.maximum(reach[i, j], reach[j, i])

    def _table(self, field: str) -> Any:
        """Index into the entries of a parameter by center, bonded and third atom; () for a single number."""
        n = max(len(self.elements), 1)
        if not self.labels(field):
            return ()
        i, j, k = np.ogrid[:n, :n, :n]
        kind = self.belongs_to(field, {"sharing": self.sharing})
        # the second atom of a pair: the third of a triple, which is the bonded one where there are two only
        match kind:
            case "species":
                place = i
            case "pair":
                place = pair_table(n)[i, k]
            case "ordered pair":
                place = n * i + k
            case _:
                place = n * n * i + n * j + k
        return np.broadcast_to(place, (n, n, n))

    def of_bonds(self, field: str, shells: Shells) -> Float[Array, "..."]:
        """Values of a parameter for the bonds, of a shape that fits (atoms, width)."""
        values, table = getattr(self, field), self._table(field)
        if isinstance(table, tuple):
            return values
        center, bonded = shells.species()
        center = center[:, None]
        if self.belongs_to(field, {"sharing": self.sharing}) == "species":
            return values[jnp.asarray(table[:, 0, 0])[center]]
        return values[jnp.asarray(np.einsum("ijj->ij", table))[center, bonded]]

    def of_triples(self, field: str, shells: Shells) -> Float[Array, "..."]:
        """Values of a parameter for bonds and third atoms, of a shape that fits (atoms, width, width)."""
        values, table = getattr(self, field), self._table(field)
        if isinstance(table, tuple):
            return values
        center, bonded, third = _triples(shells)
        match self.belongs_to(field, {"sharing": self.sharing}):
            case "species":
                return values[jnp.asarray(table[:, 0, 0])[center]]
            case "ordered triple":
                return values[jnp.asarray(table)[center, bonded, third]]
        return values[jnp.asarray(table[:, 0])[center, third]]

    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """Half of the bonds of each atom, eV."""
        near = shells.distances() < self.cutoff
        return closest(self._energies, shells, near, NEAREST)

    def _energies(self, shells: Shells) -> Float[Array, "atoms"]:
        r = shells.distances()
        R, D = self.of_bonds("R", shells), self.of_bonds("D", shells)
        # Mask before anything is formed: a bond beyond its cutoff is taken to be R long, and counts for
        # nothing.
        near = r < R + D
        length = jnp.where(near, r, R)
        b = self.bond_order(self._zeta(r, length, shells), shells)
        attraction = self.bond_cutoff(length, shells) * self.attraction(length, shells)
        energies = self.repulsion(length, shells) - b * attraction
        return 0.5 * jnp.sum(jnp.where(near, energies, 0.0), axis=1)

    def _zeta(self, r: Array, length: Array, shells: Shells) -> Array:
        R, D = self.of_triples("R", shells), self.of_triples("D", shells)
        third = r[:, None, :]
        near = third < R + D
        third = jnp.where(near, third, R)
        scaled = self.steepness(shells) * (length[:, :, None] - third)
        exponent = jnp.minimum(self._powered(scaled, shells), LARGEST_EXPONENT)
        fC, g = self.cutoff_function(third, R, D), self.angular(shells.cosines(), shells)
        terms = fC * g * jnp.exp(exponent)
        same = np.eye(r.shape[1], dtype=bool)
        return jnp.sum(jnp.where(near & ~same, terms, 0.0), axis=2)

    def _powered(self, scaled: Float[Array, "atoms width width"], shells: Shells) -> Array:
        if not isinstance(self.m, tuple) or len(set(self.m)) == 1:
            return scaled ** (self.m[0] if isinstance(self.m, tuple) else self.m)
        n = len(self.elements)
        cubic = jnp.asarray(np.reshape(self.m, (n, n, n)) == 3)
        center, bonded, third = _triples(shells)
        return jnp.where(cubic[center, bonded, third], scaled**3, scaled)


def _triples(shells: Shells) -> tuple[Array, Array, Array]:
    """Species of center, bonded and third atom, of shapes that go together to (atoms, width, width)."""
    center, others = shells.species()
    return center[:, None, None], others[:, :, None], others[:, None, :]


def weakened(
    scaled: Float[Array, "..."], power: Float[Array, "..."], second: Float[Array, "..."]
) -> Float[Array, "..."]:
    """(1 + scaled^power)^(-1 / (2 second)), with its derivatives where scaled is zero, tiny or huge."""
    # scaled^power has no derivative at zero for power < 1. Below 2 second 1e-16 it is nothing beside one, and
    # LAMMPS too takes the bond, and its derivative, for one without neighbors.
    counts = scaled > jax.lax.stop_gradient((2e-16 * second) ** (1 / power))
    logarithm = jnp.log(jnp.where(counts, scaled, 1.0))
    # softplus(x) = log(1 + e^x) neither overflows for power = 23 nor loses digits of a small e^x
    exponent = -jax.nn.softplus(power * logarithm) / (2 * second)
    return jnp.where(counts, jnp.exp(exponent), 1.0)


def depth(r: Float[Array, "..."], R: Array, D: Array) -> Float[Array, "..."]:
    """(r - R) / D between its limits -1 and 1."""
    wide = D > 0
    scaled = (r - R) / jnp.where(wide, D, 1.0)
    inside = jnp.clip(scaled, -1.0, 1.0)
    return jnp.where(wide, inside, jnp.sign(r - R))
