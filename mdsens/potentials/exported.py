"""Networks that were exported as compiled programs of JAX: the zip files of kUPS.

Such a file holds the energy of a graph as a program (`jax.export`), its weights and its cutoff, and needs the
package neither of the network nor of kUPS. The program cannot be traced anew. It brings derivatives in
reverse mode only, as many in a row as it was exported with, and no rule for `jax.vmap`. With z = (weights,
positions, cell) two are enough:

    g(z) = dE/dz,    H(z) v = d(g . v)/dz,

and H is its own transpose, so that this one product serves forward and reverse mode, clamped and mixed
derivatives. Third derivatives it has none.
"""

import importlib.util
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mdsens.checks import existing_file, number
from mdsens.errors import FileFormatError, InputError
from mdsens.neighbors import Neighbors
from mdsens.potentials.base import Potential
from mdsens.potentials.products import traced_product
from mdsens.precision import require_x64
from mdsens.structure import Structure

PARTS = ("model.jax", "metadata.json", "params.msgpack")
ORDERS = 2  # derivatives in a row that are needed


class Moving(NamedTuple):
    """What is differentiated by."""

    weights: tuple[Array, ...]
    positions: Array
    cell: Array


class Held(NamedTuple):
    """What is not: the edges of the graph, from both ends, and the species; spare edges lead nowhere."""

    senders: Array
    receivers: Array
    shifts: Array
    species: Array
    pbc: Array


class ExportedNetwork(Potential):
    """A network out of a compiled program of JAX; made by `from_kups`.

    Relaxes with every solver and has certificates, elastic constants, and derivatives of relaxed quantities
    by all weights. No third derivatives: elastic constants cannot be differentiated.

    Attributes:
        program: the energy.
        weights: by their place in the file, "0", "1", ...: the parameters.
        cutoff_radius: Å.
        elements: chemical symbols it is for; () if any.
        source: the file.
    """

    heavy: ClassVar[bool] = True

    program: "ExportedProgram" = eqx.field(static=True)
    weights: dict[str, Float[Array, "..."]] = eqx.field(metadata={"unit": "?"})
    cutoff_radius: float = eqx.field(static=True)
    elements: tuple[str, ...] = eqx.field(static=True)
    source: str = eqx.field(static=True)

    @property
    def cutoff(self) -> Float[Array, ""]:
        return jnp.asarray(self.cutoff_radius)

    def energy(self, structure: Structure, neighbors: Neighbors) -> Float[Array, ""]:
        weights = tuple(self.weights[str(k)] for k in range(len(self.weights)))
        moving = Moving(weights, structure.positions, structure.cell)
        return _energy(self.program, moving, self._held(structure, neighbors))

    def _held(self, structure: Structure, neighbors: Neighbors) -> Held:
        n = structure.n_atoms
        d = jax.lax.stop_gradient(neighbors.vectors(structure))
        squares = jnp.sum(d * d, axis=-1)
        inside = neighbors.valid & (squares < self.cutoff_radius**2)
        first = jnp.where(inside, neighbors.i, n)
        second = jnp.where(inside, neighbors.j, n)
        # a spare edge is one cell vector long, in the cell of the spare atom
        spare = jnp.array([1.0, 0.0, 0.0])
        there = jnp.where(inside[:, None], neighbors.shift, spare)
        back = jnp.where(inside[:, None], -neighbors.shift, spare)
        return Held(
            senders=jnp.concatenate([first, second]),
            receivers=jnp.concatenate([second, first]),
            shifts=jnp.concatenate([there, back]),
            species=structure.species,
            pbc=jnp.asarray(structure.pbc),
        )


class ExportedProgram:
    """The energy of one structure beside a spare one, as kUPS hands it over, by a compiled program.

    The spare structure is one atom of no element in a cell that is wider than the cutoff.
    """

    def __init__(self, exported: Any, cutoff: float):
        self.exported, self.cutoff = exported, cutoff

    def __call__(self, moving: Moving, held: Held) -> Array:
        """Energy, eV."""
        given = (list(moving.weights), self._graph(moving, held))
        leaves = self.exported.in_tree.flatten_up_to((given, {}))
        types = [aval.dtype for aval in self.exported.in_avals]
        pairs = zip(leaves, types, strict=True)
        converted = [jnp.asarray(leaf).astype(dtype) for leaf, dtype in pairs]
        arguments, _ = self.exported.in_tree.unflatten(converted)
        return self.exported.call(*arguments)[0]

    def _graph(self, moving: Moving, held: Held) -> dict[str, Array]:
        n = len(moving.positions)
        wide = 2 * self.cutoff * jnp.eye(3)
        one_more = lambda values: jnp.concatenate([values, jnp.zeros_like(values[:1])])
        return {
            "pos": one_more(moving.positions),
            "atomic_numbers": one_more(held.species),
            "cell": jnp.stack([moving.cell, wide]),
            "pbc": jnp.stack([held.pbc, jnp.ones(3, bool)]),
            "edge_index": jnp.stack([held.senders, held.receivers]),
            "cell_offsets": held.shifts,
            "batch": jnp.concatenate([jnp.zeros(n, int), jnp.ones(1, int)]),
            "charge": jnp.zeros(2),
            "spin": jnp.zeros(2),
        }


# --- what JAX is told of it


def _static_jvp(function: Any) -> Any:
    return jax.custom_jvp(function, nondiff_argnums=(0,))


def _one_by_one(function: Any) -> Any:
    """A row of a batch after the other."""
    return jax.custom_batching.sequential_vmap(function)


@_static_jvp
def _energy(program: ExportedProgram, moving: Moving, held: Held) -> Array:
    return _one_by_one(program)(moving, held)


