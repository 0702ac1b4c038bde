"""The primitive cell of a crystal, and which of its atoms each atom of the given cell is.

Wave vectors are counted in the reciprocal cell of the primitive one. Where the given cell holds several
primitive cells, h = M h_primitive with M in whole numbers, and the atoms that differ by whole primitive
vectors are one atom to a wave.
"""

import dataclasses
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.observables.crystal import TOLERANCE
from mdsens.structure import Structure

Row = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class PrimitiveCell:
    """How the given cell is made of primitive cells.

    Attributes:
        matrix: M of the module docstring.
        first: for each atom of the primitive cell, the first atom of the given cell that is one of it.
        kinds: for each atom of the given cell, the place in `first` of the atom that it is.
        steps: for each atom of the given cell, whole primitive vectors from that first atom.
    """

    matrix: tuple[Row, Row, Row]
    first: tuple[int, ...]
    kinds: tuple[int, ...]
    steps: tuple[Row, ...]

    @classmethod
    def same(cls, n_atoms: int) -> Self:
        """The given cell, taken as it is."""
        atoms = tuple(range(n_atoms))
        unit = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
        return cls(unit, atoms, atoms, ((0, 0, 0),) * n_atoms)

    @classmethod
    def of(cls, structure: Structure) -> Self:
        """Found by spglib; the given cell where that is primitive, or is not periodic in three directions."""
        n = structure.n_atoms
        vectors = _primitive_vectors(structure) if all(structure.pbc) and n > 1 else None
        if vectors is None:
            return cls.same(n)
        matrix = np.asarray(structure.cell) @ np.linalg.inv(vectors)
        fractional = np.asarray(structure.positions) @ np.linalg.inv(vectors)
        return cls._sorted(np.rint(matrix), fractional, np.asarray(structure.species))

    @classmethod
    def _sorted(cls, matrix: np.ndarray, fractional: np.ndarray, species: np.ndarray) -> Self:
        first: list[int] = []
        kinds: list[int] = []
        steps: list[Row] = []
        for atom, place in enumerate(fractional):
            same = species[first] == species[atom] if first else []
            known = np.flatnonzero(same).tolist()
            away = [place - fractional[first[k]] for k in known]
            off = [float(np.abs(d - np.rint(d)).max()) for d in away]
            best = int(np.argmin(off)) if off else 0
            if off and off[best] < 0.1:
                kinds.append(known[best])
                steps.append(_row(away[best]))
            else:
                kinds.append(len(first))
                steps.append((0, 0, 0))
                first.append(atom)
        a, b, c = (_row(row) for row in matrix)
        return cls((a, b, c), tuple(first), tuple(kinds), tuple(steps))

    @property
    def n_atoms(self) -> int:
        """Atoms of the primitive cell."""
        return len(self.first)

    def cell(self, structure: Structure) -> Float[Array, "3 3"]:
        """Primitive vectors, rows, Å. Traceable."""
        return jnp.asarray(np.linalg.inv(np.array(self.matrix))) @ structure.cell

    def points(self, cells: Int[np.ndarray, "cells 3"]) -> Int[np.ndarray, "cells atoms 3"]:
        """Whole primitive vectors from the first atom of its kind to each atom of some given cells."""
        shifts = cells @ np.array(self.matrix)
        return shifts[:, None] + np.array(self.steps)

    @property
    def of_kind(self) -> Float[np.ndarray, "atoms kinds"]:
        """One where an atom is of a kind."""
        return np.eye(self.n_atoms)[list(self.kinds)]


def _row(values: Any) -> Row:
    a, b, c = (round(float(x)) for x in values)
    return a, b, c


def _primitive_vectors(structure: Structure) -> np.ndarray | None:
    """Vectors of the primitive cell in the given axes, Å; None where the given cell is primitive."""
    import warnings

    import spglib

    cell = np.asarray(structure.cell)
    length = (abs(np.linalg.det(cell)) / structure.n_atoms) ** (1 / 3)
    fractional = np.asarray(structure.positions) @ np.linalg.inv(cell)
    crystal: Any = (cell, fractional, np.asarray(structure.species))
    options: Any = dict(to_primitive=True, no_idealize=True, symprec=TOLERANCE * length)
    with warnings.catch_warnings():
        # how spglib says that it found nothing changes between its versions
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            found = spglib.standardize_cell(crystal, **options)
        except Exception:
            return None
    if found is None or len(found[2]) == structure.n_atoms:
        return None
    return np.asarray(found[0])
