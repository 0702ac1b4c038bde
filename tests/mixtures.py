"""Mixtures of ramps, ordinary and adversarial, and the same function with as many digits as wanted."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np

from mdsens.flows.transforms import LEAST_STEEPNESS, RampMixture, ramp

COMPONENTS = 8


@functools.cache
def mixtures(domain: str, n: int, *, adversarial: bool, power: int = 1) -> tuple[RampMixture, jnp.ndarray]:
    """n functions, and for each a value that it takes, on the circle and the line between x = -3 and 3.

    Adversarial: the least slope is 1e-6 to 1e-1 of the mean, ramps are as steep as 11 and as short as 1/200,
    a few of them do most of the rise.
    """
    rng = np.random.default_rng(int(adversarial))
    shape, least = (n, COMPONENTS), LEAST_STEEPNESS[power]
    slope, share = np.full((n, 1), 0.01), rng.dirichlet(np.ones(COMPONENTS), n)
    sharpness, steepness = rng.uniform(1, 11, shape), rng.uniform(least, least + 2, shape)
    if adversarial:
        slope, share = 10 ** rng.uniform(-6, -1, (n, 1)), rng.dirichlet(np.full(COMPONENTS, 0.3), n)
        sharpness = 10 ** rng.uniform(-1 if domain == "line" else 0, np.log10(200), shape)
        steepness = least + (11 - least) * rng.random(shape) ** 2
    center, height = rng.random(shape), (1 - slope) * share
    x, y = rng.random(n), rng.random(n)
    if domain == "interval":
        first, last = (
            np.asarray(ramp(jnp.asarray(z), jnp.asarray(steepness), power)[0])
            for z in (0.5 - sharpness * center, 0.5 + sharpness * (1 - center))
        )
        height = height / (last - first)
        offset = -np.sum(height * first, axis=-1)
    elif domain == "circle":
        offset, x = np.sum(height * (center - 0.5), axis=-1), 6 * x - 3
    else:
        offset, center, x = -0.5 * np.sum(height, axis=-1), 4 * center - 2, 6 * x - 3
    f = RampMixture(
        *(jnp.asarray(a) for a in (slope[:, 0], offset, height, center, sharpness, steepness)), power, domain
    )
    taken = f(jnp.asarray(x))
    if domain == "interval":  # uniform x often fall on flat stretches, uniform y on steep ones; and the ends
        taken = (
            jnp.clip(jnp.where(rng.random(n) < 0.5, taken, jnp.asarray(y)), 0, 1)
            .at[:100]
            .set(0)
            .at[-100:]
            .set(1)
        )
    return f, taken


class ExactMixture(NamedTuple):
    """One function, from the definition of the ramp, for numbers of mpmath."""

    slope: Any
    offset: Any
    height: Sequence
    center: Sequence
    sharpness: Sequence
    steepness: Sequence
    power: int = 1
    domain: str = "interval"

    @classmethod
    def of(cls, f: RampMixture, i: int) -> "ExactMixture":
        """Function i with the very numbers that are stored."""
        numbers = [
            np.vectorize(lambda v: mpmath.mpf(float(v)), otypes=[object])(np.asarray(leaf[i]))
            for leaf in jax.tree.leaves(f)
        ]
        return cls(*(n.item() if n.ndim == 0 else n for n in numbers), f.power, f.domain)

    def __call__(self, x):
        rho = lambda z, a: mpmath.exp(a * (1 - z**-self.power)) if z > 0 else mpmath.mpf(0)
        total = self.slope * x + self.offset
        for height, center, sharpness, steepness in zip(
            self.height, self.center, self.sharpness, self.steepness, strict=True
        ):
            turns = mpmath.floor(x - center + mpmath.mpf(1) / 2) if self.domain == "circle" else 0
            z = sharpness * (x - center - turns) + mpmath.mpf(1) / 2
            total += height * (rho(z, steepness) / (rho(z, steepness) + rho(1 - z, steepness)) + turns)
        return total
