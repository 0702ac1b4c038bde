"""An approximate inverse of the Hessian of a solid, so that solves take as many steps at 10⁵ atoms as at 10³.

Long waves are soft: their curvature falls as k², so the condition number grows with the box and plain
conjugate gradients need steps in proportion to its edge. A sum of two inverses covers both ends,

    M^-1 = 1 / d  +  S^T G(k) S,       G(k) = 1 / (c k²),

with d the mean diagonal of the Hessian and, for the long waves, an elastic medium of stiffness c on a regular
grid: S spreads forces onto the grid, the FFT inverts the Laplacian, S^T gathers. Cost N log N. A
preconditioner changes the number of steps, never the answer.

Compare Packwood et al., J. Chem. Phys. 144, 164109 (2016), who invert a sparse matrix on the neighbor graph
instead.
"""

from collections.abc import Callable
from typing import Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.compiling import compiled_soon
from mdsens.ghosts import number_of_real
from mdsens.structure import Structure, complete_cell

SMALLEST = 200  # atoms: below, all waves are short and the diagonal does


class ElasticPreconditioner(eqx.Module):
    """M^-1 of the module docstring, as a product.

    Attributes:
        corners, weights: (atoms, 8) grid points around each atom, and linear weights.
        green: (n1, n2, n3 // 2 + 1) G(k) on the grid of the FFT.
        diagonal: d, eV/Å².
        strain: (strains, strains) inverse of the strain block of the Hessian.
    """

    corners: Int[Array, "atoms 8"]
    weights: Float[Array, "atoms 8"]
    green: Float[Array, "n1 n2 n3"]
    diagonal: Float[Array, ""]
    strain: Float[Array, "strains strains"]
    grid: tuple[int, int, int] = eqx.field(static=True)

    def __call__(self, v: Float[Array, "unknowns"]) -> Float[Array, "unknowns"]:
        n = self.corners.shape[0]
        f, c = v[: 3 * n].reshape(n, 3), v[3 * n :]
        u = f / self.diagonal
        if np.prod(self.grid) > 1:
            points = jnp.zeros((int(np.prod(self.grid)), 3), v.dtype)
            points = points.at[self.corners].add(self.weights[..., None] * f[:, None, :])
            waves = jnp.fft.rfftn(points.reshape(*self.grid, 3), axes=(0, 1, 2))
            field = jnp.fft.irfftn(waves * self.green[..., None], s=self.grid, axes=(0, 1, 2)).reshape(-1, 3)
            u = u + jnp.sum(self.weights[..., None] * field[self.corners], axis=1)
        return jnp.concatenate([u.reshape(-1), self.strain @ c])


def grid_of(structure: Structure) -> tuple[int, int, int]:
    """One grid point per atom or so; a single one (no grid) for small systems."""
    n = number_of_real(structure)
    if n < SMALLEST:
        return (1, 1, 1)
    cell, _ = _box(structure)
    spacing = (abs(np.linalg.det(cell)) / n) ** (1 / 3)
    points = [max(1, 2 * round(float(np.linalg.norm(a)) / spacing / 2)) for a in cell]
    return (points[0], points[1], points[2])


def _box(structure: Structure) -> tuple[np.ndarray, np.ndarray]:
    # Along open directions: a box around the atoms, with a margin so that opposite faces do not touch.
    # What the structure says of its open directions does not matter: they may be zero, or parallel.
    cell = complete_cell(np.where(np.array(structure.pbc)[:, None], np.asarray(structure.cell), 0.0))
    x = np.asarray(structure.positions)[: number_of_real(structure)]
    fractional = x @ np.linalg.inv(cell)
    origin = np.zeros(3)
    for k in range(3):
        if not structure.pbc[k]:
            low, high = fractional[:, k].min(), fractional[:, k].max()
            cell[k] *= max(1.25 * (high - low), 1e-3)
            origin += low * cell[k] / max(1.25 * (high - low), 1e-3)
    return cell, origin


N_TESTS = 10  # products with the Hessian that a preconditioner is measured with, besides one per strain


class WaveBox(eqx.Module):
    """Box the waves live in: cell vectors (rows) and origin, Å."""

    cell: Float[Array, "3 3"]
    origin: Float[Array, "3"]

    @classmethod
    def around(cls, structure: Structure) -> Self:
        cell, origin = _box(structure)
        return cls(jnp.asarray(cell), jnp.asarray(origin))

    def fractional(self, structure: Structure) -> Float[Array, "atoms 3"]:
        return (structure.positions - self.origin) @ jnp.linalg.inv(self.cell)


