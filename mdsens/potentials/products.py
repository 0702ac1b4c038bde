"""Linear maps that another program applies, as operations that JAX can transpose and batch.

A derivative of a function from outside is a linear map y = A(z) v at a point z. JAX needs it in both
directions, A for forward and A^T for reverse mode; a program that has both is asked for either. The Hessian
of an energy is its own transpose. A derivative of A by z would be a third derivative of the energy, which
nobody has: asking for it raises.
"""

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


class _Maps(NamedTuple):
    """The two directions, the shapes on either side, and how many axes of `jax.vmap` lie in front."""

    forward: HostMap
    backward: HostMap
    shapes_in: tuple[tuple[int, ...], ...]
    shapes_out: tuple[tuple[int, ...], ...]
    batch: tuple[int, ...] = ()

    @property
    def transposed(self) -> "_Maps":
        return _Maps(self.backward, self.forward, self.shapes_out, self.shapes_in, self.batch)

    def batched_shapes(self) -> list[tuple[int, ...]]:
        """Of the arrays in y, with the axes of `jax.vmap`."""
        return [(*self.batch, *shape) for shape in self.shapes_out]


def host_product(
    forward: HostMap, backward: HostMap, point: tuple[Array, ...], v: tuple[Array, ...], shapes_out: Any
) -> tuple[Array, ...]:
    """y = A(point) v.

    Args:
        forward, backward: A and its transpose on the host; hashable.
        point: where. v: linear arguments.
        shapes_out: of the arrays in y.
    """
    shapes_in = tuple(np.shape(array) for array in v)
    maps = _Maps(forward, backward, shapes_in, tuple(tuple(shape) for shape in shapes_out))
    return tuple(_product.bind(*point, *v, maps=maps))


_product = Primitive("host_product")
_product.multiple_results = True


def _on_host(maps: _Maps, *arrays: Any) -> tuple[np.ndarray, ...]:
    numbers = [np.asarray(array) for array in arrays]
    if not maps.batch:
        count = len(numbers) - len(maps.shapes_in)
        point, v = tuple(numbers[:count]), tuple(numbers[count:])
        return tuple(np.asarray(y, float) for y in maps.forward(point, v))
    size, *further = maps.batch
    inner = maps._replace(batch=tuple(further))
    row = lambda k: _on_host(inner, *(array[k] for array in numbers))
    columns = zip(*(row(k) for k in range(size)), strict=True)
    return tuple(np.stack(column) for column in columns)


@_product.def_impl
def _evaluate(*arrays: Any, maps: _Maps) -> list[Array]:
    return [jnp.asarray(y) for y in _on_host(maps, *arrays)]  # errors keep their class


@_product.def_abstract_eval
def _shapes(*arrays: Any, maps: _Maps) -> list[Any]:
    return [ShapedArray(shape, jnp.dtype(float)) for shape in maps.batched_shapes()]


def _called(*arrays: Any, maps: _Maps) -> list[Array]:
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

    def in_front(array: Any, axis: int | None) -> Any:
        if axis is None:
            return jnp.broadcast_to(array, (size, *array.shape))
        return jnp.moveaxis(array, axis, 0)

    front = [in_front(array, axis) for array, axis in with_axes]
    out = _product.bind(*front, maps=maps._replace(batch=(size, *maps.batch)))
    return out, [0] * len(out)


ad.primitive_jvps[_product] = _tangent
ad.primitive_transposes[_product] = _transpose
batching.primitive_batchers[_product] = _batch
