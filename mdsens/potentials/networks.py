"""Networks of other packages as potentials, each in a few lines over `GraphPotential`.

The packages are not required: each is imported when its function is called. What a network needs besides the
graph stands in its own function; everything else is the same for all.
"""

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mdsens.checks import existing_file
from mdsens.errors import FileFormatError, InputError
from mdsens.potentials.graphs import GraphPotential
from mdsens.precision import require_x64


def from_nequix(path: str | Path) -> GraphPotential:
    """A Nequix model, such as Nequix-MP-1, from its .nqx file.

    Source: Koker et al., arXiv:2508.16067 (2025); package nequix (MIT).

    Raises:
        FileFormatError: no such file.
        InputError: the package is not installed.
    """
    require_x64()
    file = existing_file(path, "Nequix model")
    package = _package("nequix.model", "nequix", "`pip install --no-deps nequix`, beside e3nn-jax and jraph")
    # The file holds float32 numbers, and is read into arrays of the type that JAX makes then.
    with jax.enable_x64(False):
        model, settings = package.load_model(str(file))
    elements = _symbols(settings["atomic_numbers"])
    return GraphPotential(_nequix_energies, model, settings["cutoff"], elements, source=file.name)


def _nequix_energies(model: Any, vectors: Array, species: Array, senders: Array, receivers: Array) -> Array:
    return model.node_energies(vectors, species, senders, receivers)


def from_jax_md_nequip(model: Any, params: Any, elements: tuple[str, ...]) -> GraphPotential:
    """A NequIP (or GNoME) network of jax-md.

        from jax_md._nn import nequip
        model = nequip.model_from_config(settings)
        potential = from_jax_md_nequip(model, model.init(key, graph), elements=("Si", "O"))

    Args:
        model: a `NequIPEnergyModel`. params: its weights, or what `jax_md.energy.load_gnome_model...` reads.
        elements: chemical symbols in the order of the one-hot code of the model's atoms.
    Source: Batzner et al., Nat. Commun. 13, 2453 (2022).
    """
    if len(elements) != model.n_elements:
        raise InputError(
            f"{len(elements)} elements for a network of {model.n_elements}: name one for each of its species."
        )
    return GraphPotential(_JaxMDNequip(model), params, model.r_max, elements)


class _JaxMDNequip:
    """The network as a function; one for each model, however often it is wrapped."""

    def __init__(self, model: Any):
        self.model = model

    def __call__(
        self, params: Any, vectors: Array, species: Array, senders: Array, receivers: Array
    ) -> Array:
        nodes = jax.nn.one_hot(species, self.model.n_elements)
        graph = jax_md_graph(nodes, vectors, senders, receivers)
        return self.model.apply(params, graph)[0, 0]  # of the first graph; the spare atom is the second

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _JaxMDNequip) and self.model == other.model

    def __hash__(self) -> int:
        return hash(type(self.model))


def jax_md_graph(nodes: Array, vectors: Array, senders: Array, receivers: Array) -> Any:
    """A graph as jraph and jax-md have it: all atoms, and the spare one as a second graph."""
    graphs = _package("jraph", "jraph", "`pip install jraph`")
    atoms = len(nodes) - 1
    return graphs.GraphsTuple(
        nodes=nodes,
        edges=vectors,
        senders=senders,
        receivers=receivers,
        n_node=jnp.array([atoms, 1]),
        n_edge=jnp.array([0, len(vectors)]),
        globals=None,
    )


def from_mlip(force_field: Any) -> GraphPotential:
    """A MACE, NequIP, ViSNet or eSEN network of InstaDeep's mlip.

        from mlip.models import Mace
        from mlip.models.model_io import load_model_from_zip
        potential = from_mlip(load_model_from_zip(Mace, "mace.zip"))

    Args:
        force_field: a `mlip.models.ForceField`, loaded or made by that package.
    Source: Brunken et al., arXiv:2505.22397 (2025); package mlip (Apache-2.0).

    Raises:
        InputError: the package is not installed; an energy with charges at long range, for which edges within
            the cutoff are not enough.
    """
    require_x64()
    _package("mlip.graph", "mlip", "`pip install mlip`")
    predictor = force_field.predictor
    if getattr(predictor.mlip_network.config, "use_coulomb_term", False):
        raise InputError(
            "this network adds charges at long range (use_coulomb_term), which need more than the edges "
            "within its cutoff: train it without, or use its ASE calculator with ms.from_ase."
        )
    numbers = tuple(sorted(int(z) for z in force_field.allowed_atomic_numbers))
    network = _Mlip(predictor, numbers)
    return GraphPotential(network, force_field.params, force_field.cutoff_distance, _symbols(numbers))


class _Mlip:
    """The network of a predictor of mlip as a function of its weights."""

    def __init__(self, predictor: Any, numbers: tuple[int, ...]):
        self.predictor, self.numbers = predictor, numbers

    def __call__(
        self, params: Any, vectors: Array, species: Array, senders: Array, receivers: Array
    ) -> Array:
        # its kernels want the edges in the order of their senders
        order = jnp.argsort(senders)
        graph = _mlip_graph(
            jnp.asarray(self.numbers)[species], vectors[order], senders[order], receivers[order]
        )
        energies = lambda predictor, graph: predictor.mlip_network(graph)
        found = self.predictor.apply(params, graph, method=energies)
        return found.nodes.features["energy"]


