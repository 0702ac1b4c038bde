"""Small systems whose averages at a temperature are integrals in one or two dimensions.

An ensemble of all points of a fine grid, weighted with exp(-(U + pV) / kT), is a quadrature: its averages and
derivatives of any order are exact to rounding, without luck. Sums over evenly spaced points of functions that
vanish at both ends, or that are periodic, converge faster than any power of the spacing.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import mdsens as ms
from mdsens.potentials.base import parameter
from mdsens.units import BOLTZMANN

T = 300.0
kT = BOLTZMANN * T


class Quartic(ms.Potential):
    """U = a x² / 2 + b x⁴ / 4 of the first atom."""

    a: Array = parameter("eV/Å²")
    b: Array = parameter("eV/Å⁴")
    elements: tuple[str, ...] = eqx.field(static=True, default=("Ar",))
    source: str = eqx.field(static=True, default="")

    @property
    def cutoff(self):
        return jnp.asarray(jnp.inf)

    def energy(self, structure, neighbors):
        x = structure.positions[0, 0]
        return self.a * x**2 / 2 + self.b * x**4 / 4


class Ring(ms.Potential):
    """Atoms in a row along x, in a period: U = h sum over pairs of (sigma/L) cos(2 pi (x_i - x_j) / L)."""

    h: Array = parameter("eV")
    sigma: Array = parameter("Å")
    elements: tuple[str, ...] = eqx.field(static=True, default=("Ar",))
    source: str = eqx.field(static=True, default="")

    @property
    def cutoff(self):
        return jnp.asarray(4.0)

    def energy(self, structure, neighbors):
        x, L = structure.positions[:, 0], structure.cell[0, 0]
        i, j = np.triu_indices(len(x), 1)
        return self.h * self.sigma / L * jnp.sum(jnp.cos(2 * jnp.pi * (x[i] - x[j]) / L))


class Balloon(ms.Potential):
    """A cell on a spring, whatever is in it: U = K (V - V_0)² / 2 V_0."""

    K: Array = parameter("eV/Å³")
    V_0: Array = parameter("Å³")
    elements: tuple[str, ...] = eqx.field(static=True, default=("Ar",))
    source: str = eqx.field(static=True, default="")

    @property
    def cutoff(self):
        return jnp.asarray(4.0)

    def energy(self, structure, neighbors):
        V = ms.volume(structure)
        return self.K * (V - self.V_0) ** 2 / (2 * self.V_0)


def one_atom() -> ms.Structure:
    """It moves along x."""
    return ms.Structure.create([[0.0, 0.0, 0.0]], ["Ar"], fixed=[[False, True, True]])


def grid_ensemble(potential, structure, positions, *, temperature=T, pressure=None, cells=None, log_w=0.0):
    """All points of a grid, weighted as they come at the temperature.

    Args:
        log_w: logarithm of a further weight of each point.
    """
    options = dict(temperature=temperature, pressure=pressure, cells=cells)
    plain = ms.Ensemble.of_frames(potential, structure, positions, **options)
    weights = -plain.enthalpies / (BOLTZMANN * temperature) + log_w
    return eqx.tree_at(lambda e: e.log_weights, plain, weights - weights.max())


def quartic_ensemble(a=0.3, b=0.5, temperature=T, points=64) -> ms.Ensemble:
    """An oscillator between -2 and 2 Å, where its weight is 1e-43."""
    x = np.zeros((points, 1, 3))
    x[:, 0, 0] = np.linspace(-2.0, 2.0, points)
    return grid_ensemble(Quartic(a, b), one_atom(), x, temperature=temperature)


def ring_ensemble(h=0.02, sigma=9.0, edge=10.0, temperature=T, points=10) -> ms.Ensemble:
    """Three atoms, of which the first is held, over all places of the others."""
    fixed = np.ones((3, 3), bool)
    fixed[1:, 0] = False
    structure = ms.Structure.create(np.zeros((3, 3)), ["Ar"] * 3, [edge] * 3, fixed=fixed)
    s = np.arange(points) / points
    x = np.zeros((points, points, 3, 3))
    x[..., 1, 0], x[..., 2, 0] = edge * s[:, None], edge * s[None, :]
    return grid_ensemble(Ring(h, sigma), structure, x.reshape(-1, 3, 3), temperature=temperature)


def balloon_ensemble(K=0.5, V_0=100.0, temperature=T, pressure=0.01, points=72) -> ms.Ensemble:
    """A cell with one atom that is held, over its volumes."""
    structure = ms.Structure.create(np.zeros((1, 3)), ["Ar"], [V_0 ** (1 / 3)] * 3, fixed=[True])
    width = np.sqrt(BOLTZMANN * temperature * V_0 / K)
    volumes = V_0 * (1 - pressure / K) + np.linspace(-9, 9, points) * width
    cells = np.cbrt(volumes)[:, None, None] * np.eye(3)
    x = np.zeros((points, 1, 3))
    return grid_ensemble(
        Balloon(K, V_0), structure, x, temperature=temperature, pressure=pressure, cells=cells
    )


def sum_of_weights(U, T):
    """log sum exp(-U / kT)."""
    return jax.scipy.special.logsumexp(-U / (BOLTZMANN * T))


def log_Z_of_quartic(a, b, T):
    """Up to a constant."""
    x = jnp.linspace(-2.0, 2.0, 200)
    return sum_of_weights(a * x**2 / 2 + b * x**4 / 4, T)


def log_Z_of_ring(h, sigma, T, V):
    """Up to a constant; V is the volume of the cell, Å³."""
    L, s = jnp.cbrt(V), np.arange(40) / 40
    one, other = s[:, None], s[None, :]
    waves = sum(jnp.cos(2 * jnp.pi * d) for d in (one, other, one - other))
    return sum_of_weights(h * sigma / L * waves, T) + 2 * jnp.log(L)
