"""Files of flows: what comes back is the same to the bit, and what is no flow is told apart."""

import json

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import peroxide
import pytest
from numpy.testing import assert_array_equal

from mdsens.errors import FileFormatError, InputError, OutputExistsError
from mdsens.flows.boltzmann import BoltzmannGenerator
from mdsens.flows.coupling import Coupling
from mdsens.flows.files import load, save
from mdsens.flows.flow import Flow, Normal, Uniform
from mdsens.flows.layers import Chain, Cut, Elementwise, Inverted, Name, Split, Turns, Whiten
from mdsens.flows.reference_block import MixedCoordinates, ReferenceBlock
from mdsens.flows.splines import CircularSpline, IntervalSpline, LineSpline
from mdsens.flows.transforms import AffineFamily, CircleMixture, IntervalMixture, LineMixture, RotationFamily

FAMILIES = (
    AffineFamily(),
    RotationFamily(),
    CircleMixture(3, power=2),
    IntervalMixture(2, least_slope=0.1),
    LineMixture(2, sharpest=3.0),
    CircularSpline(4),
    IntervalSpline(5),
    LineSpline(3, bound=4.0),
)
RNG = np.random.default_rng(0)


def everything() -> Flow:
    """A flow with every class of layer, base and transform (as a whole it makes no sense, and need not)."""
    families = [
        Elementwise("b", family, jnp.asarray(RNG.normal(size=(2, family.n_raw)))) for family in FAMILIES
    ]
    split = Split((("x", 3),), (("a", (2,)), ("b", (0, 1))))
    coupling = Coupling.create(
        "a",
        ["b"],
        {"a": 1, "b": 2},
        LineMixture(2),
        jax.random.key(0),
        periodic=["b"],
        hidden=(3,),
        harmonics=2,
    )
    others = (
        Turns("b"),
        Cut("a", jnp.ones(1)),
        Whiten.of("b", RNG.normal(size=(9, 2))),
        coupling,
        Inverted(Chain((coupling,))),
    )
    return Flow((Name("x"), split, *families, *others), {"a": Normal(1), "b": Uniform(2)})


def ring() -> MixedCoordinates:
    """Cyclopentane's carbons with a tail of two."""
    turn = 2 * np.pi * np.arange(5) / 5
    tail = [[0.27, 0.0, 0.03], [0.33, 0.1, 0.1]]
    positions = np.concatenate([0.13 * np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1), tail])
    bonds = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 5), (5, 6)]
    return MixedCoordinates.from_topology((7, bonds), positions + 0.002 * RNG.normal(size=(100, 7, 3)))


CASES = {
    "every class": everything(),
    "float32": everything().astype(jnp.float32),
    "Z-matrix": peroxide.generator(),
    "ring": BoltzmannGenerator(
        Flow((ring(), Whiten.of("block", RNG.normal(size=(20, 9)))), {"block": Normal(9)}),
        (6,) * 7,
        300.0,
        "PDB",
    ),
    "large block": ReferenceBlock.from_frames(
        RNG.normal(size=(24, 3)) + 0.01 * RNG.normal(size=(100, 24, 3))
    ),
    "arrays of numpy": Chain((RNG.normal(size=(2, 2)), [np.arange(3), 1.5, None, "text", True])),
    "not finite": Elementwise("b", AffineFamily(), jnp.array([[jnp.nan, jnp.inf], [-0.0, 5e-324]])),
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "flow.h5"
    save(path, CASES["every class"])
    return path


@pytest.mark.parametrize("module", CASES.values(), ids=CASES.keys())
def test_a_flow_comes_back_with_the_same_bits_and_structure(module, tmp_path):
    path = tmp_path / "flow.h5"
    save(path, module)
    back = load(path)
    # classes, static fields and names are all part of the structure
    assert jax.tree.structure(back) == jax.tree.structure(module)
    for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(module), strict=True):
        assert type(one) is type(other)
        one, other = np.asarray(one), np.asarray(other)
        assert one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def test_a_flow_from_a_file_computes_what_it_did(tmp_path):
    model, path = peroxide.generator(), tmp_path / "flow.h5"
    save(path, model)
    back, x = load(path), jnp.asarray(0.1 * peroxide.positions())
    energy = eqx.filter_jit(lambda model, x: model.energy(x))
    assert energy(back, x) == energy(model, x)
    assert (
        back.temperature == model.temperature
        and back.species == model.species
        and back.rotatable == model.rotatable
    )


