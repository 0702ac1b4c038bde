"""What a flow is made of: one-to-one maps between sets of named coordinates.

The state that passes from layer to layer is a dict of fields, one-dimensional arrays such as "bonds" or
"torsions", of one sample; batches by `jax.vmap`. `forward` leads from the data to the latent variables,
`inverse` back, each with the logarithm of its own volume change.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.flows.internal_coordinates import product
from mdsens.flows.transforms import AbstractFamily

LOG_TURN = np.log(2 * np.pi)
Channels = dict[str, Float[Array, " _"]]


class AbstractLayer(eqx.Module):
    """A one-to-one map with its volume change."""

    @abc.abstractmethod
    def forward(self, x: Any) -> tuple[Any, Float[Array, ""]]:
        """y and log|det dy/dx|."""

    @abc.abstractmethod
    def inverse(self, y: Any) -> tuple[Any, Float[Array, ""]]:
        """x and log|det dx/dy|."""


class Inverted(AbstractLayer):
    """A layer run backwards: its root-found direction towards the latent variables."""

    layer: AbstractLayer

    def forward(self, x: Any) -> tuple[Any, Float[Array, ""]]:
        return self.layer.inverse(x)

    def inverse(self, y: Any) -> tuple[Any, Float[Array, ""]]:
        return self.layer.forward(y)


class Chain(AbstractLayer):
    """Layers one after the other, the first next to the data."""

    layers: tuple[Any, ...]

    def forward(self, x: Any) -> tuple[Any, Float[Array, ""]]:
        total = jnp.zeros(())
        for layer in self.layers:
            x, log_det = layer.forward(x)
            total = total.astype(log_det.dtype) + log_det
        return x, total

    def inverse(self, y: Any) -> tuple[Any, Float[Array, ""]]:
        total = jnp.zeros(())
        for layer in reversed(self.layers):
            y, log_det = layer.inverse(y)
            total = total.astype(log_det.dtype) + log_det
        return y, total


class Name(AbstractLayer):
    """Gives an array a name: the first layer of a flow on plain vectors."""

    field: str = eqx.field(static=True)

    def forward(self, x: Float[Array, " n"]) -> tuple[Channels, Float[Array, ""]]:
        return {self.field: x}, jnp.zeros((), x.dtype)

    def inverse(self, y: Channels) -> tuple[Float[Array, " n"], Float[Array, ""]]:
        x = y[self.field]
        return x, jnp.zeros((), x.dtype)


class Split(AbstractLayer):
    """Splits fields into others: the elements of `sources`, end to end, go to `targets` in the order given.

    `Split(("torsions",), (("proper", (0, 3)), ("improper", (1, 2))))` splits; `Inverted(Split(...))` merges;
    with several sources and targets the elements are sorted anew.

    Attributes:
        sources: fields taken apart, with their lengths.
        targets: new fields, with the elements that they take. Every element goes to one of them.
    """

    sources: tuple[tuple[str, int], ...] = eqx.field(static=True)
    targets: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)

    def __check_init__(self) -> None:
        length = sum(n for _, n in self.sources)
        taken = sorted(i for _, elements in self.targets for i in elements)
        if taken != list(range(length)):
            raise InputError(
                f"Split of {[name for name, _ in self.sources]} with {length} elements: the parts take "
                f"{taken}. Each element 0, ..., n - 1 must go to one part, once."
            )

    def forward(self, x: Channels) -> tuple[Channels, Float[Array, ""]]:
        state = dict(x)
        whole = jnp.concatenate([state.pop(name) for name, _ in self.sources])
        parts = {name: whole[np.array(elements, int)] for name, elements in self.targets}
        return state | parts, jnp.zeros((), whole.dtype)

    def inverse(self, y: Channels) -> tuple[Channels, Float[Array, ""]]:
        state = dict(y)
        parts = jnp.concatenate([state.pop(name) for name, _ in self.targets])
        order = np.concatenate([np.array(elements, int) for _, elements in self.targets])
        whole = parts[np.argsort(order)]
        ends = np.cumsum([n for _, n in self.sources])[:-1]
        names = [name for name, _ in self.sources]
        pieces = dict(zip(names, jnp.split(whole, ends), strict=True))
        return state | pieces, jnp.zeros((), whole.dtype)


class Whiten(AbstractLayer):
    """y = matrix (x - mean) of a field, with a matrix that is given and not trained.

    `Whiten.of(frames)` gives y mean zero and unit covariance, each element staying as near to itself as can
    be.
    """

    field: str = eqx.field(static=True)
    mean: Float[Array, " n"]
    matrix: Float[Array, "n n"]
    undo: Float[Array, "n n"]
    log_det: Float[Array, ""]

    @classmethod
    def of(cls, field: str, frames: Float[np.ndarray, "frames n"]) -> "Whiten":
        """From samples of the field.

        Raises:
            InputError: not more frames than elements, values that are not finite, or an element that does not
                vary: the covariance has no inverse.
        """
        frames = np.asarray(frames, float)
        n_frames, n = frames.shape
        if n_frames <= n:
            raise InputError(
                f"the covariance of {field!r} from {n_frames} frames of {n} elements has no inverse: give "
                "ten times as many."
            )
        bad = np.flatnonzero(~np.isfinite(frames).all(1))
        if len(bad):
            raise InputError(f"{field!r} is not finite in frame {bad[0]}: leave out frames like it.")
        mean, covariance = frames.mean(0), np.atleast_2d(np.cov(frames.T))
        values, vectors = np.linalg.eigh(covariance)
        if values[0] <= 1e-12 * values[-1]:
            raise InputError(
                f"the covariance of {field!r} from {n_frames} frames of {n} elements has no inverse "
                f"(smallest eigenvalue {values[0]:.1e}, largest {values[-1]:.1e}). Give more frames, and "
                "leave out elements that never change (constraints)."
            )
        # C^(-1/2), the symmetric root: of all matrices that whiten, it moves the elements least
        matrix = vectors / np.sqrt(values) @ vectors.T
        undo = vectors * np.sqrt(values) @ vectors.T
        log_det = -0.5 * np.sum(np.log(values))
        return cls(field, *map(jnp.asarray, (mean, matrix, undo, log_det)))

    def forward(self, x: Channels) -> tuple[Channels, Float[Array, ""]]:
        v = x[self.field]
        mean, matrix, _, log_det = self._constants(x)
        return x | {self.field: product(matrix, v - mean)}, log_det

    def inverse(self, y: Channels) -> tuple[Channels, Float[Array, ""]]:
        v = y[self.field]
        mean, _, undo, log_det = self._constants(y)
        return y | {self.field: product(undo, v) + mean}, -log_det

    def _constants(self, state: Channels) -> list[Array]:
        dtype = state[self.field].dtype
        constants = (self.mean, self.matrix, self.undo, self.log_det)
        return [jax.lax.stop_gradient(array).astype(dtype) for array in constants]


class Turns(AbstractLayer):
    """Angles in radians as turns of the circle, in [0, 1)."""

    field: str = eqx.field(static=True)

    def forward(self, x: Channels) -> tuple[Channels, Float[Array, ""]]:
        v = x[self.field] / (2 * np.pi)
        log_det = jnp.asarray(-v.size * LOG_TURN, v.dtype)
        whole_turns = jax.lax.stop_gradient(jnp.floor(v))
        return x | {self.field: v - whole_turns}, log_det

    def inverse(self, y: Channels) -> tuple[Channels, Float[Array, ""]]:
        v = y[self.field]
        v = v - jax.lax.stop_gradient(jnp.floor(v + 0.5))
        log_det = jnp.asarray(v.size * LOG_TURN, v.dtype)
        return y | {self.field: v * (2 * np.pi)}, log_det


class Cut(AbstractLayer):
    """Narrow angles (rad) as numbers on the line: measured from a center, the circle cut open opposite to it.

    For angles that never come near the cut: planar and chiral centers. The other chirality has no
    probability.
    """

    field: str = eqx.field(static=True)
    center: Float[Array, " n"]

    def forward(self, x: Channels) -> tuple[Channels, Float[Array, ""]]:
        return self._wrapped(x, -1), jnp.zeros((), x[self.field].dtype)

    def inverse(self, y: Channels) -> tuple[Channels, Float[Array, ""]]:
        return self._wrapped(y, 1), jnp.zeros((), y[self.field].dtype)

    def _wrapped(self, state: Channels, sign: int) -> Channels:
        v = state[self.field]
        v = v + sign * jax.lax.stop_gradient(self.center).astype(v.dtype)
        whole_turns = jax.lax.stop_gradient(jnp.floor(v / (2 * np.pi) + 0.5))
        return state | {self.field: v - 2 * np.pi * whole_turns}


class Unbounded(AbstractLayer):
    """Lengths or angles that come near the end of their domain, as numbers on the whole line.

    y = log x for lengths in (0, inf), y = log tan(x / 2) for angles in (0, pi). What is drawn on the line
    then never falls outside the domain, where there is no shape and no density.

    Attributes:
        elements: of the field; the others stay as they are.
        kind: "length" or "angle".
    """

    field: str = eqx.field(static=True)
    elements: tuple[int, ...] = eqx.field(static=True)
    kind: str = eqx.field(static=True)

    def __check_init__(self) -> None:
        if self.kind not in ("length", "angle"):
            raise InputError(f"kind = {self.kind!r}: there are 'length' and 'angle'.")

    def forward(self, x: Channels) -> tuple[Channels, Float[Array, ""]]:
        v = x[self.field]
        inside = v[np.array(self.elements)]
        # dy/dx = 1/x, and with t = tan(x/2), (1 + t²) / (2 t) = 1 / sin x
        if self.kind == "length":
            y, log_slopes = jnp.log(inside), -jnp.log(inside)
        else:
            y = jnp.log(jnp.tan(inside / 2))
            log_slopes = -jnp.log(jnp.sin(inside))
        field = v.at[np.array(self.elements)].set(y)
        return x | {self.field: field}, jnp.sum(log_slopes)

    def inverse(self, y: Channels) -> tuple[Channels, Float[Array, ""]]:
        v = y[self.field]
        anywhere = v[np.array(self.elements)]
        # sin x = 1 / cosh y, which has no rounding to 0 near the ends
        if self.kind == "length":
            x, log_slopes = jnp.exp(anywhere), anywhere
        else:
            x = 2 * jnp.arctan(jnp.exp(anywhere))
            log_slopes = np.log(2).item() - jnp.logaddexp(anywhere, -anywhere)
        field = v.at[np.array(self.elements)].set(x)
        return y | {self.field: field}, jnp.sum(log_slopes)


class Elementwise(AbstractLayer):
    """One function for each element of a field, the same whatever the others are.

    Attributes:
        raw: (n, n_raw), the trained numbers that `family` makes functions of.
    """

    field: str = eqx.field(static=True)
    family: AbstractFamily
    raw: Float[Array, "n n_raw"]

    @classmethod
    def zeros(cls, field: str, n: int, family: AbstractFamily) -> "Elementwise":
        """Near the identity."""
        return cls(field, family, jnp.zeros((n, family.n_raw)))

    def forward(self, x: Channels) -> tuple[Channels, Float[Array, ""]]:
        v, log_slope = self.family.build(self.raw).forward(x[self.field])
        return x | {self.field: v}, jnp.sum(log_slope)

    def inverse(self, y: Channels) -> tuple[Channels, Float[Array, ""]]:
        v, log_slope = self.family.build(self.raw).inverse(y[self.field])
        return y | {self.field: v}, jnp.sum(log_slope)
