"""A program outside JAX with every derivative that one can bring, in numpy."""

import itertools
from typing import Any, NamedTuple

import numpy as np

import mdsens as ms


class Pairs(NamedTuple):
    """All pairs that count, images included, each from both ends.

    Attributes:
        i, j: atoms. n: (pairs, 3) cell vectors between j and its image. d: (pairs, 3) to it, Å.
        bump: exp(-d²/L²).
    """

    i: np.ndarray
    j: np.ndarray
    n: np.ndarray
    d: np.ndarray
    bump: np.ndarray


class GaussianRepulsion:
    """E = 1/2 sum over pairs of A exp(-d²/L²).

    Two cells to each side of the nearest image count: beyond is less than rounding.
    """

    def energy_and_gradient(self, situation: Any) -> tuple[Any, Any, Any]:
        A, L = self._parameters(situation)
        pairs = self._pairs(situation, L)
        energy = 0.5 * A * np.sum(pairs.bump)
        slopes = -2 * A / L**2 * pairs.bump[:, None] * pairs.d
        return energy, *self._gathered(situation, pairs, slopes)

    def hessian_product(self, situation: Any, dx: Any, dcell: Any) -> tuple[Any, Any]:
        # g = -2 A/L² d exp(-d²/L²), so dg = -2 A/L² exp(-d²/L²) [dd - 2 d (d . dd) / L²]
        A, L = self._parameters(situation)
        pairs = self._pairs(situation, L)
        dd = self._moved(pairs, dx, dcell)
        along = np.sum(pairs.d * dd, axis=1)
        turned = dd - 2 / L**2 * along[:, None] * pairs.d
        change = -2 * A / L**2 * pairs.bump[:, None] * turned
        return self._gathered(situation, pairs, change)

    def parameter_gradient(self, situation: Any) -> dict[str, float]:
        A, L = self._parameters(situation)
        pairs = self._pairs(situation, L)
        squares = np.sum(pairs.d**2, axis=1)
        by_L = A * np.sum(pairs.bump * squares) / L**3
        return {"A": 0.5 * np.sum(pairs.bump), "L": by_L}

    def parameter_pullback(self, situation: Any, dx: Any, dcell: Any) -> dict[str, float]:
        # the change of the energy is sum -A/L² exp(-d²/L²) d . dd
        A, L = self._parameters(situation)
        pairs = self._pairs(situation, L)
        squares = np.sum(pairs.d**2, axis=1)
        along = np.sum(pairs.d * self._moved(pairs, dx, dcell), axis=1)
        work = -pairs.bump * along / L**2
        by_L = A * np.sum(work * (2 * squares / L**2 - 2)) / L
        return {"A": np.sum(work), "L": by_L}

    def _parameters(self, situation: Any) -> tuple[float, float]:
        return float(situation.parameters["A"]), float(situation.parameters["L"])

    def _pairs(self, situation: Any, L: float) -> Pairs:
        steps = [range(-2, 3) if periodic else range(1) for periodic in situation.pbc]
        n = np.array(list(itertools.product(*steps)), float)
        x = situation.positions
        apart = x[None, :] - x[:, None]
        n = n + self._nearest(situation, apart)[:, :, None]
        d = apart[:, :, None] + n @ situation.cell
        i, j, _ = np.indices(d.shape[:3]).reshape(3, -1)
        d, n = d.reshape(-1, 3), n.reshape(-1, 3)
        itself = (i == j) & ~n.any(axis=1)
        kept = ~itself
        d = d[kept]
        bump = np.exp(-np.sum(d**2, axis=1) / L**2)
        return Pairs(i[kept], j[kept], n[kept], d, bump)

    def _nearest(self, situation: Any, apart: np.ndarray) -> np.ndarray:
        """Cell vectors that bring each atom close to each other one, whichever image is given."""
        if not all(situation.pbc):
            return np.zeros_like(apart)
        return -np.round(apart @ np.linalg.inv(situation.cell))

    def _moved(self, pairs: Pairs, dx: np.ndarray, dcell: np.ndarray) -> np.ndarray:
        return dx[pairs.j] - dx[pairs.i] + pairs.n @ dcell

    def _gathered(self, situation: Any, pairs: Pairs, g: np.ndarray) -> tuple[Any, Any]:
        """Of half of each pair: sums over atoms and cell vectors."""
        of_atoms = np.zeros_like(situation.positions)
        np.add.at(of_atoms, pairs.j, 0.5 * g)
        np.add.at(of_atoms, pairs.i, -0.5 * g)
        return of_atoms, 0.5 * pairs.n.T @ g


def potential() -> ms.ProgramPotential:
    parameters = {"A": 0.5, "L": 1.1}
    return ms.from_program(GaussianRepulsion(), parameters=parameters, elements=("Ar", "Kr"))
