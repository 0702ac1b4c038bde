"""A small network, as a function and as a compiled program in a file of kUPS."""

import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mdsens as ms

CUTOFF = 3.2
PARAMS = [np.array([2.0, 0.3]), np.array([[0.4, -0.2], [0.1, 0.5]])]


def site_energies(params: Any, vectors: Any, species: Any, senders: Any, receivers: Any) -> Any:
    """A repulsion beside one round of messages."""
    core, mix = params
    r = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    near = jnp.where(r < CUTOFF, (1 - r / CUTOFF) ** 4, 0.0)
    kind = jnp.where(species == 14, 1.0, 0.5)
    bumps = jnp.tanh(jnp.outer(near * kind[senders], jnp.array([1.0, 3.0])))
    heard = jax.ops.segment_sum(bumps, receivers, species.shape[0])
    repulsion = jax.ops.segment_sum(core[0] * near, receivers, species.shape[0])
    return repulsion + core[1] * jnp.sum(jnp.tanh(heard @ mix), axis=1)


def of_kups(params: Any, graph: dict[str, Any]) -> Any:
    """Energies of structures, out of what kUPS hands over: vectors run from the first end to the second."""
    first, second = graph["edge_index"]
    cells = graph["cell"][graph["batch"][first]]
    images = jnp.einsum("ea,eab->eb", graph["cell_offsets"], cells)
    vectors = graph["pos"][second] - graph["pos"][first] + images
    energies = site_energies(params, vectors, graph["atomic_numbers"], second, first)
    return jax.ops.segment_sum(energies, graph["batch"], graph["cell"].shape[0])


def shapes(dtype: Any) -> dict[str, Any]:
    """Of the graph: any number of atoms, edges and structures."""
    from jax import export

    n, e, b = export.symbolic_shape("n, e, b")
    real = lambda *shape: jax.ShapeDtypeStruct(shape, dtype)
    whole = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
    graph = {"pos": real(n, 3), "cell": real(b, 3, 3), "cell_offsets": real(e, 3), "charge": real(b)}
    graph |= {"atomic_numbers": whole(n), "edge_index": whole(2, e), "batch": whole(n), "spin": real(b)}
    return graph | {"pbc": jax.ShapeDtypeStruct((b, 3), bool)}


def written(path: Path, *, orders: int = 2, dtype: Any = jnp.float64, **parts: bytes | None) -> Path:
    """A file as kUPS reads it."""
    import msgpack
    from jax import export

    weights = [jax.ShapeDtypeStruct(w.shape, dtype) for w in PARAMS]
    program = export.export(jax.jit(of_kups))(weights, shapes(dtype))
    rows = [{"__np__": True, "shape": w.shape, "dtype": w.dtype.str, "data": w.tobytes()} for w in PARAMS]
    content = {
        "model.jax": bytes(program.serialize(vjp_order=orders)),
        "metadata.json": json.dumps({"cutoff": CUTOFF}).encode(),
        "params.msgpack": msgpack.packb(rows, use_bin_type=True),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (content | parts).items():
            if data is not None:
                archive.writestr(name, data)
    return path


def crystal() -> ms.Structure:
    """Four atoms in a cell thinner than two cutoffs."""
    x = np.array([[0, 0, 0], [0, 2.1, 2.1], [2.1, 0, 2.1], [2.1, 2.1, 0]])
    x = x + np.random.default_rng(1).normal(size=(4, 3)) * 0.05
    return ms.Structure.create(x, ["Si", "O", "Si", "O"], [4.2, 4.3, 4.4])
