"""Lists of neighbors for all replicas of a run, of one shape: stacked, and compiled for once."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mdsens.dynamics.setup import Setup
from mdsens.neighbors import Capacity, Neighbors
from mdsens.neighbors.stacked import capacity_of, find_stacked


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
    potential, structure = setup.system.potential, setup.system.structure
    cutoff = float(potential.cutoff)
    shortest = getattr(potential, "shortest_wave", np.inf)
    places = zip(jnp.asarray(positions), jnp.asarray(cells), strict=True)
    frames = [structure.at(*place) for place in places]
    return find_stacked(frames, cutoff, skin, capacity, shortest_wave=shortest)


def shape_of(lists: Neighbors | None) -> Capacity:
    """The shape of one of the lists that are stacked."""
    return Capacity() if lists is None else capacity_of(lists)
