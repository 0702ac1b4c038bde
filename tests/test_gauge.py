"""Motions that cost no energy: how many there are, and that the energy agrees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from states import cluster

import mdsens as ms
from mdsens.gauge import Gauge

CUTOFF = 3.0
SPHERES = ms.SoftSphere(CUTOFF, 1.0, 2.0, elements=("Ar",))
POINTS = np.array([[0.0, 0.0, 0.0], [1.1, 0.2, 0.0], [0.3, 1.2, 0.1], [0.4, 0.3, 1.0], [1.3, 1.2, 0.9]])
gauge_of = jax.jit(ms.find_gauge, static_argnums=3)  # of the number of strains


def gauge(positions=POINTS, cell=None, pbc=None, fixed=None, strains=0):
    structure = ms.Structure.create(positions, ["Ar"] * len(positions), cell, pbc, fixed=fixed)
    neighbors = ms.find_neighbors(structure, CUTOFF, capacity=ms.find_neighbors(structure, CUTOFF).capacity)
    return gauge_of(SPHERES, structure, neighbors, strains)


def matrix(gauge):
    return np.asarray(jax.vmap(gauge.project)(jnp.eye(len(gauge.free))))


def mask(**atoms):
    fixed = np.zeros((5, 3), bool)
    for atom, axes in atoms.items():
        fixed[int(atom[1:])] = axes
    return fixed


BOX = np.diag([4.0, 4.0, 4.0])
ALONG = np.array(
    [[0.0, 0.0, 0.0], [0.5, 1.0, 0.2], [1.0, 2.0, 0.4], [1.5, 3.0, 0.6], [2.0, 4.0, 0.8]]
)  # on one line


@pytest.mark.parametrize(
    ("case", "left"),
    [
        ({}, 15 - 6),
        ({"positions": ALONG}, 15 - 5),  # a turn about its own line moves nothing
        ({"cell": BOX}, 15 - 3),
        # a slab does not turn: the lattice would not follow
        ({"cell": BOX, "pbc": (True, True, False)}, 15 - 3),
        ({"cell": BOX, "pbc": (False, True, False)}, 15 - 4),  # a wire turns about its axis
        ({"cell": BOX, "strains": 6}, 15 - 3 + 6),
        ({"fixed": mask(a0=True)}, 12 - 3),  # turns about the fixed atom
        ({"fixed": mask(a0=True, a1=True)}, 9 - 1),  # a turn about the line through both
        ({"fixed": mask(a0=True, a1=True, a2=True)}, 6),
        # two shifts; three turns, with a shift along x that keeps x_0
        ({"fixed": mask(a0=(1, 0, 0))}, 14 - 5),
        ({"fixed": np.tile([False, False, True], (5, 1))}, 10 - 3),  # in the plane: two shifts and a turn
        ({"cell": BOX, "fixed": mask(a2=(0, 1, 0))}, 14 - 2),
        # a rattler: its own three coordinates, too
        ({"positions": np.r_[POINTS[:4], [[30.0, 0.0, 0.0]]]}, 12 - 6),
    ],
    ids=["free", "linear", "crystal", "slab", "wire", "crystal with strains", "one fixed", "two fixed",
         "three fixed", "one coordinate", "plane", "crystal with a coordinate fixed", "rattler"],
)  # fmt: skip
def test_the_motions_left_are_counted_right(case, left):
    found = gauge(**case)
    P = matrix(found)
    assert_allclose(P @ P, P, atol=1e-13)
    assert_allclose(P, P.T, atol=1e-15)
    assert_allclose(found.matrix, P, atol=1e-14)
    assert round(np.trace(P)) == left == found.rank
    assert_allclose(np.trace(P), left, atol=1e-12)


def test_fixed_coordinates_and_rattlers_do_not_move_at_all():
    fixed = mask(a0=True, a3=(0, 1, 0))
    P = matrix(gauge(np.r_[POINTS[:4], [[30.0, 0.0, 0.0]]], fixed=fixed))
    still = fixed.reshape(-1) | (np.arange(15) >= 12)
    assert not P[still].any() and not P[:, still].any()


def test_the_hessian_of_a_relaxed_cluster_is_singular_along_its_gauge_and_nowhere_else():
    potential, start = cluster()
    relaxed = ms.relax(potential, start, fmax=1e-11)
    energy = lambda x: ms.energy(potential, start.at(x.reshape(13, 3)), relaxed.neighbors)
    H = jax.jit(jax.hessian(energy))(relaxed.structure.positions.reshape(-1))
    found = ms.find_gauge(potential, relaxed.structure, relaxed.neighbors, 0)
    # at rest a rotation costs nothing to second order; off rest it would cost force times distance
    assert_allclose(H @ found.rigid.T, 0, atol=1e-9)
    values = np.linalg.eigvalsh(H)
    assert np.abs(values[:6]).max() < 1e-9 and values[6] > 60


def test_the_projector_does_not_depend_on_where_the_cluster_stands():
    near, far = matrix(gauge()), matrix(gauge(POINTS + 1e3))
    assert_allclose(far, near, atol=1e-10)


def test_the_projector_is_held_while_the_state_moves():
    # derivatives of eigenvectors that belong to equal eigenvalues would be NaN
    structure = ms.Structure.create(POINTS, ["Ar"] * 5)
    neighbors = ms.find_neighbors(structure, CUTOFF)
    v = jnp.arange(15.0)
    slope = jax.jacfwd(lambda x: gauge_of(SPHERES, structure.at(x), neighbors, 0).project(v))(
        structure.positions
    )
    assert not np.any(slope)


def test_rows_are_projected_on_the_host_as_on_the_device():
    free = np.r_[np.ones(8, bool), False, np.ones(2, bool)]  # three atoms, and two strains
    rigid = np.zeros((6, 9))
    rigid[0, :8] = 1 / np.sqrt(8)
    gauge = Gauge(jnp.asarray(free), jnp.asarray(rigid))
    rows = np.random.default_rng(5).normal(size=(4, 11))
    assert_allclose(gauge.project_rows(rows), jax.vmap(gauge.project)(rows), atol=1e-15)
    assert_allclose(gauge.project_rows(rows), rows @ gauge.matrix.T, atol=1e-15)


@pytest.mark.parametrize(
    "case", [{}, {"cell": BOX, "strains": 6}, {"fixed": mask(a2=(0, 1, 0))}, {"fixed": mask(a0=True)}]
)
def test_matrices_are_projected_as_vectors_are(case):
    found = gauge(**case)
    size = len(found.free)
    random = np.random.default_rng(5).normal(size=(size, size))
    P = matrix(found)
    assert_allclose(found.matrix, P, rtol=0, atol=1e-14)
    assert_allclose(found.project_matrix(random), P @ random @ P, rtol=0, atol=1e-13)
    symmetric = random + random.T
    lifted = symmetric.copy()
    found.lift(lifted, 7.0)
    assert_allclose(lifted, P @ symmetric @ P + 7.0 * (np.eye(size) - P), rtol=0, atol=1e-13)
