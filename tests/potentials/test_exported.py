"""Networks as compiled programs in the files of kUPS: against the same network as a function."""

import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import FileFormatError, InputError
from mdsens.testing import check_potential

msgpack = pytest.importorskip("msgpack", reason="msgpack is not installed")
pytest.importorskip(
    "flatbuffers", reason="flatbuffers, with which programs of JAX are read, is not installed"
)
from jax import export  # noqa: E402

CUTOFF = 3.2
PARAMS = [np.array([2.0, 0.3]), np.array([[0.4, -0.2], [0.1, 0.5]])]


def site_energies(params, vectors, species, senders, receivers):
    """A repulsion beside one round of messages."""
    core, mix = params
    r = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    near = jnp.where(r < CUTOFF, (1 - r / CUTOFF) ** 4, 0.0)
    kind = jnp.where(species == 14, 1.0, 0.5)
    bumps = jnp.tanh(jnp.outer(near * kind[senders], jnp.array([1.0, 3.0])))
    heard = jax.ops.segment_sum(bumps, receivers, species.shape[0])
    repulsion = jax.ops.segment_sum(core[0] * near, receivers, species.shape[0])
    return repulsion + core[1] * jnp.sum(jnp.tanh(heard @ mix), axis=1)


def of_kups(params, graph):
    """Energies of structures, out of what kUPS hands over: vectors run from the first end to the second."""
    first, second = graph["edge_index"]
    cells = graph["cell"][graph["batch"][first]]
    images = jnp.einsum("ea,eab->eb", graph["cell_offsets"], cells)
    vectors = graph["pos"][second] - graph["pos"][first] + images
    energies = site_energies(params, vectors, graph["atomic_numbers"], second, first)
    return jax.ops.segment_sum(energies, graph["batch"], graph["cell"].shape[0])


def shapes(dtype):
    """Of the graph: any number of atoms, edges and structures."""
    n, e, b = export.symbolic_shape("n, e, b")
    real = lambda *shape: jax.ShapeDtypeStruct(shape, dtype)
    whole = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
    graph = {"pos": real(n, 3), "cell": real(b, 3, 3), "cell_offsets": real(e, 3), "charge": real(b)}
    graph |= {"atomic_numbers": whole(n), "edge_index": whole(2, e), "batch": whole(n), "spin": real(b)}
    return graph | {"pbc": jax.ShapeDtypeStruct((b, 3), bool)}


def written(path, *, orders=2, dtype=jnp.float64, **parts):
    """A file as kUPS reads it."""
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


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return written(tmp_path_factory.mktemp("kups") / "network.zip")


@pytest.fixture(scope="module")
def theirs(file):
    return ms.from_kups(file, elements=("Si", "O"))


@pytest.fixture(scope="module")
def ours():
    kinds = jnp.array([14, 8])
    by_kind = lambda params, vectors, species, *ends: site_energies(params, vectors, kinds[species], *ends)
    return ms.GraphPotential(by_kind, PARAMS, CUTOFF, ("Si", "O"))


@pytest.fixture(scope="module")
def crystal():
    """Four atoms in a cell thinner than two cutoffs."""
    x = np.array([[0, 0, 0], [0, 2.1, 2.1], [2.1, 0, 2.1], [2.1, 2.1, 0]])
    x = x + np.random.default_rng(1).normal(size=(4, 3)) * 0.05
    return ms.Structure.create(x, ["Si", "O", "Si", "O"], [4.2, 4.3, 4.4])


def test_energy_forces_and_stress_are_those_of_the_function(theirs, ours, crystal):
    found, wanted = (ms.energy_forces_stress(p, crystal) for p in (theirs, ours))
    for mine, other in zip(found, wanted, strict=True):
        assert_allclose(mine, other, atol=1e-13)