def test_files_hold_numbers_and_text_only(tmp_path):
    path = tmp_path / "flow.h5"
    save(path, CASES["ring"], steps=100, note="trained")
    kinds = set()
    with h5py.File(path) as file:
        file.visititems(
            lambda _, item: kinds.add(item.dtype.kind) if isinstance(item, h5py.Dataset) else None
        )
        assert dict(file["notes"].attrs) == {"steps": 100, "note": "trained"}
    assert kinds <= {"f", "i", "u", "b", "S"}  # no objects, references or opaque bytes
    assert b"pickle" not in path.read_bytes()


class Foreign(eqx.Module):
    """Of another package."""

    numbers: jax.Array
    flag: bool = True


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Chain((jnp.tanh,)), r"module.layers\[0\] is a .*, which cannot be kept in a file"),
        (Chain(({"x": {1, 2}},)), r"module.layers\[0\]\['x'\] is a set"),
        (Chain(({0: 1.0},)), r"module.layers\[0\] has the key 0"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_leaves_no_file(module, message, tmp_path):
    with pytest.raises(InputError, match=message):
        save(tmp_path / "flow.h5", module)
    assert not list(tmp_path.iterdir())


def test_classes_of_other_packages_come_back_if_they_are_named(tmp_path):
    path = tmp_path / "flow.h5"
    save(path, Foreign(jnp.arange(3.0)))
    with pytest.raises(FileFormatError, match=r"needs the class Foreign, .* give it to load"):
        load(path)
    back = load(path, Foreign)
    assert isinstance(back, Foreign) and back.flag
    assert_array_equal(back.numbers, [0, 1, 2])


def rewrite(path, change) -> None:
    with h5py.File(path, "r+") as file:
        text = file["structure"][()]
        del file["structure"]
        file["structure"] = np.bytes_(change(text))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-40], "is damaged: JSONDecodeError"),
        (lambda text: text.replace(b'"array": 1,', b'"array": 999,', 1), "is damaged: IndexError"),
        (lambda text: text.replace(b'"array": 1,', b'"array": "x",', 1), "is damaged: TypeError"),
        (
            lambda text: text.replace(b'"raw"', b'"cooked"', 1),
            r"Elementwise .* \['cooked', 'family', 'field'\].* \['family', 'field', 'raw'\]",
        ),
        (lambda text: text.replace(b'"class": "Split"', b'"class": "Popen"', 1), "needs the class Popen"),
        (lambda text: b"\xff\xfe" + text, "is damaged"),
        (lambda text: json.dumps([1, 2]).encode(), "holds a list and no flow"),
    ],
)
def test_a_file_with_another_structure_is_refused(file, change, message):
    rewrite(file, change)
    with pytest.raises(FileFormatError, match=message):
        load(file)


def test_a_file_with_missing_parts_is_refused(file):
    whole = file.read_bytes()
    with h5py.File(file, "r+") as parts:
        del parts["arrays"]
    with pytest.raises(FileFormatError, match=r"'.*flow.h5' is damaged: KeyError"):
        load(file)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="is not an HDF5 file, or damaged"):
        load(file)


def test_other_files_are_told_apart(tmp_path):
    with pytest.raises(FileFormatError, match=r"no file '.*nothing.h5'. The path is relative to"):
        load(tmp_path / "nothing.h5")
    text = tmp_path / "text.h5"
    text.write_text("hello")
    with pytest.raises(FileFormatError, match="is not an HDF5 file, or damaged"):
        load(text)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["positions"] = np.zeros(3)
    with pytest.raises(FileFormatError, match="has format none, not mdsens-flow-1: it holds no flow"):
        load(other)


def test_a_file_is_never_overwritten_unless_asked_for(file):
    before = file.read_bytes()
    with pytest.raises(OutputExistsError, match="exists"):
        save(file, CASES["float32"])
    assert file.read_bytes() == before
    save(file, CASES["float32"], overwrite=True)
    assert load(file).dtype == np.float32
    assert len(list(file.parent.iterdir())) == 1


def test_float64_numbers_are_not_cut_to_float32(file):
    with jax.enable_x64(False):
        with pytest.raises(
            InputError, match="holds float64 numbers and JAX would cut them to float32: set JAX_ENABLE_X64=1"
        ):
            load(file)
        save(file, CASES["float32"], overwrite=True)
        assert load(file).dtype == np.float32
