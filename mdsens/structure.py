"""Atoms in a cell: what a potential needs to know, as an immutable pytree."""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from mdsens.errors import FileFormatError, InputError, TracedError
from mdsens.strain import volume_of

if TYPE_CHECKING:
    from ase import Atoms


class Structure(eqx.Module):
    """Positions, cell, species; what is periodic, and what may not move.

    Attributes:
        positions: (atoms, 3), Å. They need not lie inside the cell.
        cell: (3, 3), rows are the cell vectors, Å; zero rows where there is none (free clusters).
        species: (atoms,), atomic numbers.
        masses: (atoms,), u.
        fixed: (atoms, 3), True where a coordinate is held. A two-dimensional system fixes every z.
        pbc: periodic along each cell vector (static: another value recompiles).
    """

    positions: Float[Array, "atoms 3"]
    cell: Float[Array, "3 3"]
    species: Int[Array, "atoms"]
    masses: Float[Array, "atoms"]
    fixed: Bool[Array, "atoms 3"]
    pbc: tuple[bool, bool, bool] = eqx.field(static=True)

    @classmethod
    def create(
        cls,
        positions: Any,
        species: Any,
        cell: Any = None,
        pbc: Any = None,
        masses: Any = None,
        fixed: Any = None,
    ) -> Self:
        """Build a structure from plain arrays; symbols or atomic numbers for `species`.

        Args:
            positions: (atoms, 3), Å.
            species: atomic numbers, or chemical symbols.
            cell: (3, 3), three edge lengths, or None for a free cluster; Å.
            pbc: one bool or three; by default periodic wherever there is a cell vector.
            masses: u; by default the standard atomic weights.
            fixed: (atoms, 3) or (atoms,) bool; by default nothing is fixed.
        Raises:
            InputError: shapes that do not fit together, or a symbol that is no element.
        """
        from ase.data import atomic_masses, atomic_numbers

        positions = np.asarray(positions, float)
        if positions.ndim != 2 or positions.shape[1] != 3 or not len(positions):
            raise InputError(
                f"positions have shape {positions.shape}; they must be (atoms, 3), for at least one atom. "
                "Give a 2D system z = 0 and fix z."
            )
        n = len(positions)
        if unknown := [s for s in species if isinstance(s, str) and s not in atomic_numbers]:
            close = difflib.get_close_matches(unknown[0], atomic_numbers, n=1)
            raise InputError(
                f"'{unknown[0]}' is no chemical symbol." + (f" Did you mean '{close[0]}'?" if close else "")
            )
        numbers = np.array([atomic_numbers[s] if isinstance(s, str) else int(s) for s in species], np.int32)
        if len(numbers) != n:
            raise InputError(f"{len(numbers)} species for {n} positions: give one per atom.")
        if not np.all((numbers >= 0) & (numbers < len(atomic_masses))):
            raise InputError(
                f"atomic number {numbers.max()} or {numbers.min()} is no element: they run from 1 to "
                f"{len(atomic_masses) - 1}."
            )
        masses = atomic_masses[numbers] if masses is None else np.asarray(masses, float)
        if masses.shape != (n,) or not np.all(masses > 0):
            raise InputError(
                f"masses of shape {masses.shape}, the smallest {masses.min(initial=np.inf):g} u: give {n} "
                "positive ones."
            )
        cell = np.zeros((3, 3)) if cell is None else np.asarray(cell, float)
        cell = np.diag(cell) if cell.shape == (3,) else cell
        if cell.shape != (3, 3):
            raise InputError(
                f"cell has shape {cell.shape}; give (3, 3) with rows as vectors, three edges, or None."
            )
        has_vector = np.linalg.norm(cell, axis=1) > 0
        periodic = has_vector if pbc is None else np.broadcast_to(np.asarray(pbc, bool), 3)
        if missing := [k for k in range(3) if periodic[k] and not has_vector[k]]:
            raise InputError(
                f"periodic along cell vector {missing[0] + 1}, but that vector is zero. Set the cell, or "
                "pbc=False there."
            )
        if np.any(periodic) and abs(np.linalg.det(complete_cell(cell))) < 1e-10:
            raise InputError("the cell vectors are linearly dependent: the cell has no volume.")
        fixed = np.zeros((n, 3), bool) if fixed is None else np.asarray(fixed, bool)
        if fixed.shape not in ((n,), (n, 3)):
            raise InputError(
                f"fixed has shape {fixed.shape}; give one bool per atom ({n},) or per coordinate ({n}, 3)."
            )
        fixed = np.broadcast_to(fixed.reshape(n, -1), (n, 3))
        return cls(
            positions=jnp.asarray(positions),
            cell=jnp.asarray(cell),
            species=jnp.asarray(numbers),
            masses=jnp.asarray(masses),
            fixed=jnp.asarray(fixed),
            pbc=(bool(periodic[0]), bool(periodic[1]), bool(periodic[2])),
        )

    @classmethod
    def from_ase(cls, atoms: "Atoms") -> Self:
        """Take over an ASE `Atoms`; constraints FixAtoms and FixCartesian become `fixed`.

        Raises:
            InputError: another kind of constraint, which a mask of fixed coordinates cannot express.
        """
        from ase.constraints import FixAtoms, FixCartesian

        fixed = np.zeros((len(atoms), 3), bool)
        for constraint in atoms.constraints:
            if isinstance(constraint, FixAtoms):
                fixed[constraint.index] = True
            elif isinstance(constraint, FixCartesian):
                fixed[constraint.index] |= np.asarray(constraint.mask, bool)
            else:
                raise InputError(
                    f"constraint {type(constraint).__name__} holds more than single coordinates and has no "
                    "derivative here. "
                    "Use FixAtoms or FixCartesian, or remove it with atoms.set_constraint()."
                )
        return cls.create(
            atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc, atoms.get_masses(), fixed
        )

    def to_ase(self, like: "Atoms | None" = None) -> "Atoms":
        """ASE `Atoms` with the same content.

        Args:
            like: atoms whose further data (tags, charges, info, velocities, ...) are carried over.
        Raises:
            InputError: `like` has another number of atoms.
        """
        from ase import Atoms
        from ase.constraints import FixAtoms, FixCartesian

        if like is not None and len(like) != self.n_atoms:
            raise InputError(
                f"like has {len(like)} atoms and the structure {self.n_atoms}: their data cannot be carried "
                "over."
            )
        atoms = like.copy() if like is not None else Atoms(numbers=np.asarray(self.species))
        atoms.set_constraint()
        atoms.set_atomic_numbers(np.asarray(self.species))
        atoms.set_cell(np.asarray(self.cell))
        atoms.set_positions(np.asarray(self.positions))
        atoms.set_pbc(self.pbc)
        atoms.set_array("masses", np.asarray(self.masses), float, ())
        fixed = np.asarray(self.fixed)
        constraints: list[Any] = []
        for mask in np.unique(
            fixed[fixed.any(1)], axis=0
        ):  # one constraint for each pattern of held coordinates
            index = np.flatnonzero((fixed == mask).all(1))
            constraints.append(
                FixAtoms(index) if mask.all() else FixCartesian(index, tuple(bool(m) for m in mask))
            )
        atoms.set_constraint(constraints)
        return atoms

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return self.positions.shape[0]

    @property
    def symbols(self) -> list[str]:
        """Chemical symbol of each atom."""
        from ase.data import chemical_symbols

        if isinstance(self.species, Tracer):
            raise TracedError(
                "symbols are needed on the host, and under jax.jit or jax.vmap species have no values: call "
                "this outside."
            )

        return [chemical_symbols[z] for z in np.asarray(self.species)]

    def at(self, positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"] | None = None) -> Self:
        """The same atoms elsewhere (Å); the cell too if given."""
        moved = eqx.tree_at(lambda s: s.positions, self, positions)
        return moved if cell is None else eqx.tree_at(lambda s: s.cell, moved, cell)

    def deformed(self, deformation: Float[Array, "3 3"]) -> Self:
        """Cell and atoms under one homogeneous deformation: x -> x F."""
        return self.at(self.positions @ deformation, self.cell @ deformation)


def volume(structure: Structure) -> Float[Array, ""]:
    """Volume of the cell, Å³ (zero for a free cluster). Differentiable."""
    return volume_of(structure.cell)


def complete_cell(cell: np.ndarray) -> np.ndarray:
    """Fill zero rows with unit vectors orthogonal to the others, so that the cell can be inverted."""
    from ase.geometry.cell import complete_cell as complete

    return np.asarray(complete(np.asarray(cell, float)))


def read_structure(path: str | Path, index: int = -1) -> Structure:
    """Read a structure from any file ASE understands (extxyz, POSCAR, cif, LAMMPS data, ...).

    Raises:
        FileFormatError: no such file, or ASE cannot make sense of it.
    """
    return Structure.from_ase(read_atoms(path, index))


def read_atoms(path: str | Path, index: int = -1) -> "Atoms":
    """The ASE `Atoms` behind `read_structure`, for what a `Structure` does not keep (tags, info, ...)."""
    from ase.io import read

    if not Path(path).is_file():
        raise FileFormatError(f"no structure file '{path}'. The path is relative to {Path.cwd()}.")
    try:
        atoms = read(path, index=index)
    except Exception as error:  # ASE raises whatever its parser met
        raise FileFormatError(
            f"cannot read a structure from '{path}': {type(error).__name__}: {error}. "
            "ASE guesses the format from the name: rename the file (.extxyz, POSCAR, .cif, ...) if the guess "
            "was wrong."
        ) from error
    if isinstance(atoms, list):
        raise FileFormatError(f"'{path}' gave {len(atoms)} frames: index must be one number.")
    return atoms
