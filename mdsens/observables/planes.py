"""Energies of planes and the elastic dipole of a defect: what a cell with a fault has more than its crystal.

A cell with n planes of the area A costs

    gamma = (E(cell) - r E(bulk)) / (n A),      r = the ratio of atoms,

with n = 2 for a slab, which has two surfaces, and n = 1 for one stacking fault in a periodic cell.

A point defect in a cell that is held at the size of the crystal pulls at it: E(eps) = E_0 - P : eps, with the
elastic dipole tensor P = - V sigma. Left free, the cell would change by the volume tr P / 3 K.

The cohesive energy is what a crystal has less than its atoms far apart, (sum_s n_s E_s - E) / N with the
energies E_s of single atoms (zero by default); with the energies per atom of elemental crystals it is minus
the formation energy.

Source: Clouet, Varvenne, Jourdan, Comput. Mater. Sci. 147, 49 (2018), doi:10.1016/j.commatsci.2018.01.053.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from mdsens.checks import number, whole
from mdsens.errors import InputError
from mdsens.observables.elastic import require_bulk
from mdsens.observables.observable import Observable, States
from mdsens.potentials.base import Potential
from mdsens.quantities import evaluate
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.structure import volume
from mdsens.units import J_PER_M2


@dataclasses.dataclass(frozen=True)
class PlaneEnergy:
    """gamma in J/m².

    Attributes:
        normal: which cell vector leaves the plane; the other two span it. planes: n of the module docstring.
    """

    state: str
    bulk: str
    normal: int
    planes: int

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        cell, crystal = states[self.state].structure, states[self.bulk].structure
        energy = potential.energy(*states[self.state])
        host = potential.energy(*states[self.bulk]) * cell.n_atoms / crystal.n_atoms
        u, v = (cell.cell[k] for k in range(3) if k != self.normal)
        area = jnp.linalg.norm(jnp.cross(u, v))
        return (J_PER_M2 * (energy - host) / (self.planes * area),)


@dataclasses.dataclass(frozen=True)
class FindPlane:
    """Refuses cells that are not made of the crystal, and those without an area."""

    observable: Observable
    function: PlaneEnergy

    def __call__(self, states: Mapping[str, Equilibrium]) -> Observable:
        what, function = self.observable.names[0], self.function
        cell, crystal = states[function.state].structure, states[function.bulk].structure
        require_bulk(crystal, f"bulk references of {what}")
        spanned = [cell.pbc[k] for k in range(3) if k != function.normal]
        if not all(spanned):
            raise InputError(
                f"{what}: the plane is spanned by the cell vectors other than number {function.normal + 1}, "
                f"and '{function.state}' is not periodic along both (pbc = {cell.pbc}). Say which vector "
                "leaves the plane: normal=0, 1 or 2."
            )
        there, host = Counter(cell.symbols), Counter(crystal.symbols)
        ratio = cell.n_atoms / crystal.n_atoms
        if set(there) != set(host) or any(abs(there[s] - ratio * host[s]) > 1e-9 for s in host):
            raise InputError(
                f"{what}: '{function.state}' has the composition {dict(there)} and '{function.bulk}' "
                f"{dict(host)}: the energy of a plane needs the composition of its crystal."
            )
        return dataclasses.replace(self.observable, bind=None)


def surface_energy(state: str = "slab", bulk: str = "bulk", normal: int = 2) -> Observable:
    """Energy of each of the two surfaces of a slab, J/m².

    Args:
        state: the relaxed slab. bulk: its crystal.
        normal: the cell vector (0, 1, 2) that leaves the surface.
    Raises:
        InputError: when bound to states: no plane, or another composition than that of the crystal.
    """
    return _plane("surface_energy", state, bulk, normal, 2)


def stacking_fault_energy(
    state: str = "fault", bulk: str = "bulk", normal: int = 2, planes: int = 1
) -> Observable:
    """Energy of a stacking fault, J/m².

    Args:
        state: the relaxed cell with the fault. bulk: its crystal.
        normal: the cell vector (0, 1, 2) that leaves the plane.
        planes: faults in the cell.
    Raises:
        InputError: as `surface_energy`.
    """
    return _plane("stacking_fault_energy", state, bulk, normal, whole("planes", planes, at_least=1))


def _plane(name: str, state: str, bulk: str, normal: int, planes: int) -> Observable:
    if whole("normal", normal) > 2:
        raise InputError(f"normal = {normal}: give 0, 1 or 2, the cell vector that leaves the plane.")
    function = PlaneEnergy(state, bulk, normal, planes)
    plain = Observable((name,), ("J/m²",), function, (state, bulk))
    return dataclasses.replace(plain, bind=FindPlane(plain, function))


# --- point defects


@dataclasses.dataclass(frozen=True)
class ElasticDipole:
    """P in eV, Voigt order."""

    state: str

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        structure, neighbors = states[self.state]
        P = -volume(structure) * evaluate(potential, structure, neighbors).stress
        return (jnp.stack([P[0, 0], P[1, 1], P[2, 2], P[1, 2], P[0, 2], P[0, 1]]),)


@dataclasses.dataclass(frozen=True)
class RequireBulk:
    """Refuses states that are not periodic in three directions."""

    observable: Observable
    what: str
    state: str

    def __call__(self, states: Mapping[str, Equilibrium]) -> Observable:
        require_bulk(states[self.state].structure, self.what)
        return dataclasses.replace(self.observable, bind=None)


def elastic_dipole(state: str = "defect") -> Observable:
    """Elastic dipole tensor of a point defect, eV, in Voigt order xx yy zz yz xz xy.

    Positive components push the crystal apart. Relax the defect in a cell of the crystal's own size, held.

    Raises:
        InputError: when bound to states: not periodic in three directions.
    """
    plain = Observable(("elastic_dipole",), ("eV",), ElasticDipole(state), (state,))
    return dataclasses.replace(plain, bind=RequireBulk(plain, "elastic dipoles", state))


# --- against atoms


@dataclasses.dataclass(frozen=True)
class CohesiveEnergy:
    """Cohesive energy in eV per atom; `total` is the energy of the atoms far apart, known once bound."""

    state: str
    references: tuple[tuple[str, float], ...]
    total: float = 0.0

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        structure, neighbors = states[self.state]
        return ((self.total - potential.energy(structure, neighbors)) / structure.count,)


@dataclasses.dataclass(frozen=True)
class AddReferences:
    """Adds up the energies of the atoms far apart."""

    observable: Observable
    function: CohesiveEnergy

    def __call__(self, states: Mapping[str, Equilibrium]) -> Observable:
        known = dict(self.function.references)
        symbols = states[self.function.state].structure.symbols
        missing = sorted(set(symbols) - set(known)) if known else []
        if missing:
            raise InputError(
                f"cohesive_energy has no reference for {', '.join(missing)}: give the energy of one atom of "
                "each element, eV."
            )
        total = sum(known.get(symbol, 0.0) for symbol in symbols)
        function = dataclasses.replace(self.function, total=total)
        return dataclasses.replace(self.observable, function=function, bind=None)


def cohesive_energy(references: Mapping[str, float] | None = None, state: str = "structure") -> Observable:
    """Energy that it takes to pull a crystal apart, eV per atom.

    Args:
        references: energy of a single atom of each element, eV; zero by default, as in most potentials. With
            the energies per atom of elemental crystals it is minus the formation energy per atom.
    Raises:
        InputError: a reference that is no number; when bound to states: an element without one.
    """
    given = dict(references or {})
    pairs = tuple((s, number(f"the reference of {s}", e, "eV")) for s, e in given.items())
    function: Any = CohesiveEnergy(state, pairs)
    plain = Observable(("cohesive_energy",), ("eV",), function, (state,), ghosts=True)
    return dataclasses.replace(plain, bind=AddReferences(plain, function))
