"""The energy of a program as a function that JAX differentiates twice, in both modes, under jit and vmap.

With z = (positions x, cell h, parameters theta) the host knows dE/dz and products with d2E/dz2. That matrix
is symmetric: its blocks of geometry and of parameters are their own transposes, and the block between them
is pushed through in one mode and pulled back in the other.

Static arguments: (evaluator, pbc). Arrays: species, positions, cell, parameters in a row.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from mdsens.potentials.products import host_product
from mdsens.potentials.programs.evaluator import Evaluator, Point

Static = tuple[Evaluator, tuple[bool, ...]]


def _ask(answer: Callable[..., Any], shapes: Sequence[Any], arrays: tuple[Any, ...]) -> Any:
    """Call the host with arrays; without JAX in between if they are plain: errors then keep their class."""

    def call(*arrays: Any) -> tuple[np.ndarray, ...]:
        on_host = tuple(np.asarray(array) for array in arrays)
        return tuple(np.asarray(y, float) for y in answer(on_host))

    if not any(isinstance(array, Tracer) for array in arrays):
        return tuple(jnp.asarray(y) for y in call(*arrays))
    out = tuple(jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(float)) for shape in shapes)
    return jax.pure_callback(call, out, *arrays, vmap_method="sequential")


def _static_jvp(function: Any) -> Any:
    return jax.custom_jvp(function, nondiff_argnums=(0,))


@_static_jvp
def program_energy(static: Static, species: Array, x: Array, h: Array, theta: Array) -> Array:
    """Energy, eV, of species, positions (Å), cell (Å) and all parameters in a row."""
    evaluator, pbc = static
    answer = lambda at: evaluator.evaluate(pbc, at)[:1]
    return _ask(answer, [()], (species, x, h, theta))[0]


def _energy_jvp(static: Static, primals: Any, tangents: Any) -> tuple[Array, Array]:
    slopes = (_by_positions, _by_cell, _by_parameters)
    change = jnp.zeros(())
    for slope, tangent in zip(slopes, tangents[1:], strict=True):
        if not _is_zero(tangent):
            change = change + jnp.vdot(slope(static, *primals), tangent)
    return program_energy(static, *primals), change


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero) or tangent.size == 0


program_energy.defjvp(_energy_jvp, symbolic_zeros=True)


@_static_jvp
def _by_positions(static: Static, species: Array, x: Array, h: Array, theta: Array) -> Array:
    evaluator, pbc = static
    answer = lambda at: evaluator.evaluate(pbc, at)[1:2]
    return _ask(answer, [x.shape], (species, x, h, theta))[0]


@_static_jvp
def _by_cell(static: Static, species: Array, x: Array, h: Array, theta: Array) -> Array:
    evaluator, pbc = static
    evaluator.require_stress()  # said before anything is compiled, where it is known by now

    def answer(at: Point) -> tuple[np.ndarray, ...]:
        of_cell = evaluator.evaluate(pbc, at)[2:]
        evaluator.require_stress()
        return of_cell

    return _ask(answer, [(3, 3)], (species, x, h, theta))[0]


@_static_jvp
def _by_parameters(static: Static, species: Array, x: Array, h: Array, theta: Array) -> Array:
    evaluator, pbc = static
    answer = lambda at: (evaluator.gradient_by_parameters(pbc, at),)
    return _ask(answer, [theta.shape], (species, x, h, theta))[0]


def _filled(values: tuple[Array, ...], tangents: tuple[Any, ...]) -> tuple[Array, ...]:
    pairs = zip(values, tangents, strict=True)
    return tuple(jnp.zeros_like(value) if _is_zero(tangent) else tangent for value, tangent in pairs)


def _of_geometry(which: int, function: Any) -> Any:
    def rule(static: Static, point: Any, tangents: Any) -> tuple[Array, Array]:
        x, h = point[1:3]
        dx, dh, dtheta = tangents[1:]
        value = function(static, *point)
        shapes = (x.shape, (3, 3))
        change = jnp.zeros_like(value)
        if not (_is_zero(dx) and _is_zero(dh)):
            moves = _filled((x, h), (dx, dh))
            A = _Curvature(*static)
            of_moves = host_product(A, A, point, moves, shapes)
            change = change + of_moves[which]
        if not _is_zero(dtheta):
            push, pull = _Pushed(*static), _Pulled(*static)
            of_parameters = host_product(push, pull, point, (dtheta,), shapes)
            change = change + of_parameters[which]
        return value, change

    return rule


def _of_parameters(static: Static, point: Any, tangents: Any) -> tuple[Array, Array]:
    x, h, theta = point[1:]
    dx, dh, dtheta = tangents[1:]
    value = _by_parameters(static, *point)
    change = jnp.zeros_like(value)
    if not (_is_zero(dx) and _is_zero(dh)):
        moves = _filled((x, h), (dx, dh))
        push, pull = _Pushed(*static), _Pulled(*static)
        change = change + host_product(pull, push, point, moves, (theta.shape,))[0]
    if not _is_zero(dtheta):
        bend = _Bent(*static)
        change = change + host_product(bend, bend, point, (dtheta,), (theta.shape,))[0]
    return value, change


_by_positions.defjvp(_of_geometry(0, _by_positions), symbolic_zeros=True)
_by_cell.defjvp(_of_geometry(1, _by_cell), symbolic_zeros=True)
_by_parameters.defjvp(_of_parameters, symbolic_zeros=True)


class _Curvature(NamedTuple):
    """Block of positions and cell; its own transpose."""

    evaluator: Evaluator
    pbc: tuple[bool, ...]

    def __call__(self, point: Point, v: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return self.evaluator.curvature(self.pbc, point, v)[0]


class _Pushed(NamedTuple):
    """From parameters to positions and cell."""

    evaluator: Evaluator
    pbc: tuple[bool, ...]

    def __call__(self, point: Point, v: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return self.evaluator.pushed(self.pbc, point, v[0])


class _Pulled(NamedTuple):
    """From positions and cell to parameters: the transpose of `_Pushed`."""

    evaluator: Evaluator
    pbc: tuple[bool, ...]

    def __call__(self, point: Point, v: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return (self.evaluator.pulled(self.pbc, point, v),)


class _Bent(NamedTuple):
    """Block of the parameters; its own transpose."""

    evaluator: Evaluator
    pbc: tuple[bool, ...]

    def __call__(self, point: Point, v: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return (self.evaluator.bent(self.pbc, point, v[0]),)
