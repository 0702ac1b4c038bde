"""What an observable at a temperature is, and what it sees: all frames of an ensemble with their weights."""

import dataclasses
from collections.abc import Callable, Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.thermal.frames import FrameFunction
from mdsens.units import BOLTZMANN


class ThermalPoint(eqx.Module):
    """An ensemble as its observables see it: frames, weights, and the state they are meant for.

    Attributes:
        weights: of the frames; they sum to one.
        energy: of each frame, eV. volume: Å³; zero without a cell.
        temperature: K. pressure: eV/Å³; None where the cell is held.
        functions, tables: what measured in each frame, and what it found.
        n_atoms: atoms. freedom: coordinates that are not held.
    """

    weights: Float[Array, " frames"]
    energy: Float[Array, " frames"]
    volume: Float[Array, " frames"]
    temperature: Float[Array, ""]
    pressure: Float[Array, ""] | None
    functions: tuple[FrameFunction, ...] = eqx.field(static=True)
    tables: tuple[Float[Array, "frames ..."], ...]
    n_atoms: int = eqx.field(static=True)
    freedom: int = eqx.field(static=True)

    @property
    def kT(self) -> Float[Array, ""]:
        """Temperature in eV."""
        return BOLTZMANN * self.temperature

    @property
    def enthalpy(self) -> Float[Array, " frames"]:
        """U + pV of each frame, eV; U where the cell is held."""
        return self.energy if self.pressure is None else self.energy + self.pressure * self.volume

    def of(self, function: FrameFunction) -> Float[Array, "frames ..."]:
        """What this function measured in each frame."""
        return self.tables[self.functions.index(function)]

    def mean(self, values: Float[Array, "frames ..."]) -> Float[Array, "..."]:
        """Weighted average over the frames."""
        return jnp.tensordot(self.weights, values, 1)

    def covariance(self, a: Float[Array, " frames"], b: Float[Array, " frames"]) -> Float[Array, ""]:
        """cov(a, b)."""
        return self.mean((a - self.mean(a)) * (b - self.mean(b)))

    def ideal(self) -> Float[Array, ""]:
        """N kT of the coordinates that move, eV: pressure times volume of an ideal gas."""
        return self.freedom / 3 * self.kT


@dataclasses.dataclass(frozen=True)
class ThermalObservable:
    """Something with an average at a temperature.

    Attributes:
        names, units: of each number or array.
        function: ThermalPoint -> a number or an array for each name. Traceable by jit.
        measures: what it looks up by `ThermalPoint.of`: functions (potential, structure, neighbors) -> array,
            measured in every frame. Hashable.
        cell: None, or what it asks of the ensemble: "held" or "moving".
        bulk: it asks for a structure that is periodic in three directions.
        grid: where the numbers of an array stand, for figures and files; its unit is that of `grid_unit`.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    function: Callable[[ThermalPoint], Sequence[Array]]
    measures: tuple[FrameFunction, ...] = ()
    cell: str | None = None
    bulk: bool = False
    grid: tuple[float, ...] = ()
    grid_unit: str = ""
