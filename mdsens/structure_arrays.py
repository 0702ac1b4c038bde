"""What may be given to build a structure, as arrays of the right shape.

Each function takes one argument of `Structure.create` and returns its array, or says what is wrong with it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array

from mdsens import checks
from mdsens.arrays import on_device
from mdsens.errors import InputError

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


def positions_of(value: Any) -> np.ndarray:
    """Coordinates of at least one atom, (atoms, 3)."""
    positions = _numbers("positions", value, "coordinates (atoms, 3) in Å")
    if positions.ndim != 2 or positions.shape[1] != 3 or not len(positions):
        raise InputError(
            f"positions have shape {positions.shape}; they must be (atoms, 3), for at least one atom. "
            "Give a 2D system z = 0 and fix z."
        )
    return positions


def species_of(value: Any, n: int) -> np.ndarray:
    """Atomic numbers of symbols or numbers, (atoms,)."""
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


def masses_of(value: Any, numbers: np.ndarray) -> np.ndarray:
    """Masses, by default the standard atomic weights, (atoms,)."""
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


def charges_of(value: Any, n: int) -> np.ndarray:
    """Charges, (atoms,)."""
    charges = _numbers("charges", value, "charges (atoms,) in e")
    if charges.shape != (n,):
        raise InputError(f"charges have shape {charges.shape}: give {n}, one per atom, in e.")
    return charges


def columns_of(given: Mapping[str, Any], n: int) -> dict[str, Array]:
    """Further numbers of atoms by name, each (atoms,) or (atoms, k)."""
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


def cell_of(value: Any) -> np.ndarray:
    """Cell vectors as rows, out of a matrix, three edges or None, (3, 3)."""
    cell = np.zeros((3, 3)) if value is None else _numbers("cell", value, "cell vectors in Å")
    cell = np.diag(cell) if cell.shape == (3,) else cell
    if cell.shape != (3, 3):
        raise InputError(
            f"cell has shape {cell.shape}; give (3, 3) with rows as vectors, three edges, or None."
        )
    return cell


def periodic_of(value: Any, cell: np.ndarray) -> tuple[bool, bool, bool]:
    """What is periodic: by default each direction that has a cell vector."""
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


def fixed_of(value: Any, n: int) -> np.ndarray:
    """Held coordinates, out of a bool for each atom or coordinate, (atoms, 3)."""
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


def independent_vectors(cell: np.ndarray, periodic: Sequence[bool]) -> np.ndarray:
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


def counts_of(times: Any, pbc: Sequence[bool]) -> list[int]:
    """Copies along each cell vector, one along open ones."""
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
