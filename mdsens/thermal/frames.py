"""What is measured in every frame of an ensemble: energies and other numbers, with their derivatives.

A frame is one arrangement of the atoms in one cell. A number measured there, m(theta; frame), is wanted with
its derivatives by the parameters theta at fixed frame:

    m(theta + d) = m + m' d + d m'' d / 2.

The gradient of an energy by all parameters is one reverse pass, whatever their number. Frames go through the
compiled program in pieces, each with lists of neighbors of its own, all of one shape.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import NonFiniteError
from mdsens.neighbors import Capacity, Neighbors
from mdsens.neighbors.stacked import capacity_of, find_stacked
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import find_entries, follow_path, replace_by_vector
from mdsens.quantities import neighbors_of
from mdsens.structure import Structure

TOGETHER = 64  # frames whose lists are made before they are measured

# (potential, structure, neighbors) -> an array; hashable, and equal where the same is measured
FrameFunction = Callable[[Potential, Structure, Neighbors], Array]
Callback = Callable[[int, int], None]


class Expanded(eqx.Module):
    """Numbers of all frames, and their derivatives by the parameters at fixed frames.

    Attributes:
        value: the first axis is that of the frames.
        first: with an axis for the parameters at the end; None where they do not depend on any.
        second: with two axes for the parameters at the end; None where it was not asked for.
    """

    value: Float[Array | np.ndarray, "..."]
    first: Float[Array | np.ndarray, "..."] | None = None
    second: Float[Array | np.ndarray, "..."] | None = None

    def at(self, change: Float[Array, " parameters"]) -> Float[Array, "..."]:
        """At parameters that differ by `change`, to the order that is known."""
        result = jnp.asarray(self.value)
        if self.first is not None:
            result = result + self.first @ change
        if self.second is not None:
            result = result + 0.5 * (self.second @ change) @ change
        return result


class Frames(NamedTuple):
    """Arrangements of the same atoms.

    Attributes:
        structure: elements, masses, what is periodic and held.
        positions: Å. cells: Å, one for all frames or one each.
    """

    structure: Structure
    positions: Float[np.ndarray, "frames atoms 3"]
    cells: Float[np.ndarray, "frames 3 3"] | Float[np.ndarray, "3 3"]

    def __len__(self) -> int:
        return len(self.positions)

    def cell(self, k: int) -> Float[np.ndarray, "3 3"]:
        """Of one frame."""
        return self.cells if self.cells.ndim == 2 else self.cells[k]

    def at(self, k: int) -> Structure:
        """One frame as a structure."""
        positions, cell = jnp.asarray(self.positions[k]), jnp.asarray(self.cell(k))
        return self.structure.at(positions, cell)


def energy(potential: Potential, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
    """Potential energy, eV."""
    return potential.energy(structure, neighbors)


def measure_frames(
    potential: Potential,
    frames: Frames,
    functions: Sequence[FrameFunction],
    parameters: Sequence[str] = (),
    *,
    order: int = 0,
    progress: Callback | None = None,
) -> dict[FrameFunction, Expanded]:
    """Each function of every frame, with derivatives by the parameters up to an order.

    Args:
        functions: hashable; such as `energy`.
        parameters: flat names.
        order: 0, 1 or 2.
        progress: called with the number of frames done, and of all.
    Raises:
        NonFiniteError: a number or a derivative is not finite in some frame.
    """
    found: dict[FrameFunction, Expanded] = {}
    reaches = {function: getattr(function, "reach", None) for function in functions}
    for reach in dict.fromkeys(reaches.values()):
        chosen = tuple(function for function in reaches if reaches[function] == reach)
        # what brings a reach of its own looks at distances alone, and knows no parameters
        names = tuple(parameters) if reach is None and order else ()
        plan = _Plan(potential, frames, chosen, names, order if names else 0, reach)
        found |= zip(chosen, _in_pieces(plan, progress), strict=True)
    return found


class _Plan(NamedTuple):
    """What is measured by one program."""

    potential: Potential
    frames: Frames
    functions: tuple[FrameFunction, ...]
    names: tuple[str, ...]
    order: int
    reach: float | None


def _in_pieces(plan: _Plan, progress: Callback | None) -> tuple[Expanded, ...]:
    potential, frames, functions, names, order, reach = plan
    theta = values_of(potential, names)
    parts: list[Any] = []
    capacity = None
    n = len(frames)
    together = min(TOGETHER, n)
    for start in range(0, n, together):
        count = min(together, n - start)
        # the last piece is filled up, so that there is one program
        wanted = start + np.arange(together)
        places = np.minimum(wanted, n - 1)
        structures, neighbors, capacity = _with_lists(potential, frames, places, capacity, reach)
        found = _measured(potential, names, theta, functions, order, structures, neighbors)
        parts.append(jax.tree.map(lambda array, count=count: np.asarray(array)[:count], found))
        if progress is not None:
            progress(start + count, n)
    joined = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    _check_finite(joined)
    return joined


def values_of(potential: Potential, parameters: Sequence[str]) -> Float[Array, " parameters"]:
    """Values of some parameters.

    Raises:
        InputError: a name that does not exist.
    """
    entries = find_entries(potential, tuple(parameters))
    values = [np.asarray(follow_path(potential, entry.path))[entry.index] for entry in entries]
    return jnp.asarray(values, float)


def _with_lists(
    potential: Potential, frames: Frames, places: np.ndarray, capacity: Capacity | None, reach: float | None
) -> tuple[Structure, Neighbors, Capacity]:
    """Frames and their lists, stacked; and the shape of these lists."""
    structures = [frames.at(int(k)) for k in places]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *structures)
    if reach is None and _serves_all(potential):
        one = neighbors_of(potential, structures[0], 0.0, capacity)
        spread = lambda array: jnp.broadcast_to(array, (len(places), *array.shape))
        return stacked, jax.tree.map(spread, one), one.capacity
    cutoff = float(potential.cutoff) if reach is None else reach
    shortest = potential.shortest_wave if reach is None else np.inf
    lists = find_stacked(structures, cutoff, 0.0, capacity, shortest_wave=shortest)
    return stacked, lists, capacity_of(lists)


def _serves_all(potential: Potential) -> bool:
    """One list is that of all frames: it holds all pairs of a cluster, or nobody looks at it."""
    return bool(np.isinf(potential.cutoff)) or not getattr(potential, "uses_neighbors", True)


@eqx.filter_jit
def _measured(
    potential: Potential,
    names: tuple[str, ...],
    theta: Array,
    functions: tuple[FrameFunction, ...],
    order: int,
    structures: Structure,
    neighbors: Neighbors,
) -> tuple[Expanded, ...]:
    # On a CPU frames go one after the other: what belongs to one then stays in the cache of a core.
    def one(frame: tuple[Structure, Neighbors]) -> tuple[Expanded, ...]:
        def expanded(function: FrameFunction) -> Expanded:
            there = replace_by_vector if names else lambda potential, names, theta: potential
            of = lambda theta: function(there(potential, names, theta), *frame)
            return _expanded(of, theta, order)

        return tuple(expanded(function) for function in functions)

    if jax.default_backend() != "cpu":
        return jax.vmap(one)((structures, neighbors))
    return jax.lax.map(one, (structures, neighbors))


def _expanded(function: Callable[[Array], Array], theta: Array, order: int) -> Expanded:
    if order == 0:
        return Expanded(function(theta))
    shape = jax.eval_shape(function, theta)
    by_rows = shape.size <= len(theta)
    if by_rows and shape.ndim == 0:
        value, slope = jax.value_and_grad(function)(theta)
    else:
        differentiate = jax.jacrev if by_rows else jax.jacfwd
        value, slope = function(theta), differentiate(function)(theta)
    if order == 1:
        return Expanded(value, slope)
    return Expanded(value, slope, jax.jacfwd(jax.jacrev(function))(theta))


def _check_finite(found: Sequence[Expanded]) -> None:
    for expanded in found:
        for array in jax.tree.leaves(expanded):
            finite = np.isfinite(array).reshape(len(array), -1).all(1)
            if not finite.all():
                k = int(np.argmin(finite))
                raise NonFiniteError(
                    f"what is measured in frame {k} of {len(array)}, or its derivative by a parameter, is "
                    "not finite: atoms overlap there, or a parameter lies outside its range. Look at this "
                    "frame."
                )
