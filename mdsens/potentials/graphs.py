"""Neural networks as potentials: the energy of each atom, as a function of the graph of its neighbors.

All networks reduce to one function: out of weights, vectors along the edges of a graph, the species of its
nodes and the two ends of each edge come the energies of the nodes,

    E = sum_i e_i(weights, {r_ij}).

Vectors are made here from positions, cell and the neighbor list, so that images, strains and small cells are
right whatever the network thinks of them: an atom may have several edges to one other atom, and to itself.
Weights are the parameters, and a derivative by all of them at once is one adjoint:

    jax.grad(lambda network: ms.volume(ms.relax(network, crystal, cell="isotropic").structure))(network)

Lists have spare places. Their edges, and those of pairs between the cutoff and the end of the list, run from
a spare atom to itself. It stands behind the others, and nobody sees it.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.checks import instance, number
from mdsens.errors import InputError
from mdsens.neighbors import Neighbors, beyond
from mdsens.potentials.base import Potential
from mdsens.structure import Structure


class Graph(NamedTuple):
    """What a network sees of a structure; the last node and the last edge at least are spare.

    Attributes:
        vectors: (edges, 3) from the receiver to the sender, Å.
        species: (nodes,) index into the elements of the potential; 0 for the spare atom.
        senders, receivers: (edges,) nodes at the ends of each edge.
    """

    vectors: Float[Array, "edges 3"]
    species: Int[Array, "nodes"]
    senders: Int[Array, "edges"]
    receivers: Int[Array, "edges"]


# params, vectors, species, senders, receivers -> energies of the nodes in eV, (nodes,) or (nodes, 1), the
# spare atom's among them; or the energy of all nodes but the last.
Network = Callable[..., Array]


class GraphPotential(Potential):
    """A potential out of a network.

        def energies(params, vectors, species, senders, receivers): ...  # eV, one a node
        potential = GraphPotential(energies, params, cutoff=5.0, elements=("Si", "O"))

    The network sees two directed edges for each pair within the cutoff, and one node more than there are
    atoms: the spare atom, to which spare edges belong. Their vectors are longer than the cutoff. Its species
    is the first, and what the network says of it is left out.

    Weights and everything else are float64, whatever precision they come in; a network that computes in
    float32 all the same is refused. Names of weights are their places in `params`, "layers.0.w[3][2]".

    Attributes:
        network: the function; two potentials with one function compile once.
        weights: every floating array of `params` by name: the parameters.
        rest: what else there is in `params`: held, and not differentiated.
        cutoff_radius: Å.
        elements: chemical symbols, in the network's order of species.
        source: where the weights come from.
    """

    heavy: ClassVar[bool] = True

    network: Network = eqx.field(static=True)
    weights: dict[str, Float[Array, "..."]] = eqx.field(metadata={"unit": "?"})
    rest: "Rest" = eqx.field(static=True)
    cutoff_radius: float = eqx.field(static=True)
    elements: tuple[str, ...] = eqx.field(static=True)
    source: str = eqx.field(static=True)

    def __init__(
        self,
        site_energies: Network,
        params: Any,
        cutoff: float,
        elements: tuple[str, ...],
        *,
        source: str = "",
    ):
        """See the class.

        Args:
            site_energies: the network; see `Network`.
            params: any pytree; its floating arrays and numbers are the parameters.
            cutoff: beyond which no edge is drawn, Å.
        Raises:
            InputError: no function, no weights, a cutoff that is no length, no chemical symbols.
        """
        if not callable(site_energies):
            raise InputError(
                f"site_energies = {site_energies!r}: give a function of params, vectors, species, senders "
                "and receivers."
            )
        self.network = site_energies
        self.weights, self.rest = _taken_apart(params)
        self.cutoff_radius = number("cutoff", cutoff, "Å", above=0)
        self.elements = tuple(elements)
        self.source = source

    @property
    def params(self) -> Any:
        """The weights in the network's own tree; of a gradient, the gradient."""
        return self.rest.put_together(self.weights)

    def bytes_per_pair(self) -> float:
        """What a gradient keeps of the two edges of each pair: features of all layers, many numbers an edge.

        Counted without computing anything. Products with the Hessian take twice as much.
        """
        sizes = {name: jax.ShapeDtypeStruct(w.shape, w.dtype) for name, w in self.weights.items()}
        return _bytes_per_pair(self.network, self.rest, tuple(sizes.items()))

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    def graph(self, structure: Structure, neighbors: Neighbors) -> Graph:
        """The graph of a structure, with one spare node and spare edges."""
        n, i, j = structure.n_atoms, neighbors.i, neighbors.j
        d = neighbors.vectors(structure)
        squares = jnp.sum(d * d, axis=-1)
        inside = neighbors.valid & (squares < self.cutoff_radius**2)
        far = beyond(self.cutoff) * jnp.array([1.0, 0.0, 0.0])
        d = jnp.where(inside[:, None], d, far)
        first = jnp.where(inside, i, n)
        second = jnp.where(inside, j, n)
        spare = jnp.array([n], first.dtype)
        types = self.types(structure) if self.elements else jnp.zeros(n, int)
        return Graph(
            vectors=jnp.concatenate([d, jnp.where(inside[:, None], -d, far), far[None]]),
            species=jnp.concatenate([types, jnp.zeros(1, types.dtype)]),
            senders=jnp.concatenate([second, first, spare]),
            receivers=jnp.concatenate([first, second, spare]),
        )

    def along(self, **directions: "GraphPotential") -> "GraphPotential":
        """The same potential with a few amplitudes for parameters: weights + sum_k amplitude_k direction_k.

        Reports over a million weights nobody reads; over directions, such as the change of the weights by
        more training or an eigenvector of their covariance, they have one column each.

            steepest = jax.grad(lattice_constant)(potential)
            ms.sensitivities(["volume"], potential.along(steepest=steepest), crystal)

        Args:
            directions: by name, potentials whose weights are the components; `jax.grad` gives one.
        Raises:
            InputError: none, or one of another network.
        """
        if not directions:
            raise InputError("no directions in the space of weights are given: name one, a=jax.grad(...)(p).")
        for name, direction in directions.items():
            instance(f"the direction '{name}'", direction, GraphPotential, "jax.grad(f)(potential) is one.")
            if jax.tree.map(jnp.shape, direction.weights) != jax.tree.map(jnp.shape, self.weights):
                raise InputError(f"the direction '{name}' belongs to another network: its weights differ.")
        network = _Along(self, directions)
        amplitudes = dict.fromkeys(directions, 0.0)
        return GraphPotential(network, amplitudes, self.cutoff_radius, self.elements, source=self.source)

    def layers(self) -> dict[str, tuple[str, ...]]:
        """Names of the arrays of weights in each layer: up to the first number in the name, or to its dot."""
        found: dict[str, tuple[str, ...]] = {}
        for name in self.weights:
            layer = _layer_of(name)
            found[layer] = (*found.get(layer, ()), name)
        return found

    def norms_by_layer(self) -> dict[str, float]:
        """Root of the sum of squares of the weights in each layer; of a gradient, how much a layer counts."""
        norms = {}
        for layer, names in self.layers().items():
            squares = sum(float(jnp.sum(self.weights[name] ** 2)) for name in names)
            norms[layer] = float(np.sqrt(squares))
        return norms

    def along_layers(self) -> "GraphPotential":
        """The same potential with one amplitude for each layer, by which its weights grow: w (1 + amplitude).

        A derivative by an amplitude is d O / d ln w, summed over the layer.
        """
        grown = {layer: self._only(names) for layer, names in self.layers().items()}
        return self.along(**grown)

    def _only(self, names: tuple[str, ...]) -> "GraphPotential":
        """With these weights, and zeros in place of the others."""
        kept = {name: w if name in names else jnp.zeros_like(w) for name, w in self.weights.items()}
        return eqx.tree_at(lambda p: p.weights, self, kept)

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        energies = self._evaluated(structure, neighbors)
        return energies if energies.ndim == 0 else jnp.sum(energies[:-1])

    def site_energies(self, structure: Structure, neighbors: Neighbors) -> Float[Array, "atoms"]:
        """Energy of each atom, eV, if the network tells them apart."""
        energies = self._evaluated(structure, neighbors)
        if energies.ndim == 0:
            raise InputError("this network gives the energy of all atoms together, and none for each atom.")
        return energies[:-1]

    def _evaluated(self, structure: Structure, neighbors: Neighbors) -> Array:
        graph = self.graph(structure, neighbors)
        energies = jnp.asarray(_energies(self.network, self.rest, self.weights, graph))
        nodes = structure.n_atoms + 1
        if energies.shape not in ((), (nodes,), (nodes, 1)):
            raise InputError(
                f"the network gives energies of shape {energies.shape} for {structure.n_atoms} atoms and the "
                f"spare one: one energy a node is needed, ({nodes},), or the energy of all but the last, ()."
            )
        if energies.dtype != jnp.float64:
            raise InputError(
                f"the network computes in {energies.dtype} although its weights are float64: minima and "
                "derivatives need float64. Build it with dtype float64, or leave its own dtype out."
            )
        return energies if energies.ndim == 0 else energies.reshape(nodes)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _energies(network: Network, rest: "Rest", weights: dict[str, Array], graph: Graph) -> Array:
    # A program of its own: JAX traces a network, and each derivative of it, once for all that use it.
    return network(rest.put_together(weights), *graph)


