"""The Boltzmann distribution of one molecule at one temperature, as a flow."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.flows.flow import Flow
from mdsens.flows.internal_coordinates import AbstractCoordinates
from mdsens.flows.layers import Split


class BoltzmannGenerator(eqx.Module):
    """A flow that stands for a molecule: knows its elements and the temperature that kT is measured at.

    Attributes:
        flow: density of the positions (atoms, 3) in nm.
        species: atomic number of each atom, in the order of the positions.
        temperature: K.
        topology: the molecule as PDB text, for programs that need names and residues; may be empty.

    Source: Noé, Olsson, Köhler, Wu, Boltzmann Generators, Science 365, eaaw1147 (2019).
    """

    flow: Flow
    species: tuple[int, ...] = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    topology: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise InputError(
                f"temperature = {self.temperature} K: must be positive; it is the unit of the flow's energy."
            )
        if not self.species or min(self.species) < 1:
            raise InputError(f"species = {self.species}: needs the atomic number of each atom.")

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.species)

    def astype(self, dtype: type) -> "BoltzmannGenerator":
        """The same with parameters in another precision."""
        return BoltzmannGenerator(self.flow.astype(dtype), self.species, self.temperature, self.topology)

    @property
    def coordinates(self) -> AbstractCoordinates:
        """The first layer: from positions to coordinates of the shape."""
        first = self.flow.layers.layers[0]
        if not isinstance(first, AbstractCoordinates):
            raise InputError(
                f"the flow begins with {type(first).__name__} and not with coordinates of a molecule."
            )
        return first

    @property
    def rotatable(self) -> tuple[tuple[int, int, int, int], ...]:
        """Atoms of each soft torsion between atoms heavier than hydrogen, in the order of the flow.

        Of a peptide these are phi and psi.
        """
        coordinates, *others = self.flow.layers.layers
        split = others[0] if others else None
        if not hasattr(coordinates, "rows") or not isinstance(split, Split):
            return ()
        soft = dict(split.targets).get("soft", ())
        rows = coordinates.rows[len(coordinates.rows) - split.sources[0][1] :]
        return tuple(rows[k] for k in soft if all(self.species[atom] > 1 for atom in rows[k]))

    def energy(self, positions: Float[Array, "atoms 3"]) -> Float[Array, ""]:
        """Reduced energy -log p in kT, of positions in nm."""
        return self.flow.energy(positions)


@eqx.filter_jit
def energies_and_forces(
    flow: Flow, positions: Float[Array, "frames atoms 3"]
) -> tuple[Float[Array, " frames"], Float[Array, "frames atoms 3"]]:
    """Energies (kT) and forces (kT per unit of length) of many frames, in the precision of the flow."""
    return jax.vmap(flow.energy_and_forces)(jnp.asarray(positions, flow.dtype))
