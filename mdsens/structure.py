"""Atoms in a cell: what a potential needs to know, as an immutable pytree."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Self

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from mdsens import checks
from mdsens.arrays import on_device
from mdsens.constraints import held_axes
from mdsens.errors import InputError, TracedError
from mdsens.strain import volume_of
from mdsens.structure_arrays import (
    ASE_CHARGES,
    TAKEN,
    cell_of,
    charges_of,
    columns_of,
    counts_of,
    fixed_of,
    independent_vectors,
    masses_of,
    periodic_of,
    positions_of,
    species_of,
)

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
        charges: (atoms,), e, for potentials that take them from the structure; None where there are none.
        columns: further numbers of each atom by name, (atoms,) or (atoms, k), in the units of the potential
            that takes them: radii, dipoles, ... They go wherever the charges go.
        real: (atoms,), False for the ghosts at the end that fill up the arrays (see `mdsens.ghosts`); None:
            there are none, as in every structure that a user meets.
    """

    positions: Float[Array, "atoms 3"]
    cell: Float[Array, "3 3"]
    species: Int[Array, "atoms"]
    masses: Float[Array, "atoms"]
    fixed: Bool[Array, "atoms 3"]
    pbc: tuple[bool, bool, bool] = eqx.field(static=True)
    charges: Float[Array, "atoms"] | None = None
    real: Bool[Array, "atoms"] | None = None
    columns: dict[str, Float[Array, "atoms ..."]] = eqx.field(default_factory=dict)

    @classmethod
    def create(
        cls,
        positions: Any,
        species: Any,
        cell: Any = None,
        pbc: Any = None,
        masses: Any = None,
        fixed: Any = None,
        charges: Any = None,
        columns: Mapping[str, Any] | None = None,
    ) -> Self:
        """Build a structure from plain arrays; symbols or atomic numbers for `species`.

        Args:
            positions: (atoms, 3), Å.
            species: atomic numbers, or chemical symbols.
            cell: (3, 3), three edge lengths, or None for a free cluster; Å.
            pbc: one bool or three; by default periodic wherever there is a cell vector.
            masses: u; by default the standard atomic weights.
            fixed: (atoms, 3) or (atoms,) bool; by default nothing is fixed.
            charges: (atoms,) in e; by default the atoms have none.
            columns: further numbers of each atom by name, (atoms,) or (atoms, k).
        Raises:
            InputError: shapes that do not fit together, a symbol that is no element, or a column whose name
                means something else already.
        """
        positions = positions_of(positions)
        n = len(positions)
        numbers = species_of(species, n)
        cell = cell_of(cell)
        periodic = periodic_of(pbc, cell)
        return cls(
            positions=on_device(positions),
            cell=on_device(independent_vectors(cell, periodic)),
            species=on_device(numbers),
            masses=on_device(masses_of(masses, numbers)),
            fixed=on_device(fixed_of(fixed, n)),
            pbc=periodic,
            charges=None if charges is None else on_device(charges_of(charges, n)),
            columns=columns_of(columns or {}, n),
        )

    @classmethod
    def from_ase(cls, atoms: "Atoms", columns: Iterable[str] = ()) -> Self:
        """Take over an ASE `Atoms`; constraints that hold single coordinates become `fixed`.

        These are FixAtoms, FixCartesian, FixedPlane and FixedLine along an axis, and FixScaled where the
        cell vectors it names have the directions of axes. Initial charges become `charges`.

        Args:
            columns: names of further arrays to take over; others stay behind, as they may be results that
                belong to these positions. `Potential.columns` says which ones a potential takes.
        Raises:
            InputError: no `Atoms`, a constraint that a mask of fixed coordinates cannot express, or no array
                of a name.
        """
        from ase import Atoms

        if isinstance(atoms, (list, tuple)):
            raise InputError(
                f"atoms is a {type(atoms).__name__} of {len(atoms)}: give one of them, such as atoms[-1], or "
                "call from_ase for each."
            )
        checks.instance("atoms", atoms, Atoms, "To read a file, call ms.read_structure(path).")
        fixed = np.zeros((len(atoms), 3), bool)
        for constraint in atoms.constraints:
            fixed[constraint.get_indices()] |= held_axes(constraint, atoms.cell.array)
        return cls.create(
            atoms.positions,
            atoms.numbers,
            atoms.cell.array,
            atoms.pbc,
            atoms.get_masses(),
            fixed,
            atoms.arrays.get(ASE_CHARGES),
            arrays_named(atoms, columns),
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
        if self.charges is not None:
            atoms.set_array(ASE_CHARGES, np.asarray(self.charges), float, ())
        for name, values in self.columns.items():
            atoms.set_array(name, None)  # of another shape, perhaps
            atoms.set_array(name, np.asarray(values), float)
        fixed = np.asarray(self.fixed)
        constraints: list[Any] = []
        # one constraint for each pattern of held coordinates
        for mask in np.unique(fixed[fixed.any(1)], axis=0):
            index = np.flatnonzero((fixed == mask).all(1))
            axes = tuple(bool(m) for m in mask)
            constraints.append(FixAtoms(index) if mask.all() else FixCartesian(index, axes))
        atoms.set_constraint(constraints)
        return atoms

    @property
    def n_atoms(self) -> int:
        """Number of atoms, and of the rows of the arrays: ghosts are counted."""
        return self.positions.shape[0]

    @property
    def count(self) -> int | Float[Array, ""]:
        """Number of atoms without ghosts; traced where there may be some."""
        return self.n_atoms if self.real is None else jnp.sum(self.real).astype(float)

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

    def repeat(self, times: int | Sequence[int]) -> Self:
        """Copies of the cell side by side, as one larger cell.

        Copies follow each other as in ASE: the last cell vector counts fastest. Masses, held coordinates,
        charges and columns are copied with the atoms.

        Args:
            times: copies along each cell vector; one number stands for all three.
        Raises:
            InputError: no whole numbers of 1 or more, or more than one copy along an open direction.
        """
        counts = counts_of(times, self.pbc)
        copies = int(np.prod(counts))
        # the copy (a, b, c) of the cell is shifted by a A + b B + c C
        steps = np.meshgrid(*map(np.arange, counts), indexing="ij")
        shifts = np.stack(steps, -1).reshape(copies, 3)
        vectors = shifts @ self.cell
        places = vectors[:, None, :] + self.positions[None, :, :]
        positions = places.reshape(-1, 3)
        return type(self)(
            positions=jnp.asarray(positions),
            cell=jnp.asarray(counts)[:, None] * self.cell,
            species=jnp.tile(self.species, copies),
            masses=jnp.tile(self.masses, copies),
            fixed=jnp.tile(self.fixed, (copies, 1)),
            pbc=self.pbc,
            charges=None if self.charges is None else jnp.tile(self.charges, copies),
            columns={name: jnp.concatenate([values] * copies) for name, values in self.columns.items()},
        )


def volume(structure: Structure) -> Float[Array, ""]:
    """Volume of the cell, Å³ (zero for a free cluster). Differentiable."""
    return volume_of(structure.cell)


def complete_cell(cell: np.ndarray) -> np.ndarray:
    """Fill zero rows with unit vectors orthogonal to the others, so that the cell can be inverted."""
    from ase.geometry.cell import complete_cell as complete

    return np.asarray(complete(np.asarray(cell, float)))


def require_structure(value: Any, name: str = "structure") -> Structure:
    """The value, if it is a `Structure`.

    Raises:
        InputError: it is something else; the call that makes a structure of it is named.
    """
    module = type(value).__module__
    if isinstance(value, (str, PathLike)):
        hint = "Read the file with ms.read_structure(path)."
    elif module.startswith("ase."):
        hint = "Convert it with ms.Structure.from_ase(atoms)."
    else:
        hint = "Build one with ms.Structure.create(positions, species, cell)."
    return checks.instance(name, value, Structure, hint)


def arrays_named(atoms: "Atoms", names: Iterable[str]) -> dict[str, np.ndarray]:
    """Further arrays of ASE's atoms, by name, as `Structure.columns` has them.

    Raises:
        InputError: no array of this name.
    """
    names = [names] if isinstance(names, str) else list(names)
    others = sorted(set(atoms.arrays) - TAKEN)
    for name in names:
        if name not in atoms.arrays:
            there = ", ".join(others) or "none"
            raise InputError(
                f"the atoms have no array '{name}' (there are: {there}).{checks.nearest(name, others)} "
                f"Set it with atoms.set_array('{name}', values)."
            )
    return {name: atoms.arrays[name] for name in names}
