"""Bonds, angles and torsions: there and back, the volume element, and signs that chemistry knows."""

from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import mdtraj
import numpy as np
import pytest
from ase.build import molecule
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from mdsens.errors import InputError
from mdsens.flows.internal_coordinates import GlobalFrame, ZMatrix
from mdsens.flows.molecule import choose_coordinates

DATA = Path(__file__).parents[2] / "data"
TOPOLOGY = mdtraj.load_pdb(DATA / "alanine-dipeptide.pdb").topology
PEPTIDE = ZMatrix.from_topology(TOPOLOGY)
PEROXIDE = ZMatrix.from_topology((4, [(0, 1), (1, 2), (2, 3)], [1, 8, 8, 1]))


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """2000 frames of molecular dynamics at 300 K, (frames, 22, 3), nm."""
    with h5py.File(DATA / "alanine-dipeptide.h5") as file:
        return file["positions"][:].astype(float)


@pytest.fixture(scope="module")
def coordinates(frames) -> tuple[dict, np.ndarray]:
    """All frames in internal coordinates, and their log-determinants."""
    return jax.device_get(forward_all(jnp.asarray(frames)))


forward_all = jax.jit(jax.vmap(PEPTIDE.forward))
inverse_all = jax.jit(jax.vmap(PEPTIDE.inverse))
forward_of_peroxide = jax.jit(PEROXIDE.forward)
inverse_of_peroxide = jax.jit(PEROXIDE.inverse)


@jax.jit
def probe(x):
    """A scalar of all fields, periodic in the torsions, and the log-determinant with it; and its gradient."""

    def scalar(x):
        fields, log_det = PEPTIDE.forward(x)
        weights = jnp.arange(1.0, 20.0, dtype=x.dtype)
        return (
            log_det
            + 30 * jnp.sum(fields["bonds"] ** 2)
            + jnp.sum(fields["angles"] ** 3)
            + weights @ jnp.sin(fields["torsions"])
        )

    return jax.value_and_grad(scalar)(x)


torsion_of = lambda x: PEROXIDE.forward(x)[0]["torsions"][0]
torsion_gradient = jax.jit(jax.value_and_grad(torsion_of))
torsion_curvature = jax.jit(jax.jacfwd(jax.jacrev(torsion_of)))


def test_frames_come_back_to_rounding(frames, coordinates):
    fields, log_det = coordinates
    pose, inverse_log_det = inverse_all(fields)
    origin, rotation = jax.jit(jax.vmap(PEPTIDE.frame))(jnp.asarray(frames))
    back = origin[:, None] + np.asarray(pose) @ np.swapaxes(rotation, 1, 2)
    assert_allclose(back, frames, rtol=0, atol=1e-12)  # nm: rounding of 22 atoms, one hung on the other
    assert_allclose(log_det, -inverse_log_det, rtol=1e-12)
    # the standard pose: first atom at the origin, second on +z, third in the xz plane with x > 0
    first, second, third = (np.asarray(pose)[:, row[0]] for row in PEPTIDE.rows[:3])
    assert_allclose(first, 0, atol=0)
    assert_allclose(second[:, :2], 0, atol=0)
    assert_allclose(third[:, 1], 0, atol=0)
    assert np.all(second[:, 2] > 0) and np.all(third[:, 0] > 0)


def test_log_determinant_is_that_of_the_jacobian(frames):
    full = GlobalFrame(PEPTIDE)

    @jax.jit
    @jax.vmap
    def both(x):
        flat = lambda p: jnp.concatenate(jax.tree.leaves(full.forward(p.reshape(-1, 3))[0]))
        return jnp.linalg.slogdet(jax.jacfwd(flat)(x.ravel()))[1], full.forward(x)[1]

    from_jacobian, log_det = both(jnp.asarray(frames[::500]))
    assert_allclose(log_det, from_jacobian, rtol=1e-12)


