"""The unknowns of a relaxation.

One vector w holds the displacements u of all atoms and the strain of the cell:

    x = (x0 + u) F,   cell = cell0 F,   F = 1 + sum_k (c_k / L) B_k,

with B_k the strains that are free and L = sqrt(N) (V / N)^(1/3) a length. In these units curvatures along u
and along c are comparable (eV/Å², of the order of a force constant), so one linear solve takes both.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.neighbors.lists import complement
from mdsens.strain import UNIT_STRAINS, volume_of
from mdsens.structure import Structure

CellOption = str | Sequence[bool] | None


def strain_basis(cell: CellOption, structure: Structure) -> np.ndarray:
    """(strains, 3, 3): the strains that `cell` leaves free.

    Args:
        cell: None (cell held), "isotropic" (volume only), "full" (all six), or six bools in Voigt order.
    Raises:
        InputError: unknown option, or a cell that is not periodic along the strain.
    """
    basis = _strains(cell)
    if len(basis) and not all(structure.pbc):
        _check_open(basis, structure)
    return basis


def _strains(cell: CellOption) -> np.ndarray:
    if cell is None:
        return np.zeros((0, 3, 3))
    if isinstance(cell, str):
        known = {"isotropic": np.eye(3)[None], "full": UNIT_STRAINS}
        if cell in known:
            return known[cell]
        raise InputError(
            f"cell='{cell}' is unknown: use None, 'isotropic', 'full', or six bools in the order xx yy zz yz "
            "xz xy."
        )
    try:
        mask = np.asarray(cell)
    except ValueError:
        mask = np.zeros(0)
    if mask.shape != (6,) or not np.isin(mask, (0, 1)).all():
        raise InputError(
            f"cell={cell!r} is no mask of free strains: give six bools in the order xx yy zz yz xz xy."
        )
    return UNIT_STRAINS[mask.astype(bool)]


def _check_open(basis: np.ndarray, structure: Structure) -> None:
    # A strain that stretches along an open direction would change nothing there but blow up the vacuum. Open
    # directions are those orthogonal to the periodic vectors; a vector written down along them is vacuum.
    rows = np.asarray(structure.cell)
    periodic = rows[list(structure.pbc)]
    vacuum = rows[[not p for p in structure.pbc]]
    outside = np.eye(3) - np.linalg.pinv(periodic) @ periodic if len(periodic) else np.eye(3)
    touched = max(_touches(basis, outside), _touches(basis, vacuum))
    if not any(structure.pbc) or touched > 1e-12:
        raise InputError(
            f"the cell cannot relax along a direction without periodic boundaries (pbc = {structure.pbc}). "
            "Set pbc and a cell, relax with cell=None, or free only the periodic strains with a Voigt mask."
        )


def _touches(basis: np.ndarray, rows: np.ndarray) -> float:
    return float(np.abs(np.einsum("ra,kab->kb", rows, basis)).max(initial=0.0))


def closed(basis: np.ndarray) -> bool:
    """Whether products of free strains are free strains: then their forces are the gradient of the energy."""
    if not len(basis):
        return True
    products = np.einsum("iab,jbc->ijac", basis, basis)
    products = (products + np.swapaxes(products, -1, -2)).reshape(-1, 9)
    span = basis.reshape(-1, 9)
    inside = products @ np.linalg.pinv(span) @ span
    return bool(np.allclose(inside, products, atol=1e-12))


class Coordinates(eqx.Module):
    """Map between the vector of unknowns and structures.

    Attributes:
        reference: structure at w = 0, perhaps with ghosts, who do not move.
        basis: (strains, 3, 3) free strains; none when the cell is held.
        conservative: the free strains are `closed`; if not, see `Landscape`.
    """

    reference: Structure
    basis: Float[Array, "strains 3 3"]
    conservative: bool = eqx.field(static=True, default=True)

    @property
    def size(self) -> int:
        return 3 * self.reference.n_atoms + self.basis.shape[0]

    @property
    def length(self) -> Float[Array, ""]:
        """L of the strain coordinates, Å. A choice of units, not physics: it has no derivative."""
        n = self.reference.count
        v = self.reference_volume / n
        return jax.lax.stop_gradient(jnp.sqrt(n) * jnp.cbrt(jnp.where(v > 0, v, 1.0)))

    @property
    def reference_volume(self) -> Float[Array, ""]:
        """Volume at w = 0, Å³; a slab or a wire without vacuum counts 1 Å along each missing vector."""
        cell = self.reference.cell
        missing = jnp.sum(cell**2, axis=1) == 0
        return volume_of(jnp.where(missing[:, None], jax.lax.stop_gradient(complement(cell, missing)), cell))

    def split(self, w: Float[Array, "unknowns"]) -> tuple[Float[Array, "atoms 3"], Float[Array, "3 3"]]:
        """Displacements u (Å) and deformation F."""
        n = self.reference.n_atoms
        if not len(self.basis):  # the cell is no function of w then, and nobody asks for a stress
            return w.reshape(n, 3), jnp.eye(3)
        strain = jnp.einsum("k,kab->ab", w[3 * n :] / self.length, self.basis)
        return w[: 3 * n].reshape(n, 3), jnp.eye(3) + strain

    def structure(self, w: Float[Array, "unknowns"]) -> Structure:
        u, F = self.split(w)
        return self.reference.at(self.reference.positions + u).deformed(F)
