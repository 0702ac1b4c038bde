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

from mdsens.errors import InputError, NonFiniteError
from mdsens.flows.layers import AbstractLayer, Chain, Channels

ATTEMPTS = 20  # to draw what fell outside the domain: one draw in ten does, and one in 10^20 is left


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
        log_norm = 0.5 * self.n * np.log(2 * np.pi).item()
        return -0.5 * jnp.sum(z * z) - log_norm

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
        leaves = jax.tree.leaves(eqx.filter(self, eqx.is_inexact_array))
        return leaves[0].dtype if leaves else jnp.zeros(()).dtype

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
        return self._with_base(z, log_det)

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
        return x, self._with_base(z, -log_det)

    def _with_base(self, z: Channels, start: Float[Array, ""]) -> Float[Array, ""]:
        """log q(z), added to something."""
        parts = (q.log_density(z[name]) for name, q in self.base.items())
        return sum(parts, start=start)

    def sample(
        self, key: PRNGKeyArray, n: int, *, batch: int = 1024
    ) -> tuple[Float[np.ndarray, "n ..."], Float[np.ndarray, " n"]]:
        """n samples of x and their log p, on the host; `batch` at a time.

        Models of floppy molecules that were made before bonds and angles near the ends of their domains had a
        layer of their own (`Unbounded`) draw some angles beyond 0° or 180°, where there is no shape. Such
        draws are made again: the samples are those of the density inside. Their log p is left as the flow has
        it, too low by the share that lies outside (0.3 % of the draws, 0.003 kT, in a very floppy case).

        Raises:
            InputError: n or batch below 1.
            NonFiniteError: draws have no finite log p, however often they are made again.
        """
        if n < 1 or batch < 1:
            raise InputError(f"n = {n} samples, batch = {batch}: both must be 1 or more.")
        size = min(n, batch)
        positions, densities = self._draws(key, n, size)
        for attempt in range(1, ATTEMPTS + 1):
            outside = np.flatnonzero(~np.isfinite(densities))
            if not len(outside):
                return positions, densities
            again = self._draws(jax.random.fold_in(key, attempt), len(outside), size)
            positions[outside], densities[outside] = again
        raise NonFiniteError(
            f"{np.sum(~np.isfinite(densities))} of {n} samples have no finite log p, and drawing them "
            f"{ATTEMPTS} times more gave none: the model is broken. Train it anew, or go back to an earlier "
            "checkpoint."
        )

    def _draws(self, key: PRNGKeyArray, n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """n draws on the host, inside the domain or not."""
        keys = jax.random.split(key, -(-n // size))
        draws = [_draw_many(self, one, size) for one in keys]
        positions, densities = zip(*draws, strict=True)
        return np.concatenate(positions)[:n], np.concatenate(densities)[:n]


@eqx.filter_jit
def _draw_many(flow: Flow, key: PRNGKeyArray, n: int) -> tuple[Array, Array]:
    return jax.vmap(flow.draw)(jax.random.split(key, n))
