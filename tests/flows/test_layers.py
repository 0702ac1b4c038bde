"""Every layer: there and back, its volume change, and what it leaves alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from numpy.testing import assert_allclose, assert_array_equal
from quick import quick_jit
from shaken import shaken

from mdsens.errors import InputError
from mdsens.flows.coupling import Coupling
from mdsens.flows.layers import Chain, Cut, Elementwise, Inverted, Name, Split, Turns, Unbounded, Whiten
from mdsens.flows.splines import CircularSpline, IntervalSpline, LineSpline
from mdsens.flows.transforms import AffineFamily, CircleMixture, IntervalMixture, LineMixture, RotationFamily

SIZES = {"turn": 3, "share": 3, "number": 3}
RANDOM = np.random.default_rng(0)
# numbers on the circle, on the interval and on the line; angles
STATE = {
    "turn": RANDOM.uniform(0.05, 0.95, 3),
    "share": RANDOM.uniform(0.05, 0.95, 3),
    "number": RANDOM.normal(size=3),
    "angle": RANDOM.uniform(-3.1, 3.1, 3),
}
DOMAINS = {
    "turn": (RotationFamily(), CircleMixture(2), CircularSpline(3)),
    "share": (IntervalMixture(2), IntervalSpline(3)),
    "number": (AffineFamily(), LineMixture(2), LineSpline(3)),
}


def coupling(moved: str, family, *, harmonics: int = 1) -> Coupling:
    given = [name for name in SIZES if name != moved]
    layer = Coupling.create(
        moved, given, SIZES, family, jax.random.key(0), periodic=("turn",), hidden=(4,), harmonics=harmonics
    )
    return shaken(layer)


SPLIT = Split((("angle", 3), ("number", 3)), (("first", (3, 0)), ("second", (1, 4, 2, 5))))
WHITEN = Whiten.of("angle", RANDOM.normal(size=(50, 3)) @ RANDOM.normal(size=(3, 3)) + 1.0)
CASES = {
    "Split": SPLIT,
    "Whiten": WHITEN,
    "Turns": Turns("angle"),
    "Cut": Cut("angle", jnp.array([3.0, -0.5, 1.0])),
    "Unbounded-lengths": Unbounded("share", (0, 2), "length"),
    "Unbounded-angles": Unbounded("share", (0, 1), "angle"),
    "Chain": Chain((SPLIT, Inverted(SPLIT), WHITEN, Turns("turn"), coupling("number", AffineFamily()))),
    "Elementwise": shaken(Elementwise.zeros("turn", 3, RotationFamily())),
    "Inverted-Split": Inverted(Split((("number", 3),), (("number", (2, 0, 1)),))),
    "Inverted-Coupling": Inverted(coupling("turn", CircleMixture(2))),
}
CASES |= {
    f"Coupling-{type(family).__name__}": coupling(field, family)
    for field, families in DOMAINS.items()
    for family in families
}


@quick_jit
def there_and_back(layer, x):
    """y and x, the log-determinants, and the Jacobian of the way back: implicit where roots are found."""
    y, log_det = layer.forward(x)
    flat, state_of = ravel_pytree(y)

    def inverse(flat):
        back, log_det = layer.inverse(state_of(flat))
        return ravel_pytree(back)[0], (back, log_det)

    jacobian, (back, back_log_det) = jax.jacfwd(inverse, has_aux=True)(flat)
    return y, back, log_det, back_log_det, jacobian


forward_of = quick_jit(lambda layer, x: layer.forward(x)[0])


@pytest.mark.parametrize("layer", CASES.values(), ids=CASES.keys())
def test_layers_go_there_and_back_and_know_their_volume_change(layer):
    y, back, log_det, back_log_det, jacobian = jax.device_get(there_and_back(layer, STATE))
    assert set(back) == set(STATE)
    for name, value in STATE.items():
        assert_allclose(back[name], value, rtol=0, atol=1e-12, err_msg=name)
    assert sum(value.size for value in y.values()) == sum(value.size for value in STATE.values())
    assert_allclose(back_log_det, np.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-12)
    # an error of 1e-12 in x, times how fast log slopes change
    assert_allclose(log_det, -back_log_det, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", [name for name in CASES if "Coupling" in name])
def test_couplings_move_one_field_and_leave_the_others_alone(name):
    layer = CASES[name]
    moved = layer.layer.moved if isinstance(layer, Inverted) else layer.moved
    y = there_and_back(layer, STATE)[0]
    for field, value in STATE.items():
        if field == moved:
            assert np.all(y[field] != value)
        else:
            assert_array_equal(y[field], value)


def test_couplings_see_periodic_fields_on_the_circle():
    layer = coupling("number", AffineFamily(), harmonics=2)
    y = forward_of(layer, STATE)["number"]
    whole = STATE | {"turn": STATE["turn"] + np.array([1.0, -2.0, 3.0])}
    assert_allclose(
        forward_of(layer, whole)["number"], y, rtol=0, atol=1e-13
    )  # rounding of 2 turns, times the network's slopes
    half = STATE | {"turn": STATE["turn"] + 0.5}
    assert np.abs(forward_of(layer, half)["number"] - y).min() > 1e-4
    # a field that is not named periodic is seen as it is
    line = STATE | {"share": STATE["share"] + 1.0}
    assert np.abs(forward_of(layer, line)["number"] - y).min() > 1e-4


def test_new_couplings_are_near_the_same_for_all_samples():
    """A training starts from functions that do not depend on what is given."""
    family = LineMixture(2)
    layer = Coupling.create(
        "number", ["turn", "share"], SIZES, family, jax.random.key(0), periodic=("turn",), hidden=(4,)
    )
    moved = forward_of(layer, STATE)["number"]
    alone = forward_of(Elementwise.zeros("number", 3, family), STATE)["number"]
    assert_allclose(moved, alone, rtol=0, atol=0.05)


def test_white_samples_have_mean_zero_and_unit_covariance():
    frames = RANDOM.normal(size=(200, 3)) * [1e-3, 1.0, 1e2] + 5.0
    whiten = Whiten.of("angle", frames)
    y = np.asarray(jax.vmap(lambda x: whiten.forward({"angle": x})[0]["angle"])(frames))
    assert_allclose(y.mean(0), 0, atol=1e-9)  # 5 with 16 digits, in units of a width of 1e-3
    assert_allclose(np.cov(y.T), np.eye(3), atol=1e-9)
    # the symmetric root: uncorrelated elements are only scaled
    assert np.all(np.diag(np.corrcoef(y.T, frames.T)[:3, 3:]) > 0.98)


def test_whitening_is_not_trained():
    gradient = eqx.filter_grad(lambda layer: jnp.sum(layer.forward({"angle": jnp.ones(3)})[0]["angle"]))(
        WHITEN
    )
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_turns_and_cuts_bring_angles_into_their_range():
    angles = np.array([-7.0, 3.5, 100.0])
    turns = np.asarray(forward_of(Turns("angle"), {"angle": angles})["angle"])
    assert np.all((turns >= 0) & (turns < 1))
    assert_allclose(np.exp(2j * np.pi * turns), np.exp(1j * angles), atol=1e-13)  # 100 rad to 16 digits
    center = np.array([3.0, -3.0, 0.0])
    cut = np.asarray(
        forward_of(Cut("angle", jnp.asarray(center)), {"angle": center + np.array([0.5, -0.5, 6.0])})["angle"]
    )
    assert_allclose(cut, [0.5, -0.5, 6.0 - 2 * np.pi], atol=1e-14)


def test_names_go_around_plain_vectors():
    x = jnp.arange(3.0)
    state, log_det = Name("x").forward(x)
    back, _ = Name("x").inverse(state)
    assert set(state) == {"x"} and log_det == 0
    assert_array_equal(back, x)


@pytest.mark.parametrize("taken", [((0, 1), (3,)), ((0, 1, 2), (2, 3)), ((0, 1, 2, 3), (4, 5)), ((0, 1), ())])
def test_splits_take_every_element_once(taken):
    with pytest.raises(InputError, match="must go to one part, once"):
        Split((("x", 5),), tuple(zip("ab", taken, strict=True)))


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (
            np.stack([RANDOM.normal(size=50), np.full(50, 0.1)], axis=1),
            "leave out elements that never change",
        ),
        (RANDOM.normal(size=(3, 3)), "from 3 frames of 3 elements has no inverse"),
        (RANDOM.normal(size=(1, 2)), "from 1 frames of 2 elements has no inverse"),
        (np.full((50, 1), 2.0), "leave out elements that never change"),
        (np.full((50, 1), np.nan), "not finite"),
    ],
)
def test_fields_without_covariance_are_not_whitened(frames, message):
    with pytest.raises(InputError, match=message):
        Whiten.of("stiff", frames)


def test_couplings_that_cannot_be_are_refused():
    create = lambda moved, given: Coupling.create(moved, given, SIZES, AffineFamily(), jax.random.key(0))
    with pytest.raises(InputError, match=r"'turn' given \['turn', 'share'\]: a field cannot look at itself"):
        create("turn", ["turn", "share"])
    with pytest.raises(
        InputError, match=r"sizes are known of \['number', 'share', 'turn'\], not of \['bonds'\]"
    ):
        create("turn", ["bonds"])
    with pytest.raises(InputError, match=r"not of \['bonds'\]"):
        create("bonds", ["turn"])
