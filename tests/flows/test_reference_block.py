"""Rings in the Eckart frame, and what hangs on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import molecule
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from mdsens.errors import InputError
from mdsens.flows.internal_coordinates import GlobalFrame, ZMatrix
from mdsens.flows.reference_block import MixedCoordinates, ReferenceBlock, eckart_rotation

PYRROLE = molecule("C4H4NH")
BENZENE_RING = 0.1 * molecule("C6H6").positions[:6]


def vibrating(positions: np.ndarray, n_frames: int, amplitude: float = 0.004) -> np.ndarray:
    """Frames with random displacements (nm), anywhere and turned in any way."""
    random = np.random.default_rng(5)
    frames = positions + amplitude * random.normal(size=(n_frames, *positions.shape))
    turns = Rotation.random(n_frames, random_state=3).as_matrix()
    return np.einsum("fab,fib->fia", turns, frames) + random.normal(size=(n_frames, 1, 3))


FRAMES = vibrating(0.1 * PYRROLE.positions, 300)
MIXED = MixedCoordinates.from_topology(PYRROLE, FRAMES)
RING = list(MIXED.atoms)

forward_all = jax.jit(jax.vmap(MIXED.forward))
inverse_all = jax.jit(jax.vmap(MIXED.inverse))
rotation = jax.jit(eckart_rotation)


@pytest.fixture(scope="module")
def coordinates() -> tuple[dict, np.ndarray]:
    return jax.device_get(forward_all(jnp.asarray(FRAMES)))


def by_singular_values(C: np.ndarray) -> np.ndarray:
    """The rotation of `eckart_rotation` by a route of its own."""
    A, _, B = np.linalg.svd(C)
    return A @ np.diag([1, 1, np.linalg.det(A @ B)]) @ B


def test_ring_is_the_block_and_hydrogens_hang_on_it(coordinates):
    assert RING == [1, 2, 3, 4, 5] and sorted(PYRROLE.symbols[RING]) == ["C", "C", "C", "C", "N"]
    fields, _ = coordinates
    assert {name: value.shape[1] for name, value in fields.items()} == {
        "block": 9,
        "bonds": 5,
        "angles": 5,
        "torsions": 5,
    }
    assert not any(MIXED.proper)
    # each hydrogen lies in the plane of the ring: its torsion from the far neighbor is 180°
    assert np.all(np.abs(fields["torsions"]) > 2.5)


def test_frames_come_back_to_rounding(coordinates):
    fields, log_det = coordinates
    pose, inverse_log_det = inverse_all(fields)
    origin, R = jax.jit(jax.vmap(MIXED.frame))(jnp.asarray(FRAMES))
    back = origin[:, None] + np.asarray(pose) @ np.swapaxes(R, 1, 2)
    assert_allclose(back, FRAMES, rtol=0, atol=1e-12)  # nm
    assert_allclose(inverse_log_det, -log_det, rtol=1e-12)


def test_log_determinant_is_that_of_the_jacobian():
    full = GlobalFrame(MIXED)

    @jax.jit
    @jax.vmap
    def both(x):
        flat = lambda p: jnp.concatenate(jax.tree.leaves(full.forward(p.reshape(-1, 3))[0]))
        return jax.jacrev(flat)(x.ravel()), full.forward(x)[1]

    # frame 0 defines the orientation of the reference, and there Euler angles are not defined
    jacobian, log_det = both(jnp.asarray(FRAMES[1:4]))
    assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=1e-12)


def test_block_has_mean_zero_and_unit_covariance(coordinates):
    block = coordinates[0]["block"]
    # the reference is the mean shape to 1e-12 nm, in units of widths of 1e-3 nm
    assert_allclose(block.mean(0), 0, atol=1e-8)
    assert_allclose(np.cov(block.T, bias=True), np.eye(9), atol=1e-8)
    assert np.all(np.diff(MIXED.block.widths) <= 0)


def test_pose_is_in_the_eckart_frame(coordinates):
    pose = np.asarray(inverse_all(coordinates[0])[0])[:, RING]
    reference = np.array(MIXED.block.reference)
    assert_allclose(pose.mean(1), 0, atol=1e-15)
    assert_allclose(np.cross(reference, pose).sum(1), 0, atol=1e-16)


def test_shape_does_not_change_when_the_molecule_moves_and_forces_turn_with_it():
    probe = jax.jit(
        jax.value_and_grad(
            lambda x: sum(jnp.sum(jnp.sin(value)) for value in jax.tree.leaves(MIXED.forward(x)))
        )
    )
    x = FRAMES[7]
    value, forces = jax.device_get(probe(jnp.asarray(x)))
    for R in Rotation.random(5, random_state=1).as_matrix():
        moved, moved_forces = probe(jnp.asarray(x @ R.T + [1.0, -2.0, 0.5]))
        assert_allclose(moved, value, rtol=1e-10)
        # a width of 1e-3 nm amplifies the rounding of positions, 4e-16, a million times where it is divided
        # by twice
        assert_allclose(moved_forces, forces @ R.T, rtol=0, atol=1e-9 * np.abs(forces).max())
    assert_allclose(forces.sum(0), 0, atol=1e-9 * np.abs(forces).max())
    assert_allclose(np.cross(x - x.mean(0), forces).sum(0), 0, atol=1e-9 * np.abs(forces).max())


@given(st.integers(0, 2**31 - 1), st.floats(-4, 0), st.floats(-4, 0))
def test_rotation_is_the_best_one(seed, second, third):
    # points with extents 1, 10^second, 10^third: from a ball to a disc, and to a rod that is 20 times as long
    # as thick
    random = np.random.default_rng(seed)
    extents = np.array([1.0, 10 ** max(second, -1.3), 10**third])
    x0 = random.normal(size=(8, 3)) * extents
    x0 -= x0.mean(0)
    turn = Rotation.random(random_state=seed).as_matrix()
    x = (x0 + 0.02 * extents * random.normal(size=(8, 3))) @ turn.T
    R = np.asarray(rotation(jnp.asarray(x0.T @ x)))
    assert_allclose(R @ R.T, np.eye(3), atol=1e-14)
    assert np.linalg.det(R) > 0
    size = np.sum(x0 * (x @ R.T))
    assert_allclose(np.cross(x0, x @ R.T).sum(0), 0, atol=1e-13 * size)
    assert size >= np.sum(x0 * (x @ by_singular_values(x0.T @ x).T)) * (1 - 1e-14)


def test_half_turns_are_found():
    # a quaternion's scalar part is zero there
    for axis in np.eye(3):
        turn = Rotation.from_rotvec(np.pi * axis).as_matrix()
        assert_allclose(rotation(jnp.asarray(BENZENE_RING.T @ BENZENE_RING @ turn.T)), turn.T, atol=1e-14)


def test_rotation_has_derivatives_where_singular_values_coincide():
    # The regular hexagon: two equal singular values, the third zero. Only their sums of pairs matter.
    C = jnp.asarray(BENZENE_RING.T @ BENZENE_RING)
    C = C / C[1, 1]

    slope = jax.jacrev(eckart_rotation)
    first, second = jax.device_get(jax.jit(lambda C: (slope(C), jax.jacfwd(slope)(C)))(C))
    assert_allclose(second, np.moveaxis(second, (2, 3), (4, 5)), atol=1e-13)
    h = 1e-4
    for a, b in np.ndindex(3, 3):
        step = h * np.outer(np.eye(3)[a], np.eye(3)[b])
        plus, minus, middle = (by_singular_values(np.asarray(C) + sign * step) for sign in (1, -1, 0))
        assert_allclose(first[..., a, b], (plus - minus) / (2 * h), atol=1e-7)  # error h²
        assert_allclose(
            second[..., a, b, a, b], (plus - 2 * middle + minus) / h**2, atol=1e-6
        )  # h², and 1e-16 / h²
    single = jax.jit(slope)(C.astype(jnp.float32))
    assert single.dtype == jnp.float32
    assert_allclose(single, first, atol=1e-6)


def test_float32_keeps_its_digits(coordinates):
    fields, exact = coordinates
    x = jnp.asarray(FRAMES - FRAMES[:, :1], jnp.float32)
    single, log_det = forward_all(x)
    assert {value.dtype for value in [*single.values(), log_det]} == {np.dtype(np.float32)}
    assert_allclose(
        single["block"], fields["block"], rtol=0, atol=1e-3
    )  # positions carry 2e-8 nm, the stiffest width is 1e-3 nm
    assert_allclose(log_det, exact, rtol=1e-5)


def test_a_linear_group_goes_into_a_block():
    acetonitrile = molecule("CH3CN")
    with pytest.raises(InputError, match="linear group"):
        ZMatrix.from_topology(acetonitrile)
    line = (1, 0, 2, 3)  # C, C, N and one hydrogen off the line
    assert list(acetonitrile.symbols[list(line)]) == ["C", "C", "N", "H"]
    frames = vibrating(0.1 * acetonitrile.positions, 50)
    mixed = MixedCoordinates.from_topology(acetonitrile, frames, atoms=line)
    fields, _ = jax.eval_shape(mixed.forward, jnp.asarray(frames[0]))
    assert {name: value.shape for name, value in fields.items()} == {
        "block": (6,),
        "bonds": (2,),
        "angles": (2,),
        "torsions": (2,),
    }


def test_a_molecule_may_be_all_block():
    frames = vibrating(BENZENE_RING, 100)
    pairs = [(i, (i + 1) % 6) for i in range(6)]
    mixed = MixedCoordinates.from_topology((6, pairs), frames)
    fields, _ = jax.eval_shape(mixed.forward, jnp.asarray(frames[0]))
    assert {name: value.shape for name, value in fields.items()} == {
        "block": (12,),
        "bonds": (0,),
        "angles": (0,),
        "torsions": (0,),
    }
    positions, _ = jax.eval_shape(mixed.inverse, fields)
    assert positions.shape == (6, 3)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (FRAMES[:, :2], "a block of 2 atoms has no orientation"),
        (FRAMES[0], r"shape \(10, 3\)"),
        (FRAMES[:20], "20 frames cannot say how 10 atoms move in 24 directions"),
        (vibrating(np.arange(3)[:, None] * np.array([0.1, 0.0, 0.0]), 50, 1e-5), "lie in a line"),
        (vibrating(BENZENE_RING, 50, 0.0), "Bonds or angles that the simulation held rigid"),
        (np.where(np.arange(10)[:, None] == 4, np.nan, FRAMES), "position of atom 4 in frame 0 is nan"),
    ],
)
def test_frames_that_make_no_block_are_refused_with_advice(frames, message):
    with pytest.raises(InputError, match=message):
        ReferenceBlock.from_frames(frames)


def test_positions_far_from_the_reference_are_refused():
    MIXED.check(FRAMES)
    with pytest.raises(InputError, match=r"frame 1 is .* nm .* away from the reference"):
        MIXED.block.check(np.stack([FRAMES[0][RING], FRAMES[0][RING][[0, 3, 1, 4, 2]]]))
    with pytest.raises(InputError, match="seem to be in Å"):
        MIXED.check(10 * FRAMES)


@pytest.mark.parametrize(
    ("topology", "atoms", "message"),
    [
        ((4, [(0, 1), (1, 2), (2, 3)]), None, r"no ring: use ZMatrix.from_topology"),
        ((7, [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 5), (5, 6), (6, 4)]), None, "2 ring systems"),
        (PYRROLE, RING[:2], "a block of 2 atoms"),
    ],
)
def test_molecules_without_one_ring_are_told_what_to_do(topology, atoms, message):
    with pytest.raises(InputError, match=message):
        MixedCoordinates.from_topology(topology, FRAMES, atoms)


def test_block_and_atoms_must_agree():
    with pytest.raises(InputError, match="4 atoms for a block of 5"):
        MixedCoordinates(MIXED.block, (0, 1, 2, 3), MIXED)
