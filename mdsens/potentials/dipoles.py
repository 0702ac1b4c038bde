"""Charges with dipoles that they induce: every atom is polarised by the field of all others.

With the field f_i at atom i, its dipole is mu_i = a_i f_i, and the field comes from the charges and all other
dipoles,

    f = f_0 - T a f          (f = f_0 + field of the dipoles a f):

a fixed point. It makes the energy

    U(f) = k/2 sum_i a_i f_i² + (energy of all pairs of q and mu = a f)

stationary, so forces are those with the dipoles held (`VariationalPotential`), and derivatives of the dipoles
are linear solves with the same operator 1 + T a. Written with fields, and not with dipoles, nothing is
divided by a polarizability: it may be zero.

In a large crystal nearly all of a product with T is its sum over waves. Of a tensor T0 that is good to five
digits a few percent of them are needed, and (1 + s T0 s)^-1, by as many of these cheap products as it takes,
is a preconditioner with which two or three products of T itself are enough.

Polarisation catastrophe. Where two atoms come so close that 1 + T a has no longer positive eigenvalues, the
dipoles would grow without end: bare dipoles do so at r³ = 2 sqrt(a_i a_j). There the energy is infinite,
which a relaxation does not step over; and a structure in which a pair is that close is refused.

Source: Applequist, Carl, Fung, J. Am. Chem. Soc. 94, 2952 (1972), doi:10.1021/ja00764a010; Thole, Chem. Phys.
    59, 341 (1981), doi:10.1016/0301-0104(81)85176-2.
"""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mdsens.checks import instance, number
from mdsens.errors import InputError
from mdsens.implicit.linear import (
    AbstractLinearSolver,
    ConjugateGradient,
    Operator,
    Vector,
    conjugate_gradient,
    identity,
    solve,
)
from mdsens.neighbors import Neighbors, find_neighbors
from mdsens.potentials.base import parameter
from mdsens.potentials.charges import ChargedPotential
from mdsens.potentials.ewald import (
    check_accuracy,
    check_all_pairs,
    check_neutral,
    check_periodic,
    extent,
    shortest_wave,
    wave_sum,
    waves_of,
)
from mdsens.potentials.multipoles import FieldSources, Interaction, PolarizedPairs
from mdsens.potentials.variational import VariationalPotential
from mdsens.strain import volume_of
from mdsens.structure import Structure
from mdsens.units import COULOMB

MANY = 2**20  # waves times atoms: from here on fields are solved for by way of a rougher tensor
ROUGH = 1e-5  # its accuracy
FARTHEST = 20.0  # Å: up to here a pair is looked at for how it comes out of the catastrophe


