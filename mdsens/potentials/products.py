"""Linear maps that another program applies, as operations that JAX can transpose and batch.

A derivative of a function from outside is a linear map y = A(z) v at a point z. JAX needs it in both
directions, A for forward and A^T for reverse mode; a program that has both is asked for either. The Hessian
of an energy is its own transpose. A derivative of A by z would be a third derivative of the energy, which
nobody has: asking for it raises.

The program runs on the host (`host_product`), or it is code of JAX that JAX itself can neither batch nor
differentiate forward, as compiled programs out of files are (`traced_product`).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from mdsens.errors import InputError

HostArrays = tuple[np.ndarray, ...]
HostMap = Callable[[HostArrays, HostArrays], HostArrays]  # (point, v) -> y
TracedMap = Callable[[tuple[Array, ...], tuple[Array, ...]], tuple[Array, ...]]


class _Batch(NamedTuple):
    """One axis of `jax.vmap`: its length, and which arrays of the point have it; those of v and y all do."""

    size: int
    along: tuple[bool, ...]


class _Maps(NamedTuple):
    """The two directions, the shapes on either side, and the axes of `jax.vmap` that lie in front."""

    forward: Any
    backward: Any
    shapes_in: tuple[tuple[int, ...], ...]
    shapes_out: tuple[tuple[int, ...], ...]
    traced: bool
    batches: tuple[_Batch, ...] = ()

    @property
    def transposed(self) -> "_Maps":
        return self._replace(
            forward=self.backward,
            backward=self.forward,
            shapes_in=self.shapes_out,
            shapes_out=self.shapes_in,
        )

    def batched_shapes(self) -> list[tuple[int, ...]]:
        """Of the arrays in y, with the axes of `jax.vmap`."""
        sizes = [batch.size for batch in self.batches]
        return [(*sizes, *shape) for shape in self.shapes_out]

    def split(self, arrays: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The arrays of the point, and those of v."""
        count = len(arrays) - len(self.shapes_in)
        return tuple(arrays[:count]), tuple(arrays[count:])


def host_product(
    forward: HostMap, backward: HostMap, point: tuple[Array, ...], v: tuple[Array, ...], shapes_out: Any
) -> tuple[Array, ...]:
    """y = A(point) v.

    Args:
        forward, backward: A and its transpose on the host; hashable.
        point: where. v: linear arguments.
        shapes_out: of the arrays in y.
    """
    return _bound(forward, backward, point, v, shapes_out, traced=False)


def traced_product(
    forward: TracedMap, backward: TracedMap, point: tuple[Array, ...], v: tuple[Array, ...], shapes_out: Any
) -> tuple[Array, ...]:
    """The same for functions of JAX; rows of a batch go one after the other."""
    return _bound(forward, backward, point, v, shapes_out, traced=True)


def _bound(
    forward: Any, backward: Any, point: tuple[Array, ...], v: tuple[Array, ...], shapes_out: Any, traced: bool
) -> tuple[Array, ...]:
    shapes_in = tuple(np.shape(array) for array in v)
    maps = _Maps(forward, backward, shapes_in, tuple(tuple(shape) for shape in shapes_out), traced)
    return tuple(_product.bind(*point, *v, maps=maps))


_product = Primitive("host_product")
_product.multiple_results = True


def _on_host(maps: _Maps, *arrays: Any) -> tuple[np.ndarray, ...]:
    numbers = [np.asarray(array) for array in arrays]
    point, v = maps.split(numbers)
    if not maps.batches:
        return tuple(np.asarray(y, float) for y in maps.forward(point, v))
    batch, *further = maps.batches
    inner = maps._replace(batches=tuple(further))

    def row(k: int) -> tuple[np.ndarray, ...]:
        here = [array[k] if along else array for array, along in zip(point, batch.along, strict=True)]
        return _on_host(inner, *here, *(array[k] for array in v))

    columns = zip(*(row(k) for k in range(batch.size)), strict=True)
    return tuple(np.stack(column) for column in columns)