@functools.lru_cache(maxsize=64)
def _bytes_per_pair(network: Network, rest: "Rest", weights: tuple[tuple[str, Any], ...]) -> float:
    # as the difference of two graphs, one of which has a pair more
    few, more = (_bytes_kept(network, rest, dict(weights), edges) for edges in (128, 130))
    return float(more - few)


def _bytes_kept(network: Network, rest: "Rest", weights: dict[str, Any], edges: int) -> int:
    of_edges = jax.ShapeDtypeStruct((edges,), int)
    species = jax.ShapeDtypeStruct((2,), int)

    def kept(weights: dict[str, Array], vectors: Array, species: Array, ends: Array) -> Any:
        energy = lambda d: jnp.sum(_energies(network, rest, weights, Graph(d, species, ends, ends)))
        return jax.vjp(energy, vectors)[1]

    vectors = jax.ShapeDtypeStruct((edges, 3), float)
    residuals = jax.eval_shape(kept, weights, vectors, species, of_edges)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(residuals))


class _Along:
    """A network as a function of amplitudes along directions in the space of its weights."""

    def __init__(self, potential: GraphPotential, directions: dict[str, GraphPotential]):
        self.potential = potential
        self.directions = {name: direction.weights for name, direction in directions.items()}

    def __call__(self, amplitudes: dict[str, Array], *graph: Array) -> Array:
        weights = self.potential.weights
        for name, amplitude in amplitudes.items():
            step = lambda w, d, a=amplitude: w + a * d
            weights = jax.tree.map(step, weights, self.directions[name])
        return self.potential.network(self.potential.rest.put_together(weights), *graph)


