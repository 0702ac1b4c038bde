"""What was relaxed before: the same inputs are relaxed once, whatever is differentiated and how often.

A derivative of order n asks for the same relaxation 2^n times, with the same plain numbers. Inputs are told
by a hash of every array among them, which takes milliseconds for 10⁵ atoms. The memory belongs to the
process; it forgets what has not been asked for longest, once all together is larger than `SIZE`.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax

from mdsens.arrays import fingerprint

SIZE = 256 * 2**20  # bytes, Hessians and factors included

_remembered: OrderedDict[Any, Any] = OrderedDict()


def remember(inputs: Any, options: Any, find: Callable[[], Any]) -> Any:
    """What `find` returned for these inputs, or what it returns now.

    Args:
        inputs: pytree of arrays. options: whatever else decides about the result; hashable.
        find: its result has `nbytes`.
    """
    key = _key(inputs, options)
    if key not in _remembered:
        _remembered[key] = find()
    _remembered.move_to_end(key)
    while len(_remembered) > 1 and sum(result.nbytes for result in _remembered.values()) > SIZE:
        _remembered.popitem(last=False)
    return _remembered[key]


def forget() -> None:
    """Empty the memory (to time relaxations)."""
    _remembered.clear()


def _key(inputs: Any, options: Any) -> Any:
    leaves, tree = jax.tree.flatten(inputs)
    return tree, options, fingerprint(leaves)