@pytest.mark.parametrize("hydrogens_on", ["both oxygens", "the first oxygen"])
def test_log_determinant_of_the_inverse_is_that_of_its_jacobian(hydrogens_on):
    # the third atom hangs on the first or on the second: two forms of the pose
    pairs = [(0, 1), (1, 2), (2, 3)] if hydrogens_on == "both oxygens" else [(0, 1), (0, 2), (0, 3)]
    full = GlobalFrame(ZMatrix.from_topology((4, pairs)))
    fields = {
        "angles": jnp.array([1.7, 1.9]),
        "bonds": jnp.array([0.145, 0.097, 0.098]),
        "orientation": jnp.array([-2.0, 0.8, 2.9]),
        "origin": jnp.array([0.3, -0.2, 0.5]),
        "torsions": jnp.array([-1.9]),
    }

    @jax.jit
    def probe(fields):
        jacobian = jax.jacfwd(lambda f: full.inverse(f)[0].ravel())(fields)
        positions, log_det = full.inverse(fields)
        return (
            log_det,
            jnp.linalg.slogdet(jnp.concatenate(jax.tree.leaves(jacobian), axis=1))[1],
            full.forward(positions)[0],
        )

    log_det, from_jacobian, back = probe(fields)
    assert_allclose(log_det, from_jacobian, rtol=1e-12)
    for name, value in fields.items():
        assert_allclose(back[name], value, rtol=0, atol=1e-14)


def test_bonds_angles_and_torsions_are_those_of_mdtraj(frames, coordinates):
    trajectory = mdtraj.Trajectory(frames, TOPOLOGY)
    rows, fields = np.array(PEPTIDE.rows), coordinates[0]
    # mdtraj computes in float32, whose relative error is 6e-8
    assert_allclose(fields["bonds"], mdtraj.compute_distances(trajectory, rows[1:, :2]), rtol=2e-6)
    assert_allclose(fields["angles"], mdtraj.compute_angles(trajectory, rows[2:, :3]), rtol=2e-5)
    difference = np.asarray(fields["torsions"]) - mdtraj.compute_dihedrals(trajectory, rows[3:])
    assert_allclose(np.remainder(difference + np.pi, 2 * np.pi) - np.pi, 0, atol=1e-5)


def test_improper_torsions_are_narrow_and_proper_ones_turn(coordinates):
    # |mean of exp(i p)| is 1 for a rigid torsion; out-of-plane and tetrahedral vibrations at 300 K are about
    # 10°
    order = np.abs(np.mean(np.exp(1j * np.asarray(coordinates[0]["torsions"])), axis=0))
    proper = np.array(PEPTIDE.proper)
    assert order[~proper].min() > 0.97
    assert np.sum(order[proper] < 0.9) == 5  # phi, psi and three methyl groups; the peptide bonds are stiff


def test_mirror_image_flips_every_torsion_and_nothing_else(frames, coordinates):
    fields, log_det = coordinates
    mirrored, mirrored_log_det = forward_all(jnp.asarray(frames) * np.array([1, 1, -1]))
    assert_allclose(mirrored["torsions"], -fields["torsions"], atol=1e-13)
    assert_allclose(mirrored["bonds"], fields["bonds"], rtol=1e-13)
    assert_allclose(mirrored["angles"], fields["angles"], rtol=1e-13)
    assert_allclose(mirrored_log_det, log_det, rtol=1e-13)


def test_chirality_is_the_sign_of_an_improper_torsion(coordinates):
    names = [atom.name for atom in TOPOLOGY.atoms]
    quartets = [[names[i] for i in row] for row in PEPTIDE.rows[3:]]
    side_chain = np.asarray(coordinates[0]["torsions"])[:, quartets.index(["CB", "CA", "N", "C"])]
    # L-alanine: seen from HA, the groups CO, R, N follow each other clockwise ("CORN"), which puts CB at
    # -120° from C
    assert np.all(np.abs(side_chain + np.radians(120)) < np.radians(40))


@given(st.integers(0, 2**32 - 1))
def test_shape_does_not_change_when_the_molecule_moves_and_forces_turn_with_it(seed):
    random = np.random.default_rng(seed)
    with h5py.File(DATA / "alanine-dipeptide.h5") as file:
        x = file["positions"][seed % 2000].astype(float)
    R, shift = Rotation.random(random_state=int(seed % 2**31)).as_matrix(), random.normal(size=3)
    moved = x @ R.T + shift
    (value, forces), (moved_value, moved_forces) = jax.device_get(
        (probe(jnp.asarray(x)), probe(jnp.asarray(moved)))
    )
    assert_allclose(moved_value, value, rtol=1e-11)
    # rounding of positions, 1e-16, over the smallest length that torsions divide by, 0.02 nm, squared
    scale = np.abs(forces).max()
    assert_allclose(moved_forces, forces @ R.T, rtol=0, atol=1e-10 * scale)
    assert_allclose(forces.sum(0), 0, atol=1e-10 * scale)


