"""Formation energies and volumes of defects.

A defect cell is made of m cells of its crystal, with dn_s = N_s(defect) - m N_s(bulk) atoms of species s put
in or taken
out. Atoms come from reservoirs, at mu_s each:

    E_f = E(defect) - m E(bulk) - sum_s dn_s mu_s.

Where the defect cell has the composition of the crystal, elemental or stoichiometric, the crystal itself is
the reservoir and E_f = E(defect) - r E(bulk), with r the ratio of atoms. In a compound a vacancy or an
antisite has no such energy: it depends on where its atoms go to, and the reservoirs must be named.

Source: Zhang, Northrup, Phys. Rev. Lett. 67, 2339 (1991).
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

from jaxtyping import Array

from mdsens.checks import instance, number, whole
from mdsens.errors import InputError
from mdsens.observables.observable import Observable, States
from mdsens.potentials.base import Potential
from mdsens.structure import Structure, volume

Reservoir = tuple[str, str | float]  # species, and the name of a state or an energy per atom in eV


@dataclasses.dataclass(frozen=True)
class Formation:
    """E_f (eV) and V_f (Å³) with all numbers known.

    Attributes:
        cells: m. taken: (species, dn, reservoir) of each species that was put in or taken out.
        with_volume: every reservoir has a volume.
    """

    defect: str
    bulk: str
    cells: float
    taken: tuple[tuple[str, int, str | float], ...] = ()
    with_volume: bool = True

    def __call__(self, potential: Potential, states: States) -> tuple[Array, ...]:
        host = self.cells * self._energy(potential, states, self.bulk)
        energy = self._energy(potential, states, self.defect) - host
        host = self.cells * volume(states[self.bulk].structure)
        size = volume(states[self.defect].structure) - host
        for _, atoms, reservoir in self.taken:
            if not isinstance(reservoir, str):
                energy = energy - atoms * reservoir
                continue
            n = states[reservoir].structure.count
            energy = energy - atoms * self._energy(potential, states, reservoir) / n
            size = size - atoms * volume(states[reservoir].structure) / n
        return (energy, size) if self.with_volume else (energy,)

    @staticmethod
    def _energy(potential: Potential, states: States, name: str) -> Array:
        structure, neighbors = states[name]
        return potential.energy(structure, neighbors)


@dataclasses.dataclass(frozen=True)
class CompareCompositions:
    """Finds m and dn from the relaxed states, and asks for reservoirs where they are needed."""

    defect: str
    bulk: str
    references: tuple[Reservoir, ...]
    cells: int | None

    def __call__(self, states: Mapping[str, Any]) -> Observable:
        defect, bulk = states[self.defect].structure, states[self.bulk].structure
        for name, structure in ((self.defect, defect), (self.bulk, bulk)):
            if not all(structure.pbc):
                raise InputError(
                    f"formation compares crystals, and '{name}' has pbc = {structure.pbc}: make it periodic."
                )
        there, host = Counter(defect.symbols), Counter(bulk.symbols)
        ratio = defect.n_atoms / bulk.n_atoms
        if self.cells is None and _is_multiple(there, host, ratio):
            return self._observable(Formation(self.defect, self.bulk, ratio))
        cells = round(float(volume(defect) / volume(bulk))) if self.cells is None else self.cells
        species = sorted({*there, *host})
        changed = {s: there[s] - cells * host[s] for s in species}
        known = dict(self.references)
        missing = [s for s, atoms in changed.items() if atoms and s not in known]
        if missing:
            raise InputError(_ask_for(missing, changed, cells))
        taken = tuple((s, atoms, known[s]) for s, atoms in changed.items() if atoms)
        for species, _, reservoir in taken:
            if isinstance(reservoir, str):
                _check_reservoir(species, reservoir, states[reservoir].structure)
        with_volume = all(isinstance(reservoir, str) for _, _, reservoir in taken)
        return self._observable(Formation(self.defect, self.bulk, cells, taken, with_volume))

    def _observable(self, function: Formation) -> Observable:
        names, units = ("formation_energy", "formation_volume"), ("eV", "Å³")
        n = 2 if function.with_volume else 1
        reservoirs = [r for _, _, r in function.taken if isinstance(r, str)]
        states = (self.defect, self.bulk, *reservoirs)
        return Observable(names[:n], units[:n], function, states, ghosts=True)


def _is_multiple(there: Counter[str], host: Counter[str], ratio: float) -> bool:
    if set(there) != set(host):
        return False
    return all(abs(there[s] - ratio * host[s]) < 1e-9 for s in there)


def _ask_for(missing: list[str], changed: Mapping[str, int], cells: int) -> str:
    listed = ", ".join(f"{atoms:+d} {s}" for s, atoms in changed.items() if atoms)
    example = ", ".join(f'"{s}": ...' for s in missing)
    return (
        f"the defect cell differs from {cells} cells of the crystal by {listed}, and its formation energy "
        f"depends on where these atoms come from: give a reservoir for {', '.join(missing)}, "
        f"formation(references={{{example}}}) with the name of a state (its elemental crystal among the "
        "structures) or an energy per atom in eV; --references on the command line."
    )


def _check_reservoir(species: str, name: str, structure: Structure) -> None:
    others = sorted(set(structure.symbols) - {species})
    if others:
        raise InputError(
            f"the reservoir of {species} is the state '{name}', which also holds {', '.join(others)}: give a "
            f"structure of {species} alone, or its chemical potential as a number in eV."
        )


def formation(
    defect: str = "defect",
    bulk: str = "bulk",
    references: Mapping[str, str | float] | None = None,
    cells: int | None = None,
) -> Observable:
    """Formation energy (eV) and volume (Å³) of a defect.

    Args:
        defect, bulk: names of the states.
        references: reservoir of each species that is put in or taken out: the name of a state (a structure of
            that species alone, relaxed with the same potential, whose derivative counts), or its energy per
            atom in eV (which does not move). Not needed where the defect cell has the composition of the
            crystal. With numbers among them there is no formation volume.
        cells: bulk cells that the defect cell is made of; by default the ratio of volumes, rounded.
    Raises:
        InputError: a reference that is neither; when bound to states: a reservoir is missing.
    """
    if references is not None:
        instance("references", references, Mapping, 'Give {"Cd": state or energy per atom in eV, ...}.')
    if cells is not None:
        cells = whole("cells", cells, at_least=1)
    given = (references or {}).items()
    pairs = tuple((s, _reservoir(s, r)) for s, r in given)
    states = (defect, bulk, *(r for _, r in pairs if isinstance(r, str)))
    compare = CompareCompositions(defect, bulk, pairs, cells)
    names, units = ("formation_energy", "formation_volume"), ("eV", "Å³")
    return Observable(names, units, Formation(defect, bulk, 1.0), states, compare, ghosts=True)


def _reservoir(species: str, given: Any) -> str | float:
    return (
        given
        if isinstance(given, str)
        else number(f"the reference of {species}", given, "eV per atom, or name a state")
    )
