"""A molecule as a graph: which atoms are bonded, whoever says it."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mdsens.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

REACH = 1.2  # bonds are atoms nearer than this times the sum of their covalent radii
SHOWN = 6  # atoms named in a message


class Bonds(NamedTuple):
    """A molecule as a graph.

    Attributes:
        neighbors: atoms bonded to each atom, in ascending order.
        numbers: atomic number of each atom; zero where it is not known.
        names: what to call the atoms in messages.
    """

    neighbors: tuple[tuple[int, ...], ...]
    numbers: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.neighbors)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Bonded atoms (i, j), i < j, in ascending order."""
        return [(i, j) for i, bonded in enumerate(self.neighbors) for j in bonded if i < j]

    def name(self, *atoms: int) -> str:
        """Names and indices for a message; long lists are cut."""
        first = atoms[:SHOWN]
        shown = ", ".join(f"{self.names[i]} (index {i})" for i in first)
        more = len(atoms) - SHOWN
        return f"{shown} and {more} more" if more > 0 else shown


def read_bonds(topology: Any) -> Bonds:
    """The bond graph of a topology.

    Args:
        topology: an mdtraj `Topology`, an OpenMM `Topology`, ASE `Atoms` (bonds are atoms nearer than 1.2
            times the sum of their covalent radii; periodicity is ignored, so the molecule must be whole), or
            a tuple (number of atoms, bonded pairs) or (number of atoms, bonded pairs, atomic numbers).
    Raises:
        InputError: another type, or bonds that do not fit the atoms.
    """
    if isinstance(topology, Bonds):
        return topology
    match type(topology).__module__.split(".")[0]:
        case "mdtraj" if hasattr(topology, "bonds"):
            return _of_mdtraj(topology)
        case "openmm" | "simtk" if callable(getattr(topology, "bonds", None)):
            return _of_openmm(topology)
        case "ase" if hasattr(topology, "numbers"):
            return _of_ase(topology)
    if isinstance(topology, tuple) and len(topology) in (2, 3) and isinstance(topology[0], (int, np.integer)):
        return _of_pairs(*topology)
    raise InputError(
        f"a {type(topology).__module__}.{type(topology).__name__} is no topology. Give an mdtraj Topology "
        "(of a trajectory: trajectory.topology), an OpenMM Topology (of a PDBFile or Modeller: .topology), "
        "ASE Atoms, or a tuple (number of atoms, bonded pairs)."
    )


def _of_mdtraj(topology: Any) -> Bonds:
    atoms = list(topology.atoms)
    pairs = [(one.index, other.index) for one, other in topology.bonds]
    return _bonds(pairs, [atom.element.number for atom in atoms], [str(atom) for atom in atoms])


def _of_openmm(topology: Any) -> Bonds:
    atoms = list(topology.atoms())
    pairs = [(bond[0].index, bond[1].index) for bond in topology.bonds()]
    numbers = [0 if atom.element is None else atom.element.atomic_number for atom in atoms]
    names = [f"{atom.residue.name}{atom.residue.id}-{atom.name}" for atom in atoms]
    return _bonds(pairs, numbers, names)


def _of_ase(atoms: "Atoms") -> Bonds:
    from ase.neighborlist import natural_cutoffs, neighbor_list

    free = atoms.copy()
    free.pbc = False
    i, j = neighbor_list("ij", free, [REACH * radius for radius in natural_cutoffs(free)])
    names = [f"{symbol}{k}" for k, symbol in enumerate(atoms.get_chemical_symbols())]
    return _bonds(list(zip(i.tolist(), j.tolist(), strict=True)), atoms.numbers.tolist(), names)


def _of_pairs(n_atoms: int, pairs: Any, numbers: Any = None) -> Bonds:
    n = int(n_atoms)
    known = [0] * n if numbers is None else [int(z) for z in numbers]
    if len(known) != n:
        raise InputError(f"{len(known)} atomic numbers for {n} atoms: give one per atom.")
    plain = [(int(i), int(j)) for i, j in pairs]
    return _bonds(plain, known, [f"atom {i}" for i in range(n)])


def _bonds(pairs: list[tuple[int, int]], numbers: list[int], names: list[str]) -> Bonds:
    n = len(names)
    neighbors: list[set[int]] = [set() for _ in range(n)]
    for i, j in pairs:
        if not (0 <= i < n and 0 <= j < n and i != j):
            raise InputError(
                f"a bond between atoms {i} and {j}: bonds join two different atoms out of 0 to {n - 1}."
            )
        neighbors[i].add(j)
        neighbors[j].add(i)
    return Bonds(tuple(tuple(sorted(bonded)) for bonded in neighbors), tuple(numbers), tuple(names))
