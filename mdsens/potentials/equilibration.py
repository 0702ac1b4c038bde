"""Charges that flow between atoms until no one gains by it: electronegativity equalisation (EEM, QEq).

    U(q) = sum_i [chi_i q_i + eta_i q_i² / 2] + (Coulomb energy of Gaussian clouds q_i of width sigma_i),

made stationary under sum_i q_i = Q. With A = d²U/dq² and the Lagrange multiplier lambda,

    A q + chi + lambda = 0,     1 . q = Q,          q = Q / n + y,  P A P y = -P (chi + A Q / n),

P taking the mean out. Each Gaussian has the energy k q² / (2 sqrt(pi) sigma) with itself, and a pair of them
k q_i q_j erf(r / (sqrt(2) s)) / r, s² = sigma_i² + sigma_j²: point charges in Ewald's sum, less an erfc that
ends within the cutoff. A is positive for any eta >= 0: there is one solution, and conjugate gradients find
it.

U is stationary, so forces hold the charges (`VariationalPotential`). The constraint stands in U as
lambda (Q - sum q), which is zero, and whose derivative by Q is the chemical potential of charge, lambda.

Source: Mortier, Ghosh, Shankar, J. Am. Chem. Soc. 108, 4315 (1986), doi:10.1021/ja00275a013; Rappé, Goddard,
    J. Phys. Chem. 95, 3358 (1991), doi:10.1021/j100161a070; with Gaussians as in Ko et al., Nat. Commun. 12,
    398 (2021), doi:10.1038/s41467-020-20427-2.
"""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mdsens.checks import instance, number
from mdsens.errors import InputError
from mdsens.implicit.linear import AbstractLinearSolver, ConjugateGradient, Vector, solve
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import parameter
from mdsens.potentials.charges import PairsOfAtoms
from mdsens.potentials.ewald import (
    Ewald,
    check_accuracy,
    check_all_pairs,
    check_periodic,
    shortest_wave,
)
from mdsens.potentials.shells import Shells
from mdsens.potentials.variational import VariationalPotential
from mdsens.structure import Structure
from mdsens.units import COULOMB


class ChargeFlow(NamedTuple):
    """Where the charges are, e, and what one more would cost, eV/e."""

    charges: Float[Array, "atoms"]
    potential: Float[Array, ""]