def _in_jax(maps: _Maps, *arrays: Any) -> tuple[Array, ...]:
    point, v = maps.split(arrays)
    if not maps.batches:
        return tuple(maps.forward(point, v))
    batch, *further = maps.batches
    inner = maps._replace(batches=tuple(further))
    flags = list(zip(point, batch.along, strict=True))

    def row(rows: Any) -> tuple[Array, ...]:
        moving, v = rows
        moving = iter(moving)
        here = [next(moving) if along else array for array, along in flags]
        return _in_jax(inner, *here, *v)

    return jax.lax.map(row, ([array for array, along in flags if along], v))


@functools.lru_cache(maxsize=16)
def _compiled(maps: _Maps) -> Any:
    return jax.jit(functools.partial(_in_jax, maps))


@_product.def_impl
def _evaluate(*arrays: Any, maps: _Maps) -> list[Array]:
    if maps.traced:
        return list(_compiled(maps)(*arrays))
    return [jnp.asarray(y) for y in _on_host(maps, *arrays)]  # errors keep their class


@_product.def_abstract_eval
def _shapes(*arrays: Any, maps: _Maps) -> list[Any]:
    return [ShapedArray(shape, jnp.dtype(float)) for shape in maps.batched_shapes()]


def _called(*arrays: Any, maps: _Maps) -> list[Array]:
    if maps.traced:
        return list(_in_jax(maps, *arrays))
    out = [jax.ShapeDtypeStruct(shape, jnp.dtype(float)) for shape in maps.batched_shapes()]
    on_host = lambda *numbers: list(_on_host(maps, *numbers))
    return list(jax.pure_callback(on_host, out, *arrays))


mlir.register_lowering(_product, mlir.lower_fun(_called, multiple_results=True))


def _tangent(primals: Any, tangents: Any, *, maps: _Maps) -> Any:
    count = len(primals) - len(maps.shapes_in)
    if any(not isinstance(t, ad.Zero) for t in tangents[:count]):
        raise InputError(
            "third derivatives of an energy from another program are asked for, and it has none: derivatives "
            "of elastic constants, of the curvature of a fold, or second derivatives of a relaxed quantity. "
            "Take differences of the quantity itself, or a potential of mdsens."
        )
    out = _product.bind(*primals, maps=maps)
    change = [ad.instantiate_zeros(t) for t in tangents[count:]]
    return out, _product.bind(*primals[:count], *change, maps=maps)


def _transpose(cotangents: Any, *arrays: Any, maps: _Maps) -> list[Any]:
    count = len(arrays) - len(maps.shapes_in)
    back = [ad.instantiate_zeros(c) for c in cotangents]
    found = _product.bind(*arrays[:count], *back, maps=maps.transposed)
    return [None] * count + list(found)


def _batch(arrays: Any, axes: Any, *, maps: _Maps) -> Any:
    with_axes = list(zip(arrays, axes, strict=True))
    size = next(array.shape[axis] for array, axis in with_axes if axis is not None)
    point, v = maps.split(with_axes)
    along = tuple(axis is not None for _, axis in point)
    held = [_in_front(array, axis) for array, axis in point]
    moved = [_in_front(array, axis) for array, axis in v]
    rows = [
        array if axis is not None else jnp.broadcast_to(array, (size, *array.shape))
        for array, (_, axis) in zip(moved, v, strict=True)
    ]
    batches = (_Batch(size, along), *maps.batches)
    out = _product.bind(*held, *rows, maps=maps._replace(batches=batches))
    return out, [0] * len(out)


def _in_front(array: Any, axis: int | None) -> Any:
    return array if axis is None else jnp.moveaxis(array, axis, 0)


ad.primitive_jvps[_product] = _tangent
ad.primitive_transposes[_product] = _transpose
batching.primitive_batchers[_product] = _batch
