"""What atoms of molecules feel of each other beyond bonds: Lennard-Jones and charges, as in Amber.

Bonded neighbors and theirs (1-2 and 1-3 pairs) are left out, as bonds and angles speak for them; the ends of
a dihedral (1-4 pairs) count by a fraction:

    E = sum_{pairs, not excluded} phi(r) + scale14 sum_{1-4 pairs} phi(r).

1-4 pairs are among the excluded ones; their own sum has no cutoff. Excluded is one image of a pair, the
nearest: others interact. Two atoms nearer than half the thickness of the cell are nearest images, and no
other images of the two are: so distance decides.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import pair_table, parameter
from mdsens.potentials.bonded import TypedPotential
from mdsens.potentials.charges import PairsOfAtoms
from mdsens.potentials.cutoffs import AbstractCut, Smooth, Truncated, switched_off
from mdsens.potentials.ewald import Ewald
from mdsens.potentials.indices import (
    Indices,
    check_images,
    half_thickness,
    nearest_vectors,
    require_kinds,
    require_table,
)
from mdsens.potentials.pair import check_cutoff, cut_off
from mdsens.potentials.shells import Shells
from mdsens.strain import volume_of
from mdsens.structure import Structure
from mdsens.units import COULOMB

EMPTY = -1e-12  # eV: bounds are open, and a well may be 0 deep


class NonbondedPotential(TypedPotential):
    """Base of the forms for pairs of atoms that are not bonded.

    Attributes:
        kind: (atoms,) type of each atom. excluded: (pairs, 2) atoms that do not interact.
        scaled: (pairs, 2) of these, those that do by a fraction.
    """

    kind: eqx.AbstractVar[Indices]
    excluded: eqx.AbstractVar[Indices]
    scaled: eqx.AbstractVar[Indices]
    scale14: eqx.AbstractVar[Float[Array, ""] | None]

    def __check_init__(self) -> None:
        self.check_species()
        for name in ("excluded", "scaled"):
            require_table(name, getattr(self, name), 2)
        require_kinds("kind", self.kind, len(self.kind), self.types, "atoms")
        self._check_pairs()

    def _check_pairs(self) -> None:
        left_out = {frozenset(pair) for pair in self.excluded.array.tolist()}
        for pair in self.scaled.array.tolist():
            if frozenset(pair) not in left_out:
                raise InputError(
                    f"the scaled pair {pair} is not among the excluded ones: it would count twice."
                )
        if (self.scale14 is None) != (not len(self.scaled)):
            raise InputError(
                f"scale14 = {self.scale14} for {len(self.scaled)} scaled pairs: give the fraction by which "
                "they count, and None where there are none."
            )
        pairs = self._pairs(self.excluded)
        if pairs.size and pairs.max() >= len(self.kind):
            raise InputError(f"excluded names atom {pairs.max()}, and kind has {len(self.kind)} atoms.")

    def check_structure(self, structure: Structure) -> None:
        """Raise where the atoms are not those of the structure, or images that belong together are unknown.

        Raises:
            InputError: says what differs.
        """
        who = type(self).__name__
        if structure.n_atoms != len(self.kind):
            raise InputError(
                f"{who} was made for {len(self.kind)} atoms, each of its own type, and the structure has "
                f"{structure.n_atoms}: make one for this structure."
            )
        check_images(who, self._pairs(self.excluded), structure)

    @staticmethod
    def _pairs(indices: Indices) -> np.ndarray:
        return indices.array.reshape(-1, 2)

    def _scaled_distances(self, structure: Structure, indices: Indices) -> Float[Array, "pairs"]:
        d = nearest_vectors(structure, self._pairs(indices))
        return jnp.sqrt(jnp.sum(d * d, axis=1))


class MolecularLennardJones(NonbondedPotential):
    """phi(r) = 4 epsilon [(sigma/r)¹² - (sigma/r)⁶] between atoms that are not bonded.

    Attributes:
        epsilon: well depth, eV, one per type of atoms, or one per pair of types without mixing.
        sigma: distance of zero energy, Å, likewise.
        scale14: fraction of the scaled pairs, 0.5 in Amber; None where there are none.
        types: names of the types of atoms, such as "CT".
        kind: (atoms,) type of each atom. excluded, scaled: see `NonbondedPotential`.
        cutoff_radius: Å; inf for none. cut: how the interaction ends there.
        mixing: "arithmetic" (Lorentz-Berthelot: mean sigma, geometric epsilon), "geometric" (both geometric),
            or None: explicit pairs of types, in the order of (0, 0), (0, 1), ..., (1, 1), ...
        tail: add what lies beyond the cutoff, for atoms spread evenly there: a crystal or liquid of volume V
            gets 8 pi N² / V times the mean of 1/4 ∫ (phi without cut - phi) r² dr over all pairs of atoms,
            one with itself among them. (OpenMM's dispersion correction; the last words are of order 1 / N.)

    A type without a well stays without: under mixing the derivative by its epsilon = 0 is infinite, and
    given as 0.
    Source: Cornell et al., J. Am. Chem. Soc. 117, 5179 (1995); OpenMM NonbondedForce.
    """

    epsilon: Float[Array, "..."] = parameter("eV", lower=EMPTY, per="type", text="well depth")
    sigma: Float[Array, "..."] = parameter("Å", lower=0.0, per="type", text="distance of zero energy")
    types: tuple[str, ...] = eqx.field(static=True, converter=tuple)
    kind: Indices = eqx.field(static=True, converter=Indices.of)
    excluded: Indices = eqx.field(static=True, converter=Indices.of, default=())
    scaled: Indices = eqx.field(static=True, converter=Indices.of, default=())
    scale14: Float[Array, ""] | None = parameter("1", per=None, text="fraction of 1-4 pairs", default=None)
    cutoff_radius: float = eqx.field(static=True, default=np.inf)
    cut: AbstractCut = eqx.field(static=True, default_factory=Truncated)
    mixing: str | None = eqx.field(static=True, default="arithmetic")
    tail: bool = eqx.field(static=True, default=False)
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        if self.mixing not in (None, "arithmetic", "geometric"):
            raise InputError(f"mixing '{self.mixing}' is unknown: use None, 'arithmetic' or 'geometric'.")
        check_cutoff(self.cutoff_radius, self.cut)
        for name in ("epsilon", "sigma"):
            self._check_shape(name, {})
        if self.tail and not (np.isfinite(self.cutoff_radius) and isinstance(self.cut, Truncated | Smooth)):
            raise InputError(
                f"tail=True with the cutoff {self.cutoff_radius} Å and {type(self.cut).__name__}: there is a "
                "tail beyond a finite cutoff with cut=ms.Truncated() or ms.Smooth()."
            )

    @classmethod
    def labels_for(
        cls, field: str, elements: tuple[str, ...], settings: Mapping[str, Any]
    ) -> tuple[str, ...]:
        """The types of atoms, or their pairs if these have parameters of their own."""
        labels = super().labels_for(field, elements, settings)
        if not labels or settings.get("mixing", "arithmetic"):
            return labels
        return tuple(f"{a}-{b}" for k, a in enumerate(labels) for b in labels[k:])

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        total = self._pairs_of(structure).energy(structure, neighbors)
        if self.scale14 is not None:
            total = total + self.scale14 * jnp.sum(self._ends(structure))
        return total + self._beyond(structure) if self.tail else total

    def _pairs_of(self, structure: Structure) -> "_ListedPairs":
        epsilon, sigma = self._tables()
        return _ListedPairs(
            epsilon_of=epsilon,
            sigma_of=sigma,
            near=jnp.asarray(half_thickness(structure)),
            kind=self.kind,
            partners=_partners(self.excluded, len(self.kind)),
            cutoff_radius=self.cutoff_radius,
            cut=self.cut,
        )

    def _tables(self) -> tuple[Float[Array, "types types"], Float[Array, "types types"]]:
        """epsilon and sigma of every two types."""
        epsilon, sigma = self.epsilon, self.sigma
        if self.mixing is None:
            table = pair_table(len(self.types))
            return epsilon[table], sigma[table]
        product = epsilon[:, None] * epsilon
        deep = product > 0
        root = jnp.where(deep, jnp.sqrt(jnp.where(deep, product, 1.0)), 0.0)
        if self.mixing == "geometric":
            return root, jnp.sqrt(sigma[:, None] * sigma)
        return root, (sigma[:, None] + sigma) / 2

    def _ends(self, structure: Structure) -> Float[Array, "pairs"]:
        """Energies of the scaled pairs, eV, each as a whole."""
        kinds = self.kind.array[self._pairs(self.scaled)]
        first, second = kinds.T
        epsilon, sigma = (table[first, second] for table in self._tables())
        return _lennard_jones(self._scaled_distances(structure, self.scaled), epsilon, sigma)

    def _beyond(self, structure: Structure) -> Float[Array, ""]:
        """The energy of what lies beyond the cutoff, eV."""
        count = np.bincount(self.kind.array, minlength=len(self.types)).astype(float)
        n = len(self.kind)
        # ordered pairs of types, so that each two types stand twice and one with itself once
        all_pairs = np.outer(count, count) + np.diag(count)
        pairs = all_pairs / (n * (n + 1))
        epsilon, sigma = self._tables()
        twelve, six = self._lost_powers()
        lost = epsilon * (sigma**12 * twelve - sigma**6 * six)
        density = 8 * jnp.pi * n**2 / volume_of(structure.cell)
        return density * jnp.sum(pairs * lost)

    def _lost_powers(self) -> tuple[float, float]:
        """∫ r^-10 dr and ∫ r^-4 dr over what the cut takes away of phi."""
        end = self.cutoff_radius
        twelve = 1 / (9 * end**9)
        six = 1 / (3 * end**3)
        if not isinstance(self.cut, Smooth):
            return twelve, six
        onset, width = self.cut.onset * end, (1 - self.cut.onset) * end
        nodes, weights = np.polynomial.legendre.leggauss(40)
        t = (nodes + 1) / 2
        r, share = onset + width * t, weights * switched_off(t)
        lost = lambda power: float(np.sum(share * r**power) * width / 2)
        return twelve + lost(-10), six + lost(-4)


def _lennard_jones(
    r: Float[Array, "..."], epsilon: Float[Array, "..."], sigma: Float[Array, "..."]
) -> Float[Array, "..."]:
    sixth = (sigma / r) ** 6
    return 4 * epsilon * (sixth * sixth - sixth)


def _partners(excluded: Indices, n_atoms: int) -> Indices:
    """(atoms, most) atoms that each atom is kept from; n_atoms in unused places."""
    rows: list[list[int]] = [[] for _ in range(n_atoms)]
    for i, j in excluded.array.reshape(-1, 2).tolist():
        rows[i].append(j)
        rows[j].append(i)
    width = max(map(len, rows), default=0)
    filled = [row + [n_atoms] * (width - len(row)) for row in rows]
    return Indices(np.array(filled).reshape(n_atoms, width))


class _ListedPairs(PairsOfAtoms):
    """Lennard-Jones between all atoms but the excluded pairs.

    Attributes:
        epsilon_of, sigma_of: (types, types), eV and Å. near: distance, Å, below which excluded are excluded.
    """

    epsilon_of: Float[Array, "types types"]
    sigma_of: Float[Array, "types types"]
    near: Float[Array, ""]
    kind: Indices = eqx.field(static=True)
    partners: Indices = eqx.field(static=True)
    cutoff_radius: float = eqx.field(static=True)
    cut: AbstractCut = eqx.field(static=True)
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")

    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """Half of each pair's energy belongs to either atom, eV."""
        center, others = shells.species()
        kind = jnp.asarray(self.kind.array)
        types = kind[center][:, None], kind[others]
        epsilon, sigma = self.epsilon_of[types], self.sigma_of[types]
        r = shells.distances()
        counts = shells.valid & ~self._excluded(center, others, r)
        r = jnp.where(counts, r, self.sigma_of[0, 0])  # an excluded pair may be anywhere
        phi = lambda r: _lennard_jones(r, epsilon, sigma)
        energies = cut_off(phi, r, self.cutoff_radius, self.cut)
        return 0.5 * jnp.sum(jnp.where(counts, energies, 0.0), axis=1)

    def _excluded(self, center: Int[Array, "atoms"], others: Array, r: Array) -> Array:
        partners = jnp.asarray(self.partners.array)[center]
        same = others[:, :, None] == partners[:, None, :]
        return jnp.any(same, axis=2) & (r < self.near)


class MolecularCharges(NonbondedPotential):
    """The energy of charges of atoms that are not bonded: Ewald's sum, or that over all pairs of a molecule.

    Periodic along all three cell vectors, or along none. The full sum over all pairs is formed, and k q q / r
    of the excluded ones taken out again.

    Attributes:
        charge: e, one per type.
        scale14: fraction of the scaled pairs, 1 / 1.2 in Amber; None where there are none.
        types: names of the types of atoms, as far as charges go. kind: (atoms,) type of each atom.
        excluded, scaled: see `NonbondedPotential`.
        accuracy, cutoff_radius, background: see `Ewald`. Its accuracy is that of the energy here, whatever
            that of the program was which the charges come from.
    Not supported: slabs and wires, reaction fields.
    Source: Cornell et al., J. Am. Chem. Soc. 117, 5179 (1995); OpenMM NonbondedForce; see `Ewald`.
    """

    charge: Float[Array, "types"] = parameter("e", per="type", text="charge")
    types: tuple[str, ...] = eqx.field(static=True, converter=tuple)
    kind: Indices = eqx.field(static=True, converter=Indices.of)
    excluded: Indices = eqx.field(static=True, converter=Indices.of, default=())
    scaled: Indices = eqx.field(static=True, converter=Indices.of, default=())
    scale14: Float[Array, ""] | None = parameter("1", per=None, text="fraction of 1-4 pairs", default=None)
    accuracy: float = eqx.field(static=True, default=1e-12)
    cutoff_radius: float = eqx.field(static=True, default=10.0)
    background: bool = eqx.field(static=True, default=False)
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        self._check_shape("charge", {})
        self._ewald  # checks its own settings  # noqa: B018

    @property
    def _ewald(self) -> Ewald:
        return Ewald(accuracy=self.accuracy, cutoff_radius=self.cutoff_radius, background=self.background)

    @property
    def cutoff(self) -> Float[Array, ""]:
        return self._ewald.cutoff

    @property
    def shortest_wave(self) -> float:
        """That of Ewald's sum, Å."""
        return self._ewald.shortest_wave

    def charges(self) -> Float[Array, "atoms"]:
        """Charge of each atom, e."""
        return self.charge[self.kind.array]

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        total = self._ewald.energy(self._charged(structure), neighbors)
        total = total - jnp.sum(self._coulomb(structure, self.excluded))
        if self.scale14 is not None:
            total = total + self.scale14 * jnp.sum(self._coulomb(structure, self.scaled))
        return total

    def check_structure(self, structure: Structure) -> None:
        """Raise where this sum has no meaning.

        Raises:
            InputError: as `NonbondedPotential` and `Ewald` have it.
        """
        super().check_structure(structure)
        self._ewald.check_structure(self._charged(structure))

    def _charged(self, structure: Structure) -> Structure:
        return eqx.tree_at(lambda s: s.charges, structure, self.charges(), is_leaf=lambda leaf: leaf is None)

    def _coulomb(self, structure: Structure, indices: Indices) -> Float[Array, "pairs"]:
        """k q q / r of some pairs, eV."""
        first, second = self._pairs(indices).T
        q = self.charges()
        return COULOMB * q[first] * q[second] / self._scaled_distances(structure, indices)