@compiled_soon
def test_vectors(structure: Structure, frame: WaveBox, strains: int) -> Float[Array, "tests unknowns"]:
    """What the Hessian must be applied to.

    random signs z: the mean diagonal is d = <z . H z> / 3N (Hutchinson);
    u = e_a sin(2 pi s_b), the longest waves along each cell vector: the stiffness is c = (u . H u) / (u . u)
    / k²;
    one unit vector for each strain: the strain block.
    """
    n = structure.n_atoms
    signs = jax.random.rademacher(jax.random.key(3), (1, 3 * n), float)
    waves = _waves(jnp.sin, structure, frame)
    tests = _of_real_atoms(jnp.concatenate([signs, waves]), structure)
    tests = jnp.pad(tests, ((0, strains), (0, strains)))
    return tests.at[N_TESTS + jnp.arange(strains), 3 * n + jnp.arange(strains)].set(1.0)


@eqx.filter_jit
def longest_waves(structure: Structure, frame: WaveBox, strains: int) -> Float[Array, "18 unknowns"]:
    """e_a sin(2 pi s_b) and e_a cos(2 pi s_b): the softest modes of a solid are near to some of them."""
    waves = [_waves(shape, structure, frame) for shape in (jnp.sin, jnp.cos)]
    return jnp.pad(_of_real_atoms(jnp.concatenate(waves), structure), ((0, 0), (0, strains)))


def _waves(
    shape: Callable[[Array], Array], structure: Structure, frame: WaveBox
) -> Float[Array, "9 coordinates"]:
    along = shape(2 * jnp.pi * frame.fractional(structure))
    return jnp.einsum("nb,ac->bcna", along, jnp.eye(3)).reshape(9, -1)


def _of_real_atoms(rows: Float[Array, "rows coordinates"], structure: Structure) -> Array:
    if structure.real is None:
        return rows
    return jnp.where(jnp.repeat(structure.real, 3), rows, 0.0)


@compiled_soon
def build_preconditioner(
    structure: Structure, frame: WaveBox, grid: tuple[int, int, int], tests, products
) -> ElasticPreconditioner:
    """The preconditioner that fits the products of the Hessian with `test_vectors`."""
    n = structure.n_atoms
    first, their = tests[:N_TESTS], products[:N_TESTS]
    quadratic = jnp.sum(first * their, axis=1) / jnp.maximum(jnp.sum(first**2, axis=1), 1e-300)
    d = jnp.abs(quadratic[0])
    reciprocal = 2 * jnp.pi * jnp.linalg.inv(frame.cell).T
    k2 = jnp.repeat(jnp.sum(reciprocal**2, axis=1), 3)
    # geometric mean over waves, and no softer than a hundredth of what the bond stiffness suggests
    floor = 1e-2 * d / jnp.max(k2)
    c = jnp.exp(jnp.mean(jnp.log(jnp.maximum(jnp.abs(quadratic[1:] / k2), floor))))

    block = products[N_TESTS:, 3 * n :]
    values, V = jnp.linalg.eigh((block + block.T) / 2)
    strain = (V / jnp.maximum(jnp.abs(values), 1e-3 * d)) @ V.T

    corners, weights = _spread(frame.fractional(structure), grid)
    return ElasticPreconditioner(
        corners, weights, _green(grid, reciprocal, c, structure.count), jnp.maximum(d, 1e-300), strain, grid
    )


def _spread(fractional, grid):
    # Linear weights on the eight corners around each atom.
    shape = jnp.array(grid)
    scaled = (fractional - jnp.floor(fractional)) * shape
    base = jnp.floor(scaled).astype(jnp.int32)
    part = scaled - base
    offsets = jnp.array(np.indices((2, 2, 2)).reshape(3, 8).T)
    index = (base[:, None, :] + offsets) % shape
    weights = jnp.prod(jnp.where(offsets == 1, part[:, None, :], 1 - part[:, None, :]), axis=-1)
    return (index[..., 0] * grid[1] + index[..., 1]) * grid[2] + index[..., 2], weights


def _green(grid, reciprocal, c, n):
    # A plane wave of force spread on the grid has the density n / points; undo it. k = 0 is the gauge.
    freq = [jnp.fft.fftfreq(m) * m for m in grid[:2]] + [jnp.fft.rfftfreq(grid[2]) * grid[2]]
    m = jnp.stack(jnp.meshgrid(*freq, indexing="ij"), axis=-1)
    k2 = jnp.sum((m @ reciprocal) ** 2, axis=-1)
    return jnp.where(k2 > 0, np.prod(grid) / n / (c * jnp.where(k2 > 0, k2, 1.0)), 0.0)
