"""Many walks side by side, as lanes of one compiled program: for devices that one small system cannot fill.

Each lane has its own step, list and end. A lane that arrives is given the next system; lanes that need
something from the host (a new list, the next phase) get it between two calls. What a lane does is what it
would do alone, up to rounding.
"""

import collections
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from mdsens.arrays import on_device
from mdsens.errors import MDSensError
from mdsens.potentials.base import Potential
from mdsens.relaxation.scene import AbstractStepper, Scene, Walker, advance
from mdsens.relaxation.walk import Aim, Found, RelaxationProblem, Walk, ended

Ending = Found | MDSensError


LANES = 64  # of each accelerator


def default_lanes() -> int:
    """Systems that walk side by side: one on a CPU, whose vector units a single system fills.

    256 Lennard-Jones atoms on one core, FIRE: 0.13 ms a step alone, 0.2 ms in each of 8 or 32 lanes.
    """
    return 1 if jax.default_backend() == "cpu" else LANES * jax.device_count()


def side_by_side(
    problems: Iterable[tuple[str, RelaxationProblem]], lanes: int, devices: Sequence[Any] | None = None
) -> Iterator[tuple[str, Ending]]:
    """Every problem with how it ended, in the order of arrival.

    Args:
        problems: by name, all of one potential.
        lanes: systems at once, of all devices together.
        devices: which share the lanes; by default all there are.
    """
    devices = jax.devices() if devices is None else devices
    waiting = iter(problems)
    going: dict[str, Walk] = {}
    while True:
        for name, problem in itertools.islice(waiting, lanes - len(going)):
            begun = _attempt(Walk.begin, problem)
            if isinstance(begun, Walk):
                going[name] = begun
            else:
                yield name, begun
        arrived = [name for name, walk in going.items() if walk.status is not None]
        for name in arrived:
            yield name, _attempt(ended, going.pop(name))
        if arrived:
            continue
        if not going:
            return
        for name, walk in _advanced(going, lanes, devices):
            if isinstance(walk, Walk):
                going[name] = walk
            else:
                del going[name]
                yield name, walk


def _attempt(function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except MDSensError as error:
        return error


def _advanced(
    going: dict[str, Walk], lanes: int, devices: Sequence[Any]
) -> Iterator[tuple[str, Walk | MDSensError]]:
    """Every walk one phase on, or what stopped it."""
    aims: dict[str, Aim] = {}
    groups: dict[Any, list[str]] = collections.defaultdict(list)
    for name, walk in list(going.items()):
        aim = _attempt(walk.aimed)
        if isinstance(aim, MDSensError):
            yield name, aim
            continue
        aims[name] = aim
        groups[_shape(aim)].append(name)
    for names in groups.values():
        for first in range(0, len(names), lanes):
            some = names[first : first + lanes]
            for name, (walker, taken) in zip(some, _together([aims[n] for n in some], devices), strict=True):
                yield name, _attempt(aims[name].arrived, walker, taken)


def _shape(aim: Aim) -> Any:
    """What one compiled program serves."""
    leaves, tree = jax.tree.flatten((aim.scene, aim.walker))
    return aim.stepper, tree, tuple(np.shape(leaf) for leaf in leaves)


def _together(aims: list[Aim], devices: Sequence[Any]) -> list[tuple[Walker, Array]]:
    # Numbers of lanes are powers of two, so that few are ever compiled; spare lanes take one step and stop.
    size = max(1 << (len(aims) - 1).bit_length(), len(devices))
    size += -size % len(devices)
    spare = size - len(aims)
    full = [*aims, *[aims[0]] * spare]
    limits = [aim.limit for aim in aims] + [0] * spare
    place = _placement(tuple(devices))
    stacked = [_stacked([part(aim) for aim in full], place) for part in (_scene_of, lambda aim: aim.walker)]
    goals, margins = [aim.goal for aim in full], [aim.margin for aim in full]
    numbers = [place(np.asarray(row)) for row in (goals, limits, margins)]
    walkers, taken = _advance_all(aims[0].stepper, aims[0].scene.landscape.potential, *stacked, *numbers)
    host = jax.tree.map(np.asarray, (walkers, taken))
    return [jax.tree.map(lambda leaf, k=k: on_device(np.asarray(leaf[k])), host) for k in range(len(aims))]


def _scene_of(aim: Aim) -> Scene:
    """Without the potential, which all lanes share."""
    return eqx.tree_at(lambda scene: scene.landscape.potential, aim.scene, None)


def _stacked(trees: list[Any], place: Any) -> Any:
    return jax.tree.map(lambda *leaves: place(np.stack([np.asarray(leaf) for leaf in leaves])), *trees)


@functools.cache
def _placement(devices: tuple[Any, ...]) -> Any:
    """Puts an array on the devices, its first axis shared among them."""
    if len(devices) == 1:
        return on_device
    mesh = Mesh(np.array(devices), ("lanes",))
    return functools.partial(jax.device_put, device=NamedSharding(mesh, PartitionSpec("lanes")))


@eqx.filter_jit
def _advance_all(
    stepper: AbstractStepper,
    potential: Potential,
    scenes: Scene,
    walkers: Walker,
    goals: Array,
    limits: Array,
    margins: Array,
) -> tuple[Walker, Array]:
    def one(scene: Scene, walker: Walker, goal: Array, limit: Array, margin: Array) -> tuple[Walker, Array]:
        potential_of = lambda scene: scene.landscape.potential
        whole = eqx.tree_at(potential_of, scene, potential, is_leaf=lambda leaf: leaf is None)
        return advance(stepper, whole, walker, goal, limit, margin)

    return eqx.filter_vmap(one)(scenes, walkers, goals, limits, margins)
