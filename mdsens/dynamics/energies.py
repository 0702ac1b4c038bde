"""What can be moved: anything that gives its energy in eV, of a structure in Å and a list of neighbors.

Potentials of mdsens do. Flows, and force fields made for training them, give a reduced energy u(x) in kT of
positions in nm; `InElectronvolts` turns one into

    E(x) = kT u(x / nm),

and the rest of `mdsens.dynamics` knows no other units than eV, Å, u and fs.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.structure import Structure
from mdsens.units import from_kT, to_nm


class EnergyOfStructure(Protocol):
    """What moves atoms: every `mdsens.Potential` has it."""

    @property
    def cutoff(self) -> Float[Array, ""]: ...

    def energy(self, structure: Structure, neighbors: Any) -> Float[Array, ""]: ...


class ReducedEnergy(Protocol):
    """What is adapted: `BoltzmannGenerator`, `Movable` and reduced potentials have all of it."""

    @property
    def species(self) -> tuple[int, ...]: ...

    @property
    def temperature(self) -> float: ...

    def energy(self, positions: Float[Array, "atoms 3"]) -> Float[Array, ""]: ...


class Movable(eqx.Module):
    """Any energy function as something that `nve` and `langevin` can move: a force field in JAX, say.

    Attributes:
        energy_fn: energy in kT of positions (atoms, 3) in nm.
        species: atomic number of each atom.
        temperature: at which kT is meant, K.
    """

    energy_fn: Callable[[Float[Array, "atoms 3"]], Float[Array, ""]]
    species: tuple[int, ...] = eqx.field(static=True)
    temperature: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not callable(self.energy_fn) or not self.species or not 0 < self.temperature < np.inf:
            raise InputError(
                "Movable(energy_fn, species, temperature) needs a function, atomic numbers and a positive "
                f"temperature, not {type(self.energy_fn).__name__}, {self.species}, {self.temperature} K."
            )

    def energy(self, positions: Float[Array, "atoms 3"]) -> Float[Array, ""]:
        """Energy in kT of positions in nm."""
        return jnp.asarray(self.energy_fn(positions), positions.dtype)


class InElectronvolts(eqx.Module):
    """A reduced energy as an energy of structures, in eV. It sees all atoms and needs no list.

    Attributes:
        reduced: energy in kT of positions in nm.
    """

    uses_neighbors: ClassVar[bool] = False
    reduced: ReducedEnergy

    @property
    def cutoff(self) -> Float[Array, ""]:
        """Inf: every pair may interact."""
        return jnp.asarray(jnp.inf)

    def energy(self, structure: Structure, neighbors: Neighbors | None = None) -> Float[Array, ""]:
        """Energy, eV; the cell and the list do not count."""
        energy = self.reduced.energy(to_nm(structure.positions))
        return from_kT(energy, self.reduced.temperature)


def as_energy(system: Any) -> EnergyOfStructure:
    """What was passed in, as an energy of structures in float64.

    Raises:
        InputError: it is neither a potential nor a reduced energy.
    """
    if hasattr(system, "energy") and hasattr(system, "cutoff"):
        return system
    if not all(hasattr(system, name) for name in ("energy", "species", "temperature")):
        raise InputError(
            f"a {type(system).__name__} cannot be moved. Give a potential (mdsens.load_potential), a "
            "BoltzmannGenerator, or Movable(energy_fn, species, temperature) with energy_fn(positions in nm) "
            "in kT."
        )
    if hasattr(system, "astype"):
        system = system.astype(jnp.float64)
    return InElectronvolts(system)
