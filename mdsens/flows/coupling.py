"""Coupling layers: one field moves, by functions that a network chooses after looking at other fields.

The others stay where they are, so the same network can be asked on the way back, and the Jacobian is
triangular with the slopes on its diagonal.

Source: Dinh, Sohl-Dickstein, Bengio, Density Estimation Using Real NVP, ICLR 2017, arXiv:1605.08803.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mdsens.errors import InputError
from mdsens.flows.layers import AbstractLayer, Channels
from mdsens.flows.transforms import AbstractFamily, AbstractTransform

# Size of a new network's output relative to the usual: the first functions are near the identity
INITIAL_OUTPUT = 1e-2


class Network(eqx.Module):
    """A multilayer perceptron with smooth activations (SiLU): its derivatives exist to all orders."""

    layers: tuple[eqx.nn.Linear, ...]

    @classmethod
    def create(cls, sizes: Sequence[int], key: PRNGKeyArray) -> "Network":
        """With layers of the sizes given, input and output included; its output is small at first."""
        keys = jax.random.split(key, len(sizes) - 1)
        layers = [eqx.nn.Linear(n, m, key=k) for n, m, k in zip(sizes[:-1], sizes[1:], keys, strict=True)]
        layers[-1] = jax.tree.map(lambda leaf: INITIAL_OUTPUT * leaf, layers[-1])
        return cls(tuple(layers))

    def __call__(self, x: Float[Array, " features"]) -> Float[Array, " outputs"]:
        for layer in self.layers[:-1]:
            x = jax.nn.silu(layer(x))
        return self.layers[-1](x)


class Coupling(AbstractLayer):
    """The elements of `moved`, each by its own function of `family`, which depend on the fields `given`.

    Attributes:
        moved: field that changes.
        given: fields that are looked at.
        periodic: those of them on the circle of circumference 1; the network sees their cosines and sines.
        family: the kind of function.
        network: of the features of `given`, returns the functions' raw numbers.
        harmonics: cosines and sines of how many multiples of a periodic element.
    """

    moved: str = eqx.field(static=True)
    given: tuple[str, ...] = eqx.field(static=True)
    periodic: tuple[str, ...] = eqx.field(static=True)
    family: AbstractFamily
    network: Network
    harmonics: int = eqx.field(static=True, default=1)

    @classmethod
    def create(
        cls,
        moved: str,
        given: Sequence[str],
        sizes: dict[str, int],
        family: AbstractFamily,
        key: PRNGKeyArray,
        *,
        periodic: Sequence[str] = (),
        hidden: Sequence[int] = (128, 128),
        harmonics: int = 1,
    ) -> "Coupling":
        """A new layer.

        Args:
            moved: field that changes.
            given: fields that are looked at.
            sizes: number of elements of each field.
            family: the kind of function.
            key: of the network's first weights.
            periodic: the fields on the circle.
            hidden: sizes of the network's hidden layers.
            harmonics: of the periodic fields.
        Raises:
            InputError: a field that looks at itself, or has no size.
        """
        if moved in given:
            raise InputError(
                f"coupling of {moved!r} given {list(given)}: a field cannot look at itself. Split it and let "
                "one part look at the other."
            )
        missing = [name for name in (moved, *given) if name not in sizes]
        if missing:
            raise InputError(
                f"coupling of {moved!r} given {list(given)}: sizes are known of {sorted(sizes)}, not of "
                f"{missing}."
            )
        around = tuple(name for name in given if name in periodic)
        n_features = sum(sizes[name] * (2 * harmonics if name in around else 1) for name in given)
        network = Network.create((n_features, *hidden, sizes[moved] * family.n_raw), key)
        return cls(moved, tuple(given), around, family, network, harmonics)

    def forward(self, x: Channels) -> tuple[Channels, Float[Array, ""]]:
        v, log_slope = self._transform(x).forward(x[self.moved])
        return x | {self.moved: v}, jnp.sum(log_slope)

    def inverse(self, y: Channels) -> tuple[Channels, Float[Array, ""]]:
        v, log_slope = self._transform(y).inverse(y[self.moved])
        return y | {self.moved: v}, jnp.sum(log_slope)

    def _transform(self, state: Channels) -> AbstractTransform:
        features = [self._features(name, state[name]) for name in self.given]
        raw = self.network(jnp.concatenate(features))
        return self.family.build(raw.reshape(-1, self.family.n_raw))

    def _features(self, name: str, v: Array) -> Array:
        if name not in self.periodic:
            return v
        orders = np.arange(1, self.harmonics + 1).astype(v.dtype)
        angles = (2 * np.pi * v[:, None] * orders).ravel()
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])
