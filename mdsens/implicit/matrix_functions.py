"""Functions of symmetric matrices, f(A) = V f(lambda) V^T, with a derivative where eigenvalues are equal.

Along dA, with the eigenvectors held (Daleckii, Krein, 1956),

    df(A) = V [F o (V^T dA V)] V^T,     F_ij = (f(a) - f(b)) / (a - b),     F_ii = f',

which needs no derivative of the eigenvectors: these have none where eigenvalues coincide, as those of
crystals do. First derivatives only, forward and in reverse.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mdsens.implicit.spectral_sums import differences

Matrix = Float[Array, "size size"]


@eqx.filter_custom_jvp
def matrix_function(A: Matrix, argument: Array, function: Callable[..., Array]) -> Matrix:
    """f(A).

    Args:
        A: symmetric.
        argument: of f, beside the eigenvalue.
        function: (eigenvalue, argument) -> number, of numbers.
    """
    values, V = jnp.linalg.eigh(A)
    return (V * jax.vmap(lambda a: function(a, argument))(values)) @ V.T


@matrix_function.def_jvp
def _matrix_function_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    A, argument, function = primals
    dA, d_argument, _ = tangents
    values, V = jnp.linalg.eigh(A)
    of_value = lambda a: function(a, argument)
    result = (V * jax.vmap(of_value)(values)) @ V.T
    change = jnp.zeros_like(A)
    if dA is not None:
        inner = V.T @ ((dA + dA.T) / 2) @ V
        change = change + V @ (differences(of_value, values) * inner) @ V.T
    if d_argument is not None:
        slope = jax.vmap(lambda a: jax.grad(function, argnums=1)(a, argument))(values)
        change = change + d_argument * ((V * slope) @ V.T)
    return result, change