@given(
    st.lists(st.floats(0.05, 0.3), min_size=3, max_size=3),
    st.lists(st.floats(0.02, np.pi - 0.02), min_size=2, max_size=2),
    st.floats(-np.pi + 1e-9, np.pi),
)
def test_any_shape_comes_back(bonds, angles, torsion):
    fields = {"bonds": jnp.array(bonds), "angles": jnp.array(angles), "torsions": jnp.array([torsion])}
    positions, log_det = inverse_of_peroxide(fields)
    back, forward_log_det = forward_of_peroxide(positions)
    assert_allclose(back["bonds"], bonds, rtol=1e-13)
    # angles near 0 and pi are as exact as all others; the torsion loses what sin(angle) > 0.02 takes, twice
    assert_allclose(back["angles"], angles, rtol=0, atol=1e-13)
    assert_allclose(back["torsions"], [torsion], rtol=0, atol=1e-11)
    assert_allclose(forward_log_det, -log_det, rtol=0, atol=1e-11)


@pytest.mark.parametrize("torsion", [0.0, np.pi], ids=["cis", "trans"])
def test_planar_torsions_have_right_derivatives(torsion):
    # the last atom, moved out of the plane by h, turns about the axis at distance b sin(angle): dp = h / (b
    # sin(angle))
    fields = {
        "bonds": jnp.array([0.145, 0.097, 0.098]),
        "angles": jnp.array([1.7, 1.8]),
        "torsions": jnp.array([torsion]),
    }
    x = inverse_of_peroxide(fields)[0]
    value, slope = torsion_gradient(x)
    assert_allclose(np.abs(value), torsion, atol=1e-15)
    assert_allclose(np.abs(slope[PEROXIDE.rows[3][0], 1]), 1 / (0.098 * np.sin(1.8)), rtol=1e-12)
    assert_allclose(
        torsion_gradient(x.astype(jnp.float32))[1], slope, rtol=0, atol=1e-6 * np.abs(slope).max()
    )
    # the torsion is odd in all displacements out of the plane, so its curvature has no part within the plane
    # alone
    curvature = torsion_curvature(x).reshape(4, 3, 4, 3)
    assert_allclose(curvature[:, ::2][:, :, :, ::2], 0, atol=1e-10)
    assert_allclose(curvature[:, 1, :, 1], 0, atol=1e-10)
    assert np.all(np.isfinite(curvature))


def test_a_trans_torsion_is_plus_pi_on_whichever_side_rounding_puts_it():
    for y in (0.0, 1e-20, -1e-20):  # atan2(-1e-20, -1) is -pi
        x = jnp.array([[0.1, y, -0.05], [0.0, 0.0, 0.0], [0.0, 0.0, 0.15], [-0.1, 0.0, 0.2]])
        for dtype in (np.float32, np.float64):
            torsion = forward_of_peroxide(x.astype(dtype))[0]["torsions"]
            assert torsion[0] == dtype(np.pi) and torsion.dtype == dtype


def test_float32_keeps_its_digits_there_back_and_in_forces(frames, coordinates):
    fields, _ = forward_all(jnp.asarray(frames, jnp.float32))
    positions, log_det = inverse_all(fields)
    assert {value.dtype for value in [*fields.values(), positions, log_det]} == {np.dtype(np.float32)}
    # positions up to 0.5 nm carry 3e-8 nm; a torsion sees them at 0.1 nm from its axis, and at 0.02 nm for
    # rare bent angles
    turned = (
        np.remainder(np.asarray(fields["torsions"]) - coordinates[0]["torsions"] + np.pi, 2 * np.pi) - np.pi
    )
    assert np.abs(turned).max() < 1e-5
    assert_allclose(positions, inverse_all(coordinates[0])[0], rtol=0, atol=3e-6)
    for x in frames[:4]:
        (_, forces), (_, exact) = probe(jnp.asarray(x, jnp.float32)), probe(jnp.asarray(x))
        assert forces.dtype == jnp.float32
        assert_allclose(forces, exact, rtol=0, atol=1e-5 * np.abs(exact).max())


