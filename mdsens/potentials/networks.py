"""Networks of other packages as potentials, each in a few lines over `GraphPotential`.

The packages are not required: each is imported when its function is called. What a network needs besides the
graph stands in its own function; everything else is the same for all.
"""

import importlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mdsens.checks import existing_file
from mdsens.errors import InputError
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
