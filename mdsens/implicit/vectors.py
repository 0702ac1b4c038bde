"""Functions (x, *theta) of any pytree x, seen as functions of one vector: what solvers of equations take."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from mdsens.errors import InputError
from mdsens.implicit.linear import Vector


class OnVectors(NamedTuple):
    """A function of a vector, where it begins, and the way back to the pytree.

    Attributes:
        function: of the same length as its argument; theta is held. start: no derivative passes it.
    """

    function: Callable[[Vector], Vector]
    start: Vector
    unravel: Callable[[Vector], Any]


def on_vectors(function: Callable[..., Any], start: Any, theta: tuple[Any, ...], name: str) -> OnVectors:
    """The function with its parameters held, as one of vectors.

    Args:
        start: arrays of floats. name: of the function, for messages.
    Raises:
        InputError: the function does not return arrays of the form of x.
    """
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), start)
    _check_form(function, start, theta, name)
    held = jax.tree.map(lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_array(leaf) else leaf, theta)
    flat, unravel = ravel_pytree(start)
    of_vector = lambda x: ravel_pytree(function(unravel(x), *held))[0]
    return OnVectors(of_vector, jax.lax.stop_gradient(flat), unravel)


def _check_form(function: Callable[..., Any], start: Any, theta: tuple[Any, ...], name: str) -> None:
    image = eqx.filter_eval_shape(function, start, *theta)
    difference = form_difference(start, image)
    if difference is None and jax.tree.structure(image) != jax.tree.structure(start):
        difference = f"{jax.tree.structure(image)} where x is {jax.tree.structure(start)}"
    if difference is not None:
        raise InputError(f"{name} returns {difference}: it must have the form of x.")


def form_difference(x: Any, other: Any) -> str | None:
    """How the arrays of another pytree differ in shape from those of x, in words."""
    shapes = lambda tree: [leaf.shape for leaf in jax.tree.leaves(tree)]
    mine, theirs = shapes(x), shapes(other)
    return None if mine == theirs else f"arrays of shapes {theirs} where x has {mine}"
