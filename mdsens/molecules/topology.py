"""From the bonds of a molecule to the order in which its atoms are placed.

Internal coordinates place each atom by a distance, an angle and a torsion with respect to three atoms that
are there already. Which three is read off the bond graph: the tree grows from the middle of the molecule,
heavy atoms first, so that hydrogens hang off the heavy skeleton and an error in one coordinate moves few
atoms.
"""

import heapq
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from mdsens.errors import FileFormatError, InputError

if TYPE_CHECKING:
    from ase import Atoms

MISSING = -1  # a parent that the first three atoms do not have


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

    def name(self, *atoms: int) -> str:
        """Names and indices for a message; long lists are cut."""
        shown = ", ".join(f"{self.names[i]} (index {i})" for i in atoms[:6])
        return shown + (f" and {len(atoms) - 6} more" if len(atoms) > 6 else "")


class Placement(NamedTuple):
    """How the atoms are placed one after the other.

    Attributes:
        rows: (placed atoms, 4): atom, a, b, c. The atom has the bond atom-a, the angle atom-a-b and the
            torsion atom-a-b-c; all of a, b, c are placed before it. Without a block the first three rows lack
            what the first
            three atoms do not have: -1.
        proper: (torsions,) for each row with all three parents: True if c is bonded to b, a rotation about
            the bond a-b and as a rule soft; False if c is a sibling, bonded to a like the atom itself. Such
            an improper
            torsion is stiff: near ±120° at a tetrahedral atom, where its sign is the chirality, near 180° at
            a planar one.
    """

    rows: Int[np.ndarray, "placed 4"]
    proper: Bool[np.ndarray, "torsions"]


class Molecule(NamedTuple):
    """What a topology file says.

    Attributes:
        topology: of mdtraj, or ASE's atoms.
        species: atomic numbers.
        pdb: the file's text if it is a PDB file, else empty.
    """

    topology: Any
    species: tuple[int, ...]
    pdb: str


