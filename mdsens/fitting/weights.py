"""All parameter arrays of a potential as one vector, and the parts of it that a small change may use.

A network has a million numbers in some hundred arrays. Here they are one vector, in the order of the names
of the arrays, and nothing is ever spelled out number by number.

A change of low rank adds to each matrix W (a x b) a product of a tall and a wide one, as LoRA does:

    W + U V^T,      U (a x r) given, U^T U = 1,      V (b x r) free.

With U given the changes are a linear subspace, and U U^T projects onto it. U holds the r directions in which
the gradients of the targets are largest: the leading left singular vectors of all of them side by side.

Source: Hu et al., ICLR 2022, arXiv:2106.09685; U from gradients: Wang et al., arXiv:2407.05000.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.errors import InputError
from mdsens.potentials.base import Potential
from mdsens.potentials.parameters import ParameterArray, follow_path, parameter_arrays

Rows = Float[np.ndarray, "rows weights"]


class WeightVector(NamedTuple):
    """All parameter arrays of a potential as one vector; hashable.

    Attributes:
        names: of the arrays, in their order in the vector. shapes: of each.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, potential: Potential) -> "WeightVector":
        """That of a potential."""
        arrays = _by_name(potential)
        shapes = tuple(array.values.shape for array in arrays.values())
        return cls(tuple(arrays), shapes)

    @property
    def size(self) -> int:
        """Numbers in all."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        return [int(np.prod(shape)) for shape in self.shapes]

    @property
    def slices(self) -> list[slice]:
        """Where each array lies."""
        ends = np.cumsum([0, *self._sizes])
        return [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]

    def values(self, potential: Potential) -> Float[np.ndarray, "weights"]:
        """The vector of a potential."""
        arrays = _by_name(potential)
        return np.concatenate([np.ravel(np.asarray(arrays[name].values)) for name in self.names])

    def replaced(self, potential: Potential, vector: Float[Array, "weights"]) -> Potential:
        """The potential with this vector."""
        arrays = _by_name(potential)
        for name, shape, place in zip(self.names, self.shapes, self.slices, strict=True):
            path = arrays[name].path
            values = vector[place].reshape(shape)
            potential = eqx.tree_at(lambda p, path=path: follow_path(p, path), potential, values)
        return potential


def _by_name(potential: Potential) -> Mapping[str, ParameterArray]:
    # dicts of weights lose their order under jit: only names are the same everywhere
    arrays = {array.name: array for array in parameter_arrays(potential)}
    return {name: arrays[name] for name in sorted(arrays)}


class LowRank(NamedTuple):
    """The changes that add a product of low rank to each matrix; other arrays stay.

    Attributes:
        vector: what the changes are of.
        bases: U of each array, (a, r); None for arrays that stay.
    """

    vector: WeightVector
    bases: tuple[np.ndarray | None, ...]

    @classmethod
    def of(cls, vector: WeightVector, gradients: Rows, rank: int) -> "LowRank":
        """U out of the gradients of the targets.

        Raises:
            InputError: no array is a matrix.
        """
        bases = []
        for shape, place in zip(vector.shapes, vector.slices, strict=True):
            bases.append(_basis(gradients[:, place], shape, rank) if len(shape) == 2 else None)
        if all(basis is None for basis in bases):
            raise InputError(
                f"rank = {rank}: no parameter array of this potential is a matrix. Leave rank out."
            )
        return cls(vector, tuple(bases))

    def project(self, rows: Rows, out: Rows | None = None) -> Rows:
        """The part of each row that lies within the subspace.

        Args:
            out: where it goes, such as the rows themselves: a hundred of them have a gigabyte.
        """
        result = np.empty_like(rows) if out is None else out
        for basis, shape, place in zip(self.bases, self.vector.shapes, self.vector.slices, strict=True):
            if basis is None:
                result[:, place] = 0.0
                continue
            matrices = rows[:, place].reshape(len(rows), *shape)
            inside = basis @ (basis.T @ matrices)
            result[:, place] = inside.reshape(len(rows), -1)
        return result


def _basis(gradients: Rows, shape: tuple[int, ...], rank: int) -> np.ndarray:
    matrices = gradients.reshape(len(gradients), *shape)
    beside = np.concatenate(list(matrices), axis=1)
    left, _, _ = np.linalg.svd(beside, full_matrices=False)
    return left[:, :rank]


def changed_weights(potential: Potential, vector: WeightVector, values: np.ndarray) -> Potential:
    """The potential with a vector of plain numbers."""
    return vector.replaced(potential, jnp.asarray(values))
