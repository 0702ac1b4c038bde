"""What a flow is trained to make small.

    negative log-likelihood   - mean log p(x)                       x from data
    force matching            mean |f(x) - d log p(x)/dx|²          x and forces f from data, per component
    reverse KL                mean [log p(x) + u(x)]                x drawn from the flow, u the energy in kT

The first two need the derivatives of log p w.r.t. positions and parameters together. They are exact: the flow
is smooth, whichever direction is found by roots.

A frame counts in the likelihood with its weight: zero if it comes from enhanced sampling, which visits it
more often than equilibrium does. Forces are the same however often a frame is visited: they count for all
alike, unless frames have weights of their own in the force error.

Source: Köhler, Krämer, Noé, Smooth Normalizing Flows, arXiv:2110.00351, section 4.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mdsens.errors import InputError
from mdsens.flows.flow import Flow


class Loss(eqx.Module):
    """A weighted sum of the three.

    Attributes:
        likelihood: weight of the negative log-likelihood.
        force: weight of the mean squared force error, per (kT / length)².
        reverse_kl: weight of the reverse KL divergence (up to a constant, the free energy of u).
        energy: u(x) in kT of one sample, differentiable; needed for `reverse_kl`.
        n_draws: samples drawn each step for `reverse_kl`.
    """

    likelihood: float = eqx.field(static=True, default=1.0)
    force: float = eqx.field(static=True, default=0.05)
    reverse_kl: float = eqx.field(static=True, default=0.0)
    energy: Callable[[Array], Array] | None = None
    n_draws: int = eqx.field(static=True, default=128)

    def __check_init__(self) -> None:
        weights = {"likelihood": self.likelihood, "force": self.force, "reverse_kl": self.reverse_kl}
        if min(weights.values()) < 0 or not max(weights.values()) > 0:
            raise InputError(f"loss weights {weights}: none may be negative, and one must be positive.")
        if self.reverse_kl > 0 and self.energy is None:
            raise InputError(
                f"reverse_kl = {self.reverse_kl:g} needs an energy to compare the flow's samples with: give "
                "energy=."
            )
        if self.n_draws < 1:
            raise InputError(f"n_draws = {self.n_draws}: must be 1 or more.")

    def __call__(
        self,
        flow: Flow,
        positions: Float[Array, "batch ..."],
        forces: Float[Array, "batch ..."],
        key: PRNGKeyArray,
        weights: Float[Array, " batch"] | None = None,
        force_weights: Float[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The sum, and its terms: "nll", "force_mse", "reverse_kl" (those with a weight).

        Args:
            flow: to judge.
            positions: a batch of data, in the units of the flow.
            forces: kT per unit of length; not looked at where `force` is zero.
            key: for the draws.
            weights: of the frames in the likelihood, with mean 1 over all data; by default 1.
            force_weights: of the frames in the force error, likewise.
        """
        terms: dict[str, Array] = {}
        if self.force > 0:
            energies, own = jax.vmap(flow.energy_and_forces)(positions)
            terms["nll"] = weighted_mean(energies, weights)
            terms["force_mse"] = weighted_mean((own - forces) ** 2, force_weights)
        elif self.likelihood > 0:
            terms["nll"] = weighted_mean(jax.vmap(flow.energy)(positions), weights)
        if self.reverse_kl > 0:
            assert self.energy is not None
            draws, log_p = jax.vmap(flow.draw)(jax.random.split(key, self.n_draws))
            terms["reverse_kl"] = jnp.mean(log_p + jax.vmap(self.energy)(draws))
        return self.total(terms, jnp.zeros((), flow.dtype)), terms

    def total(self, terms: dict[str, Any], zero: Any = 0.0) -> Any:
        """The weighted sum of some terms."""
        weights = {"nll": self.likelihood, "force_mse": self.force, "reverse_kl": self.reverse_kl}
        counted = [weights[name] * term for name, term in terms.items() if weights[name] > 0]
        return sum(counted, start=zero)


def weighted_mean(
    values: Float[Array, "batch ..."], weights: Float[Array, " batch"] | None
) -> Float[Array, ""]:
    """Mean of the values times the weights of their frames, whose own mean is 1 over all batches."""
    if weights is None:
        return jnp.mean(values)
    each = jnp.reshape(weights, (-1, *[1] * (values.ndim - 1)))
    return jnp.mean(each * values)
