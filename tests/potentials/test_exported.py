"""Networks as compiled programs in the files of kUPS: against the same network as a function."""

import zipfile

import exported_network
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exported_network import CUTOFF, PARAMS, site_energies, written
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import FileFormatError, InputError

pytest.importorskip("msgpack", reason="msgpack is not installed")
pytest.importorskip(
    "flatbuffers", reason="flatbuffers, with which programs of JAX are read, is not installed"
)


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
    return exported_network.crystal()


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
