"""A chain of images, held apart by springs, that settles on the path of least energy.

Each image feels the true force across the path and the spring force along it,

    F_k = -grad E_k + (grad E_k . t_k) t_k + K (|x_k+1 - x_k| - |x_k - x_k-1|) t_k.

The tangent t_k points to the neighbor of higher energy; at a minimum or maximum of the chain it is the mean
of both neighbors, weighted by the differences of energy, so that it turns without a jump. The image of
highest energy climbs: it feels no spring, and the force along the path upside down,

    F_k = -grad E_k + 2 (grad E_k . t_k) t_k.

All images are evaluated at once. They walk as FIRE does: the force of a band is the gradient of nothing.

Source: Henkelman, Uberuaga, Jónsson, J. Chem. Phys. 113, 9901 (2000); Henkelman, Jónsson, ibid. 9978; Bitzek
et al., Phys. Rev. Lett. 97, 170201 (2006).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mdsens.errors import NonFiniteError
from mdsens.ghosts import padded
from mdsens.neighbors import Capacity, Neighbors
from mdsens.neighbors.stacked import capacity_of, find_stacked
from mdsens.potentials.base import Potential
from mdsens.relaxation.equilibrium import default_skin
from mdsens.relaxation.fire import FIRE, FIREMemory
from mdsens.saddles.path import Images, ReactionPath
from mdsens.structure import Structure

LOOK = 20  # steps between two looks by the host
CLIMB_BELOW = 0.5  # eV/Å: below this force the highest image starts to climb
LONGEST = 0.1  # Å: no atom moves farther in one step
STEPPER = FIRE(dt_max=0.5)

Band = Float[Array, "images atoms 3"]
Inner = Float[Array, "inner atoms 3"]


class BandProgress(NamedTuple):
    """What somebody who watches a band sees now and then.

    Attributes:
        path: the images as they stand. goal: force to reach, eV/Å. climbing: whether the highest image
            climbs.
    """

    path: ReactionPath
    goal: float
    climbing: bool


class BandScene(eqx.Module):
    """What a step of the band needs to know.

    Attributes:
        reference: cell, species and so on of all images.
        first, last: the ends, which stay. ends: their energies.
        neighbors: the lists of the images in between, stacked.
        spring: K, eV/Å².
    """

    potential: Potential
    reference: Structure
    first: Float[Array, "atoms 3"]
    last: Float[Array, "atoms 3"]
    ends: Float[Array, "2"]
    neighbors: Neighbors
    spring: Float[Array, ""]

    @property
    def free(self) -> Bool[Array, "atoms 3"]:
        """Coordinates that move."""
        return ~self.reference.fixed


class BandWalker(NamedTuple):
    """Where the band is, and what FIRE remembers."""

    x: Inner
    energies: Float[Array, "inner"]
    force: Inner
    across: Array  # largest force that is left on an atom, springs not counted, eV/Å
    memory: FIREMemory


def tangents(energies: Float[Array, "images"], x: Band) -> Inner:
    """Unit tangents of the images in between."""
    ahead = x[2:] - x[1:-1]
    behind = x[1:-1] - x[:-2]
    up = energies[2:] - energies[1:-1]
    down = energies[:-2] - energies[1:-1]
    larger = jnp.maximum(jnp.abs(up), jnp.abs(down))
    smaller = jnp.minimum(jnp.abs(up), jnp.abs(down))
    # at an extremum the neighbor of higher energy counts with the larger difference
    next_is_higher = up > down
    weight_ahead = jnp.where(next_is_higher, larger, smaller)
    weight_behind = jnp.where(next_is_higher, smaller, larger)
    rising = (up > 0) & (down < 0)
    falling = (up < 0) & (down > 0)
    weight_ahead = jnp.where(rising, 1.0, jnp.where(falling, 0.0, weight_ahead))
    weight_behind = jnp.where(rising, 0.0, jnp.where(falling, 1.0, weight_behind))
    both = _scaled(weight_ahead, ahead) + _scaled(weight_behind, behind)
    straight = ahead + behind
    flat = (weight_ahead == 0) & (weight_behind == 0)
    both = jnp.where(flat[:, None, None], straight, both)
    return _scaled(1 / jnp.maximum(_norm(both), 1e-300), both)


def band_forces(
    energies: Float[Array, "images"],
    gradients: Inner,
    x: Band,
    spring: Float[Array, ""],
    climbing: Bool[Array, "inner"],
) -> tuple[Inner, Inner]:
    """Forces that the images walk by, and the part of them that must vanish at the end (without springs)."""
    t = tangents(energies, x)
    slope = jnp.sum(gradients * t, axis=(1, 2))
    lengths = _norm(x[1:] - x[:-1])
    stretch = lengths[1:] - lengths[:-1]
    across = -gradients + _scaled(slope, t)
    # the climbing image must come to rest altogether
    turned = across + _scaled(slope, t)
    held = across + _scaled(spring * stretch, t)
    chosen = climbing[:, None, None]
    return jnp.where(chosen, turned, held), jnp.where(chosen, turned, across)


def _norm(x: Inner) -> Float[Array, "inner"]:
    return jnp.sqrt(jnp.sum(x**2, axis=(1, 2)))


def _scaled(factors: Float[Array, "inner"], x: Inner) -> Inner:
    return factors[:, None, None] * x


def _energies_and_gradients(scene: BandScene, x: Inner) -> tuple[Float[Array, "inner"], Inner]:
    def one(image: tuple[Array, Neighbors]) -> tuple[Array, Array]:
        x, neighbors = image
        energy = lambda x: scene.potential.energy(scene.reference.at(x), neighbors)
        return jax.value_and_grad(energy)(x)

    if scene.potential.heavy:
        return jax.lax.map(one, (x, scene.neighbors))
    return jax.vmap(one)((x, scene.neighbors))


def _evaluated(scene: BandScene, x: Inner, climb: Array) -> tuple[Array, Inner, Array]:
    energies, gradients = _energies_and_gradients(scene, x)
    gradients = jnp.where(scene.free, gradients, 0.0)
    all_energies = jnp.concatenate([scene.ends[:1], energies, scene.ends[1:]])
    band = jnp.concatenate([scene.first[None], x, scene.last[None]])
    highest = jnp.arange(len(x)) == jnp.argmax(energies)
    force, across = band_forces(all_energies, gradients, band, scene.spring, highest & climb)
    force = jnp.where(scene.free, force, 0.0)
    across = jnp.where(scene.free, across, 0.0)
    return energies, force, jnp.sqrt(jnp.max(jnp.sum(across**2, axis=2)))


@eqx.filter_jit
def _at_rest(scene: BandScene, x: Inner, climb: Array) -> BandWalker:
    energies, force, across = _evaluated(scene, x, climb)
    return BandWalker(x, energies, force, across, STEPPER.start(x))


def _room(scene: BandScene, x: Inner) -> Array:
    """How far atoms may still approach each other before a list misses a pair, Å."""
    slack = lambda x, one: one.slack(scene.reference.at(x), scene.potential.cutoff)
    return jnp.min(jax.vmap(slack)(x, scene.neighbors))


def _fire(scene: BandScene, walker: BandWalker, climb: Array) -> BandWalker:
    memory = STEPPER.pushed(walker.memory, walker.force)
    step = memory.dt * memory.velocity
    longest = jnp.sqrt(jnp.max(jnp.sum(step**2, axis=2)))
    x = walker.x + step * jnp.minimum(1.0, LONGEST / jnp.maximum(longest, 1e-300))
    energies, force, across = _evaluated(scene, x, climb)
    return BandWalker(x, energies, force, across, memory)


@eqx.filter_jit
def _advance(
    scene: BandScene, walker: BandWalker, climb: Array, goal: Array, limit: Array, margin: Array
) -> tuple[BandWalker, Array]:
    """Steps until the force is below the goal, the limit is reached, or a list is used up."""

    def unfinished(state: tuple[BandWalker, Array]) -> Array:
        walker, steps = state
        there = (walker.across <= goal) | ~jnp.isfinite(walker.across)
        used_up = _room(scene, walker.x) <= margin
        return (steps == 0) | (~there & ~used_up & (steps < limit))

    def step(state: tuple[BandWalker, Array]) -> tuple[BandWalker, Array]:
        walker, steps = state
        return _fire(scene, walker, climb), steps + 1

    return jax.lax.while_loop(unfinished, step, (walker, jnp.asarray(0)))


def lists_of_images(
    potential: Potential, reference: Structure, x: np.ndarray, skin: float, capacity: Capacity | None
) -> Neighbors:
    """The neighbor list of each image, all of one shape, stacked."""
    images = [reference.at(jnp.asarray(one)) for one in x]
    cutoff = float(potential.cutoff)
    return find_stacked(images, cutoff, skin, capacity, shortest_wave=potential.shortest_wave)


def settle_band(
    potential: Potential,
    start: Structure,
    positions: Images,
    ends: tuple[float, float],
    *,
    spring: float,
    fmax: float,
    max_steps: int,
    climb: bool = True,
    skin: float | None = None,
    progress: Callable[[BandProgress], None] | None = None,
) -> ReactionPath:
    """Let a band settle: without climbing first, then with; plain numbers only.

    Args:
        start: cell, species and so on of all images.
        positions: of all images, ends included, Å; the ends stay. ends: their energies, eV.
        fmax: force across the path to reach, eV/Å. climb: let the highest image climb.
    Returns:
        the path; its `fmax` says whether it got there.
    Raises:
        NonFiniteError: an energy is not finite: atoms of an image overlap.
    """
    walk = _BandWalk(potential, start, positions, ends, spring, skin)
    # the host looks between the goals
    goals = [(max(CLIMB_BELOW, fmax), False), (fmax, True)] if climb else [(fmax, False)]
    for goal, climbing in goals:
        walk.begin(climbing)
        walk.report(progress, fmax)
        while walk.fmax > goal and walk.steps < max_steps:
            walk.advance(goal, min(LOOK, max_steps - walk.steps))
            walk.report(progress, fmax)
    return walk.path


class _BandWalk:
    """A band that settles, seen from the host."""

    def __init__(
        self,
        potential: Potential,
        start: Structure,
        positions: Images,
        ends: tuple[float, float],
        spring: float,
        skin: float | None,
    ):
        self.potential, self.start, self.n = potential, start, start.n_atoms
        self.skin = max(default_skin(potential) if skin is None else skin, 1e-6)
        self.reference = padded(potential, start)
        ghosts = np.asarray(self.reference.positions)[self.n :]
        repeated = np.broadcast_to(ghosts, (len(positions), *ghosts.shape))
        self.ends = jnp.asarray(ends)
        self.spring = jnp.asarray(spring)
        self.band = np.concatenate([positions, repeated], axis=1)
        self.steps, self.climbing = 0, False
        self.scene = self._scene(self.band[1:-1], None)

    def _scene(self, x: np.ndarray, capacity: Capacity | None) -> BandScene:
        lists = lists_of_images(self.potential, self.reference, x, self.skin, capacity)
        first, last = jnp.asarray(self.band[0]), jnp.asarray(self.band[-1])
        return BandScene(self.potential, self.reference, first, last, self.ends, lists, self.spring)

    def begin(self, climbing: bool) -> None:
        """From rest."""
        self.climbing = climbing
        self.walker = _at_rest(self.scene, jnp.asarray(self.band[1:-1]), jnp.asarray(climbing))
        self._take()

    def advance(self, goal: float, limit: int) -> None:
        """Some steps; new lists where they are used up."""
        margin = 0.2 * self.skin
        numbers: Any = (jnp.asarray(goal), jnp.asarray(limit), jnp.asarray(margin))
        walker, taken = _advance(self.scene, self.walker, jnp.asarray(self.climbing), *numbers)
        self.walker, self.steps = walker, self.steps + int(taken)
        if float(_room(self.scene, walker.x)) <= margin:
            self.scene = self._scene(np.asarray(walker.x), capacity_of(self.scene.neighbors))
            energies, force, across = _evaluated_now(self.scene, walker.x, jnp.asarray(self.climbing))
            self.walker = walker._replace(energies=energies, force=force, across=across)
        self._take()

    def _take(self) -> None:
        self.band[1:-1] = np.asarray(self.walker.x)
        self.fmax = float(self.walker.across)
        if not np.isfinite(self.fmax):
            energies = np.asarray(self.walker.energies)
            bad = int(np.flatnonzero(~np.isfinite(energies))[:1].sum()) + 1
            raise NonFiniteError(
                f"energy or forces of image {bad} of the path are not finite: its atoms overlap. Give more "
                "images, or a path of your own (path=...)."
            )

    @property
    def path(self) -> ReactionPath:
        """The images as they stand."""
        inner = np.asarray(self.walker.energies)
        first, last = np.asarray(self.ends)
        energies = np.concatenate([[first], inner, [last]])
        climbing = 1 + int(np.argmax(inner)) if self.climbing else -1
        positions = self.band[:, : self.n].copy()
        return ReactionPath(self.start, positions, energies, self.fmax, climbing, self.steps)

    def report(self, progress: Callable[[BandProgress], None] | None, goal: float) -> None:
        """Tell somebody who watches."""
        if progress is not None:
            progress(BandProgress(self.path, goal, self.climbing))


@eqx.filter_jit
def _evaluated_now(scene: BandScene, x: Inner, climb: Array) -> tuple[Array, Inner, Array]:
    return _evaluated(scene, x, climb)
