"""Layers and flows as after training: every number away from where it starts."""

from typing import TypeVar

import equinox as eqx
import jax
import numpy as np

Tree = TypeVar("Tree")


def shaken(tree: Tree, size: float = 0.3, seed: int = 0) -> Tree:
    """With normal noise of this size added to every array of floats."""
    rng = np.random.default_rng(seed)
    add = lambda leaf: (
        leaf + size * rng.normal(size=leaf.shape).astype(leaf.dtype) if eqx.is_inexact_array(leaf) else leaf
    )
    return jax.tree.map(add, tree)
