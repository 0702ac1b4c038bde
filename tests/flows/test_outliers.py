"""Frames that are mirror images, and bonds that do not move: found in numbers made by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mdsens.errors import InputError
from mdsens.flows.data import ForceData, known_again, signatures
from mdsens.flows.outliers import FEWEST, RIGID, check_bonds_move, check_handedness, inverted_frames, tree_of
from mdsens.molecules.bonds import read_bonds

CORNERS = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
METHANE = (5, [(0, k) for k in range(1, 5)])
SEEDS = st.integers(0, 2**31)
MIRROR = np.diag([1.0, 1.0, -1.0])


def methane(n: int, seed: int = 0, heat: float = 0.003) -> np.ndarray:
    """Frames of a tetrahedron, nm, turned and shifted anyhow."""
    rng = np.random.default_rng(seed)
    plain = 0.109 * np.concatenate([np.zeros((1, 3)), CORNERS])
    frames = plain + heat * rng.normal(size=(n, 5, 3))
    turns = np.linalg.qr(rng.normal(size=(n, 3, 3)))[0]
    turns = turns * np.sign(np.linalg.det(turns))[:, None, None]
    return frames @ turns + rng.normal(size=(n, 1, 3))


# --- mirror images --------------------------------------------------------------------------------------


@given(SEEDS)
def test_turning_and_shifting_inverts_nothing(seed):
    assert not inverted_frames(METHANE, methane(30, seed)).any()


@given(SEEDS, st.sets(st.integers(0, 29), min_size=1, max_size=6))
def test_mirrored_frames_are_found_and_no_others(seed, mirrored):
    frames = methane(30, seed)
    rows = sorted(mirrored)
    frames[rows] = frames[rows] @ MIRROR
    assert_array_equal(np.flatnonzero(inverted_frames(METHANE, frames)), rows)


@given(SEEDS)
def test_two_atoms_that_trade_places_make_a_mirror_image(seed):
    frames = methane(30, seed)
    frames[7, [1, 2]] = frames[7, [2, 1]]
    assert_array_equal(np.flatnonzero(inverted_frames(METHANE, frames)), [7])


def test_which_way_around_is_right_may_be_said_by_other_frames():
    usual, all_mirrored = methane(30), methane(30, 1) @ MIRROR
    assert not inverted_frames(METHANE, all_mirrored).any()  # among themselves they agree
    assert inverted_frames(METHANE, all_mirrored, like=usual).all()


def test_a_center_that_turns_over_has_no_handedness():
    frames = methane(40)
    frames[::2] = frames[::2] @ MIRROR  # half of them: as ammonia does
    assert not inverted_frames(METHANE, frames).any()


def test_molecules_without_four_neighbors_have_no_mirror_images():
    water = (3, [(0, 1), (0, 2)])
    frames = np.random.default_rng(0).normal(size=(20, 3, 3))
    assert not inverted_frames(water, frames).any()


def test_the_first_mirror_image_and_their_number_are_named():
    frames = methane(30)
    frames[[4, 9]] = frames[[4, 9]] @ MIRROR
    with pytest.raises(InputError, match=r"2 of 30 frames .* first frame 4: .* Do without them\."):
        check_handedness(METHANE, frames, remedy="Do without them.")
    check_handedness(METHANE, np.delete(frames, [4, 9], axis=0))


def test_a_frame_that_is_not_finite_is_no_mirror_image():
    frames = methane(30)
    frames[3, 2] = np.nan
    assert not inverted_frames(METHANE, frames).any()


def test_the_bonds_along_which_atoms_are_placed_are_a_topology():
    rows = [(0, -1, -1, -1), (1, 0, -1, -1), (2, 0, 1, -1), (3, 0, 1, 2), (4, 0, 1, 2)]
    assert read_bonds(tree_of(rows, 5)) == read_bonds(METHANE)


# --- rigid bonds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("heat", [0.0015, 0.003, 0.01])
def test_bonds_that_heat_moves_are_taken(heat):
    check_bonds_move(METHANE, methane(200, heat=heat), 300.0)


@pytest.mark.parametrize("decimals", [None, 3])
def test_rigid_bonds_are_refused_also_when_rounded(decimals):
    frames = methane(200)
    vectors = frames[:, 1:] - frames[:, :1]
    frames[:, 1:] = frames[:, :1] + 0.109 * vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    frames = frames if decimals is None else frames.round(decimals)
    with pytest.raises(InputError, match=r"4 of 4 bonds are rigid.*constraints=None"):
        check_bonds_move(METHANE, frames, 300.0)


def test_one_rigid_bond_among_others_is_named():
    frames = methane(200)
    vector = frames[:, 3] - frames[:, 0]
    frames[:, 3] = frames[:, 0] + 0.109 * vector / np.linalg.norm(vector, axis=-1, keepdims=True)
    with pytest.raises(InputError, match=r"1 of 4 bonds are rigid: that of atom 0 .*atom 3"):
        check_bonds_move(METHANE, frames, 300.0)


def test_what_counts_as_rigid_follows_the_temperature():
    # at 3 K bonds move by a tenth of what they do at 300 K
    cold = methane(200, heat=0.5 * RIGID)
    with pytest.raises(InputError, match="rigid"):
        check_bonds_move(METHANE, cold, 300.0)
    check_bonds_move(METHANE, cold, 3.0)


def test_a_few_frames_tell_no_width():
    frames = methane(FEWEST - 1, heat=0.0)
    check_bonds_move(METHANE, frames, 300.0)
    check_bonds_move((1, []), np.zeros((50, 1, 3)), 300.0)


# --- which frames are held out, and known again ---------------------------------------------------------


def data(n: int, weights=None) -> ForceData:
    frames = methane(n)
    return ForceData(frames, -frames, np.arange(float(n)), 300.0, weights)


@given(st.integers(2, 60), st.floats(0.01, 0.99))
def test_the_last_frames_are_held_out_and_all_go_somewhere(n, share):
    frames, held = data(n), round(n * share)
    if not 0 < held < n:
        with pytest.raises(InputError, match="neither part may be empty"):
            frames.split(share)
        return
    training, test = frames.split(share)
    assert_array_equal(np.concatenate([training.energies, test.energies]), np.arange(n))
    assert test.n_frames == held
    assert_array_equal(frames.divide(share).rows, np.arange(n - held, n))


@given(st.integers(4, 40), st.integers(4, 40))
def test_frames_of_enhanced_sampling_are_held_out_in_their_own_share(n, m):
    weights = np.concatenate([np.ones(n), np.zeros(m)])
    rows = data(n + m, weights).divide(0.5).rows
    assert np.sum(rows < n) == round(n * 0.5) and np.sum(rows >= n) == round(m * 0.5)
    assert {n - 1, n + m - 1} <= set(rows.tolist())


@given(SEEDS)
def test_a_frame_is_known_again_however_it_lies_and_others_are_not(seed):
    frames = methane(40, seed)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    known = signatures(frames[:20])
    assert known_again(signatures(frames @ turn + 3.0), known).tolist() == [True] * 20 + [False] * 20
    # of ten distances between five atoms, rounding moves some too far now and then
    assert known_again(signatures(frames[:20].round(3)), known).mean() >= 0.8


def test_frames_of_another_molecule_are_never_known():
    assert not known_again(signatures(methane(5)[:, :3]), signatures(methane(5))).any()
