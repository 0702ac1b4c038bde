"""A message-passing network whose one layer is repeated until nothing changes: a deep equilibrium.

The state z_i of each atom is the fixed point of a layer that hears the states of its neighbors,

    z_i = T_i(z; x, theta),

and the energy is read off the states. Information travels as far as there are neighbors, with the weights of
one layer. Derivatives are those of the fixed point: one linear solve each, by the same iteration on the
linearised layer. Two kinds of layer have one fixed point whatever the weights are:

- `Contracting`: z_i = tanh(W z_i + V m_i + b_i),    m_i = sum_j c_ij z_j / (1 + sum_j c_ij),
  with W and V scaled so that the sum of |W| and |V| over any row stays below a factor f < 1. tanh does not
  expand, so that T contracts by f in the largest component.
- `Subhomogeneous`: z_i = (W z_i + V m_i + b_i)^p with p < 1 and everything positive. T rises with each of its
  arguments and has a degree of homogeneity of at most p: it contracts in Thompson's metric, and the
  iteration stops by a bound that is rigorous.

c_ij >= 0 is an envelope with four continuous derivatives, b_i is made of the distances to the neighbors.

Source: Bai, Kolter, Koltun, Deep Equilibrium Models, NeurIPS 2019, arXiv:1909.01377; Park, Choo, Park, ICLR
    2022, arXiv:2106.01680; Sittoni, Tudisco, ICML 2024, arXiv:2403.00720.
"""

import dataclasses
from abc import abstractmethod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mdsens.checks import instance, number, whole
from mdsens.errors import InputError
from mdsens.implicit.contraction import PositivePicard
from mdsens.implicit.iterations import AbstractFixedPointSolver, Anderson, Iterated, Picard, find_fixed_point
from mdsens.potentials.graphs import GraphPotential

ROUND = 1e-3  # of |w| near zero, which would not be smooth there

Nodes = Float[Array, "nodes features"]


class Edges(NamedTuple):
    """Who hears whom, and how strongly."""

    senders: Int[Array, "edges"]
    receivers: Int[Array, "edges"]
    envelope: Float[Array, "edges"]

    def heard(self, z: Nodes) -> Nodes:
        """m_i: the mean of the neighbors, less where they are few."""
        add = lambda values: jax.ops.segment_sum(values, self.receivers, len(z))
        total = add(self.envelope[:, None] * z[self.senders])
        return total / (1 + add(self.envelope))[:, None]


class EquilibriumLayer:
    """One round of messages with one fixed point."""

    @abstractmethod
    def start(self, b: Nodes) -> Nodes:
        """Where the iteration begins."""

    @abstractmethod
    def step(self, z: Nodes, params: dict[str, Array], b: Nodes, edges: Edges) -> Nodes:
        """T(z)."""

    @property
    @abstractmethod
    def solver(self) -> AbstractFixedPointSolver:
        """How the fixed point is found."""


@dataclasses.dataclass(frozen=True)
class Contracting(EquilibriumLayer):
    """tanh of a mixture whose rows add up to less than `factor`."""

    factor: float = 0.9

    def __post_init__(self) -> None:
        if not number("factor", self.factor, above=0) < 1:
            raise InputError(f"factor = {self.factor}: a layer contracts if it is below 1.")

    @property
    def solver(self) -> AbstractFixedPointSolver:
        return Anderson(rtol=1e-13)

    def start(self, b: Nodes) -> Nodes:
        return jnp.tanh(b)

    def step(self, z: Nodes, params: dict[str, Array], b: Nodes, edges: Edges) -> Nodes:
        own, other = (self._bounded(params[name]) for name in ("own", "other"))
        return jnp.tanh(z @ own.T + edges.heard(z) @ other.T + b)

    def _bounded(self, w: Float[Array, "features features"]) -> Float[Array, "features features"]:
        size = jnp.sqrt(w * w + ROUND**2)
        return self.factor / 2 * w / (1 + jnp.sum(size, axis=1, keepdims=True))


