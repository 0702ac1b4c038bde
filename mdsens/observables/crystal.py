"""The conventional cell of a crystal: which multiple of the given cell it is, and how its axes lie.

Symmetry is found once, in plain numbers, by spglib. What remains of it are constants: the matrix M that makes
conventional cell vectors out of the given ones, h_conventional = M h, and the rotation from the axes of the
given cell to those of the crystal. The traced cell goes through M, so derivatives are those of the cell
itself.

Source: Togo, Shinohara, Tanaka, Sci. Technol. Adv. Mater. Methods 4, 2384822 (2024), arXiv:1808.01590.
"""

import dataclasses
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.structure import Structure

TOLERANCE = 1e-3  # of the cube root of an atom's volume: places that differ by less are equivalent
HOST = 0.85  # a shift that maps so many atoms onto others, but not all, shows a defect in a repeated cell
NEAR = 0.25  # how far such a shift may miss, in the same unit as TOLERANCE
AXES_DIGITS = 12  # of unit vectors
CUBIC = range(195, 231)  # numbers of the cubic space groups

Rows = tuple[tuple[float, float, float], ...]


@dataclasses.dataclass(frozen=True)
class Conventional:
    """How the conventional cell lies in the given one.

    Attributes:
        number, symbol: of the space group. matrix: M of the module docstring. axes: unit vectors of the
            crystal axes (rows) in the axes of the given cell.
    """

    number: int
    symbol: str
    matrix: Rows
    axes: Rows

    @property
    def is_cubic(self) -> bool:
        """Whether the crystal belongs to a cubic space group."""
        return self.number in CUBIC

    def cell(self, structure: Structure) -> Float[Array, "3 3"]:
        """Conventional cell vectors, rows, Å."""
        return jnp.asarray(self.matrix) @ structure.cell


def conventional(structure: Structure, what: str, *, perfect: bool = False) -> Conventional:
    """The conventional cell of a crystal.

    Args:
        what: what it is wanted for, for messages.
        perfect: refuse repeated cells with a defect, whose own conventional cell is that of the defects.
    Raises:
        InputError: not periodic in three directions, spglib finds no symmetry, or a defect cell.
    """
    if not all(structure.pbc):
        raise InputError(
            f"{what}: there is no conventional cell without periodicity in three directions (pbc = "
            f"{structure.pbc})."
        )
    cell = np.asarray(structure.cell)
    length = (abs(np.linalg.det(cell)) / structure.n_atoms) ** (1 / 3)
    fractional = np.asarray(structure.positions) @ np.linalg.inv(cell)
    found = _dataset((cell, fractional, np.asarray(structure.species)), TOLERANCE * length)
    if found is None:
        raise InputError(
            f"{what}: spglib finds no symmetry of this structure: two atoms may be at one place."
        )
    if perfect and has_defect(found):
        raise InputError(
            f"{what}: this structure ({structure.n_atoms} atoms) is a repeated cell with a defect. Measure "
            "it on the perfect crystal, or give the number of cells: lattice_constant(cells=...)."
        )
    # spglib has columns: (a_s, b_s, c_s) = (a, b, c) P^-1, so rows are multiplied by P^-T
    matrix = _rational(np.linalg.inv(np.asarray(found.transformation_matrix)).T)
    vectors = matrix @ cell
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    U, _, V = np.linalg.svd(vectors / lengths)
    # what is compiled knows these numbers: without their last digits a strained crystal has the same ones
    axes = np.round(U @ V, AXES_DIGITS)
    return Conventional(int(found.number), str(found.international), _rows(matrix), _rows(axes))


def _dataset(crystal: Any, tolerance: float) -> Any:
    import warnings

    import spglib

    with warnings.catch_warnings():
        # how spglib says that it found nothing changes between its versions
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return spglib.get_symmetry_dataset(crystal, tolerance)
        except Exception:  # each version has errors of its own for "found nothing"
            return None


def has_defect(data: Any) -> bool:
    """Whether a shift maps nearly all atoms of the conventional cell onto others, but not all."""
    from scipy.spatial import KDTree

    species, lengths = data.std_types, np.linalg.norm(data.std_lattice, axis=1)
    size = np.cbrt(abs(np.linalg.det(data.std_lattice)) / len(species))
    # lengths along the cell vectors stand for distances: good enough for what lies close
    points = np.mod(data.std_positions, 1.0) * lengths % lengths
    tree = KDTree(points, boxsize=lengths)
    commonest = np.flatnonzero(species == np.bincount(species).argmax())
    for start in commonest[:3]:
        for shift in points[commonest] - points[start]:
            apart, hit = tree.query((points + shift) % lengths)
            mapped = np.mean((apart < NEAR * size) & (species[hit] == species))
            if HOST <= mapped < 1:
                return True
    return False


def require_cubic(found: Conventional, what: str, instead: str) -> None:
    """Raise unless the crystal is cubic.

    Raises:
        InputError: says the space group, and what to ask for instead.
    """
    if not found.is_cubic:
        raise InputError(
            f"{what} is that of a cubic crystal, and this structure has the space group {found.symbol} "
            f"({found.number}): {instead}"
        )


def _rational(matrix: np.ndarray) -> np.ndarray:
    """Without rounding: lattices are related by fractions, and two states of one crystal by the same ones."""
    fractions = [float(Fraction(float(x)).limit_denominator(1000)) for x in matrix.ravel()]
    return np.array(fractions).reshape(3, 3)


def _rows(matrix: np.ndarray) -> Rows:
    return tuple((float(a), float(b), float(c)) for a, b, c in matrix)
