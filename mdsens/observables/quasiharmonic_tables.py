"""Thermal expansion from tables: free energies of vibrations at some volumes, from any program.

At each temperature a curve is fitted to E(V) + F_vib(V, T) + p V, and what lies at its minimum is the volume,
the Gibbs energy and the bulk modulus at that temperature. The coefficient of expansion is the difference of
volumes at the temperatures on either side.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.observables.equation_of_state import fit_equation_of_state


class QuasiHarmonicTable(NamedTuple):
    """The crystal at some temperatures.

    Attributes:
        temperatures: K. volumes: Å³. gibbs: eV. bulk_moduli: eV/Å³.
        expansion: 1/K, of the volume.
    """

    temperatures: Float[np.ndarray, "temperatures"]
    volumes: Float[Array, "temperatures"]
    gibbs: Float[Array, "temperatures"]
    bulk_moduli: Float[Array, "temperatures"]
    expansion: Float[Array, "temperatures"]


def quasiharmonic_table(
    volumes: Any,
    energies: Any,
    temperatures: Any,
    free_energies: Any,
    *,
    form: str = "vinet",
    pressure: float = 0.0,
) -> QuasiHarmonicTable:
    """Volume, Gibbs energy, bulk modulus and expansion at each temperature.

    Differentiable w.r.t. energies and free energies.

    Args:
        volumes: (volumes,) Å³. energies: (volumes,) eV, of the crystal at rest.
        temperatures: (temperatures,) K, ascending.
        free_energies: (temperatures, volumes) eV, of the vibrations.
        form: "vinet" or "birch-murnaghan".
        pressure: eV/Å³.
    Raises:
        InputError: arrays that do not fit together, and as `fit_equation_of_state`.
    """
    V, E, F = (jnp.asarray(x, float) for x in (volumes, energies, free_energies))
    T = np.asarray(temperatures, float)
    if F.shape != (len(T), len(V)) or E.shape != V.shape:
        raise InputError(
            f"free energies have shape {F.shape} and energies {E.shape}, for {len(T)} temperatures and "
            f"{len(V)} volumes: give (temperatures, volumes) and (volumes,)."
        )
    if np.any(np.diff(T) <= 0):
        raise InputError("temperatures must ascend, each once.")
    static = E + pressure * V
    curves = [fit_equation_of_state(V, static + row, form=form) for row in F]
    found = jnp.stack([curve.numbers for curve in curves])
    gibbs, volume, bulk, _ = found.T
    return QuasiHarmonicTable(T, volume, gibbs, bulk, _slopes(T, volume) / volume)


def _slopes(T: np.ndarray, V: Float[Array, "temperatures"]) -> Float[Array, "temperatures"]:
    """dV/dT by differences of neighbors; of one temperature nothing can be said."""
    if len(T) < 2:
        return jnp.zeros_like(V)
    before = np.maximum(np.arange(len(T)) - 1, 0)
    after = np.minimum(np.arange(len(T)) + 1, len(T) - 1)
    return (V[after] - V[before]) / (T[after] - T[before])