@_energy.defjvp
def _energy_jvp(program: ExportedProgram, primals: Any, tangents: Any) -> tuple[Array, Array]:
    gradient = _gradient(program, *primals)
    terms = jax.tree.map(jnp.vdot, gradient, tangents[0])
    change = sum(jax.tree.leaves(terms), jnp.zeros(()))
    return _energy(program, *primals), change


@_static_jvp
def _gradient(program: ExportedProgram, moving: Moving, held: Held) -> Moving:
    return _one_by_one(jax.grad(program))(moving, held)


@_gradient.defjvp
def _gradient_jvp(program: ExportedProgram, primals: Any, tangents: Any) -> tuple[Any, Any]:
    moving, held = primals
    moves, tree = jax.tree.flatten(tangents[0])
    point = (*jax.tree.leaves(moving), *held)
    A = Curvature(program, tree)
    change = traced_product(A, A, point, tuple(moves), [jnp.shape(move) for move in moves])
    return _gradient(program, moving, held), tree.unflatten(change)


class Curvature(NamedTuple):
    """H(z) v, its own transpose."""

    program: ExportedProgram
    tree: Any

    def __call__(self, point: tuple[Array, ...], v: tuple[Array, ...]) -> tuple[Array, ...]:
        count = len(v)
        moving, held = self.tree.unflatten(point[:count]), Held(*point[count:])
        slopes = jax.vjp(lambda z: jax.grad(self.program)(z, held), moving)[1]
        (found,) = slopes(self.tree.unflatten(v))
        return tuple(jax.tree.leaves(found))


# --- its file


def from_kups(path: str | Path, *, elements: Sequence[str] = ()) -> ExportedNetwork:
    """A network in a zip file of kUPS: model.jax, metadata.json with the cutoff, params.msgpack.

    It must have been exported in float64 with two derivatives,

        jax.export.export(jax.jit(energies))(params, graph).serialize(vjp_order=2)

    as Newton steps, certificates and sensitivities are made of second ones. kUPS itself needs one.

    Args:
        elements: chemical symbols it is for; the file does not say.
    Raises:
        FileFormatError: no such file, or a part of it is missing or cannot be read.
        InputError: exported in float32, or with fewer derivatives than two; msgpack or
            flatbuffers is not installed.
    Source: package kups (Apache-2.0), `kups.potential.mliap.tojax`.
    """
    require_x64()
    file = existing_file(path, "network of kUPS")
    parts = _parts(file)
    exported, params = _program(file, parts["model.jax"]), _weights(file, parts["params.msgpack"])
    cutoff = _cutoff(file, parts["metadata.json"])
    _check_program(file, exported)
    return ExportedNetwork(
        program=ExportedProgram(exported, cutoff),
        weights={str(k): jnp.asarray(w, float) for k, w in enumerate(params)},
        cutoff_radius=cutoff,
        elements=tuple(elements),
        source=file.name,
    )


def _parts(file: Path) -> dict[str, bytes]:
    if not zipfile.is_zipfile(file):
        raise FileFormatError(f"'{file}' is no zip archive: networks of kUPS are archives of {PARTS}.")
    with zipfile.ZipFile(file) as archive:
        there = archive.namelist()
        missing = [part for part in PARTS if part not in there]
        if missing:
            raise FileFormatError(f"'{file}' has no {missing[0]}; there are: {', '.join(there) or 'none'}.")
        return {part: archive.read(part) for part in PARTS}


def _program(file: Path, content: bytes) -> Any:
    from jax import export

    if importlib.util.find_spec("flatbuffers") is None:  # with which JAX reads its programs
        raise InputError("programs of kUPS need the package flatbuffers: pip install flatbuffers.")
    try:
        return export.deserialize(bytearray(content))
    except Exception as error:  # whatever its reader meets
        raise FileFormatError(
            f"model.jax in '{file}' cannot be read by jax {jax.__version__}: {type(error).__name__} {error}. "
            "Exported programs are kept readable for half a year of JAX versions: export it again."
        ) from error


def _weights(file: Path, content: bytes) -> list[np.ndarray]:
    try:
        import msgpack
    except ImportError as error:
        raise InputError("weights of kUPS need the package msgpack: pip install msgpack.") from error
    try:
        rows = msgpack.unpackb(content, raw=False)
        return [np.frombuffer(r["data"], np.dtype(r["dtype"])).reshape(r["shape"]) for r in rows]
    except Exception as error:  # whatever is in it
        raise FileFormatError(
            f"params.msgpack in '{file}' is no list of arrays: {type(error).__name__} {error}."
        ) from error


def _cutoff(file: Path, content: bytes) -> float:
    try:
        cutoff = json.loads(content.decode())["cutoff"]
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"metadata.json in '{file}' states no cutoff: {error}.") from error
    return number("cutoff", cutoff, "Å", above=0)


def _check_program(file: Path, exported: Any) -> None:
    low = [aval.dtype for aval in exported.in_avals if jnp.issubdtype(aval.dtype, jnp.floating)]
    if any(dtype != jnp.float64 for dtype in low):
        raise InputError(
            f"'{file}' computes in {min(low, key=lambda t: t.itemsize)}: minima and derivatives need "
            "float64. Export it again with JAX_ENABLE_X64=1 and arguments in float64."
        )
    orders = _orders(exported)
    if orders < ORDERS:
        raise InputError(
            f"'{file}' was exported with {orders} derivative(s), and second ones are needed for Newton "
            f"steps, certificates and sensitivities: export it again with serialize(vjp_order={ORDERS})."
        )


def _orders(exported: Any) -> int:
    """How many times in a row it can be differentiated, as far as is needed."""
    orders = 0
    while orders < ORDERS and exported.has_vjp():
        exported = exported.vjp()
        orders += 1
    return orders