class InducedDipoles(VariationalPotential, ChargedPotential):
    """Point charges and induced point dipoles, in a crystal (Ewald) or a free cluster (all pairs).

    With `screening`, a sum over pairs within the cutoff, for any structure: cheaper by far, and an
    approximation, as `DampedShiftedForce` is one of `Ewald`.

    Short-range repulsion is another part of a sum, `Buckingham(...) + InducedDipoles(...)`. All atoms
    polarise each other: there are no exclusions within molecules.

    Attributes:
        polarizability: volume a, Å³ (times 4 pi epsilon_0), one per species; zero is allowed.
        thole: damping of two dipoles that overlap, exp(-thole r³ / sqrt(a_i a_j)), and of the field of
            charges at dipoles; None for none. 0.39 is that of AMOEBA's water.
        charge: e, one per species; None takes those of `Structure.charges`.
        screening: None for the whole sum; else alpha, 1/Å, of erfc(alpha r) / r, brought to zero at the
            cutoff with four continuous derivatives. 0 for none.
        accuracy, cutoff_radius, background: as in `Ewald`.
        solver: of the fields; `ConjugateGradient` by default, or `Iterated(Picard())`, `Iterated(Anderson())`
            for the field made self-consistent step by step.
    Not supported: slabs and wires, except with `screening`.
    Source: Applequist, Carl, Fung, J. Am. Chem. Soc. 94, 2952 (1972), doi:10.1021/ja00764a010; Thole, Chem.
        Phys. 59, 341 (1981), doi:10.1016/0301-0104(81)85176-2.
    """

    ghosts = True

    polarizability: Float[Array, "..."] | None = parameter(
        "Å³", lower=-1e-300, per="species", text="polarizability", default=None
    )
    thole: Float[Array, ""] | None = parameter(
        "1", lower=0.0, per=None, text="damping of overlapping dipoles", default=None
    )
    screening: float | None = eqx.field(static=True, default=None)
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
        if self.screening is not None:
            number("screening", self.screening, "1/Å", at_least=0)
        hint = "Write solver=ms.ConjugateGradient(), or Iterated(Anderson()) of mdsens.implicit."
        instance("solver", self.solver, AbstractLinearSolver, hint)

    def check_shapes(self) -> None:
        """Raise unless there is a polarizability for each element, and a charge for each or for none.

        Raises:
            InputError: says which values are expected.
        """
        self.check_species()
        if not self.elements:
            raise InputError("InducedDipoles needs elements: name those that the polarizabilities belong to.")
        if self.polarizability is None:
            raise InputError("InducedDipoles needs a polarizability (Å³) for each element; zero is allowed.")
        lengths: dict[str, int] = {}
        for name in self.parameter_fields():
            if getattr(self, name) is not None:
                self._check_shape(name, lengths)

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    @property
    def shortest_wave(self) -> float:
        """Waves longer than this are summed, Å; inf if none are."""
        if self.screening is not None:
            return np.inf
        return shortest_wave(self._accuracy, self.cutoff_radius)

    @property
    def _accuracy(self) -> float:
        # the last terms of dipoles count alpha² as much as those of charges, and so do their forces again
        return self.accuracy / 100

    # --- the fields

    def settled(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms 3"]:
        """The field at each atom, e/Å²."""
        return self._with_fields(structure, neighbors).self_consistent(self.solver)

    def dipoles(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms 3"]:
        """Dipole of each atom, e Å; differentiable."""
        field = self.settled(structure, neighbors)
        return self.polarizabilities(structure)[:, None] * field

    def response(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "3 3"]:
        """Polarizability of all atoms together, Å³: the dipole that a uniform field induces; differentiable.

        Of a crystal, the dielectric tensor is 1 + 4 pi response / volume: the field is the macroscopic one.
        """
        around = self._with_fields(structure, neighbors)
        uniform = lambda axis: jnp.broadcast_to(axis, (structure.n_atoms, 3))
        fields = jax.vmap(lambda axis: around.screened(uniform(axis), self.solver))(jnp.eye(3))
        return jnp.einsum("i,kil->kl", around.polarizabilities, fields)

    def softest(self, structure: Structure, neighbors: Neighbors) -> float:
        """Lowest eigenvalue of 1 + sqrt(a) T sqrt(a): 1 without interaction, 0 at the catastrophe.

        Builds the matrix, (3 atoms, 3 atoms).
        """
        around = self._with_fields(structure, neighbors)
        root = jnp.repeat(jnp.sqrt(around.polarizabilities), 3)
        to_field = lambda v: around.operator(v) - v
        safe = jnp.where(root > 0, root, 1.0)
        column = lambda e: jnp.where(root > 0, root * to_field(e / safe), 0.0)
        coupling = jax.vmap(column)(jnp.eye(len(root)))
        return 1 + float(jnp.linalg.eigvalsh((coupling + coupling.T) / 2)[0])

    def polarizabilities(self, structure: Structure) -> Float[Array, "atoms"]:
        """Of each atom, Å³; none of a ghost."""
        values = jnp.atleast_1d(jnp.asarray(self.polarizability))[self.types(structure)]
        return values if structure.real is None else jnp.where(structure.real, values, 0.0)

    def _alpha(self, structure: Structure) -> float:
        if self.screening is not None:
            return self.screening
        return extent(self._accuracy) / self.cutoff_radius if any(structure.pbc) else 0.0

    def _screening(self, structure: Structure) -> Interaction:
        alpha = jnp.asarray(self._alpha(structure))
        if self.screening is not None:
            return Interaction(alpha, self.thole, self.cutoff_radius, tapered=True)
        # all pairs of a cluster are in its list only if none is cut off
        reach = self.cutoff_radius if any(structure.pbc) else np.inf
        return Interaction(alpha, self.thole, reach, tapered=False)

    def _around(
        self, structure: Structure, neighbors: Neighbors, pairs: FieldSources | None = None
    ) -> "_Around":
        periodic = self.screening is None and any(structure.pbc)
        waves = waves_of(neighbors) if periodic else None
        q, a = self.charges(structure), self.polarizabilities(structure)
        return _Around(structure, q, a, pairs, waves, self._alpha(structure))

    def _with_fields(self, structure: Structure, neighbors: Neighbors) -> "_Around":
        around = self._around(structure, neighbors, self._sources(structure, neighbors))
        return dataclasses.replace(around, rougher=self._rougher(around, neighbors))

    def _rougher(self, around: "_Around", neighbors: Neighbors) -> "_Around | None":
        """The same to few digits, where that saves something; held, as it only helps to solve."""
        waves, structure = around.waves, around.structure
        if waves is None or structure.n_atoms * len(waves) < MANY:
            return None
        # waves end at 2 alpha s, alpha = s / cutoff, and are sorted: their number goes as s⁶
        s = extent(ROUGH)
        share = (s / extent(self._accuracy)) ** 6
        few = waves[: math.ceil(share * len(waves))]
        alpha = s / self.cutoff_radius
        screening = Interaction(jnp.asarray(alpha), self.thole, self.cutoff_radius, tapered=False)
        pairs = FieldSources.of(structure, neighbors, around.polarizabilities, screening)
        rough = _Around(structure, around.q, around.polarizabilities, pairs, few, alpha)
        return jax.lax.stop_gradient(rough)

    def _sources(self, structure: Structure, neighbors: Neighbors) -> FieldSources:
        a, screening = self.polarizabilities(structure), self._screening(structure)
        if self._sums_all_pairs(structure):
            return FieldSources.of_all_pairs(structure, a, screening)
        return FieldSources.of(structure, neighbors, a, screening)

    def _sums_all_pairs(self, structure: Structure) -> bool:
        return self.screening is None and not any(structure.pbc)

    # --- the energy

    def energy_with(self, hidden: Any, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        around = self._around(structure, neighbors)
        a = around.polarizabilities
        mu = a[:, None] * hidden
        induced = COULOMB / 2 * jnp.sum(a * jnp.sum(hidden**2, axis=-1))
        total = induced + self._of_pairs(structure, neighbors, around.q, a, mu) + around.of_waves(mu)
        return jnp.where(jnp.isfinite(total), total, jnp.inf)

    def _of_pairs(
        self, structure: Structure, neighbors: Neighbors, q: Array, a: Array, mu: Array
    ) -> Float[Array, ""]:
        if self._sums_all_pairs(structure):
            return COULOMB * self._sources(structure, neighbors).energy(q, mu)
        pairs = PolarizedPairs(
            charge_of_atom=q,
            dipole_of_atom=mu,
            polarizability_of_atom=a,
            screening=self._screening(structure),
            cutoff_radius=self.cutoff_radius,
        )
        return pairs.energy(structure, neighbors)

    def check_structure(self, structure: Structure) -> None:
        """Raise where these sums have no meaning.

        Raises:
            InputError: a slab or wire without `screening`, charges that the structure does not have, a net
                charge without `background`, a cluster too large for all its pairs, two atoms so close that
                they polarise each other without end.
        """
        super().check_structure(structure)
        if not set(structure.symbols) <= set(self.elements):
            return  # `check_elements` names those that are unknown
        if self.screening is None:
            check_periodic(structure, "InducedDipoles")
            if not any(structure.pbc):
                check_all_pairs(structure.n_atoms)
            elif not self.background:
                check_neutral(self.charges(structure), "InducedDipoles")
        self._check_catastrophe(structure)

    def _check_catastrophe(self, structure: Structure) -> None:
        arrays = (structure.positions, structure.cell, self.polarizability, self.thole)
        if any(isinstance(array, Tracer) for array in arrays):
            return
        a = np.asarray(self.polarizabilities(structure))
        thole = None if self.thole is None else float(self.thole)
        farthest = (4 * np.max(a) ** 2) ** (1 / 6)
        if not 0 < farthest < FARTHEST:
            return
        near = find_neighbors(structure, farthest)
        valid = np.asarray(near.valid)
        i, j = np.asarray(near.i)[valid], np.asarray(near.j)[valid]
        r = np.linalg.norm(np.asarray(near.vectors(structure))[valid], axis=1)
        left = _softest_of_pair(r, a[i] * a[j], thole)
        if not len(left) or left.min() > 0:
            return
        k = int(left.argmin())
        limit = _distance_of_catastrophe(float(r[k]), float(a[i[k]] * a[j[k]]), thole)
        names = [f"{atom} ({structure.symbols[atom]})" for atom in (int(i[k]), int(j[k]))]
        raise InputError(
            f"atoms {names[0]} and {names[1]} are {r[k]:.4g} Å apart: closer than {limit:.4g} Å their "
            "dipoles polarise each other without end. Move them apart, or damp the interaction of dipoles "
            "that overlap: InducedDipoles(..., thole=0.39)."
        )


def _softest_of_pair(r: np.ndarray, product: np.ndarray, thole: float | None) -> np.ndarray:
    """Lowest eigenvalue of 1 + sqrt(a) T sqrt(a) of two atoms."""
    # T is b1 across the axis and b1 - b2 r² along it, and couples the two atoms: 1 +- both
    root = np.sqrt(product)
    t = np.full_like(r, np.inf) if thole is None else thole * r**3 / np.where(root > 0, root, 1e-300)
    lost = np.exp(-t)
    across = root * (1 - lost) / r**3
    lost_along = np.where(lost > 0, (1 + t) * lost, 0.0) if thole is not None else lost
    along = root * (3 * (1 - lost_along) - (1 - lost)) / r**3
    return 1 - np.maximum(np.abs(across), np.abs(along))


def _distance_of_catastrophe(r: float, product: float, thole: float | None) -> float:
    below, above = r, FARTHEST
    for _ in range(50):
        middle = (below + above) / 2
        left = _softest_of_pair(np.array([middle]), np.array([product]), thole)
        below, above = (below, middle) if left[0] > 0 else (middle, above)
    return above


class _Around(eqx.Module):
    """What the fields in a structure are made of."""

    structure: Structure
    q: Float[Array, "atoms"]
    polarizabilities: Float[Array, "atoms"]
    pairs: Any  # FieldSources; None where no field is asked for
    waves: Any
    alpha: float = eqx.field(static=True)
    rougher: "_Around | None" = None

    def self_consistent(self, solver: AbstractLinearSolver) -> Float[Array, "atoms 3"]:
        """The field of charges and dipoles at each atom, e/Å²."""
        return self.screened(self.field_of_charges(), solver)

    def screened(
        self, field: Float[Array, "atoms 3"], solver: AbstractLinearSolver
    ) -> Float[Array, "atoms 3"]:
        """What becomes of a field when all dipoles have answered it: (1 + T a)^-1 f."""
        root = jnp.sqrt(jax.lax.stop_gradient(self.polarizabilities))
        nearby = None if self.rougher is None else self.rougher.operator
        method = Symmetrized(jnp.repeat(root, 3), solver, nearby)
        f = solve(self.operator, field.ravel(), solver=method, symmetric=False)
        return f.reshape(field.shape)

    def operator(self, f: Vector) -> Vector:
        """f + T a f."""
        mu = self.polarizabilities[:, None] * f.reshape(-1, 3)
        return f - self.field_of_dipoles(mu).ravel()

    def field_of_charges(self) -> Float[Array, "atoms 3"]:
        """e/Å²."""
        near = self.pairs.field_of_charges(self.q)
        if self.waves is None:
            return near
        slope = jax.grad(self._of_waves, argnums=1)
        return near - slope(self.q, jnp.zeros_like(near))

    def field_of_dipoles(self, mu: Float[Array, "atoms 3"]) -> Float[Array, "atoms 3"]:
        """e/Å²."""
        near = self.pairs.field_of_dipoles(mu)
        if self.waves is None:
            return near
        slope = jax.grad(self._of_waves, argnums=1)
        return near - slope(jnp.zeros_like(self.q), mu)

    def of_waves(self, mu: Float[Array, "atoms 3"]) -> Float[Array, ""]:
        """Energy of the sum over waves, and of what every atom has with itself, eV."""
        if self.waves is None:
            return jnp.zeros(())
        return COULOMB * self._of_waves(self.q, mu)

    def _of_waves(self, q: Float[Array, "atoms"], mu: Float[Array, "atoms 3"]) -> Float[Array, ""]:
        s, alpha = self.structure, self.alpha
        waves = wave_sum(s.positions, s.cell, q, mu, self.waves, alpha)
        # each Gaussian with itself: alpha / sqrt(pi) q², and by q -> mu . grad 2 alpha³ / (3 sqrt(pi)) mu²
        background = jnp.pi * jnp.sum(q) ** 2 / (2 * volume_of(s.cell) * alpha**2)
        charges = alpha / jnp.sqrt(jnp.pi) * jnp.sum(q**2)
        dipoles = 2 * alpha**3 / (3 * jnp.sqrt(jnp.pi)) * jnp.sum(mu**2)
        return waves - charges - dipoles - background


class Symmetrized(AbstractLinearSolver):
    """1 + T a, with a symmetric T and a diagonal a that is nowhere negative, by the symmetric 1 + s T s.

    s = sqrt(a). Where that is not positive the dipoles have no equilibrium, and the answer is infinite.

    Attributes:
        root: s, for each unknown.
        by: solves with 1 + s T s.
        nearby: 1 + T0 a, an operator nearby with cheaper products: its inverse, found by conjugate gradients,
            is the preconditioner.
    """

    root: Float[Array, "unknowns"]
    by: AbstractLinearSolver
    nearby: Operator | None = None

    def solve(self, matvec: Operator, b: Vector, project: Operator, precondition: Operator) -> Vector:
        # y = b - T s z with (1 + s T s) z = s b, where s z = a y. Of T s z only the operator is known:
        # T s z = T a v = A v - v,  v = z / s.
        def push(z: Vector) -> Vector:
            v = self._divided(z)
            return matvec(v) - v

        z = self._symmetric(lambda z: z + self.root * push(z), self.root * b)
        # the same as z / s, without one more product, where all s are positive
        all_polarised = jnp.all(self.root > 0)
        return jax.lax.cond(all_polarised, lambda z: self._divided(z), lambda z: b - push(z), z)

    def solve_transposed(
        self, matvec: Operator, b: Vector, project: Operator, precondition: Operator
    ) -> Vector:
        # A^T = 1 + a T, y = b - s z with (1 + s T s) z = s T b, and s T y = (A^T y - y) / s
        pull = lambda y: self._divided(matvec(y) - y)
        z = self._symmetric(lambda z: z + pull(self.root * z), pull(b))
        return b - self.root * z

    def _divided(self, v: Vector) -> Vector:
        there = self.root > 0
        return jnp.where(there, v / jnp.where(there, self.root, 1.0), 0.0)

    def _symmetric(self, product: Operator, b: Vector) -> Vector:
        if not isinstance(self.by, ConjugateGradient):
            return self.by.solve(product, b, identity, identity)
        rtol, steps = self.by.rtol, self.by.max_steps
        found = conjugate_gradient(product, b, identity, self._precondition, rtol=rtol, max_steps=steps)
        good = ~found.negative & (found.residual <= 1e4 * rtol * jnp.linalg.norm(b))
        return jnp.where(good, found.solution, jnp.inf)

    def _precondition(self, r: Vector) -> Vector:
        if self.nearby is None:
            return r
        nearby = self.nearby

        def product(z: Vector) -> Vector:
            v = self._divided(z)
            return z + self.root * (nearby(v) - v)

        found = conjugate_gradient(product, r, rtol=ROUGH / 10, max_steps=200)
        # where the rough dipoles have no equilibrium they are no help
        return jnp.where(found.negative, r, found.solution)
