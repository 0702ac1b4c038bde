"""What can be moved: anything that gives its energy in eV, of a structure in Å and a list of neighbors.

Potentials of mdsens do. Flows, and force fields made for training them, give a reduced energy u(x) in kT of
positions in nm; `InElectronvolts` turns one into

    E(x) = kT u(x / nm),

and the rest of `mdsens.dynamics` knows no other units than eV, Å, u and fs.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import instance
from mdsens.errors import InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
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


class SinglePrecision(eqx.Module):
    """A potential whose energy and forces are computed in float32, for dynamics alone.

    Positions, momenta, thermostats, lists and records stay in float64, so that steps of 1e-6 Å are not lost
    and the conserved energy is what it was. Forces are good to about 1e-5 of the largest, energies to 1e-7 of
    their size: with a smooth form the conserved energy walks by that much and no more. On an accelerator this
    saves time and memory; on CPUs little (5 to 15 %). Relaxations and derivatives need float64 and do not
    take it.

    Attributes:
        potential: any that computes in the precision of what it is given.
    """

    potential: Potential

    def __check_init__(self) -> None:
        hint = "Write SinglePrecision(ms.load_potential(name)) and pass it to nve, langevin, ..."
        instance("the potential of SinglePrecision", self.potential, Potential, hint)
        if self.potential.by_differences:
            raise InputError(
                f"{type(self.potential).__name__} asks a program of its own, which computes in float64: pass "
                "it to the dynamics as it is."
            )

    @property
    def cutoff(self) -> Float[Array, ""]:
        """That of the potential, Å."""
        return self.potential.cutoff

    @property
    def shortest_wave(self) -> float:
        """That of the potential, Å."""
        return self.potential.shortest_wave

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        """Energy, eV, rounded to float32.

        Raises:
            InputError: the form goes over to float64 by itself.
        """
        potential, structure, neighbors = _rounded((self.potential, structure, neighbors))
        energy = potential.energy(structure, neighbors)
        if energy.dtype != jnp.float32:
            raise InputError(
                f"{type(potential).__name__} computes in {energy.dtype} whatever it is given: pass it to the "
                "dynamics as it is."
            )
        return energy.astype(jnp.float64)


def _rounded(tree: Any) -> Any:
    double = lambda leaf: eqx.is_array(leaf) and leaf.dtype == jnp.float64
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if double(leaf) else leaf, tree)


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
