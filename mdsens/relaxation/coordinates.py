"""The unknowns of a relaxation, and the energy landscape over them.

One vector w holds the displacements u of all atoms and the strain of the cell:

    x = (x0 + u) F,   cell = cell0 F,   F = 1 + sum_k (c_k / L) B_k,

with B_k the strains that are free and L = sqrt(N) (V / N)^(1/3) a length. In these units curvatures along u
and along c are comparable (eV/Å², of the order of a force constant), so one linear solve takes both.
"""

from collections.abc import Sequence
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
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
    match cell:
        case None:
            return np.zeros((0, 3, 3))
        case "isotropic":
            basis = np.eye(3)[None]
        case "full":
            basis = UNIT_STRAINS
        case str():
            raise InputError(
                f"cell='{cell}' is unknown: use None, 'isotropic', 'full', or six bools in the order xx yy "
                "zz yz xz xy."
            )
        case _:
            mask = np.asarray(cell, bool)
            if mask.shape != (6,):
                raise InputError(
                    f"the mask of free strains has shape {mask.shape}; give six bools in the order xx yy zz "
                    "yz xz xy."
                )
            basis = UNIT_STRAINS[mask]
    if not all(structure.pbc):
        # a strain that stretches along an open direction would change nothing there but blow up the vacuum
        open_axes = [k for k in range(3) if not structure.pbc[k]]
        rows = np.asarray(structure.cell)
        if not any(structure.pbc) or np.linalg.norm(rows[open_axes]) == 0 or _touches(basis, rows[open_axes]):
            raise InputError(
                "the cell cannot relax along a direction without periodic boundaries (pbc = "
                f"{structure.pbc}). "
                "Set pbc and a cell, relax with cell=None, or free only the periodic strains with a Voigt "
                "mask."
            )
    return basis


def _touches(basis: np.ndarray, rows: np.ndarray) -> bool:
    return bool(np.abs(np.einsum("ra,kab->kb", rows, basis)).max(initial=0.0) > 1e-12)


class Coordinates(eqx.Module):
    """Map between the vector of unknowns and structures.

    Attributes:
        reference: structure at w = 0.
        basis: (strains, 3, 3) free strains; none when the cell is held.
    """

    reference: Structure
    basis: Float[Array, "strains 3 3"]

    @property
    def size(self) -> int:
        return 3 * self.reference.n_atoms + self.basis.shape[0]

    @property
    def length(self) -> Float[Array, ""]:
        """L of the strain coordinates, Å. A choice of units, not physics: it has no derivative."""
        n = self.reference.n_atoms
        v = volume_of(self.reference.cell) / n
        return jax.lax.stop_gradient(jnp.sqrt(n) * jnp.cbrt(jnp.where(v > 0, v, 1.0)))

    def split(self, w: Float[Array, "unknowns"]) -> tuple[Float[Array, "atoms 3"], Float[Array, "3 3"]]:
        """Displacements u (Å) and deformation F."""
        n = self.reference.n_atoms
        return w[: 3 * n].reshape(n, 3), jnp.eye(3) + jnp.einsum(
            "k,kab->ab", w[3 * n :] / self.length, self.basis
        )

    def structure(self, w: Float[Array, "unknowns"]) -> Structure:
        u, F = self.split(w)
        return self.reference.at(self.reference.positions + u).deformed(F)


class Landscape(eqx.Module):
    """Energy (or enthalpy) over the unknowns, with its derivatives, for one neighbor list.

    Attributes:
        target: (3, 3) stress the cell is relaxed to, eV/Å³; -pressure times 1 for a hydrostatic pressure.
    """

    potential: Potential
    coordinates: Coordinates
    target: Float[Array, "3 3"]
    neighbors: Neighbors

    def energy(self, w: Float[Array, "unknowns"]) -> Float[Array, ""]:
        return self.potential.energy(self.coordinates.structure(w), self.neighbors)

    def value_and_gradient(self, w: Float[Array, "unknowns"]):
        """Merit to go downhill on, and the generalised forces with a minus sign. They vanish at the solution."""
        # For a pressure, T = -p 1, the work below is the gradient of -p V and E + p V goes down; a target
        # with shear is the gradient of nothing, and its part of the work is left to whoever compares two
        # points (`load`).
        energy, gradient = jax.value_and_grad(self.energy)(w)
        c = self.coordinates
        if c.basis.shape[0] == 0:
            return energy, gradient
        V = volume_of(c.reference.cell) * jnp.linalg.det(c.split(w)[1])
        merit = energy - jnp.trace(self.target) / 3 * V
        return merit, gradient.at[3 * c.reference.n_atoms :].add(-self._work(w, self.target))

    def load(self, w: Float[Array, "unknowns"]) -> Float[Array, "strains"]:
        """Force of the traceless part of the target stress along each strain unknown, eV/Å: it has no energy."""
        return self._work(w, self.target - jnp.trace(self.target) / 3 * jnp.eye(3))

    def _work(self, w: Float[Array, "unknowns"], stress: Float[Array, "3 3"]) -> Float[Array, "strains"]:
        # A stress T on the cell does the work dW = V T : dF F^-1 (F and T symmetric); at the solution
        #     dE/dc_k = V T : B_k F^-1 / L.
        c = self.coordinates
        _, F = c.split(w)
        V = volume_of(c.reference.cell) * jnp.linalg.det(F)
        return V * jnp.einsum("ab,kac,cb->k", stress, c.basis, jnp.linalg.inv(F)) / c.length

    def gradient(self, w: Float[Array, "unknowns"]) -> Float[Array, "unknowns"]:
        return self.value_and_gradient(w)[1]

    def product(self, w: Float[Array, "unknowns"], v: Float[Array, "unknowns"]) -> Float[Array, "unknowns"]:
        """Hessian at w times v (the Jacobian of `gradient`: symmetric unless the target stress has shear)."""
        return jax.jvp(self.gradient, (w,), (v,))[1]

    def residual(
        self, w: Float[Array, "unknowns"], gradient: Float[Array, "unknowns"]
    ) -> tuple[Array, Array]:
        """Largest force on an atom (eV/Å), and largest stress off target (eV/Å³)."""
        c = self.coordinates
        n = c.reference.n_atoms
        _, F = c.split(w)
        # dE/du = dE/dx F^T; fixed coordinates do not count
        forces = jnp.where(c.reference.fixed, 0.0, gradient[: 3 * n].reshape(n, 3)) @ jnp.linalg.inv(F).T
        fmax = jnp.sqrt(jnp.max(jnp.sum(forces**2, axis=-1)))
        V = volume_of(c.reference.cell) * jnp.abs(jnp.linalg.det(F))
        stress = jnp.max(jnp.abs(gradient[3 * n :]), initial=0.0) * c.length / jnp.where(V > 0, V, 1.0)
        return fmax, stress

    def stress_in_force_units(
        self, w: Float[Array, "unknowns"], stress: Float[Array, ""]
    ) -> Float[Array, ""]:
        """A stress as force on the face of one atom's share of the volume, eV/Å: so one tolerance serves both."""
        _, F = self.coordinates.split(w)
        V = volume_of(self.coordinates.reference.cell) * jnp.abs(jnp.linalg.det(F))
        return stress * jnp.cbrt(V / self.coordinates.reference.n_atoms) ** 2

    def at(self, neighbors: Neighbors) -> Self:
        return eqx.tree_at(lambda s: s.neighbors, self, neighbors)
