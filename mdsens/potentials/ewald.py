"""The electrostatic energy of an infinite crystal of point charges: Ewald's sum.

The sum of q_i q_j / r over a lattice converges slowly, and only for neutral cells. A Gaussian of charge about
each point, of width 1 / alpha, is taken out and put back again:

    E / k = sum_{pairs} q_i q_j erfc(alpha r) / r                               seen from near by
          + (4 pi / V) sum_{waves, one of k and -k} exp(-k² / 4 alpha²) |S(k)|² / k²
          - alpha / sqrt(pi) sum_i q_i²                                         each Gaussian with itself
          - pi Q² / (2 V alpha²),       S(k) = sum_j q_j exp(i k . x_j),        Q = sum_i q_i.

The last term belongs to a uniform background that makes the cell neutral. The constant wave k = 0 is left out
("tin foil": the crystal is surrounded by a conductor).

Accuracy. Both sums end where their terms have fallen to exp(-s²): the first at r = r_c with
alpha = s / r_c, the second at |k| = 2 alpha s. So r_c and the accuracy fix alpha, whatever the structure, and
the energy changes by the accuracy alone if r_c is another one.

A cell that moves. The waves are kept as whole numbers n, k = 2 pi n h^-T, in the list of neighbors: the
energy is a smooth function of cell and positions, and the stress its exact derivative. The set holds more
waves than are needed here, as the list holds pairs in its skin, so that none is missed as long as the list
serves (`mdsens.neighbors.waves.outlast`). A new list brings a new set.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.batching import in_blocks
from mdsens.checks import number
from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.neighbors.lists import ALL_PAIRS_LIMIT
from mdsens.potentials.charges import ChargedPotential, ScreenedPairs, net_charge
from mdsens.potentials.cutoffs import Truncated
from mdsens.strain import volume_of
from mdsens.structure import Structure
from mdsens.units import COULOMB

FINEST, COARSEST = 1e-15, 1e-3  # accuracies that can be asked for
NUMBERS_IN_A_BLOCK = 2**14  # waves times atoms that are worked off together: their arrays stay in the cache


class Ewald(ChargedPotential):
    """The energy of point charges in a crystal, and of all pairs of a free cluster.

    Periodic along all three cell vectors, or along none: then it is the plain sum over all pairs. The
    boundary at infinity conducts (tin foil).

    A cell with a net charge has no energy. It is refused, unless `background` says that a uniform charge
    shall make it neutral; that one fills the cell whatever atoms are in it, and energies of cells with
    different charges cannot be compared without further corrections. What rounded charges leave (a thousandth
    of all, less than a tenth of the smallest) is taken up by such a background without being asked for.

    Derivatives by one charge alone leave neutral ground: they are those with the background, whose own energy
    is of second order there. Those that keep the cell neutral, such as the sum over all species of q d/dq, do
    not depend on it.

    Attributes:
        charge: e, one per species; None takes those of `Structure.charges`.
        accuracy: what is left out, relative to the energy of an ion with its nearest neighbor, about. Exact
            derivatives do not depend on it.
        cutoff_radius: of the first sum, Å. A choice between the work of the two sums.
        background: cells with a net charge are made neutral by a uniform charge.
    Not supported: slabs and wires.
    Source: Ewald, Ann. Phys. 369, 253 (1921), doi:10.1002/andp.19213690304; Frenkel, Smit, Understanding
        Molecular Simulation, 12.1.
    """

    ghosts = True

    accuracy: float = eqx.field(static=True, default=1e-12)
    cutoff_radius: float = eqx.field(static=True, default=10.0)
    background: bool = eqx.field(static=True, default=False)
    source: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        self.check_shapes()
        number("cutoff_radius", self.cutoff_radius, "Å", above=0)
        check_accuracy(self.accuracy)

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    @property
    def alpha(self) -> float:
        """Inverse width of the Gaussians, 1/Å."""
        return self._extent / self.cutoff_radius

    @property
    def _extent(self) -> float:
        return extent(self.accuracy)

    @property
    def shortest_wave(self) -> float:
        """Waves longer than this are summed, Å."""
        return shortest_wave(self.accuracy, self.cutoff_radius)

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        q = self.charges(structure)
        if not any(structure.pbc):
            return jnp.sum(_of_all_pairs(structure.positions, q))
        near = self._near(q).energy(structure, neighbors)
        waves = self._of_waves(structure, neighbors, q)
        return near + waves + jnp.sum(self._own(structure, q))

    def site_energies(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms"]:
        """Energy of each atom, eV: half its charge times the potential of all others."""
        q = self.charges(structure)
        if not any(structure.pbc):
            return _of_all_pairs(structure.positions, q)
        # quadratic in the charges: q_i dE/dq_i / 2 are the shares
        waves = jax.grad(lambda q: self._of_waves(structure, neighbors, q))(q)
        near = self._near(q).site_energies(structure, neighbors)
        return near + q * waves / 2 + self._own(structure, q)

    def _near(self, q: Float[Array, "atoms"]) -> ScreenedPairs:
        alpha = jnp.asarray(self.alpha)
        return ScreenedPairs(charge_of_atom=q, alpha=alpha, cutoff_radius=self.cutoff_radius, cut=Truncated())

    def _of_waves(
        self, structure: Structure, neighbors: Neighbors, q: Float[Array, "atoms"]
    ) -> Float[Array, ""]:
        check_periodic(structure, "Ewald")
        x, cell = structure.positions, structure.cell
        return COULOMB * wave_sum(x, cell, q, None, waves_of(neighbors), self.alpha)

    def _own(self, structure: Structure, q: Float[Array, "atoms"]) -> Float[Array, "atoms"]:
        volume = volume_of(structure.cell)
        background = jnp.pi * jnp.sum(q) / (2 * volume * self.alpha**2)
        gaussian = q * self.alpha / jnp.sqrt(jnp.pi)
        return -COULOMB * q * (gaussian + background)

    def check_structure(self, structure: Structure) -> None:
        """Raise where this sum has no meaning.

        Raises:
            InputError: a slab or wire, charges that the structure does not have, a net charge without
                `background`, a cluster too large for all its pairs.
        """
        super().check_structure(structure)
        check_periodic(structure, "Ewald")
        if not any(structure.pbc):
            check_all_pairs(structure.n_atoms)
        elif not self.background and not _unknown(self, structure):
            check_neutral(self.charges(structure), "Ewald")


def extent(accuracy: float) -> float:
    """s, where both sums end."""
    # exp(-s²) is a tenth of the accuracy: the same terms count s² times as much in the stress
    return float(np.sqrt(-np.log(accuracy / 10)))


def shortest_wave(accuracy: float, cutoff_radius: float) -> float:
    """Waves longer than this are summed, Å."""
    s = extent(accuracy)
    return float(np.pi * cutoff_radius / s**2)


def check_accuracy(accuracy: float) -> None:
    """Raise unless this accuracy can be had.

    Raises:
        InputError: says which can be.
    """
    value = number("accuracy", accuracy)
    if not FINEST <= value <= COARSEST:
        raise InputError(
            f"accuracy = {value:g}: choose one from {FINEST:g}, which is that of the numbers themselves, "
            f"to {COARSEST:g}. The default, 1e-12, costs a third more than 1e-8."
        )


def check_neutral(charges: Float[Array, "atoms"], who: str) -> None:
    """Raise if a crystal of these charges is not neutral.

    Raises:
        InputError: says by how much.
    """
    net = net_charge(charges)
    if net == 0:
        return
    raise InputError(
        f"the cell has a net charge of {net:+.6g} e, and the energy of a charged crystal is "
        "infinite. Correct the charges or the number of ions (their sum must vanish), or give "
        f"{who}(..., background=True): a uniform charge then makes the cell neutral, and energies of "
        "cells of different charge cannot be compared as they stand."
    )


def _unknown(potential: ChargedPotential, structure: Structure) -> bool:
    # species without a charge: `check_elements` names them, and their charges would be those of the first
    return bool(potential.elements) and not set(structure.symbols) <= set(potential.elements)


def waves_of(neighbors: Neighbors) -> Int[Array, "waves 3"]:
    """The waves of a list.

    Raises:
        InputError: it has none.
    """
    if neighbors.waves is None:
        raise InputError(
            "this list of neighbors has no waves, which Ewald sums over: make it with "
            "ms.neighbors_of(potential, structure, skin), and not with find_neighbors."
        )
    return neighbors.waves


def check_periodic(structure: Structure, who: str) -> None:
    """Raise for slabs and wires.

    Raises:
        InputError: says what to do with them.
    """
    if len(set(structure.pbc)) > 1:
        raise InputError(
            f"{who} sums over crystals and free clusters, and this structure is a slab or wire (pbc = "
            f"{structure.pbc}). Make it periodic along all three vectors, with some layers of vacuum between "
            "the copies (two to three times its width; a slab without dipole needs no more), or use "
            "DampedShiftedForce, whose interactions end at a cutoff."
        )


def check_all_pairs(n: int) -> None:
    """Raise where a cluster has too many pairs.

    Raises:
        InputError: says what to do with it.
    """
    if n > ALL_PAIRS_LIMIT:
        raise InputError(
            f"all pairs of {n} ions do not fit (limit {ALL_PAIRS_LIMIT}): put the cluster into a large "
            "periodic cell, or use DampedShiftedForce, whose interactions end at a cutoff."
        )


def _of_all_pairs(positions: Float[Array, "atoms 3"], q: Float[Array, "atoms"]) -> Float[Array, "atoms"]:
    """Half the energy of each atom with all others, eV."""
    d = positions[:, None] - positions
    other = ~jnp.eye(len(q), dtype=bool)
    squares = jnp.sum(d * d, axis=-1)
    r = jnp.sqrt(jnp.where(other, squares, 1.0))
    potential = jnp.sum(jnp.where(other, q / r, 0.0), axis=1)
    return COULOMB / 2 * q * potential


# --- the sum over waves
# -----------------------------------------------------------------------------------------
#
# As in `mdsens.potentials.shells`: waves are worked off in blocks, gradients are formed within a block, and
# the rule for this stands once. The gradient is an ordinary function, with derivatives of any order itself.

Moving = tuple[Any, Any, Any, Any]  # positions, cell, charges, dipoles; None for those that are held


@eqx.filter_custom_jvp
def wave_sum(
    positions: Array, cell: Array, q: Array, mu: Array | None, waves: Array, alpha: float
) -> Float[Array, ""]:
    """The sum over waves of an energy, 1/Å times e².

    Args:
        mu: (atoms, 3) dipoles beside the charges, e Å; None for none.
    """
    add = lambda total, n: (total + _block(positions, cell, q, mu, n, alpha), None)
    total, _ = jax.lax.scan(add, jnp.zeros(()), _in_blocks(waves, len(q)))
    return total


@wave_sum.def_jvp
def _wave_sum_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    *inputs, waves, alpha = primals
    directions = tuple(tangents[:4])
    moves = tuple(t is not None for t in directions)
    moving, still = eqx.partition(tuple(inputs), moves)
    value, gradient = _value_and_gradient(moving, still, waves, alpha)
    pairs = zip(gradient, directions, strict=True)
    changes = [jnp.vdot(g, t) for g, t in pairs if t is not None]
    return value, sum(changes, jnp.zeros_like(value))


def _value_and_gradient(moving: Moving, still: Moving, waves: Array, alpha: float) -> tuple[Array, Moving]:
    @jax.checkpoint
    def block(moving: Moving, n: Array) -> Array:
        return _block(*eqx.combine(moving, still), n, alpha)

    def add(totals: Any, n: Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, totals, jax.value_and_grad(block)(moving, n)), None

    nothing = jax.tree.map(jnp.zeros_like, moving)
    n_atoms = len(eqx.combine(moving, still)[2])
    start = (jnp.zeros(()), nothing)
    total, _ = jax.lax.scan(add, start, _in_blocks(waves, n_atoms))
    return total


def _in_blocks(waves: Int[Array, "waves 3"], n_atoms: int) -> Int[Array, "blocks block 3"]:
    numbers = NUMBERS_IN_A_BLOCK if jax.default_backend() == "cpu" else 2**24
    return in_blocks(waves, max(numbers // n_atoms, 1))


def _block(
    positions: Float[Array, "atoms 3"],
    cell: Float[Array, "3 3"],
    q: Float[Array, "atoms"],
    mu: Float[Array, "atoms 3"] | None,
    n: Int[Array, "block 3"],
    alpha: float,
) -> Float[Array, ""]:
    """4 pi / V sum over some waves of exp(-k²/4 alpha²) |S|² / k², 1/Å."""
    # a dipole is the charge mu . grad: S = sum_j (q_j + i k . mu_j) exp(i k . x_j)
    inverse = jnp.linalg.inv(cell)
    k = 2 * jnp.pi * n @ inverse.T
    squares = jnp.sum(k * k, axis=1)
    real = jnp.any(n != 0, axis=1)  # padding is not
    squares = jnp.where(real, squares, 1.0)
    decay = jnp.exp(-squares / (4 * alpha**2))
    weights = jnp.where(real, decay / squares, 0.0)
    cosines, sines = _circle(n @ (positions @ inverse).T)
    real_part, imaginary = cosines @ q, sines @ q
    if mu is not None:
        along = k @ mu.T
        real_part -= jnp.sum(sines * along, axis=1)
        imaginary += jnp.sum(cosines * along, axis=1)
    factors = real_part**2 + imaginary**2
    return 4 * jnp.pi / volume_of(cell) * jnp.dot(weights, factors)


# sin(2 pi t) and cos(2 pi t) for |t| <= 1/8: their series to rounding, in powers of t²
_OF_POWER = [(2 * math.pi) ** n / math.factorial(n) for n in range(18)]
_SINE = [(-1) ** k * _OF_POWER[2 * k + 1] for k in range(9)]
_COSINE = [(-1) ** k * _OF_POWER[2 * k] for k in range(9)]


@jax.custom_jvp
def _circle(turns: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """cos(2 pi t) and sin(2 pi t), four times as fast as by the library, which works number by number."""
    quarters = jnp.round(4 * turns)
    rest = turns - quarters / 4
    square = rest * rest
    s, c = rest * _series(_SINE, square), _series(_COSINE, square)
    quadrant = quarters - 4 * jnp.floor(quarters / 4)
    crossed = (quadrant == 1) | (quadrant == 3)
    cosine = jnp.where(crossed, s, c)
    sine = jnp.where(crossed, c, s)
    left, below = (quadrant == 1) | (quadrant == 2), quadrant >= 2
    return jnp.where(left, -cosine, cosine), jnp.where(below, -sine, sine)


@_circle.defjvp
def _circle_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
    cosines, sines = _circle(*primals)
    change = 2 * jnp.pi * tangents[0]
    return (cosines, sines), (-sines * change, cosines * change)


def _series(coefficients: list[float], x: Float[Array, "..."]) -> Float[Array, "..."]:
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total
