"""What the bonds of a molecule say as a graph: its rings, its middle, and what hangs off a bond.

The searches are those of networkx.
"""

from typing import TYPE_CHECKING, Any

from mdsens.molecules.bonds import Bonds, read_bonds

if TYPE_CHECKING:
    from networkx import Graph


def bond_graph(bonds: Bonds) -> "Graph":
    """Atoms 0 to n - 1, joined where they are bonded."""
    from networkx import Graph

    graph = Graph()
    graph.add_nodes_from(range(bonds.n_atoms))
    graph.add_edges_from(bonds.pairs)
    return graph


def rings(topology: Any) -> list[tuple[int, ...]]:
    """Atoms of each ring system; rings that share an atom are one system.

    A ring closes through a bond that is in no tree, so its internal coordinates cannot be chosen one by one:
    describe the ring by a reference block.

    Args:
        topology: see `read_bonds`.
    """
    import networkx

    # The molecule falls apart without a bridge. All other bonds lie in a ring, so what holds together
    # when the bridges are gone is a ring system, or one atom.
    graph = bond_graph(read_bonds(topology))
    graph.remove_edges_from(list(networkx.bridges(graph)))
    pieces = networkx.connected_components(graph)
    return sorted(tuple(sorted(piece)) for piece in pieces if len(piece) > 1)


def connected(graph: "Graph", atom: int) -> set[int]:
    """Atoms to which a chain of bonds leads from this one."""
    from networkx import node_connected_component

    return node_connected_component(graph, atom)


def carried(graph: "Graph", atom: int, other: int) -> int:
    """Number of atoms that can be reached from `other` without the bond to `atom`."""
    from networkx import restricted_view

    return len(connected(restricted_view(graph, [], [(atom, other)]), other))


def middle(graph: "Graph", light: list[bool]) -> int:
    """The heavy atom nearest to all others (by bonds); of several the one with most bonds to heavy atoms."""
    from networkx import single_source_shortest_path_length

    def rank(atom: int) -> tuple[int, int, int]:
        distances = single_source_shortest_path_length(graph, atom)
        ends = [distances[j] for j in distances if j == atom or not light[j]]
        farthest = max(ends)
        heavy_bonds = sum(not light[j] for j in graph[atom])
        return farthest, -heavy_bonds, atom

    heavy = [atom for atom in graph if not light[atom]]
    return min(heavy or graph, key=rank)