def _mlip_graph(numbers: Array, vectors: Array, senders: Array, receivers: Array) -> Any:
    """All atoms, and the spare one as a second graph. Its vectors run from the sender to the receiver."""
    graphs = importlib.import_module("mlip.graph")
    ordering = importlib.import_module("mlip.graph.edge_ordering").EdgeOrdering.SENDER
    atoms = len(numbers) - 1
    along = jax.tree_util.Partial(_given_vectors, -vectors)
    two = jnp.zeros((2, 3, 3))
    return graphs.Graph(
        nodes=graphs.GraphNodes(atomic_numbers=numbers, positions=jnp.zeros((atoms + 1, 3))),
        edges=graphs.GraphEdges(shifts=None, displ_fun=along),
        globals=graphs.GraphGlobals(cell=two, weight=jnp.ones(2)),
        senders=senders,
        receivers=receivers,
        n_node=jnp.array([atoms, 1]),
        n_edge=jnp.array([len(vectors), 0]),
        ordering=ordering,
    )


def _given_vectors(vectors: Array, *_: Any) -> Array:
    """What mlip takes for the displacements between its positions."""
    return vectors


def from_apax(model: Any, params: Any, elements: tuple[str, ...]) -> GraphPotential:
    """A Gaussian-moment, equivariant or So3krates network of apax.

        from apax.config.model_config import GMNNConfig
        builder = GMNNConfig(**settings).get_builder()(settings)
        potential = from_apax(builder.build_energy_model(), params, ("Si", "O"))

    Args:
        model: its `EnergyModel`, built with float64 (descriptor_dtype and readout_dtype "fp64").
        params: weights, as flax keeps them; those of several members of an ensemble are no potential.
        elements: chemical symbols that it was trained for; apax has weights for all elements of the table.
    Source: Zills et al., J. Chem. Inf. Model. 65, 8066 (2025); package apax (MIT).

    Raises:
        InputError: a model with corrections beside the network, which need more than the graph.
    """
    require_x64()
    if getattr(model, "corrections", ()):
        raise InputError(
            "this model of apax adds empirical corrections to its network: build it without, and add them as "
            "a potential of mdsens, such as ms.ZBL."
        )
    from ase.data import atomic_numbers

    numbers = tuple(atomic_numbers[symbol] for symbol in elements if symbol in atomic_numbers)
    radial = getattr(model.representation, "radial_fn", model.representation)
    return GraphPotential(_Apax(model, numbers), params, radial.basis_fn.r_max, elements)


class _Apax:
    """The energies of atoms by a model of apax."""

    def __init__(self, model: Any, numbers: tuple[int, ...]):
        self.model, self.numbers = model, numbers

    def __call__(
        self, params: Any, vectors: Array, species: Array, senders: Array, receivers: Array
    ) -> Array:
        numbers = jnp.asarray(self.numbers)[species]
        pairs = jnp.stack([receivers, senders])

        def energies(model: Any) -> Array:
            features = model.representation(vectors, numbers, pairs)
            return model.scale_shift(jax.vmap(model.readout)(features), numbers)

        return self.model.apply(params, method=energies)


# What may change of a model of ace-jax. Its cutoffs may not: they are the reach of the neighbor list; nor may
# the coupling coefficients of angular momenta, which are mathematics.
ACE_WEIGHTS = {
    "PACEModel": ("crad", "core", "ctilde_complex", "fs_params", "rho_core_cut", "E0"),
    "ACEModel": ("WB", "Wpair", "E0"),
}


def from_ace_jax(path: str | Path) -> GraphPotential:
    """An atomic cluster expansion from a .yace file of pacemaker and LAMMPS, or a model of ace-jax (.npz).

    Weights of a .yace: the coefficients `ctilde_complex`, radial functions `crad`, embeddings `fs_params`,
    core repulsion `core` and `rho_core_cut`, energies of lone atoms `E0`; of a .npz the coefficients `WB` and
    `Wpair`, in which the energy is linear, and `E0`.

    Source: Drautz, Phys. Rev. B 99, 014104 (2019); Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021);
        package ace-jax (MIT).

    Raises:
        FileFormatError: no such file, or the package cannot read it.
        InputError: the package is not installed.
    """
    require_x64()
    file = existing_file(path, "ACE model")
    package = _package("ace_jax.eval.io", "ace-jax", "`pip install ace-jax`")
    try:
        # without the coefficients folded into those of a faster form: they are the parameters
        model, meta, _ = package.load(str(file), fold=False)
    except Exception as error:  # whatever its reader meets
        raise FileFormatError(
            f"'{path}' cannot be read by ace-jax: {type(error).__name__} {error}."
        ) from error
    names = ACE_WEIGHTS[type(model).__name__]
    weights = {name: getattr(model, name) for name in names if getattr(model, name).size}
    elements = _symbols(meta["elements"])
    return GraphPotential(_AceJax(model), weights, meta["rcut"], elements, source=file.name)


def read_yace(path: Path, elements: Sequence[str] | None = None) -> GraphPotential:
    """A .yace file for `load_potential`.

    Raises:
        InputError: elements are asked for.
        FileFormatError: see `from_ace_jax`.
    """
    if elements is not None:
        raise InputError(f"elements = {list(elements)}: a .yace file is read with all elements it has.")
    return from_ace_jax(path)


class _AceJax:
    """A model of ace-jax as a function of its weights."""

    def __init__(self, model: Any):
        self.model = model

    def __call__(
        self, params: Any, vectors: Array, species: Array, senders: Array, receivers: Array
    ) -> Array:
        model = dataclasses.replace(self.model, **params)
        atoms = len(species)
        real = receivers < atoms - 1  # the last is the spare one
        ends = species[receivers], species[senders]
        return model.site_energies(vectors, *ends, receivers, atoms, species, real)


def _symbols(numbers: Any) -> tuple[str, ...]:
    from ase.data import chemical_symbols

    return tuple(chemical_symbols[int(z)] for z in numbers)


def _package(module: str, name: str, install: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"this network needs the package {name}, which is not installed here ({error}). Install it with "
            f"{install}."
        ) from error
