"""Ewald's sum over waves on a mesh, for large cells: smooth particle mesh Ewald, of any order of splines.

Ewald's sum over waves (`mdsens.potentials.ewald`) costs atoms times waves. Here the charges are spread over a
mesh of K points along each cell vector, by splines, and one Fourier transform gives all S(k) at once. With
u = K x, in steps of the mesh, and M the cardinal spline of order p, which covers p steps,

    exp(2 pi i m u / K) ~ b(m) sum_g M(u - g) exp(2 pi i m g / K),
    b(m) = exp(2 pi i (p - 1) m / K) / sum_{j=0}^{p-2} M(j + 1) exp(2 pi i m j / K),

exactly at the points of the mesh. So, with Q(g) = sum_i q_i M(u_i - g) and its transform Q(m),

    E / k = (2 pi / V) sum_{m != 0} exp(-k² / 4 alpha²) / k² |b(m)|² |Q(m)|².

Accuracy. Between the points the wave m comes with its aliases m + K, m - K, ..., the nearest of which has the
size (s / (1 - s))^p, s = |m| / K <= 1/2. The mesh is as fine as it takes for that, times what the wave weighs
in the sum, exp(-k² / 4 alpha²), to stay below the accuracy for every wave.

Smoothness. The spline of order p has p - 2 continuous derivatives. Sensitivities of elastic constants and of
phonons consist of third derivatives, and finite differences check them by the fourth: p >= 6. A high order
makes up for a coarse mesh; p³ points belong to each atom.

The mesh belongs to the potential and not to the cell: the energy is then a smooth function of the cell, too.

Source: Essmann, Perera, Berkowitz, Darden, Lee, Pedersen, J. Chem. Phys. 103, 8577 (1995),
doi:10.1063/1.470117.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.batching import in_blocks
from mdsens.checks import whole
from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.ewald import Ewald, check_periodic
from mdsens.strain import volume_of
from mdsens.structure import Structure
from mdsens.units import COULOMB

LOWEST, HIGHEST = 6, 16  # orders of splines
ROOM = 0.05  # strain that a mesh made for a cell still serves
POINTS_AT_ONCE = 2**22  # of the mesh, that atoms put their charges on together
MOST_POINTS = 2**28

Mesh = tuple[int, int, int]


class ParticleMeshEwald(Ewald):
    """Ewald's sum with its waves on a mesh: cost grows as the number of atoms times its logarithm.

    `ParticleMeshEwald.for_structure(structure, ...)` chooses the mesh. Forces do not add up to zero exactly,
    but to the accuracy.

    Attributes:
        charge, elements, accuracy, cutoff_radius, background: as of `Ewald`.
        mesh: points along each cell vector.
        order: of the splines, an even number.
    Not supported: slabs and wires; phonons and whatever else looks at a supercell, which this mesh does not
        fit: take `Ewald`.
    """

    knows_cell: ClassVar[bool] = True

    mesh: Mesh = eqx.field(static=True, kw_only=True)
    order: int = eqx.field(static=True, default=10, kw_only=True)

    def __check_init__(self) -> None:
        super().__check_init__()
        _check_order(self.order)
        if len(self.mesh) != 3:
            raise InputError(f"mesh = {self.mesh}: give the points along the three cell vectors.")
        for points in self.mesh:
            whole("mesh", points, at_least=self.order)

    @classmethod
    def for_structure(
        cls,
        structure: Structure,
        charge: Any = None,
        elements: Sequence[str] = (),
        *,
        accuracy: float = 1e-10,
        cutoff_radius: float = 10.0,
        order: int = 10,
        background: bool = False,
    ) -> Self:
        """With a mesh for the cell of a structure, and for cells that are up to 5 % longer.

        Raises:
            InputError: no periodic cell, a mesh of more than 2**28 points, or settings out of range.
        """
        check_periodic(structure, cls.__name__)
        if not any(structure.pbc):
            raise InputError(f"{cls.__name__} needs a periodic cell: of free clusters take Ewald.")
        settings: dict[str, Any] = dict(
            accuracy=accuracy, cutoff_radius=cutoff_radius, background=background, order=order
        )
        smallest = cls(charge=charge, elements=tuple(elements), mesh=(HIGHEST, HIGHEST, HIGHEST), **settings)
        mesh = smallest._mesh_for((1 + ROOM) * _lengths(structure))
        if np.prod(mesh, dtype=float) > MOST_POINTS:
            raise InputError(
                f"a mesh of {mesh[0]} x {mesh[1]} x {mesh[2]} points is too large. Take a larger "
                f"cutoff_radius ({cutoff_radius:g} Å), a lower accuracy ({accuracy:g}) or a higher order "
                f"({order})."
            )
        return dataclasses.replace(smallest, mesh=mesh)

    @property
    def shortest_wave(self) -> float:
        """None: waves are those of the mesh."""
        return np.inf

    @property
    def spacing(self) -> float:
        """Largest distance between points of the mesh for this accuracy, Å."""
        return widest_spacing(self.accuracy, self.alpha, self.order)

    def _mesh_for(self, lengths: np.ndarray) -> Mesh:
        a, b, c = (fast_size(max(length / self.spacing, self.order)) for length in lengths)
        return a, b, c

    def _of_waves(
        self, structure: Structure, neighbors: Neighbors, q: Float[Array, "atoms"]
    ) -> Float[Array, ""]:
        check_periodic(structure, type(self).__name__)
        inside = structure.positions @ jnp.linalg.inv(structure.cell)
        density = spread(inside, q, self.mesh, self.order)
        return COULOMB * energy_of_density(density, structure.cell, self.mesh, self.order, self.alpha)

    def check_structure(self, structure: Structure) -> None:
        """As of `Ewald`; and the mesh must be fine enough for the cell.

        Raises:
            InputError: says which mesh would be.
        """
        super().check_structure(structure)
        if not any(structure.pbc):
            return
        lengths = _lengths(structure)
        if np.any(lengths / self.mesh > (1 + 1e-9) * self.spacing):
            raise InputError(
                f"a mesh of {self.mesh} points is too coarse for cell vectors of {np.round(lengths, 2)} Å: "
                f"points may be {self.spacing:.3g} Å apart for accuracy = {self.accuracy:g} and order = "
                f"{self.order}. It takes {self._mesh_for(lengths)}; "
                "ParticleMeshEwald.for_structure(structure, ...) chooses."
            )


def _lengths(structure: Structure) -> np.ndarray:
    return np.linalg.norm(np.asarray(structure.cell), axis=1)


def _check_order(order: int) -> None:
    if whole("order", order, at_least=LOWEST) % 2 or order > HIGHEST:
        raise InputError(f"order = {order}: take an even one from {LOWEST} to {HIGHEST}.")


def widest_spacing(accuracy: float, alpha: float, order: int) -> float:
    """Largest distance between points of a mesh for which no wave is off by more than the accuracy, Å."""
    # s = |m| / K and k = 2 pi s / h. With the tenth of `Ewald`, solved for h at every s:
    #     2 (s / (1 - s))^p exp(-(pi s / h alpha)²) <= accuracy / 10.
    s = np.linspace(0.01, 0.5, 200)
    alias = 2 * (s / (1 - s)) ** order
    excess = np.log(10 * alias / accuracy)
    matters = excess > 0
    return float(np.min(np.pi * s[matters] / (alpha * np.sqrt(excess[matters]))))


def fast_size(least: float) -> int:
    """The next whole number, even and without prime factors above 5: transforms of such lengths are fast."""
    from scipy.fft import next_fast_len

    half: Any = next_fast_len(int(np.ceil(least / 2)), real=True)
    return 2 * half


def splines(u: Any, order: int) -> list[Any]:
    """M(u), M(u + 1), ..., M(u + p - 1), for 0 <= u < 1: arrays of the shape of u."""
    # M_2 is the triangle on [0, 2];  (n - 1) M_n(u) = u M_{n-1}(u) + (n - u) M_{n-1}(u - 1)
    values = [u, 1 - u]
    nothing = 0 * u
    for n in range(3, order + 1):
        here, left = [*values, nothing], [nothing, *values]
        values = [((u + j) * here[j] + (n - u - j) * left[j]) / (n - 1) for j in range(n)]
    return values


def spline_factors(points: int, order: int) -> np.ndarray:
    """|b(m)|² of each wave along a cell vector, in the order of Fourier transforms."""
    at_points = np.array(splines(0.0, order)[1:])
    turns = np.outer(np.arange(points), np.arange(order - 1)) / points
    return 1 / np.abs(np.exp(2j * np.pi * turns) @ at_points) ** 2


def spread(
    inside: Float[Array, "atoms 3"], q: Float[Array, "atoms"], mesh: Mesh, order: int
) -> Float[Array, "points"]:
    """The charges on the mesh, by splines.

    Args:
        inside: positions in units of the cell vectors.
    """
    total = mesh[0] * mesh[1] * mesh[2]

    # forgotten after use: derivatives would keep all weights of all atoms
    @jax.checkpoint
    def add(density: Float[Array, "points"], block: Any) -> tuple[Float[Array, "points"], None]:
        rows, charges = block
        places, shares = _shares(rows, charges, mesh, order)
        return density.at[places.ravel()].add(shares.ravel()), None

    most = max(POINTS_AT_ONCE // order**3, 1)
    blocks = in_blocks(inside, most), in_blocks(q, most)
    return jax.lax.scan(add, jnp.zeros(total), blocks)[0]


def _shares(
    inside: Float[Array, "block 3"], q: Float[Array, "block"], mesh: Mesh, order: int
) -> tuple[Int[Array, "block p p p"], Float[Array, "block p p p"]]:
    """Points that each atom of a block is spread over, and what each gets."""
    u = inside * jnp.array(mesh)
    below = jax.lax.stop_gradient(jnp.floor(u))
    weights = jnp.stack(splines(u - below, order), axis=-1)
    # M(u - g) with g = floor(u) - j
    points = below.astype(int)[..., None] - jnp.arange(order)
    x, y, z = (points[:, axis] % mesh[axis] for axis in range(3))
    columns = x[:, :, None] * mesh[1] + y[:, None, :]
    places = columns[..., None] * mesh[2] + z[:, None, None, :]
    plane = (q[:, None] * weights[:, 0])[:, :, None] * weights[:, 1][:, None, :]
    return places, plane[..., None] * weights[:, 2][:, None, None, :]


def energy_of_density(
    density: Float[Array, "points"], cell: Float[Array, "3 3"], mesh: Mesh, order: int, alpha: float
) -> Float[Array, ""]:
    """The sum over waves, 1/Å times e²."""
    amplitudes = jnp.fft.rfftn(density.reshape(mesh))
    squares = amplitudes.real**2 + amplitudes.imag**2
    # real densities have S(-k) = S(k)*: half of the waves along the last vector are not there
    m = [points * np.fft.fftfreq(points) for points in mesh]
    m[2] = np.abs(m[2][: mesh[2] // 2 + 1])
    both = np.where((m[2] == 0) | (m[2] == mesh[2] // 2), 1.0, 2.0)
    inverse = jnp.linalg.inv(cell)
    along = [2 * jnp.pi * m[axis][:, None] * inverse[:, axis] for axis in range(3)]
    k = along[0][:, None, None] + along[1][:, None] + along[2]
    k_squared = jnp.sum(k * k, axis=-1)
    other = np.ones(k_squared.shape, bool)
    other[0, 0, 0] = False
    k_squared = jnp.where(other, k_squared, 1.0)
    weights = jnp.where(other, jnp.exp(-k_squared / (4 * alpha**2)) / k_squared, 0.0)
    b = [spline_factors(points, order) for points in mesh]
    b[2] = b[2][: mesh[2] // 2 + 1] * both
    factors = b[0][:, None, None] * b[1][:, None] * b[2]
    return 2 * jnp.pi / volume_of(cell) * jnp.sum(weights * factors * squares)
