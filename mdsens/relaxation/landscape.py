"""The energy landscape over the unknowns of a relaxation.

Its merit, its generalised forces, its Hessian products.

At the solution the generalised forces F(w, theta) vanish. For the atoms they are -dE/du; for the cell they
are the stress off its target along each free strain.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mdsens.batching import map_rows
from mdsens.compiling import compiled_soon
from mdsens.implicit.blocks import BlockMatrix, BorderedMatrix, in_steps_of_four
from mdsens.neighbors import Neighbors, find_neighbors, nearer
from mdsens.neighbors.shapes import COARSE_ATOMS, coarse_slots
from mdsens.potentials.base import Potential
from mdsens.potentials.shells import too_wide
from mdsens.relaxation.coordinates import Coordinates
from mdsens.structure import Structure

Vector = Float[Array, "unknowns"]

LEAST_ROW = 20  # places in a row of a Hessian
FEW_UNKNOWNS = 100  # up to which the Hessian of a heavy potential is written down, product by product
BLOCK = 64  # vectors the Hessian is applied to at once
SMALL_BLOCK = 16  # the same for large systems, where memory counts
LARGE = 1200  # unknowns, above which a system is large


class Landscape(eqx.Module):
    """Energy (or enthalpy) over the unknowns, with its derivatives, for one neighbor list.

    Attributes:
        target: (3, 3) stress the cell is relaxed to, eV/Å³; -pressure times 1 for a hydrostatic pressure.
    """

    potential: Potential
    coordinates: Coordinates
    target: Float[Array, "3 3"]
    neighbors: Neighbors

    def energy(self, w: Vector) -> Float[Array, ""]:
        return self.potential.energy(self.coordinates.structure(w), self.neighbors)

    def value_and_gradient(self, w: Vector) -> tuple[Float[Array, ""], Vector]:
        """Merit to go downhill on, and the generalised forces with a minus sign.

        They vanish at the solution.
        """
        # For a pressure, T = -p 1, the work is the gradient of -p V and E + p V goes down; a target with
        # shear is the gradient of nothing, and its part of the work is left to whoever compares two points
        # (`load`).
        if not self.coordinates.conservative:
            return self._value_and_stress(w)
        energy, gradient = jax.value_and_grad(self.energy)(w)
        if self.n_strains == 0:
            return energy, gradient
        return self._merit(w, energy), gradient.at[-self.n_strains :].add(-self._work(w, self.target))

    def gradient(self, w: Vector) -> Vector:
        return self.value_and_gradient(w)[1]

    def product(self, w: Vector, v: Vector) -> Vector:
        """Hessian at w times v (the Jacobian of `gradient`; see `symmetric`)."""
        return jax.jvp(self.gradient, (w,), (v,))[1]

    def pull(
        self, w: Vector, v: Vector, chosen: Any, replaced: Callable[["Landscape", Any], "Landscape"]
    ) -> Any:
        """Derivative of v . gradient(w) w.r.t. something that the landscape depends on.

        Args:
            chosen: its values, a pytree of arrays.
            replaced: (landscape, values) -> the landscape with these values.
        """
        # v . dE/dw is the derivative of E along v, and derivatives may be taken in any order. Along v last:
        # one more pass forward through dE/dchosen, instead of one backward through the forces.
        if not self.coordinates.conservative:
            return jax.vjp(lambda c: replaced(self, c).gradient(w), chosen)[1](v)[0]
        slopes = lambda w: jax.grad(lambda c: replaced(self, c).energy(w))(chosen)
        of_energy = jax.jvp(slopes, (w,), (v,))[1]
        if self.n_strains == 0:
            return of_energy
        work = jax.vjp(lambda c: replaced(self, c)._work(w, replaced(self, c).target), chosen)[1]
        return jax.tree.map(jnp.subtract, of_energy, work(v[-self.n_strains :])[0])

    def assembled(self, w: Vector, least_row: int = LEAST_ROW) -> BorderedMatrix | None:
        """The Hessian at w written down, where that pays and the potential knows how; else None.

        Only for a Hessian that is symmetric.

        Args:
            least_row: places in a row at least, so that small structures share programs.
        """
        structure = structure_at(self.coordinates, w)
        if self._few_and_heavy:
            return self._written_by_products(w)
        found = self.potential.hessian_blocks(structure, self._nearest(structure))
        if found is None:
            return None
        blocks = found.blocks
        if self.n_strains:  # x = (x0 + u) F: between u_i and u_j stands F H_ij F^T
            F = np.asarray(self.coordinates.split(w)[1])
            blocks = F @ blocks @ F.T
        n_atoms = structure.n_atoms
        least = min(n_atoms, least_row)
        shared = lambda needed: coarse_slots(max(needed, least))
        width_for = shared if n_atoms <= COARSE_ATOMS else in_steps_of_four
        core = BlockMatrix.of(found.i, found.j, blocks, n_atoms, width_for)
        if too_wide(structure.n_atoms, core.columns.shape[1]):
            return None
        if self.n_strains == 0:
            return BorderedMatrix(core, jnp.zeros((0, w.size)))
        strains = jnp.eye(self.n_strains, w.size, k=w.size - self.n_strains)
        return BorderedMatrix(core, products(self, w, strains))

    @property
    def _few_and_heavy(self) -> bool:
        few = self.coordinates.size <= FEW_UNKNOWNS
        return few and self.potential.heavy and self.coordinates.reference.real is None

    def _written_by_products(self, w: Vector) -> BorderedMatrix:
        # A shift of all atoms costs nothing, in whatever cell: the rows of the last one are minus the sums of
        # those of the others.
        atoms = self.coordinates.reference.n_atoms
        n = 3 * atoms
        asked = np.delete(np.eye(w.size), np.s_[n - 3 : n], axis=0)
        rows = hessian_times(self, w, asked)
        of_others, border = rows[: n - 3], rows[n - 3 :]
        last = -of_others.reshape(atoms - 1, 3, w.size).sum(axis=0)
        square = np.concatenate([of_others, last])[:, :n]
        blocks = square.reshape(atoms, 3, atoms, 3).transpose(0, 2, 1, 3).reshape(-1, 3, 3)
        i, j = np.indices((atoms, atoms)).reshape(2, -1)
        return BorderedMatrix(BlockMatrix.of(i, j, blocks, atoms), jnp.asarray(border))

    def _nearest(self, structure: Structure) -> Neighbors:
        """The list without its skin; searched anew only if it has been outrun."""
        cutoff = float(self.potential.cutoff)
        if np.isinf(cutoff):
            return self.neighbors
        complete = float(slack_once(self.neighbors, structure, self.potential.cutoff)) >= 0
        if complete:
            return nearer(self.neighbors, structure, cutoff)
        return find_neighbors(structure, cutoff)

    def load(self, w: Vector) -> Float[Array, "strains"]:
        """Force along each strain unknown that no energy has, eV/Å.

        The gradient of the merit less `gradient`.
        """
        if self.coordinates.conservative:
            return self._work(w, self.target - jnp.trace(self.target) / 3 * jnp.eye(3))
        virial = self._virial(w)[2]
        hydrostatic = jnp.trace(self.target) / 3 * jnp.eye(3)
        return self._along_path(w, virial) - self._work(w, hydrostatic) - self._off_target(w, virial)

    @property
    def n_strains(self) -> int:
        """How many strains are free."""
        return self.coordinates.basis.shape[0]

    @property
    def symmetric(self) -> bool:
        """Whether the Hessian is symmetric: not under a target stress with shear (plain numbers).

        Nor for strains that are not `closed`.
        """
        if self.n_strains == 0:
            return True
        target = np.asarray(self.target)
        sheared = np.any(target != target[0, 0] * np.eye(3))
        return self.coordinates.conservative and not sheared

    def residual(self, w: Vector, gradient: Vector) -> tuple[Array, Array]:
        """Largest force on an atom (eV/Å), and largest stress off target (eV/Å³)."""
        c = self.coordinates
        n = c.reference.n_atoms
        _, F = c.split(w)
        # dE/du = dE/dx F^T; fixed coordinates do not count
        forces = jnp.where(c.reference.fixed, 0.0, gradient[: 3 * n].reshape(n, 3)) @ jnp.linalg.inv(F).T
        fmax = jnp.sqrt(jnp.max(jnp.sum(forces**2, axis=-1)))
        V = self._volume(w)
        stress = jnp.max(jnp.abs(gradient[3 * n :]), initial=0.0) * c.length / jnp.where(V > 0, V, 1.0)
        return fmax, stress

    def stress_in_force_units(self, w: Vector, stress: Float[Array, ""]) -> Float[Array, ""]:
        """A stress as force on the face of one atom's share of the volume, eV/Å.

        So one tolerance serves both.
        """
        return stress * jnp.cbrt(self._volume(w) / self.coordinates.reference.count) ** 2

    def _volume(self, w: Vector) -> Float[Array, ""]:
        _, F = self.coordinates.split(w)
        return self.coordinates.reference_volume * jnp.abs(jnp.linalg.det(F))

    def _merit(self, w: Vector, energy: Float[Array, ""]) -> Float[Array, ""]:
        return energy - jnp.trace(self.target) / 3 * self._volume(w)

    def _work(self, w: Vector, stress: Float[Array, "3 3"]) -> Float[Array, "strains"]:
        # A stress T on the cell does the work dW = V T : dF F^-1 (F and T symmetric); at the solution
        #     dE/dc_k = V T : B_k F^-1 / L.
        return self._along_path(w, self._volume(w) * stress)

    def _along_path(self, w: Vector, virial: Float[Array, "3 3"]) -> Float[Array, "strains"]:
        _, F = self.coordinates.split(w)
        basis = self.coordinates.basis
        return jnp.einsum("ab,kac,cb->k", virial, basis, jnp.linalg.inv(F)) / self.coordinates.length

    # --- strains whose forces have no energy
    # ---------------------------------------------------------------------
    #
    # Where F = 1 + sum_k (c_k / L) B_k moves on, the strain added to the cell as it stands is B_k F^-1. If
    # the free strains are closed under products (the whole tensor, diagonals, a block), that is again one of
    # them, and dE/dc_k = 0 for all k says that the stress is on target. If they are not (a shear free without
    # both its diagonals), B_k F^-1 touches strains that are held, and dE/dc_k = 0 is the wrong equation. What
    # is promised is the Cauchy stress itself, in each free component:
    #     F_k = V (sigma - T) : B_k / L = 0.
    # These forces are the gradient of nothing, so the Jacobian is not symmetric.

    def _value_and_stress(self, w: Vector) -> tuple[Float[Array, ""], Vector]:
        energy, forces, virial = self._virial(w)
        return self._merit(w, energy), jnp.concatenate([forces, self._off_target(w, virial)])

    def _virial(self, w: Vector) -> tuple[Float[Array, ""], Float[Array, "coordinates"], Float[Array, "3 3"]]:
        """Energy, dE/du, and the virial V sigma = dE/d(strain) of the cell as it stands."""
        n = 3 * self.coordinates.reference.n_atoms

        def energy(u: Float[Array, "coordinates"], strain: Float[Array, "3 3"]) -> Float[Array, ""]:
            structure = self.coordinates.structure(jnp.concatenate([u, w[n:]]))
            return self.potential.energy(
                structure.deformed(jnp.eye(3) + (strain + strain.T) / 2), self.neighbors
            )

        value, (forces, virial) = jax.value_and_grad(energy, argnums=(0, 1))(w[:n], jnp.zeros((3, 3)))
        return value, forces, virial

    def _off_target(self, w: Vector, virial: Float[Array, "3 3"]) -> Float[Array, "strains"]:
        off = virial - self._volume(w) * self.target
        return jnp.einsum("ab,kab->k", off, self.coordinates.basis) / self.coordinates.length


# What walks and states ask for, compiled once for both: of the landscape alone.


@eqx.filter_jit
def structure_at(coordinates: Coordinates, w: Vector) -> Structure:
    """The structure of w, compiled."""
    return coordinates.structure(w)


@compiled_soon
def slack_once(neighbors: Neighbors, structure: Structure, cutoff: Float[Array, ""]) -> Array:
    """`Neighbors.slack`, compiled."""
    return neighbors.slack(structure, cutoff)


@eqx.filter_jit
def merit(landscape: Landscape, free: Bool[Array, "unknowns"], w: Vector) -> tuple[Array, Vector]:
    """Merit and gradient at w; zero along coordinates that are not free."""
    value, gradient = landscape.value_and_gradient(w)
    return value, jnp.where(free, gradient, 0.0)


def residuals(landscape: Landscape, w: Vector, gradient: Vector) -> tuple[Array, Array, Array]:
    """Largest force (eV/Å), largest stress off target (eV/Å³), and both as one number in eV/Å."""
    fmax, stress = landscape.residual(w, gradient)
    return fmax, stress, jnp.maximum(fmax, landscape.stress_in_force_units(w, stress))


def room(landscape: Landscape, w: Vector) -> Array:
    """How far (Å) the list allows atoms to approach each other from w."""
    structure = landscape.coordinates.structure(w)
    return landscape.neighbors.slack(structure, landscape.potential.cutoff)


residuals_once, room_once = compiled_soon(residuals), compiled_soon(room)
load_once = compiled_soon(lambda landscape, w: landscape.load(w))


def hessian_times(landscape: Landscape, w: Vector, vectors: np.ndarray) -> np.ndarray:
    """Hessian at w times each row, in blocks of one size: one compiled product serves all callers."""
    if not len(vectors):
        return vectors
    block = BLOCK if len(w) <= LARGE else SMALL_BLOCK
    starts = range(0, len(vectors), block)
    return np.concatenate([_block_times(landscape, w, vectors[k : k + block], block) for k in starts])


def _block_times(landscape: Landscape, w: Vector, vectors: np.ndarray, block: int) -> np.ndarray:
    count = len(vectors)
    rows = jnp.asarray(np.pad(vectors, ((0, block - count), (0, 0))))
    if landscape.potential.heavy:
        found = first_products(landscape, w, rows, jnp.asarray(count))
    else:
        found = products(landscape, w, rows)
    return np.asarray(found)[:count]


@eqx.filter_jit
def first_products(
    landscape: Landscape, w: Vector, rows: Float[Array, "rows unknowns"], count: Int[Array, ""]
) -> Array:
    """Hessian at w times each of the first rows, one after another, compiled; zeros for the others."""
    # what depends on w alone is computed once, before the loop
    multiplied = lambda k, done: done.at[k].set(landscape.product(w, rows[k]))
    return jax.lax.fori_loop(0, count, multiplied, jnp.zeros_like(rows))


@eqx.filter_jit
def products(landscape: Landscape, w: Vector, rows: Float[Array, "rows unknowns"]) -> Array:
    """Hessian at w times each row, compiled."""
    at_once = landscape.potential.rows_at_once
    return map_rows(lambda v: landscape.product(w, v), rows, at_once=at_once)