class ChargeEquilibration(VariationalPotential):
    """Gaussian charges that flow between all atoms; in a crystal (Ewald) or a free cluster (all pairs).

    Short-range repulsion is another part of a sum.

    Attributes:
        electronegativity: chi, eV/e, one per species; only differences count where Q is held.
        hardness: eta, eV/e², one per species; zero is allowed.
        width: sigma of the Gaussian cloud, Å, one per species.
        total_charge: Q, e. A crystal with one needs `background`.
        accuracy, cutoff_radius, background: as in `Ewald`.
        solver: of the charges.
    Not supported: slabs and wires.
    Source: Rappé, Goddard, J. Phys. Chem. 95, 3358 (1991), doi:10.1021/j100161a070; Ko et al., Nat. Commun.
        12, 398 (2021), doi:10.1038/s41467-020-20427-2.
    """

    local = False
    ghosts = True

    electronegativity: Float[Array, "..."] = parameter("eV/e", per="species", text="electronegativity")
    hardness: Float[Array, "..."] = parameter("eV/e²", lower=-1e-300, per="species", text="hardness")
    width: Float[Array, "..."] = parameter("Å", lower=0.0, per="species", text="width of the cloud")
    elements: tuple[str, ...] = eqx.field(static=True)
    total_charge: Float[Array, ""] = parameter("e", per=None, text="total charge", default=0.0)
    accuracy: float = eqx.field(static=True, default=1e-12)
    cutoff_radius: float = eqx.field(static=True, default=10.0)
    background: bool = eqx.field(static=True, default=False)
    solver: AbstractLinearSolver = eqx.field(
        static=True, default_factory=ConjugateGradient, metadata={"in_files": False}
    )
    source: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        self.check_shapes()
        number("cutoff_radius", self.cutoff_radius, "Å", above=0)
        check_accuracy(self.accuracy)
        instance("solver", self.solver, AbstractLinearSolver, "Write solver=ms.ConjugateGradient().")
        if not self.elements:
            raise InputError("ChargeEquilibration needs elements: name those that its parameters belong to.")

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    @property
    def shortest_wave(self) -> float:
        """Waves longer than this are summed, Å."""
        return shortest_wave(self.accuracy, self.cutoff_radius)

    def charges(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms"]:
        """Charge of each atom, e; differentiable."""
        return self.settled(structure, neighbors).charges

    def settled(self, structure: Structure, neighbors: Neighbors) -> ChargeFlow:
        """The charges, and the chemical potential of charge."""
        real = self._real(structure)
        n = jnp.sum(real)
        slope = jax.grad(lambda q: self._unconstrained(q, structure, neighbors))
        nothing = jnp.zeros(structure.n_atoms)
        of_none = slope(nothing)
        even = self.total_charge / n * real

        def product(q: Vector) -> Vector:
            return slope(q) - of_none

        def project(v: Vector) -> Vector:
            mean = jnp.sum(v * real) / n
            return real * (v - mean)

        stiffness = jax.lax.stop_gradient(self._own(structure))
        precondition = lambda v: v / stiffness
        force = -(of_none + product(even))
        y = solve(product, force, solver=self.solver, project=project, precondition=precondition)
        q = even + y
        return ChargeFlow(q, jnp.sum(real * slope(q)) / n)

    def energy_with(self, hidden: ChargeFlow, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        q, potential = hidden
        excess = self.total_charge - jnp.sum(q)
        return self._unconstrained(q, structure, neighbors) + potential * excess

    def _unconstrained(
        self, q: Float[Array, "atoms"], structure: Structure, neighbors: Neighbors
    ) -> Float[Array, ""]:
        types = self.types(structure)
        chi = jnp.atleast_1d(self.electronegativity)[types]
        charged = dataclasses.replace(structure, charges=q)
        points = Ewald(accuracy=self.accuracy, cutoff_radius=self.cutoff_radius, background=True)
        far = points.energy(charged, neighbors)
        near = self._overlaps(q, types).energy(structure, neighbors)
        return jnp.sum(chi * q) + jnp.sum(self._own(structure) * q * q) / 2 + far - near

    def _own(self, structure: Structure) -> Float[Array, "atoms"]:
        # eta, and twice what a Gaussian has with itself
        types = self.types(structure)
        width = jnp.atleast_1d(self.width)[types]
        return jnp.atleast_1d(self.hardness)[types] + COULOMB / (jnp.sqrt(jnp.pi) * width)

    def _overlaps(self, q: Float[Array, "atoms"], types: Array) -> "Overlaps":
        widths = jnp.atleast_1d(self.width)[types]
        return Overlaps(charge_of_atom=q, width_of_atom=widths, cutoff_radius=self.cutoff_radius)

    def _real(self, structure: Structure) -> Float[Array, "atoms"]:
        ones = jnp.ones(structure.n_atoms)
        return ones if structure.real is None else jnp.where(structure.real, ones, 0.0)

    def check_structure(self, structure: Structure) -> None:
        """Raise where these sums have no meaning.

        Raises:
            InputError: a slab or wire, a crystal with a total charge and no `background`, a cluster too
                large for all its pairs, clouds that reach beyond the cutoff.
        """
        check_periodic(structure, "ChargeEquilibration")
        if not any(structure.pbc):
            check_all_pairs(structure.n_atoms)
        arrays = (self.width, self.total_charge)
        if any(isinstance(array, Tracer) for array in arrays):
            return
        self._check_total(structure)
        self._check_widths()

    def _check_total(self, structure: Structure) -> None:
        total = float(self.total_charge)
        if any(structure.pbc) and total != 0 and not self.background:
            raise InputError(
                f"total_charge = {total:g} e of a periodic cell: a charged crystal has an infinite energy. "
                "Set it to zero, or give ChargeEquilibration(..., background=True): a uniform charge then "
                "makes the cell neutral."
            )

    def _check_widths(self) -> None:
        widest = float(np.max(self.width))
        # two of them: erfc(r / (2 sigma)) < exp(-r² / 4 sigma²)
        longest = self.cutoff_radius / (2 * np.sqrt(-np.log(self.accuracy)))
        if widest > longest:
            raise InputError(
                f"width = {widest:g} Å: clouds wider than {longest:.3g} Å overlap beyond cutoff_radius = "
                f"{self.cutoff_radius:g} Å, by more than the accuracy. Take a longer cutoff_radius."
            )


class Overlaps(PairsOfAtoms):
    """sum_{i<j} k q_i q_j erfc(r / (sqrt(2) s)) / r, s² = sigma_i² + sigma_j²: what clouds lack of points.

    Attributes:
        charge_of_atom: e. width_of_atom: sigma, Å. cutoff_radius: Å.
    """

    charge_of_atom: Float[Array, "atoms"]
    width_of_atom: Float[Array, "atoms"]
    cutoff_radius: float = eqx.field(static=True)
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")

    def shell_energies(self, shells: Shells) -> Float[Array, "atoms"]:
        """Half of each pair's energy belongs to either atom, eV."""
        i, j = shells.species()
        q, width = self.charge_of_atom, self.width_of_atom
        distance = shells.distances()
        inside = shells.valid & (distance < self.cutoff_radius)
        r = jnp.where(inside, distance, self.cutoff_radius)
        squares = width[i][:, None] ** 2 + width[j] ** 2
        lacking = jax.scipy.special.erfc(r / jnp.sqrt(2 * squares)) / r
        others = jnp.where(inside, q[j] * lacking, 0.0)
        return COULOMB / 2 * q[i] * jnp.sum(others, axis=1)
