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
