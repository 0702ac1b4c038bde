"""Potentials that act among some of the atoms only, and on which of their elements: hybrid/overlay of LAMMPS.

    wall = ms.mapped(ms.ZBL.of(("Si", "C"), 1.0, 2.0), pairs=[("Si", "C")])
    bonds = ms.mapped(ms.load_potential("si-tersoff-1988-t3"), {"Si": "Si", "C": None})
    potential = wall + bonds

Where atoms of an element see nothing of a potential, that is written out (None), so that a sum still knows
every element: an atom that nobody thought of is refused, not without interaction by oversight.
"""

from collections.abc import Iterable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from mdsens.checks import instance
from mdsens.errors import InputError
from mdsens.neighbors import Neighbors, find_neighbors
from mdsens.potentials.base import HessianBlocks, Potential
from mdsens.structure import Structure

Assignment = tuple[tuple[str, str | None], ...]
Pairs = tuple[tuple[str, str], ...]
HINT = "Write mapped(potential, {'Si': 'Si', 'C': None})."


class MappedPotential(Potential):
    """A potential among some of the atoms; build it with `mapped`.

    Attributes:
        parts: the potential, alone in a tuple. Parameters keep the names that it gives them.
        assignment: for each element of a structure, the element of the potential that it stands for, or None
            where it sees nothing of it.
        pairs: elements whose pairs interact, or None: all.
    """

    parts: tuple[Potential] = eqx.field(metadata={"parts": True})
    assignment: Assignment = eqx.field(static=True)
    pairs: Pairs | None = eqx.field(static=True, default=None)

    part_names = ("",)  # nothing before the names of the parameters

    @property
    def part(self) -> Potential:
        """The potential that acts."""
        return self.parts[0]

    @property
    def elements(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(symbol for symbol, _ in self.assignment)

    @property
    def source(self) -> str:  # type: ignore[override]
        return self.part.source

    @property
    def twice_differentiable(self) -> bool:  # type: ignore[override]
        return self.part.twice_differentiable

    @property
    def ghosts(self) -> bool:  # type: ignore[override]
        return self.part.ghosts

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.part.columns

    @property
    def cutoff(self) -> Float[Array, ""]:
        return self.part.cutoff

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        return self.part.energy(*self._seen(structure, neighbors))

    def site_energies(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms"]:
        """Energy of each atom, eV; nothing for those that see nothing."""
        return self.part.site_energies(*self._seen(structure, neighbors))

    def ranges(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "pairs"]:
        allowed = self._allowed(structure, neighbors)
        reach = self.part.ranges(*self._seen(structure, neighbors))
        return jnp.where(allowed, reach, 0.0)

    def contacts(self, structure: Structure, neighbors: Neighbors) -> Bool[Array, "atoms"]:
        return self.part.contacts(*self._seen(structure, neighbors))

    @property
    def heavy(self) -> bool:  # type: ignore[override]
        """Whether the potential is."""
        return self.part.heavy

    def bytes_per_pair(self) -> float:
        """Of the potential."""
        return self.part.bytes_per_pair()

    def hessian_blocks(self, structure: Structure, neighbors: Neighbors) -> HessianBlocks | None:
        return self.part.hessian_blocks(*self._seen(structure, neighbors))

    def check_structure(self, structure: Structure) -> None:
        self.part.check_structure(structure)

    def _seen(self, structure: Structure, neighbors: Neighbors) -> tuple[Structure, Neighbors]:
        """The structure with the potential's elements, and the pairs that interact."""
        allowed = self._allowed(structure, neighbors)
        types = self.types(structure)
        others = neighbors.extended(types)[neighbors.near]
        table = jnp.asarray(self._table())
        interact = table[types[:, None], others]
        near = jnp.where(interact, neighbors.near, neighbors.nobody)
        valid = neighbors.valid & allowed
        fewer = eqx.tree_at(lambda n: (n.near, n.valid), neighbors, (near, valid))
        if not self.part.elements:
            return structure, fewer
        species = jnp.asarray(self._numbers())[types].astype(structure.species.dtype)
        return eqx.tree_at(lambda s: s.species, structure, species), fewer

    def _allowed(self, structure: Structure, neighbors: Neighbors) -> Bool[Array, "pairs"]:
        types = self.types(structure)
        table = jnp.asarray(self._table())
        return table[types[neighbors.i], types[neighbors.j]]

    def _table(self) -> np.ndarray:
        """(elements, elements) True where a pair interacts."""
        there = np.array([target is not None for _, target in self.assignment])
        table = there[:, None] & there
        if self.pairs is None:
            return table
        chosen = np.zeros_like(table)
        for a, b in self.pairs:
            i, j = self.elements.index(a), self.elements.index(b)
            chosen[i, j] = chosen[j, i] = True
        return table & chosen

    def _numbers(self) -> np.ndarray:
        # who sees nothing has no neighbors, whatever element stands in for its own
        from ase.data import atomic_numbers

        first = self.part.elements[0]
        return np.array([atomic_numbers[target or first] for _, target in self.assignment])


def mapped(
    potential: Potential,
    species: Mapping[str, str | None] | None = None,
    *,
    pairs: Iterable[tuple[str, str]] | None = None,
) -> MappedPotential:
    """A potential that acts among chosen elements only: for sums, as LAMMPS pair_style hybrid/overlay.

    Args:
        potential: any that is local. An atom alone must have no energy in it if some see nothing of it.
        species: for each element of a structure, the element of the potential that it stands for, or None
            where it sees nothing of it; by default the elements of the potential, each for itself.
        pairs: elements whose pairs interact, either way round; by default all. For pair potentials.
    Raises:
        InputError: an element that the potential does not have, a pair of elements that are not named, pairs
            for a potential with angles, a potential that is not local or gives a lone atom energy.
    """
    instance("potential", potential, Potential, HINT)
    if not potential.local:
        raise InputError(
            f"{type(potential).__name__} acts among all atoms, near or far: it cannot be kept from some. Set "
            "the charges or parameters of these to zero instead."
        )
    assignment = tuple((species or {e: e for e in potential.elements}).items())
    _check_assignment(potential, assignment)
    chosen = None if pairs is None else tuple((a, b) for a, b in pairs)
    _check_pairs(potential, assignment, chosen)
    if any(target is None for _, target in assignment):
        _check_lone_atom(potential)
    # what follows from the part is no argument
    return MappedPotential(parts=(potential,), assignment=assignment, pairs=chosen)  # type: ignore[call-arg]


def _check_assignment(potential: Potential, assignment: Assignment) -> None:
    known = potential.elements
    if not assignment:
        raise InputError(f"species is empty: name the elements of the structures. {HINT}")
    for symbol, target in assignment:
        if target is not None and known and target not in known:
            raise InputError(
                f"species: {symbol} stands for {target!r}, but {type(potential).__name__} knows "
                f"{', '.join(known)}. Use one of these, or None where {symbol} sees nothing of it."
            )


def _check_pairs(potential: Potential, assignment: Assignment, pairs: Pairs | None) -> None:
    if pairs is None:
        return
    if not getattr(potential, "reciprocal", False):
        raise InputError(
            f"pairs = {pairs}: {type(potential).__name__} is more than a sum over pairs, and has no energy "
            "of some of them. Choose elements by species={...} instead."
        )
    present = [symbol for symbol, target in assignment if target is not None]
    for pair in pairs:
        if missing := [symbol for symbol in pair if symbol not in present]:
            raise InputError(
                f"pairs = {pairs}: {missing[0]} is none of the elements that it acts on, "
                f"{', '.join(present)}."
            )


def _check_lone_atom(potential: Potential) -> None:
    leaves = jax.tree.leaves(potential)
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return
    symbol = potential.elements[0] if potential.elements else "Ar"
    atom = Structure.create([[0.0, 0.0, 0.0]], [symbol])
    energy = float(potential.energy(atom, find_neighbors(atom, float(potential.cutoff))))
    if abs(energy) > 1e-12:
        raise InputError(
            f"a lone atom has the energy {energy:g} eV in {type(potential).__name__}, and so would those "
            "that see nothing of it. Map every element to one of the potential."
        )