@dataclasses.dataclass(frozen=True)
class Subhomogeneous(EquilibriumLayer):
    """A power of a mixture of positive numbers."""

    degree: float = 0.5

    def __post_init__(self) -> None:
        if not number("degree", self.degree, above=0) < 1:
            raise InputError(
                f"degree = {self.degree}: a layer of positive numbers contracts if it is below 1."
            )

    @property
    def solver(self) -> AbstractFixedPointSolver:
        return PositivePicard(degree=self.degree, rtol=1e-13)

    def start(self, b: Nodes) -> Nodes:
        return jnp.ones_like(b)

    def step(self, z: Nodes, params: dict[str, Array], b: Nodes, edges: Edges) -> Nodes:
        own, other = (jax.nn.softplus(params[name]) for name in ("own", "other"))
        positive = jax.nn.softplus(b)
        return (z @ own.T + edges.heard(z) @ other.T + positive) ** self.degree


@dataclasses.dataclass(frozen=True)
class EquilibriumNetwork:
    """The function of weights and a graph that `GraphPotential` takes; `equilibrium_network` makes both.

    Attributes:
        cutoff: Å. layer: what is repeated.
    """

    cutoff: float
    layer: EquilibriumLayer

    def __call__(
        self,
        params: dict[str, Array],
        vectors: Float[Array, "edges 3"],
        species: Int[Array, "nodes"],
        senders: Int[Array, "edges"],
        receivers: Int[Array, "edges"],
    ) -> Float[Array, "nodes"]:
        """Energies of the nodes, eV."""
        distances, envelope = self._lengths(vectors)
        edges = Edges(senders, receivers, envelope)
        bumps = self._bumps(distances, envelope, params["other"].dtype, params["radial"].shape[1])
        seen = jnp.einsum("ek,ekf->ef", bumps, params["radial"][species[senders]])
        b = jax.ops.segment_sum(seen, receivers, len(species)) + params["embedding"][species]
        z = self.states(params, b, edges)
        repulsion = params["core"] ** 2 * envelope * (self.cutoff / distances) ** 4
        pairs = jax.ops.segment_sum(repulsion, receivers, len(species))
        return pairs + z @ params["readout"]

    def states(self, params: dict[str, Array], b: Nodes, edges: Edges) -> Nodes:
        """The fixed point."""
        weights = {name: params[name] for name in ("own", "other")}
        back = Iterated(Picard(rtol=1e-13))
        found = find_fixed_point(
            self.layer.step,
            self.layer.start(jax.lax.stop_gradient(b)),
            weights,
            b,
            edges,
            solver=self.layer.solver,
            linear_solver=back,
        )
        return found.x

    def _lengths(self, vectors: Float[Array, "edges 3"]) -> tuple[Array, Array]:
        r = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
        inside = r < self.cutoff
        r = jnp.where(inside, r, self.cutoff)
        rest = 1 - (r / self.cutoff) ** 2
        return r, rest**5

    def _bumps(self, r: Array, envelope: Array, dtype: Any, count: int) -> Float[Array, "edges bumps"]:
        centers = jnp.linspace(0.3, 0.9, count, dtype=dtype) * self.cutoff
        width = 0.8 * self.cutoff / count
        return envelope[:, None] * jnp.exp(-(((r[:, None] - centers) / width) ** 2))


def equilibrium_network(
    elements: tuple[str, ...],
    cutoff: float = 5.0,
    *,
    layer: EquilibriumLayer | None = None,
    features: int = 8,
    bumps: int = 6,
    seed: int = 0,
) -> GraphPotential:
    """A network with random weights, to be trained (`ms.fit`, `ms.train_potential`).

    Args:
        cutoff: Å.
        layer: `Contracting(0.9)` by default, or `Subhomogeneous(0.5)`.
        features: numbers of each atom. bumps: Gaussians that distances are seen through.
    """
    hint = "Write layer=Contracting(0.9) or Subhomogeneous(0.5)."
    chosen: EquilibriumLayer = layer or Contracting()
    instance("layer", chosen, EquilibriumLayer, hint)
    whole("features", features, at_least=1)
    whole("bumps", bumps, at_least=1)
    rng = np.random.default_rng(seed)
    kinds = len(elements)
    params = {
        "embedding": rng.normal(size=(kinds, features)),
        "radial": rng.normal(size=(kinds, bumps, features)) / np.sqrt(bumps),
        "own": rng.normal(size=(features, features)),
        "other": rng.normal(size=(features, features)),
        "readout": rng.normal(size=features) / features,
        "core": np.asarray(0.3),
    }
    network = EquilibriumNetwork(number("cutoff", cutoff, "Å", above=0), chosen)
    return GraphPotential(network, params, cutoff, tuple(elements))
