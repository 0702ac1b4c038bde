"""What was relaxed before: the same inputs are relaxed once, whatever is differentiated and how often.

A derivative of order n asks for the same relaxation 2^n times, with the same plain numbers. Inputs are told
by a hash of every array among them, which takes milliseconds for 10⁵ atoms. The memory belongs to the
process; it forgets what has not been asked for longest, once all together is larger than `SIZE`.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax

from mdsens.arrays import fingerprint

SIZE = 256 * 2**20  # bytes, Hessians and factors included


@dataclasses.dataclass
class _Entry:
    """A result, and its bytes as they were when something was last asked for."""

    result: Any
    nbytes: int = 0

    def weigh(self) -> None:
        self.nbytes = self.result.nbytes


_remembered: OrderedDict[Any, _Entry] = OrderedDict()


def remember(inputs: Any, options: Any, find: Callable[[], Any]) -> Any:
    """What `find` returned for these inputs, or what it returns now.

    Args:
        inputs: pytree of arrays. options: whatever else decides about the result; hashable.
        find: its result has `nbytes`, which may grow while it is in use.
    """
    key = _key(inputs, options)
    if _remembered:
        # the last one may have grown since; to weigh all of them each time takes longer than a walk's step
        _remembered[next(reversed(_remembered))].weigh()
    if key not in _remembered:
        found = find()
        _remembered[key] = _Entry(found)
    _remembered.move_to_end(key)
    _remembered[key].weigh()
    while len(_remembered) > 1 and sum(entry.nbytes for entry in _remembered.values()) > SIZE:
        _remembered.popitem(last=False)
    return _remembered[key].result


def forget() -> None:
    """Empty the memory (to time relaxations)."""
    _remembered.clear()


def _key(inputs: Any, options: Any) -> Any:
    leaves, tree = jax.tree.flatten(inputs)
    return tree, options, fingerprint(leaves)
