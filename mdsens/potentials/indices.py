"""Who belongs to whom, in whole numbers: which atoms are bonded, and of which type each bond is.

Potentials of molecules know their atoms by number. Such numbers are no parameters and have no derivative, so
they are a static part of a potential: two with the same bonds compile once. They are compared by value, and
hashed once, however many there are.

Atoms of a molecule may lie in different images of a periodic cell. What is bonded is near: of all images the
one whose fractional coordinates differ by less than a half is meant. The whole cell vectors between the two
are constants, piecewise, and energies stay smooth while atoms and cell move.
"""

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mdsens.checks import short
from mdsens.errors import InputError
from mdsens.neighbors.lists import complement
from mdsens.structure import Structure


class Indices:
    """Whole numbers 0, 1, 2, ... in an array, compared by value.

    Attributes:
        array: the numbers, read-only.
    """

    def __init__(self, values: Any):
        """From an array, or nested lists.

        Raises:
            InputError: something else than whole numbers of zero or more.
        """
        try:
            array = np.asarray(values)
        except ValueError:  # ragged
            array = np.asarray("")
        if array.size == 0:
            array = array.astype(int)
        if array.dtype.kind not in "iu" or np.any(array < 0):
            raise InputError(f"{short(values)}: give whole numbers, 0 or more, which count atoms or types.")
        self.array = array.astype(np.int32)
        self.array.setflags(write=False)
        self._hash = hash((self.array.shape, self.array.tobytes()))

    @classmethod
    def of(cls, values: Any) -> Self:
        """The numbers, as they are if they are one of these already."""
        return values if isinstance(values, cls) else cls(values)

    def __len__(self) -> int:
        return len(self.array)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Indices) and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Indices of shape {self.array.shape}"


def require_table(name: str, indices: Indices, columns: int) -> None:
    """Raise unless these are rows of so many different atoms each.

    Raises:
        InputError: another shape, or a row that names an atom twice.
    """
    array = indices.array
    if array.size == 0:
        return
    if array.ndim != 2 or array.shape[1] != columns:
        raise InputError(f"{name} have shape {array.shape}: give {columns} atoms in each row.")
    ordered = np.sort(array, axis=1)
    repeated = ordered[:, 1:] == ordered[:, :-1]
    twice = np.flatnonzero(np.any(repeated, axis=1))
    if len(twice):
        row = twice[0]
        raise InputError(f"{name}, row {row}: {array[row].tolist()} names an atom twice.")


def require_kinds(name: str, kind: Indices, count: int, types: tuple[str, ...], what: str) -> None:
    """Raise unless each of so many things has one of the types.

    Raises:
        InputError: another number of them, or a number that is no type.
    """
    array = kind.array
    if array.shape != (count,):
        raise InputError(f"{name} has shape {array.shape}: give the type of each of the {count} {what}.")
    if count and array.max() >= len(types):
        raise InputError(f"{name} counts to {array.max()}, and there are {len(types)} types: 0 is the first.")
    if len(set(types)) < len(types):
        twice = next(t for t in types if types.count(t) > 1)
        raise InputError(f"types: '{twice}' stands twice. Each type of {what} needs a name of its own.")


def nearest_vectors(structure: Structure, pairs: np.ndarray) -> Float[Array, "pairs 3"]:
    """Vectors from the first atom of each pair to the nearest image of the second, Å."""
    x = structure.positions
    d = x[pairs[:, 1]] - x[pairs[:, 0]]
    if not any(structure.pbc):
        return d
    pbc = jnp.array(structure.pbc)
    turns = jnp.round(jax.lax.stop_gradient(d) @ jnp.linalg.inv(_filled_cell(structure)))
    return d - jnp.where(pbc, turns, 0.0) @ structure.cell


def half_thickness(structure: Structure) -> float | Float[Array, ""]:
    """Half the smallest distance between faces of the cell, along periodic vectors, Å: inf without any.

    Two atoms nearer than this are each other's nearest images.
    """
    if not any(structure.pbc):
        return np.inf
    pbc = jnp.array(structure.pbc)
    # the columns of the inverse are normals, as long as the inverse of the distance of two faces
    normals = jnp.linalg.norm(jnp.linalg.inv(_filled_cell(structure)), axis=0)
    return 0.5 / jnp.max(jnp.where(pbc, normals, 0.0))


def _filled_cell(structure: Structure) -> Float[Array, "3 3"]:
    """Cell vectors, and unit vectors across where the structure is not periodic; held in derivatives, Å."""
    cell = jax.lax.stop_gradient(structure.cell)
    if all(structure.pbc):
        return cell
    pbc = jnp.array(structure.pbc)
    periodic = jnp.where(pbc[:, None], cell, 0.0)
    return jnp.where(pbc[:, None], cell, complement(periodic, ~pbc))


def check_atoms(who: str, atoms: np.ndarray, structure: Structure) -> None:
    """Raise unless the structure has these atoms.

    Raises:
        InputError: an atom that it does not have.
    """
    if atoms.size and atoms.max() >= structure.n_atoms:
        raise InputError(
            f"{who} names atom {atoms.max()}, and the structure has atoms 0 to {structure.n_atoms - 1}: it "
            "was made for another molecule, or for another order of atoms."
        )


def check_images(who: str, pairs: np.ndarray, structure: Structure) -> None:
    """Raise where it is not clear which images of two atoms belong together.

    Raises:
        InputError: a pair that is as far apart as half the cell is thick.
    """
    unknown = isinstance(structure.cell, Tracer) or isinstance(structure.positions, Tracer)
    if unknown or not any(structure.pbc) or not pairs.size:
        return
    lengths = np.linalg.norm(np.asarray(nearest_vectors(structure, pairs)), axis=1)
    limit, k = float(half_thickness(structure)), int(lengths.argmax())
    if lengths[k] < limit:
        return
    i, j = pairs[k].tolist()
    raise InputError(
        f"{who} ties atoms {i} and {j}, and their nearest images are {lengths[k]:.3g} Å apart, not less than "
        f"half the thickness of the cell, {limit:.3g} Å: which images belong together is not clear. Take a "
        "larger cell, such as two copies side by side with a potential made for both, or check that the "
        "structure has the order of atoms that the potential was made for."
    )
