"""What a claim about a potential is, and the derivatives that claims look at."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.quantities import evaluate
from mdsens.structure import Structure


class Check(NamedTuple):
    """One claim about a potential: it holds if the largest deviation is what rounding and step allow."""

    claim: str
    error: float
    allowed: float
    unit: str
    where: str

    @property
    def holds(self) -> bool:
        """False also where the deviation is NaN."""
        return self.error <= self.allowed

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "FAILS"
        where = f" ({self.where})" if self.where else ""
        off = f"off by {self.error:.1e} {self.unit}, allowed {self.allowed:.1e}"
        return f"{verdict}  {self.claim}: {off}{where}"


def skin_for(cutoff: float, part: float) -> float:
    """A part of the cutoff, Å; none where the cutoff is infinite."""
    return part * cutoff if np.isfinite(cutoff) else 0.0


def largest(found: list[tuple[float, str]]) -> tuple[float, str]:
    """The largest deviation and where it is; NaN is larger than any."""
    size = lambda error: np.inf if np.isnan(error) else error
    return max(found, key=lambda one: size(one[0]))


class Probe(NamedTuple):
    """Second derivatives of every kind. v is a displacement, d a change of parameters."""

    energy: Array
    forces: Array  # F
    stress: Array
    product: Array  # H v
    reverse: Potential  # dE/dtheta
    forward: Array  # dE/dtheta . d
    forces_forward: Array  # dF/dtheta . d
    forces_reverse: Potential  # d(v . F)/dtheta


@eqx.filter_jit
def probe(
    potential: Potential, structure: Structure, neighbors: Neighbors, v: Float[Array, "atoms 3"], d: Potential
) -> Probe:
    """All of them at once, in one compiled function."""
    theta, form = eqx.partition(potential, eqx.is_inexact_array)
    x = structure.positions

    def energy(theta, x):
        return eqx.combine(theta, form).energy(structure.at(x), neighbors)

    def force(theta, x):
        return -jax.grad(energy, 1)(theta, x)

    both = lambda theta: (energy(theta, x), force(theta, x))
    work = lambda theta: jnp.sum(v * force(theta, x))
    forward, forces_forward = jax.jvp(both, (theta,), (d,))[1]
    change = jax.jvp(lambda x: force(theta, x), (x,), (v,))[1]
    return Probe(
        *evaluate(potential, structure, neighbors),
        product=-change,
        reverse=jax.grad(energy)(theta, x),
        forward=forward,
        forces_forward=forces_forward,
        forces_reverse=jax.grad(work)(theta),
    )


def filled(potential: Potential, number: float) -> Potential:
    """A change of parameters, all by one number."""
    theta = eqx.filter(potential, eqx.is_inexact_array)
    return jax.tree.map(lambda t: jnp.asarray(np.full(t.shape, number)), theta)


def dot(a: Any, b: Any) -> tuple[float, float]:
    """Scalar product of two trees, and the sum of the sizes of its terms."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    terms = [np.asarray(x) * np.asarray(y) for x, y in pairs]
    total = float(sum(t.sum() for t in terms))
    return total, float(sum(np.abs(t).sum() for t in terms))


def of_atoms(claim: str, error: np.ndarray, allowed: float, unit: str) -> Check:
    """A claim on numbers of each atom; the worst atom is named."""
    worst = error.max(1).argmax()
    return Check(claim, float(error.max()), allowed, unit, f"atom {worst}")
