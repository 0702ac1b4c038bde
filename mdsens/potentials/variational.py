"""Energies that are stationary in variables nobody sees: dipoles, charges that flow between atoms.

    E(x, theta) = U(z*, x, theta),      dU/dz = 0 at z* = z*(x, theta).

Forces, stress and dE/dtheta need no response of z, since it would be multiplied by dU/dz:

    dE = (dU/dx) dx + (dU/dtheta) dtheta,       z held.

Second derivatives do: d(dU/dx) = ... + (d²U/dx dz) dz*, with dz* by the rule of implicit derivatives. Both
stand in one rule here: the tangent of E is the tangent of U with z* held, and z*, being itself a function of
x and theta that JAX can differentiate, moves when that tangent is differentiated again.

An error of z* enters energies squared, and forces once.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.structure import Structure


class VariationalPotential(Potential):
    """Base of the forms whose energy is stationary in hidden variables."""

    @abstractmethod
    def settled(self, structure: Structure, neighbors: Neighbors) -> Any:
        """The hidden variables z*, differentiable."""

    @abstractmethod
    def energy_with(self, hidden: Any, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        """U, eV, stationary in the hidden variables at `settled`."""

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        return _stationary(self, structure, neighbors)


@eqx.filter_custom_jvp
def _stationary(
    potential: VariationalPotential, structure: Structure, neighbors: Neighbors
) -> Float[Array, ""]:
    hidden = potential.settled(structure, neighbors)
    return potential.energy_with(hidden, structure, neighbors)


@_stationary.def_jvp
def _stationary_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    potential, structure, neighbors = primals
    hidden = potential.settled(structure, neighbors)

    def with_hidden_held(
        potential: VariationalPotential, structure: Structure, neighbors: Neighbors
    ) -> Float[Array, ""]:
        return potential.energy_with(hidden, structure, neighbors)

    return eqx.filter_jvp(with_hidden_held, tuple(primals), tuple(tangents))
