"""Lists of neighbors for all replicas of a run, of one shape: stacked, and compiled for once."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mdsens.dynamics.setup import Setup
from mdsens.neighbors import Capacity, Neighbors, find_neighbors


def stacked_lists(
    setup: Setup,
    positions: Float[np.ndarray, "replicas atoms 3"],
    cells: Float[np.ndarray, "replicas 3 3"],
    skin: float,
    capacity: Capacity | None = None,
) -> Neighbors | None:
    """A list for each replica, stacked; None for an energy that does not look at it.

    Args:
        positions, cells, skin: Å.
        capacity: the shape of one list, if it serves; larger where it does not.
    """
    if not setup.uses_neighbors:
        return None
    lists = _lists(setup, positions, cells, skin, capacity)
    shapes = {one.capacity for one in lists}
    if len(shapes) > 1:
        widest = Capacity(*(max(sizes) for sizes in zip(*shapes, strict=True)))
        lists = _lists(setup, positions, cells, skin, widest)
    return jax.tree.map(lambda *parts: jnp.stack(parts), *lists)


def _lists(
    setup: Setup, positions: np.ndarray, cells: np.ndarray, skin: float, capacity: Capacity | None
) -> list[Neighbors]:
    potential, structure = setup.system.potential, setup.system.structure
    cutoff = float(potential.cutoff)
    shortest = getattr(potential, "shortest_wave", np.inf)
    places = zip(jnp.asarray(positions), jnp.asarray(cells), strict=True)
    frames = [structure.at(*place) for place in places]
    return [find_neighbors(frame, cutoff, skin, capacity, shortest_wave=shortest) for frame in frames]


def capacity_of(lists: Neighbors | None) -> Capacity:
    """The shape of one of the lists that are stacked."""
    if lists is None:
        return Capacity()
    waves = 0 if lists.waves is None else lists.waves.shape[1]
    return Capacity(lists.i.shape[1], lists.width, lists.owner.shape[1], waves)
