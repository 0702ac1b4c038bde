"""A normalizing flow: a density that can be evaluated, differentiated and drawn from.

A one-to-one map F takes x to latent variables z = F(x) of a simple density q. Probability is conserved, so

    log p(x) = log q(F(x)) + log|det dF/dx|,

and -log p is the energy in units of kT of a system whose Boltzmann distribution p is, up to a constant.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mdsens.errors import InputError
from mdsens.flows.layers import AbstractLayer, Chain, Channels


class AbstractBase(eqx.Module):
    """A simple density of n independent numbers."""

    @abc.abstractmethod
    def log_density(self, z: Float[Array, " n"]) -> Float[Array, ""]:
        """log q(z)."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, dtype: np.dtype) -> Float[Array, " n"]:
        """One draw."""


class Normal(AbstractBase):
    """Gaussians of mean zero and variance one."""

    n: int = eqx.field(static=True)

    def log_density(self, z: Float[Array, " n"]) -> Float[Array, ""]:
        return -0.5 * jnp.sum(z * z) - 0.5 * self.n * np.log(2 * np.pi).item()

    def sample(self, key: PRNGKeyArray, dtype: np.dtype) -> Float[Array, " n"]:
        return jax.random.normal(key, (self.n,), dtype)


class Uniform(AbstractBase):
    """The same everywhere on [0, 1] or on the circle of circumference 1."""

    n: int = eqx.field(static=True)

    def log_density(self, z: Float[Array, " n"]) -> Float[Array, ""]:
        return jnp.zeros((), z.dtype)

    def sample(self, key: PRNGKeyArray, dtype: np.dtype) -> Float[Array, " n"]:
        return jax.random.uniform(key, (self.n,), dtype)


class Flow(eqx.Module):
    """A density of x, whatever the first layer takes: positions (atoms, 3) of a molecule in nm, or a vector.

    For molecules the density is that of the shape: per nm³ of each atom's position, times the uniform density
    of place and orientation, which is left out (it adds log V + log 8 pi² to the negative log-likelihood).

    Attributes:
        layers: from the data to the latent variables.
        base: density of each latent field.
    """

    layers: Chain
    base: dict[str, AbstractBase]

    def __init__(self, layers: tuple[AbstractLayer, ...], base: dict[str, AbstractBase]):
        self.layers, self.base = Chain(tuple(layers)), dict(base)

    @property
    def dtype(self) -> np.dtype:
        """Precision of the parameters; that of JAX if there are none."""
        return next(
            (leaf.dtype for leaf in jax.tree.leaves(eqx.filter(self, eqx.is_inexact_array))),
            jnp.zeros(()).dtype,
        )

    def astype(self, dtype: np.dtype | type) -> "Flow":
        """The same flow with its parameters in another precision."""
        return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, self)

    def forward(self, x: Array) -> tuple[Channels, Float[Array, ""]]:
        """Latent variables of one x, and log|det dz/dx|."""
        return self.layers.forward(x)

    def inverse(self, z: Channels) -> tuple[Array, Float[Array, ""]]:
        """x of the latent variables, and log|det dx/dz|."""
        return self.layers.inverse(z)

    def log_density(self, x: Array) -> Float[Array, ""]:
        """log p of one x."""
        z, log_det = self.forward(x)
        return sum((q.log_density(z[name]) for name, q in self.base.items()), start=log_det)

    def energy(self, x: Array) -> Float[Array, ""]:
        """-log p of one x: energy in kT."""
        return -self.log_density(x)

    def energy_and_forces(self, x: Array) -> tuple[Float[Array, ""], Array]:
        """Energy in kT and forces, kT per unit of x, of one x."""
        energy, gradient = jax.value_and_grad(self.energy)(x)
        return energy, -gradient

    def draw(self, key: PRNGKeyArray) -> tuple[Array, Float[Array, ""]]:
        """One sample x and log p(x), differentiable w.r.t. the flow at fixed randomness."""
        keys = jax.random.split(key, len(self.base))
        z = {name: q.sample(k, self.dtype) for k, (name, q) in zip(keys, self.base.items(), strict=True)}
        x, log_det = self.inverse(z)
        return x, sum((q.log_density(z[name]) for name, q in self.base.items()), start=-log_det)

    def sample(
        self, key: PRNGKeyArray, n: int, *, batch: int = 1024
    ) -> tuple[Float[np.ndarray, "n ..."], Float[np.ndarray, " n"]]:
        """n samples of x and their log p, on the host; `batch` at a time.

        Raises:
            InputError: n or batch below 1.
        """
        if n < 1 or batch < 1:
            raise InputError(f"n = {n} samples, batch = {batch}: both must be 1 or more.")
        size = min(n, batch)
        draws = [_draw_many(self, k, size) for k in jax.random.split(key, -(-n // size))]
        positions, densities = zip(*draws, strict=True)
        return np.concatenate(positions)[:n], np.concatenate(densities)[:n]


@eqx.filter_jit
def _draw_many(flow: Flow, key: PRNGKeyArray, n: int) -> tuple[Array, Array]:
    return jax.vmap(flow.draw)(jax.random.split(key, n))