def read_molecule(path: str | Path) -> Molecule:
    """Atoms and bonds of a molecule.

    Raises:
        FileFormatError: no such file, or neither mdtraj nor ASE reads it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileFormatError(f"no file '{path}'. The path is relative to {Path.cwd()}.")
    if path.suffix == ".pdb":
        import mdtraj

        try:
            topology: Any = mdtraj.load_topology(str(path))
        except Exception as error:  # whatever its parser meets
            raise FileFormatError(
                f"'{path}' cannot be read as PDB: {type(error).__name__} {error}."
            ) from error
        if any(atom.element is None or atom.element.number < 1 for atom in topology.atoms):
            raise FileFormatError(
                f"'{path}' has atoms whose element is not known: fill the element column of the PDB file."
            )
        return Molecule(
            topology, tuple(atom.element.number for atom in topology.atoms), path.read_text(encoding="utf-8")
        )
    from mdsens.io.structures import read_atoms

    atoms = read_atoms(path)
    return Molecule(atoms, tuple(int(z) for z in atoms.numbers), "")


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
            atoms = list(topology.atoms)
            pairs = [(one.index, other.index) for one, other in topology.bonds]
            return _bonds(pairs, [atom.element.number for atom in atoms], [str(atom) for atom in atoms])
        case "openmm" | "simtk" if callable(getattr(topology, "bonds", None)):
            atoms = list(topology.atoms())
            pairs = [(bond[0].index, bond[1].index) for bond in topology.bonds()]
            numbers = [0 if atom.element is None else atom.element.atomic_number for atom in atoms]
            return _bonds(
                pairs, numbers, [f"{atom.residue.name}{atom.residue.id}-{atom.name}" for atom in atoms]
            )
        case "ase" if hasattr(topology, "numbers"):
            return _bonds_of_ase(topology)
    if isinstance(topology, tuple) and len(topology) in (2, 3) and isinstance(topology[0], (int, np.integer)):
        n = int(topology[0])
        numbers = [int(z) for z in topology[2]] if len(topology) == 3 else [0] * n
        if len(numbers) != n:
            raise InputError(f"{len(numbers)} atomic numbers for {n} atoms: give one per atom.")
        return _bonds([(int(i), int(j)) for i, j in topology[1]], numbers, [f"atom {i}" for i in range(n)])
    raise InputError(
        f"a {type(topology).__module__}.{type(topology).__name__} is no topology. Give an mdtraj Topology "
        "(of a trajectory: "
        "trajectory.topology), an OpenMM Topology (of a PDBFile or Modeller: .topology), ASE Atoms, or a "
        "tuple (number of atoms, "
        "bonded pairs)."
    )


def _bonds_of_ase(atoms: "Atoms") -> Bonds:
    from ase.neighborlist import natural_cutoffs, neighbor_list

    free = atoms.copy()
    free.pbc = False
    i, j = neighbor_list("ij", free, [1.2 * radius for radius in natural_cutoffs(free)])
    names = [f"{symbol}{k}" for k, symbol in enumerate(atoms.get_chemical_symbols())]
    return _bonds(list(zip(i.tolist(), j.tolist(), strict=True)), atoms.numbers.tolist(), names)


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


def z_matrix_rows(topology: Any, block: tuple[int, ...] = ()) -> Int[np.ndarray, "placed 4"]:
    """Rows (atom, a, b, c) of `place_atoms`."""
    return place_atoms(topology, block).rows


def place_atoms(topology: Any, block: tuple[int, ...] = ()) -> Placement:
    """Order of the atoms and the three parents of each.

    Args:
        topology: see `read_bonds`.
        block: atoms that are there from the start, bonded to each other: at least three. Rows are then given
            for the others only, all of them with three parents. Rings belong here (`rings`).
    Raises:
        InputError: a molecule in pieces, or a block that does not hold together.
    """
    bonds = read_bonds(topology)
    if bonds.n_atoms == 0:
        raise InputError("the topology has no atoms.")
    light = [0 < z <= 1 for z in bonds.numbers]
    order = _check_block(bonds, block) if block else [_middle(bonds, light)]
    rows = [] if block else [(order[0], MISSING, MISSING, MISSING)]
    proper: list[bool] = []
    rank = {atom: k for k, atom in enumerate(order)}
    depth, parent = dict.fromkeys(order, 0), {}
    queue: list[tuple[bool, int, int, int]] = []

    def reach(atom: int) -> None:
        # Hydrogens last; then by distance from the start; of siblings the one that carries most atoms comes
        # first and gets the proper torsion: along a peptide these are phi and psi themselves.
        for other in bonds.neighbors[atom]:
            if other not in depth:
                depth[other], parent[other] = depth[atom] + 1, atom
                heapq.heappush(queue, (light[other], depth[other], -len(_beyond(bonds, atom, other)), other))

    def before(atom: int, *but: int) -> list[int]:
        """Atoms bonded to this one and placed already, first come first."""
        return sorted((j for j in bonds.neighbors[atom] if j in rank and j not in but), key=rank.__getitem__)

    for atom in order:
        reach(atom)
    while queue:
        atom = heapq.heappop(queue)[-1]
        a = parent[atom]
        b = parent[a] if a in parent else next(iter(before(a)), MISSING)
        siblings, beyond = before(a, b), before(b, a) if b != MISSING else []
        c = next(iter(siblings + beyond), MISSING)
        if c != MISSING:
            proper.append(not siblings)
        rows.append((atom, a, b, c))
        rank[atom] = len(order)
        order.append(atom)
        reach(atom)
    if lost := [i for i in range(bonds.n_atoms) if i not in rank]:
        raise InputError(
            f"no chain of bonds leads from {bonds.name(order[0])} to {bonds.name(*lost)}: internal "
            "coordinates need one connected "
            "molecule. Choose one molecule, or add the missing bonds to the topology (a PDB file knows those "
            "of standard residues only; "
            "others need CONECT lines, and in ASE a molecule must not be cut by the cell's border)."
        )
    return Placement(np.array(rows, np.int64).reshape(-1, 4), np.array(proper, bool))


def _middle(bonds: Bonds, light: list[bool]) -> int:
    """The heavy atom nearest to all others (by bonds); of several the one with most bonds to heavy atoms."""
    heavy = [i for i in range(bonds.n_atoms) if not light[i]] or list(range(bonds.n_atoms))

    def rank(i: int) -> tuple[int, int, int]:
        distance, front = {i: 0}, [i]
        while front:
            front = [
                j
                for k in front
                for j in bonds.neighbors[k]
                if distance.setdefault(j, distance[k] + 1) == distance[k] + 1 and j != i
            ]
            front = list(dict.fromkeys(front))
        far = max(d for j, d in distance.items() if not light[j] or j == i)
        return far, -sum(not light[j] for j in bonds.neighbors[i]), i

    return min(heavy, key=rank)


def _check_block(bonds: Bonds, block: tuple[int, ...]) -> list[int]:
    atoms = [int(i) for i in block]
    if len(set(atoms)) != len(atoms) or not all(0 <= i < bonds.n_atoms for i in atoms):
        raise InputError(f"block {atoms}: give each atom once, with indices 0 to {bonds.n_atoms - 1}.")
    if len(atoms) < 3:
        raise InputError(
            f"a block of {len(atoms)} atoms cannot carry the others: give three or more that do not lie in a "
            "line."
        )
    reached, front = {atoms[0]}, [atoms[0]]
    while front:
        front = [j for i in front for j in bonds.neighbors[i] if j in atoms and j not in reached]
        reached.update(front)
    if lost := [i for i in atoms if i not in reached]:
        raise InputError(
            f"the block falls into pieces: no bonds inside it lead to {bonds.name(*lost)}. Add the atoms "
            "between."
        )
    return atoms


def rings(topology: Any) -> list[tuple[int, ...]]:
    """Atoms of each ring system; rings that share an atom are one system.

    A ring closes through a bond that is in no tree, so its internal coordinates cannot be chosen one by one:
    describe the ring by a reference block.
    """
    bonds = read_bonds(topology)
    closing = {
        i: [j for j in bonds.neighbors[i] if not _is_bridge(bonds, i, j)] for i in range(bonds.n_atoms)
    }
    systems, seen = [], set()
    for start, linked in closing.items():
        if not linked or start in seen:
            continue
        system, front = {start}, [start]
        while front:
            front = [j for i in front for j in closing[i] if j not in system]
            system.update(front)
        seen |= system
        systems.append(tuple(sorted(system)))
    return systems


def _is_bridge(bonds: Bonds, i: int, j: int) -> bool:
    """Whether the molecule falls apart without this bond."""
    return i not in _beyond(bonds, i, j)


def _beyond(bonds: Bonds, i: int, j: int) -> set[int]:
    """Atoms that can be reached from j without the bond i-j."""
    reached, front = {j}, [j]
    while front:
        front = [m for k in front for m in bonds.neighbors[k] if m not in reached and {k, m} != {i, j}]
        reached.update(front)
    return reached