def test_products_with_second_derivatives_are_those_of_the_function_one_by_one_and_in_batches(
    theirs, ours, crystal
):
    neighbors = ms.find_neighbors(crystal, CUTOFF)
    rows = jnp.asarray(np.random.default_rng(2).normal(size=(3, 4, 3)))

    @jax.jit
    def products(potential):
        force = lambda p, x: -jax.grad(lambda x: p.energy(crystal.at(x), neighbors))(x)
        x = crystal.positions
        of_positions = lambda v: jax.jvp(lambda x: force(potential, x), (x,), (v,))[1]
        of_weights = lambda v: jax.grad(lambda p: jnp.vdot(force(p, x), v))(potential)
        pulled = jax.vmap(of_weights)(rows)
        return jax.vmap(of_positions)(rows), tuple(pulled.weights.values())

    found, wanted = (jax.tree.leaves(products(p)) for p in (theirs, ours))
    for mine, other in zip(found, wanted, strict=True):
        assert_allclose(mine, other, atol=1e-12)
    x = crystal.positions
    gradient = jax.grad(lambda x: theirs.energy(crystal.at(x), neighbors))
    assert_allclose(jax.jvp(gradient, (x,), (rows[0],))[1], -wanted[0][0], atol=1e-12)  # without jit


@pytest.mark.validation
def test_a_relaxed_volume_and_its_derivative_by_all_weights_are_those_of_the_function(theirs, ours, crystal):
    def volume(potential):
        relaxed = ms.relax(potential, crystal, cell="isotropic", pressure=0.05, solver=ms.NewtonCG())
        return ms.volume(relaxed.structure)

    value, gradient = jax.value_and_grad(volume)(theirs)
    wanted, slopes = jax.value_and_grad(volume)(ours)
    assert_allclose(value, wanted, rtol=1e-9)
    for mine, other in zip(gradient.weights.values(), slopes.weights.values(), strict=True):
        assert_allclose(mine, other, rtol=1e-6, atol=1e-6 * np.abs(other).max())


@pytest.mark.validation
def test_it_conforms(theirs, crystal):
    assert check_potential(theirs, crystal, clusters=False).holds


def test_third_derivatives_are_refused(theirs, crystal):
    neighbors = ms.find_neighbors(crystal, CUTOFF)
    gradient = jax.grad(lambda x: theirs.energy(crystal.at(x), neighbors))
    v = jnp.ones((4, 3))
    curvature = lambda x: jnp.vdot(jax.jvp(gradient, (x,), (v,))[1], v)
    with pytest.raises(InputError, match="third derivatives"):
        jax.grad(curvature)(crystal.positions)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"orders": 1}, r"exported with 1 derivative\(s\).*serialize\(vjp_order=2\)"),
        ({"orders": 0}, r"exported with 0 derivative\(s\)"),
        ({"dtype": jnp.float32}, "computes in float32.*Export it again with JAX_ENABLE_X64=1"),
    ],
)
def test_programs_with_too_few_derivatives_or_digits_are_refused(tmp_path, how, message):
    with pytest.raises(InputError, match=message):
        ms.from_kups(written(tmp_path / "a.zip", **how))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"params.msgpack": None}, "has no params.msgpack; there are: model.jax, metadata.json"),
        ({"params.msgpack": b"\x01"}, "params.msgpack in .* is no list of arrays"),
        ({"metadata.json": b"{}"}, "metadata.json in .* states no cutoff"),
        ({"model.jax": b"what"}, "model.jax in .* cannot be read by jax"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path, file, parts, message):
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()} | parts
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)
    with pytest.raises(FileFormatError, match=message):
        ms.from_kups(tmp_path / "a.zip")


def test_what_is_no_archive_or_not_there_is_refused(tmp_path):
    (tmp_path / "a.zip").write_text("no")
    with pytest.raises(FileFormatError, match="is no zip archive"):
        ms.from_kups(tmp_path / "a.zip")
    with pytest.raises(FileFormatError, match="no network of kUPS"):
        ms.from_kups(tmp_path / "b.zip")