def test_three_atoms_have_two_bonds_and_an_angle():
    water = ZMatrix.from_topology(molecule("H2O"))
    x = jnp.asarray(0.1 * molecule("H2O").positions)
    fields, log_det, (back, _) = jax.jit(
        lambda x: (*water.forward(x), water.forward(water.inverse(water.forward(x)[0])[0]))
    )(x)
    assert {name: value.shape for name, value in fields.items()} == {
        "bonds": (2,),
        "angles": (1,),
        "torsions": (0,),
    }
    assert_allclose(fields["angles"], np.radians(molecule("H2O").get_angle(1, 0, 2)), rtol=1e-12)
    assert_allclose(back["bonds"], fields["bonds"], rtol=1e-14)
    assert_allclose(log_det, -np.log(np.prod(fields["bonds"] ** 2) * np.sin(fields["angles"][0])), rtol=1e-14)


def test_equal_topologies_compile_once():
    # a training script builds its coordinates anew: same rows, same compiled code
    assert ZMatrix.from_topology(TOPOLOGY) == PEPTIDE
    assert jax.tree.leaves(PEPTIDE) == []


def broken(frames, kind):
    frames = frames[:50].copy()
    match kind:
        case "Å":
            return 10 * frames
        case "too small":
            return 0.1 * frames
        case "NaN":
            frames[3, 7] = np.nan
        case "another molecule":
            return frames[:, :21]
        case "one vector":
            return frames.reshape(50, -1)
        case "cut by the boundary":
            frames[12, 18:] += 3.0
        case "overlap":
            frames[4, 0] = frames[4, 1] + 0.01
        case "in a line":
            _, nitrogen, carbon = frames[5, 8], frames[5, 6], frames[5, 4]
            frames[5, 8] = nitrogen + 0.9 * (nitrogen - carbon)
    return frames


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Å", "seem to be in Å. Multiply them by 0.1"),
        ("too small", "are these positions in nm"),
        ("NaN", "position of atom 7 in frame 3 is nan"),
        ("another molecule", "positions of 21 atoms, and the topology has 22"),
        ("one vector", r"shape \(50, 66\)"),
        ("cut by the boundary", "bond between atoms 18 and 16 is .* in frame 12.*make_molecules_whole"),
        ("overlap", "bonded atoms 0 and 1 are 0.0173 nm apart in frame 4"),
        ("in a line", "atoms 4, 6 and 8 lie in a line in frame 5: their angle is 180.0000°.* 0 others"),
    ],
)
def test_positions_without_coordinates_are_refused_with_advice(frames, kind, message):
    PEPTIDE.check(frames)
    PEPTIDE.check(frames[0])
    with pytest.raises(InputError, match=message):
        PEPTIDE.check(broken(frames, kind))


def test_linear_groups_are_refused_with_advice():
    with pytest.raises(InputError, match=r"form a linear group: .* reference block"):
        ZMatrix.from_topology(molecule("CH3CN"))


@pytest.mark.parametrize(
    ("name", "atoms"),
    [("HCN", "C0 .* N1 .* H2"), ("C2H2", "C0 .* C1 .* H2 .* H3"), ("CO2", "C0 .* O1 .* O2")],
)
def test_linear_molecules_are_refused_by_the_names_of_their_atoms(name, atoms):
    molecules = molecule(name)
    with pytest.raises(InputError, match=rf"{atoms}.* lie in a line: a linear molecule has no torsions"):
        ZMatrix.from_topology(molecules)
    vibrating = molecules.positions / 10 + np.random.default_rng(0).normal(0, 0.004, (50, len(molecules), 3))
    for block in (None, (0, 1, 2)):
        with pytest.raises(InputError, match=rf"{atoms}.* lie in a line"):
            choose_coordinates(molecules, vibrating, block)


def test_two_atoms_are_too_few():
    with pytest.raises(InputError, match="2 atoms have no angle"):
        ZMatrix.from_topology((2, [(0, 1)]))
