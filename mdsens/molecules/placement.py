"""The order in which the atoms of a molecule are placed.

Internal coordinates place each atom by a distance, an angle and a torsion with respect to three atoms that
are there already. Which three is read off the bond graph: the tree grows from the middle of the molecule,
heavy atoms first, so that hydrogens hang off the heavy skeleton and an error in one coordinate moves few
atoms.
"""

import heapq
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from mdsens.errors import InputError
from mdsens.molecules.bonds import Bonds, read_bonds
from mdsens.molecules.graph import bond_graph, carried, connected, middle

MISSING = -1  # a parent that the first three atoms do not have


class Placement(NamedTuple):
    """How the atoms are placed one after the other.

    Attributes:
        rows: (placed atoms, 4): atom, a, b, c. The atom has the bond atom-a, the angle atom-a-b and the
            torsion atom-a-b-c; all of a, b, c are placed before it. Without a block the first three rows lack
            what the first three atoms do not have: -1.
        proper: (torsions,) for each row with all three parents: True if c is bonded to b, a rotation about
            the bond a-b and as a rule soft; False if c is a sibling, bonded to a like the atom itself. Such
            an improper torsion is stiff: near ±120° at a tetrahedral atom, where its sign is the chirality,
            near 180° at a planar one.
    """

    rows: Int[np.ndarray, "placed 4"]
    proper: Bool[np.ndarray, "torsions"]


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
    tree = _Tree(bonds)
    if block:
        tree.start(_check_block(bonds, tree.graph, block))
    else:
        tree.start([middle(tree.graph, tree.light)])
    grown = [tree.grow() for _ in range(bonds.n_atoms - len(tree.rank))]
    root = [] if block else [(tree.first, MISSING, MISSING, MISSING)]
    proper = [c not in tree.graph[a] for _, a, _, c in grown if c != MISSING]
    rows = np.array(root + grown, np.int64)
    return Placement(rows.reshape(-1, 4), np.array(proper, bool))


class _Tree:
    """Atoms that are placed already, and the queue of those bonded to them.

    Attributes:
        light: whether each atom is hydrogen.
        rank: when each placed atom was placed.
        first: the atom placed first.
    """

    def __init__(self, bonds: Bonds) -> None:
        self.bonds = bonds
        self.graph = bond_graph(bonds)
        self.light = [0 < z <= 1 for z in bonds.numbers]
        self.rank: dict[int, int] = {}
        self.first = MISSING
        self._depth: dict[int, int] = {}
        self._parent: dict[int, int] = {}
        self._queue: list[tuple[bool, int, int, int]] = []

    def start(self, atoms: list[int]) -> None:
        """Place the first atoms.

        Raises:
            InputError: atoms that no chain of bonds leads to.
        """
        self.first = atoms[0]
        self._check_connected()
        self._depth.update(dict.fromkeys(atoms, 0))
        self.rank.update({atom: k for k, atom in enumerate(atoms)})
        for atom in atoms:
            self._reach(atom)

    def grow(self) -> tuple[int, int, int, int]:
        """Place the next atom: its row."""
        atom = heapq.heappop(self._queue)[-1]
        a = self._parent[atom]
        b = self._parent[a] if a in self._parent else self._earliest(a)
        c = self._third(a, b)
        self.rank[atom] = len(self.rank)
        self._reach(atom)
        return atom, a, b, c

    def _reach(self, atom: int) -> None:
        # Hydrogens last; then by distance from the start; of siblings the one that carries most atoms comes
        # first and gets the proper torsion: along a peptide these are phi and psi themselves.
        for other in self.bonds.neighbors[atom]:
            if other in self._depth:
                continue
            self._depth[other] = self._depth[atom] + 1
            self._parent[other] = atom
            size = carried(self.graph, atom, other)
            order = (self.light[other], self._depth[other], -size, other)
            heapq.heappush(self._queue, order)

    def _third(self, a: int, b: int) -> int:
        """A sibling, bonded to a; else the next atom of the chain, bonded to b."""
        sibling = self._earliest(a, but=b)
        if sibling != MISSING or b == MISSING:
            return sibling
        return self._earliest(b, but=a)

    def _earliest(self, atom: int, but: int = MISSING) -> int:
        """Of the atoms bonded to this one and placed already the one placed first."""
        placed = [j for j in self.bonds.neighbors[atom] if j in self.rank and j != but]
        return min(placed, key=self.rank.__getitem__, default=MISSING)

    def _check_connected(self) -> None:
        lost = sorted(set(self.graph) - connected(self.graph, self.first))
        if lost:
            raise InputError(
                f"no chain of bonds leads from {self.bonds.name(self.first)} to {self.bonds.name(*lost)}: "
                "internal coordinates need one connected molecule. Choose one molecule, or add the missing "
                "bonds to the topology (a PDB file knows those of standard residues only; others need "
                "CONECT lines, and in ASE a molecule must not be cut by the cell's border)."
            )


def _check_block(bonds: Bonds, graph: Any, block: tuple[int, ...]) -> list[int]:
    atoms = [int(i) for i in block]
    if len(set(atoms)) != len(atoms) or not all(0 <= i < bonds.n_atoms for i in atoms):
        raise InputError(f"block {atoms}: give each atom once, with indices 0 to {bonds.n_atoms - 1}.")
    if len(atoms) < 3:
        raise InputError(
            f"a block of {len(atoms)} atoms cannot carry the others: give three or more that do not lie in a "
            "line."
        )
    reached = connected(graph.subgraph(atoms), atoms[0])
    lost = [i for i in atoms if i not in reached]
    if lost:
        raise InputError(
            f"the block falls into pieces: no bonds inside it lead to {bonds.name(*lost)}. Add the atoms "
            "between."
        )
    return atoms
