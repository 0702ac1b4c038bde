"""Central differences: a twin of `jax.jacfwd` that knows no calculus."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

# f'(0) = sum_n w_n [f(n h) - f(-n h)] / h, with an error of h² or h⁴
WEIGHTS = {2: {1: 1 / 2}, 4: {1: 2 / 3, 2: -1 / 12}}


def central_difference(f: Callable[[Any], Any], x: Any, step: float = 1e-4, *, order: int = 2) -> Any:
    """Derivative of f at x by central differences, in the form that `jax.jacfwd(f)(x)` has.

    Args:
        f: from a tree of floats (number, array, dict, potential, ...) to a tree of floats. It is called, not
            traced, so it may relax structures or run other programs.
        x: where; leaves that are no floats are held, and None in the result.
        step: added to and taken from one number at a time, in its own unit.
        order: 2 (error step²; two calls a number) or 4 (error step⁴; four calls).
    """
    leaves, tree = jax.tree.flatten(x)
    slope_by = lambda k, index: _slope_by(f, x, k, index, step, order)
    slopes = [[slope_by(k, index) for index in _entries(leaf)] for k, leaf in enumerate(leaves)]
    form = jax.tree.structure(next(slope for of_leaf in slopes for slope in of_leaf))
    outputs = [[jax.tree.leaves(slope) for slope in of_leaf] for of_leaf in slopes]

    def block(output: int, k: int) -> np.ndarray | None:
        return _block([values[output] for values in outputs[k]], leaves[k])

    leaves_by = range(len(leaves))
    by_output = [[block(output, k) for k in leaves_by] for output in range(form.num_leaves)]
    return form.unflatten([tree.unflatten(blocks) for blocks in by_output])


def _entries(leaf: Any) -> list[tuple[int, ...]]:
    return list(np.ndindex(np.shape(leaf))) if _is_float(leaf) else []


def _slope_by(
    f: Callable[[Any], Any], x: Any, k: int, index: tuple[int, ...], step: float, order: int
) -> Any:
    """Derivative of f by one number, the entry `index` of leaf k."""
    leaves, tree = jax.tree.flatten(x)

    def moved(s: float) -> Any:
        array = np.array(leaves[k], float)
        array[index] += s
        leaf = array.item() if isinstance(leaves[k], float) else jnp.asarray(array)
        changed = [*leaves[:k], leaf, *leaves[k + 1 :]]
        return f(tree.unflatten(changed))

    return slope_at_zero(moved, step, order)


def _block(slopes: list[np.ndarray], leaf: Any) -> np.ndarray | None:
    """The slopes of one output by every entry of a leaf, in the shape of output and leaf."""
    if not slopes:
        return None
    shape = (*slopes[0].shape, *np.shape(leaf))
    return np.stack(slopes, -1).reshape(shape)


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, float) or eqx.is_inexact_array_like(leaf)


def slope_at_zero(f: Callable[[float], Any], step: float, order: int = 4) -> Any:
    """Derivative of f(s) at s = 0, for trees of numbers."""
    parts = []
    for n, weight in WEIGHTS[order].items():
        part = lambda up, down, w=weight: w * (np.asarray(up) - np.asarray(down)) / step
        parts.append(jax.tree.map(part, f(n * step), f(-n * step)))
    return jax.tree.map(lambda *terms: sum(terms), *parts)
