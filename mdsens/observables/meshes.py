"""Sums over all waves of a crystal, on a mesh that repeats with a supercell.

The waves q = (i/n_a, j/n_b, k/n_c) are those that repeat with n_a x n_b x n_c cells: a sum over them is a sum
over all vibrations of that supercell, exactly. q and -q have equal frequencies, and one of them stands for
both.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from mdsens.checks import short, whole
from mdsens.errors import InputError
from mdsens.observables.force_constants import Phi, Repetition
from mdsens.observables.observable import State
from mdsens.observables.primitive import PrimitiveCell
from mdsens.observables.supercells import Supercell
from mdsens.potentials.base import Potential
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.structure import Structure

AT_REST = 1e-6  # of the largest omega^2


def mesh_of(counts: Any) -> tuple[int, int, int]:
    """Waves along each reciprocal vector; one number stands for all three.

    Raises:
        InputError: no whole numbers of 1 or more.
    """
    given = [counts] * 3 if isinstance(counts, int) else counts
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != 3:
        raise InputError(f"mesh = {short(counts)}: give three whole numbers, such as [4, 4, 4].")
    a, b, c = (whole("mesh", n, at_least=1) for n in given)
    return a, b, c


@dataclasses.dataclass(frozen=True)
class WaveMesh:
    """All waves of a mesh, one of q and -q.

    Attributes:
        repetition: the supercell of the mesh.
        waves: fractions of the reciprocal cell of the given cell.
        weights: share of each among all waves; together 1.
    """

    repetition: Repetition
    waves: tuple[tuple[float, float, float], ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, state: Equilibrium, counts: tuple[int, int, int], what: str) -> Self:
        """For a relaxed state that is periodic in three directions.

        Raises:
            InputError: as `Repetition.of`; or an unstable crystal.
        """
        primitive = PrimitiveCell.same(state.n_atoms)
        repetition = Repetition.of(state, primitive, Supercell.diagonal(counts), what)
        mesh = cls(repetition, *_waves(counts))
        _require_stable(mesh, state, what)
        return mesh

    def matrices(self, potential: Potential, state: State) -> Complex[Array, "waves modes modes"]:
        """D of every wave, eV/Å²/u."""
        phi = self.repetition.force_constants(potential, state)
        return self.matrices_of(phi, state.structure)

    def matrices_of(self, phi: Phi, structure: Structure) -> Complex[Array, "waves modes modes"]:
        """The same out of force constants; of the structure the masses count."""
        repetition = self.repetition
        points = repetition.primitive.points(repetition.supercell.points)
        turns = np.einsum("qx,Rjx->qRj", np.array(self.waves), points)
        phases = jnp.asarray(np.exp(2j * np.pi * turns))
        one = lambda phase: repetition.weighed(phi * phase[..., None], structure)
        return jax.vmap(one)(phases)

    @property
    def vibrates(self) -> Bool[np.ndarray, "waves modes"]:
        """False for the three shifts of the crystal at q = 0."""
        n = 3 * self.repetition.primitive.n_atoms
        counted = np.ones((len(self.waves), n), bool)
        counted[0, :3] = False
        return counted


def _waves(counts: tuple[int, int, int]) -> tuple[tuple[tuple[float, float, float], ...], tuple[float, ...]]:
    points = itertools.product(*map(range, counts))
    weights: dict[tuple[int, int, int], int] = {}
    for x, y, z in points:
        a, b, c = counts
        back = (-x % a, -y % b, -z % c)
        one = min((x, y, z), back)
        weights[one] = weights.get(one, 0) + 1
    total = sum(weights.values())
    waves = tuple((x / counts[0], y / counts[1], z / counts[2]) for x, y, z in weights)
    return waves, tuple(n / total for n in weights.values())


def _require_stable(mesh: WaveMesh, state: Equilibrium, what: str) -> None:
    seen = State(state.structure, state.neighbors)
    squares = np.linalg.eigvalsh(_matrices(mesh, state.potential, seen))
    size = np.abs(squares).max()
    lowest = np.where(mesh.vibrates, squares, np.inf).min(axis=1)
    worst = int(np.argmin(lowest))
    if lowest[worst] < AT_REST * size:
        raise InputError(
            f"{what}: at q = {list(mesh.waves[worst])} a mode has omega² = {lowest[worst]:.2e} eV/Å²/u. The "
            "harmonic crystal is not stable there and has no free energy: relax it to another phase, or "
            "take a mesh without this wave."
        )


@eqx.filter_jit
def _matrices(mesh: WaveMesh, potential: Potential, state: State) -> Complex[Array, "waves modes modes"]:
    return mesh.matrices(potential, state)


def weights_of(mesh: WaveMesh) -> Float[Array, "waves"]:
    """Weights as an array."""
    return jnp.array(mesh.weights)