def _taken_apart(params: Any) -> tuple[dict[str, Array], "Rest"]:
    leaves, tree = jax.tree_util.tree_flatten_with_path(params)
    weights: dict[str, Array] = {}
    slots: list[Any] = []
    for path, leaf in leaves:
        if not _is_weight(leaf):
            slots.append(leaf)
            continue
        name = _free_name(".".join(_step(key) for key in path) or "weights", weights)
        weights[name] = jnp.asarray(leaf, float)
        slots.append(_Slot(name))
    if not weights:
        raise InputError("params hold no floating array: a potential without weights has no derivatives.")
    return weights, Rest(tree, tuple(slots))


def _layer_of(name: str) -> str:
    parts = name.split(".")
    numbered = [k for k, part in enumerate(parts) if part.isdigit() or part.split("_")[-1].isdigit()]
    return ".".join(parts[: numbered[0] + 1]) if numbered else parts[0]


def _is_weight(leaf: Any) -> bool:
    if isinstance(leaf, float):
        return True
    is_array = hasattr(leaf, "dtype") and hasattr(leaf, "shape")
    return is_array and jnp.issubdtype(leaf.dtype, jnp.floating)


def _step(key: Any) -> str:
    # the name of an attribute, the key of a dict, the place in a list
    for attribute in ("name", "key", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _free_name(name: str, taken: dict[str, Array]) -> str:
    free, k = name, 2
    while free in taken:
        free, k = f"{name}#{k}", k + 1
    return free


class _Slot(NamedTuple):
    """The place of a weight."""

    name: str


class Rest:
    """What of a network is no weight: its tree, with whole numbers, functions and settings in it.

    Two are equal if all of it is: then what was compiled for one serves the other.
    """

    def __init__(self, tree: Any, slots: tuple[Any, ...]):
        self._tree, self._slots = tree, slots
        self._key = tuple(_told_apart_by(slot) for slot in slots)

    def put_together(self, weights: dict[str, Any]) -> Any:
        """The whole tree, with these weights."""
        leaves = [weights[slot.name] if isinstance(slot, _Slot) else slot for slot in self._slots]
        return jax.tree.unflatten(self._tree, leaves)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rest) and self._key == other._key and self._tree == other._tree

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        others = sum(not isinstance(slot, _Slot) for slot in self._slots)
        return f"Rest({len(self._slots) - others} weights, {others} other leaves)"


def _told_apart_by(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray | jax.Array):
        array = np.asarray(leaf)
        return array.shape, str(array.dtype), array.tobytes()
    try:
        hash(leaf)
    except TypeError:
        return id(leaf)
    return leaf
