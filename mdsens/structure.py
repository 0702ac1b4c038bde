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
from mdsens.errors import InputError, TracedError
from mdsens.strain import volume_of

if TYPE_CHECKING:
    from ase import Atoms


ASE_CHARGES = "initial_charges"  # what ASE calls the charges that atoms are given
# names that ASE, its files, or a structure itself give to other arrays of atoms
TAKEN = {
    *(
        "positions",
        "pos",
        "numbers",
        "species",
        "symbols",
        "Z",
        "masses",
        "fixed",
        "move_mask",
        "pbc",
        "cell",
    ),
    *("charges", ASE_CHARGES, "initial_magmoms", "magmoms", "tags", "momenta", "momentum", "velocities"),
    *("forces", "force", "energies", "energy", "stresses", "stress", "real", "columns"),
}


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
        positions = _positions(positions)
        n = len(positions)
        numbers = _species(species, n)
        cell = _cell(cell)
        periodic = _periodic(pbc, cell)
        return cls(
            positions=on_device(positions),
            cell=on_device(_independent(cell, periodic)),
            species=on_device(numbers),
            masses=on_device(_masses(masses, numbers)),
            fixed=on_device(_fixed(fixed, n)),
            pbc=periodic,
            charges=None if charges is None else on_device(_charges(charges, n)),
            columns=_columns(columns or {}, n),
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
            fixed[constraint.get_indices()] |= _held_axes(constraint, atoms.cell.array)
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
        counts = _counts(times, self.pbc)
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


# --- what may be given to `Structure.create`


def _numbers(name: str, value: Any, form: str) -> np.ndarray:
    """Finite real numbers as an array, whatever they were given as."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":
            array = array.astype(float) if None not in array.ravel().tolist() else array
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{name} = {checks.short(value)}: give {form}, as real numbers.")
    array = array.astype(float)
    if not np.all(np.isfinite(array)):
        first = np.argwhere(~np.isfinite(array))[0]
        where = tuple(first.tolist())
        raise InputError(f"{name}{list(where)} = {array[where]}: {form} must be finite.")
    return array


def _positions(value: Any) -> np.ndarray:
    positions = _numbers("positions", value, "coordinates (atoms, 3) in Å")
    if positions.ndim != 2 or positions.shape[1] != 3 or not len(positions):
        raise InputError(
            f"positions have shape {positions.shape}; they must be (atoms, 3), for at least one atom. "
            "Give a 2D system z = 0 and fix z."
        )
    return positions


def _species(value: Any, n: int) -> np.ndarray:
    if isinstance(value, str) or not isinstance(value, (Iterable, np.ndarray)):
        raise InputError(f"species = {value!r}: give one symbol or atomic number per atom, as a list.")
    items = np.asarray(value).tolist() if hasattr(value, "dtype") else list(value)
    numbers = np.array([_atomic_number(item) for item in items], np.int32)
    if len(numbers) != n:
        raise InputError(f"{len(numbers)} species for {n} positions: give one per atom.")
    return numbers


def _atomic_number(item: Any) -> int:
    from ase.data import atomic_masses, atomic_numbers

    if isinstance(item, str):
        if item not in atomic_numbers:
            raise InputError(f"'{item}' is no chemical symbol.{checks.nearest(item, atomic_numbers)}")
        return atomic_numbers[item]
    number = isinstance(item, (int, float, np.number)) and not isinstance(item, (bool, np.bool_))
    if not number or item != _whole_part(item):
        raise InputError(f"species {item!r}: give a chemical symbol or a whole atomic number.")
    last = len(atomic_masses) - 1
    if not 0 <= item <= last:
        raise InputError(f"atomic number {int(item)} is no element: they run from 1 to {last}.")
    return int(item)


def _whole_part(item: Any) -> int | None:
    """The whole number nearest to zero in it; None of NaN, infinity and complex numbers."""
    try:
        return int(item)
    except (TypeError, ValueError, OverflowError):
        return None


def _masses(value: Any, numbers: np.ndarray) -> np.ndarray:
    from ase.data import atomic_masses

    if value is None:
        return atomic_masses[numbers]
    masses = _numbers("masses", value, "masses (atoms,) in u")
    if masses.shape != numbers.shape or not np.all(masses > 0):
        raise InputError(
            f"masses of shape {masses.shape}, the smallest {masses.min(initial=np.inf):g} u: give "
            f"{len(numbers)} positive ones."
        )
    return masses


def _charges(value: Any, n: int) -> np.ndarray:
    charges = _numbers("charges", value, "charges (atoms,) in e")
    if charges.shape != (n,):
        raise InputError(f"charges have shape {charges.shape}: give {n}, one per atom, in e.")
    return charges


def _columns(given: Mapping[str, Any], n: int) -> dict[str, Array]:
    checks.instance("columns", given, Mapping, "Give a mapping of names to arrays, {'radii': [1.0, 1.2]}.")
    return {_column_name(name): on_device(_column(name, value, n)) for name, value in given.items()}


def _column_name(name: Any) -> str:
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(
            f"columns: {name!r} cannot name numbers of atoms: files need letters, digits and underscores, a "
            "letter first."
        )
    if name in TAKEN:
        raise InputError(
            f"columns: '{name}' means something else in files and structures. Take another name, such as "
            f"'my_{name}'; charges go to charges=."
        )
    return name


def _column(name: str, value: Any, n: int) -> np.ndarray:
    column = _numbers(name, value, "numbers (atoms,) or (atoms, k)")
    if column.ndim not in (1, 2) or len(column) != n:
        raise InputError(f"{name} has shape {column.shape}: give ({n},), or ({n}, k), a row for each atom.")
    return column


def _cell(value: Any) -> np.ndarray:
    cell = np.zeros((3, 3)) if value is None else _numbers("cell", value, "cell vectors in Å")
    cell = np.diag(cell) if cell.shape == (3,) else cell
    if cell.shape != (3, 3):
        raise InputError(
            f"cell has shape {cell.shape}; give (3, 3) with rows as vectors, three edges, or None."
        )
    return cell


def _periodic(value: Any, cell: np.ndarray) -> tuple[bool, bool, bool]:
    has_vector = np.linalg.norm(cell, axis=1) > 0
    periodic = has_vector if value is None else _booleans("pbc", value, ((), (1,), (3,)), "one bool or three")
    a, b, c = (bool(along) for along in np.broadcast_to(periodic, 3))
    for k, along in enumerate((a, b, c)):
        if along and not has_vector[k]:
            raise InputError(
                f"periodic along cell vector {k + 1}, but that vector is zero. Set the cell, or pbc=False "
                "there."
            )
    return a, b, c


def _fixed(value: Any, n: int) -> np.ndarray:
    form = f"one bool per atom ({n},) or per coordinate ({n}, 3)"
    fixed = np.zeros((n, 3), bool) if value is None else _booleans("fixed", value, ((n,), (n, 3)), form)
    return np.broadcast_to(fixed.reshape(n, -1), (n, 3))


def _booleans(name: str, value: Any, shapes: Sequence[tuple[int, ...]], form: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    # zeros and ones are bools in many files; everything else that numpy calls true is not
    if array.dtype.kind not in "biuf" or not np.all((array == 0) | (array == 1)):
        raise InputError(f"{name} = {checks.short(value)}: give {form}.")
    if array.shape not in shapes:
        raise InputError(f"{name} has shape {array.shape}; give {form}.")
    return array.astype(bool)


def _independent(cell: np.ndarray, periodic: Sequence[bool]) -> np.ndarray:
    """The cell without vectors that mean nothing: open ones that depend linearly on the others."""
    kept = np.zeros((3, 3))
    # periodic vectors first: they decide
    for k in sorted(range(3), key=lambda k: not periodic[k]):
        length = np.linalg.norm(cell[k])
        if length == 0:
            continue
        others = [row / np.linalg.norm(row) for row in kept if np.any(row)]
        rows = np.array([*others, cell[k] / length])
        smallest = np.linalg.svd(rows, compute_uv=False)[-1]
        if smallest > 1e-10:
            kept[k] = cell[k]
        elif periodic[k]:
            raise InputError(
                f"the cell vectors are linearly dependent: vector {k + 1} = {cell[k].tolist()} lies in the "
                "line or plane of the other periodic ones, and the cell has no volume."
            )
    return kept


def _counts(times: Any, pbc: Sequence[bool]) -> list[int]:
    several = isinstance(times, (list, tuple, np.ndarray))
    numbers = list(times) if several else [times] * 3
    if len(numbers) != 3:
        raise InputError(f"times = {times!r}: give one whole number or three.")
    counts = [checks.whole("times", number, at_least=1) for number in numbers]
    for k in range(3):
        if counts[k] > 1 and not pbc[k]:
            raise InputError(
                f"times = {times!r}: the structure is open along cell vector {k + 1} (pbc = {tuple(pbc)}); "
                "repeat it once there."
            )
    return counts


# --- constraints of ASE that hold single coordinates


def _held_axes(constraint: Any, cell: np.ndarray) -> np.ndarray:
    """Which of x, y, z a constraint holds: (3,) or (atoms of the constraint, 3)."""
    name = type(constraint).__name__
    match name:
        case "FixAtoms":
            return np.ones(3, bool)
        case "FixCartesian":
            return np.asarray(constraint.mask, bool)
        case "FixScaled":
            return _axes_of_vectors(np.asarray(constraint.mask, bool), cell)
        case "FixedPlane":
            return _axis_of(constraint.dir, name)
        case "FixedLine":
            return ~_axis_of(constraint.dir, name)
    raise InputError(
        f"constraint {name} holds more than single coordinates and has no derivative here. Use FixAtoms or "
        "FixCartesian, or remove it with atoms.set_constraint()."
    )


def _axis_of(direction: Any, name: str) -> np.ndarray:
    parts = np.abs(np.asarray(direction, float))
    along = parts > 1e-12 * np.linalg.norm(direction)
    if along.sum() != 1:
        raise InputError(
            f"constraint {name} has the direction {np.asarray(direction).tolist()}: only x, y and z can be "
            "held apart from each other. Turn the structure, or hold the whole atom with FixAtoms."
        )
    return along


def held_axes_of(mask: np.ndarray, cell: np.ndarray) -> np.ndarray | None:
    """Cartesian axes that are held where fractional coordinates are; None if they are no axes.

    Args:
        mask: (3,), True for each fractional coordinate that is held.
        cell: (3, 3), Å.
    """
    if mask.all() or not mask.any():
        return mask
    # The free moves span the cell vectors that are not held. They must span the axes that are not held:
    # then as many components are zero in all of them as coordinates are held.
    free = cell[~mask]
    zero = np.all(np.abs(free) <= 1e-10 * np.abs(cell).max(), axis=0)
    return zero if zero.sum() == mask.sum() else None


def _axes_of_vectors(mask: np.ndarray, cell: np.ndarray) -> np.ndarray:
    held = held_axes_of(mask, cell)
    if held is None:
        flags = " ".join("F" if m else "T" for m in mask)
        raise InputError(
            f"constraint FixScaled ({flags}) holds a coordinate along a cell vector, and the cell vectors "
            "that stay free do not lie along x, y, z: no cartesian coordinate is held. Hold all three, or "
            "turn the cell."
        )
    return held
