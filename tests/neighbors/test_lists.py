"""Every pair within reach once, for any cell; and a list knows how long it stays complete."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.ghosts import with_ghosts
from mdsens.neighbors import Capacity, choose_builder, list_of_pairs, search_on_device, search_on_host
from mdsens.neighbors.lists import room_for

SKEWED = np.array([[4.0, 0.0, 0.0], [3.1, 4.5, 0.0], [-1.7, 2.2, 5.0]])
Pair = tuple[int, int, int, int, int]


def canonical(i, j, shifts) -> list[Pair]:
    """Pairs in one of their two directions."""
    forward = [(int(a), int(b), *(int(x) for x in s)) for a, b, s in zip(i, j, shifts, strict=True)]
    backward = [(b, a, -x, -y, -z) for a, b, x, y, z in forward]
    return [min(pair) for pair in zip(forward, backward, strict=True)]


def pairs_of(neighbors: ms.Neighbors) -> set[Pair]:
    """What a list holds; fails if a pair stands twice."""
    valid = np.asarray(neighbors.valid)
    pairs = canonical(
        np.asarray(neighbors.i)[valid], np.asarray(neighbors.j)[valid], np.asarray(neighbors.shift)[valid]
    )
    assert len(set(pairs)) == len(pairs)
    return set(pairs)


def brute_force(structure: ms.Structure, cutoff: float) -> set[Pair]:
    """All images far enough out, all pairs, one distance each."""
    x, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    reach = [0, 0, 0]
    if any(structure.pbc):
        inverse = np.linalg.inv(cell)  # its columns are 1 / (distance of opposite faces)
        far = np.ceil(cutoff * np.linalg.norm(inverse, axis=0) + np.ptp(x @ inverse, axis=0)).astype(int)
        reach = np.where(structure.pbc, far, 0)
    found = set()
    for s in itertools.product(*(range(-r, r + 1) for r in reach)):
        distance = np.linalg.norm(x[None] + np.array(s) @ cell - x[:, None], axis=-1)
        for i, j in np.argwhere(distance < cutoff):
            if i != j or any(s):
                found.update(canonical([i], [j], [s]))
    return found


def random_structure(seed: int, n: int, cell: np.ndarray | None, pbc) -> ms.Structure:
    """Atoms also outside the cell."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-0.7, 1.7, (n, 3)) @ (np.eye(3) * 6 if cell is None else cell)
    return ms.Structure.create(x, [18] * n, cell, pbc)


CASES = {
    "crystal": (12, np.diag([7.0, 8.0, 9.0]), True),
    "skewed crystal, smaller than the cutoff": (3, SKEWED, True),
    "one atom": (1, SKEWED, True),
    "slab": (8, SKEWED, (True, True, False)),
    "slab in the plane of two other vectors": (8, SKEWED, (False, True, True)),
    "wire": (8, SKEWED, (False, True, False)),
    "cluster in a box": (8, SKEWED, False),
    "free cluster": (8, None, False),
}


@pytest.mark.parametrize("case", CASES)
def test_every_pair_stands_once(case):
    n, cell, pbc = CASES[case]
    structure = random_structure(1, n, cell, pbc)
    found = pairs_of(ms.find_neighbors(structure, 4.4, 0.6))
    assert found == brute_force(structure, 5.0)
    assert found == set(canonical(*neighbor_list("ijS", structure.to_ase(), 5.0)))
    assert found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**16),
    n=st.integers(1, 6),
    pbc=st.tuples(*[st.booleans()] * 3),
    cutoff=st.floats(0.5, 6.0),
)
def test_every_pair_stands_once_in_random_cells(seed, n, pbc, cutoff):
    cell = np.random.default_rng(seed).normal(size=(3, 3)) * 2 + 3 * np.eye(3)
    if abs(np.linalg.det(cell)) < 10:
        cell = np.diag([3.0, 4.0, 5.0])
    structure = random_structure(seed, n, cell, pbc)
    assert pairs_of(ms.find_neighbors(structure, cutoff)) == brute_force(structure, cutoff)


def test_one_atom_with_a_long_cutoff_has_the_energy_per_atom_of_a_supercell():
    a = 5.3
    potential = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=3.01 * a)
    one, many = bulk("Ar", "fcc", a=a), bulk("Ar", "fcc", a=a) * (4, 4, 4)
    energy = [float(ms.energy(potential, ms.Structure.from_ase(atoms))) / len(atoms) for atoms in (one, many)]
    # some hundred terms a pair sum, each rounded to 1e-16 of the largest
    assert_allclose(energy[0], energy[1], rtol=1e-12)


@pytest.mark.parametrize(
    ("cell", "pbc"),
    [
        (np.diag([13.0, 16.0, 25.0]), True),
        (np.array([[16.0, 0, 0], [5, 17, 0], [-4, 3, 18]]), True),
        (np.array([[16.0, 0, 0], [5, 17, 0], [-4, 3, 18]]), (True, False, False)),
    ],
    ids=["cuboid", "triclinic", "open"],
)
def test_the_device_finds_the_pairs_that_the_host_finds(cell, pbc):
    structure = random_structure(2, 400, cell, pbc)
    device = ms.find_neighbors(structure, 3.5, 0.5, builder=search_on_device)
    host = ms.find_neighbors(structure, 3.5, 0.5, builder=search_on_host)
    assert pairs_of(device) == pairs_of(host)
    assert device.capacity == host.capacity


def test_atoms_crowded_into_one_corner_overflow_nothing_on_the_device():
    structure = random_structure(2, 400, np.diag([13.0, 16.0, 25.0]), True)
    spread = ms.find_neighbors(structure, 3.5, 0.5, builder=search_on_device)
    crowded = structure.at(structure.positions * 0.2)
    device = ms.find_neighbors(crowded, 3.5, 0.5, spread.capacity, search_on_device)
    assert device.capacity.pairs > 3 * spread.capacity.pairs
    assert pairs_of(device) == pairs_of(ms.find_neighbors(crowded, 3.5, 0.5))


def test_an_accelerator_builds_the_lists_of_large_cells():
    large, thin = np.diag([50.0, 50.0, 50.0]), np.diag([50.0, 50.0, 17.9])
    everywhere, slab = (True, True, True), (True, True, False)
    assert choose_builder(10_000, large, everywhere, 6.0, "gpu") is search_on_device
    assert choose_builder(10_000, large, everywhere, 6.0, "cpu") is search_on_host
    assert choose_builder(9_999, large, everywhere, 6.0, "gpu") is search_on_host
    assert choose_builder(10_000, thin, everywhere, 6.0, "gpu") is search_on_host
    assert choose_builder(10_000, thin, slab, 6.0, "gpu") is search_on_device
    assert choose_builder(1000, np.zeros((3, 3)), (False,) * 3, np.inf, "gpu") is search_on_host
    with pytest.raises(ms.errors.InputError, match=r"3 x 6 Å.*periodic"):
        ms.find_neighbors(random_structure(0, 20, thin, True), 5.5, 0.5, builder=search_on_device)


@pytest.mark.parametrize("builder", [search_on_host, search_on_device])
def test_the_table_holds_both_directions_of_every_pair(builder):
    # the host: images of one atom; the device: a cell thick enough for it
    cell = SKEWED if builder is search_on_host else 5 * SKEWED
    structure = random_structure(3, 7 if builder is search_on_host else 100, cell, (True, True, False))
    neighbors = ms.find_neighbors(structure, 4.0, 0.5, Capacity(pairs=400), builder)
    table = jax.jit(lambda n: n.table())(neighbors)
    rows = [
        (i, int(j), *(int(x) for x in s))
        for i in range(structure.n_atoms)
        for j, s, valid in zip(table.j[i], table.shift[i], table.valid[i], strict=True)
        if valid
    ]
    forward = pairs_of(neighbors)
    assert sorted(rows) == sorted([*forward, *((j, i, -x, -y, -z) for i, j, x, y, z in forward)])
    # an atom's own image is its neighbor twice, on either side
    own = sum(i == j for i, j, *_ in forward)
    assert len({row for row in rows if row[0] == row[1]}) == 2 * own
    assert own > 0 or builder is search_on_device

    # lengths agree with those of the flat list, each twice
    valid = np.asarray(table.valid)
    mine = np.linalg.norm(np.asarray(table.vectors(structure))[valid], axis=-1)
    flat = np.linalg.norm(np.asarray(neighbors.vectors(structure))[np.asarray(neighbors.valid)], axis=-1)
    assert_allclose(np.sort(mine), np.sort(np.repeat(flat, 2)), atol=1e-12)
    beyond = np.linalg.norm(np.asarray(table.vectors(structure))[~valid], axis=-1)
    assert len(beyond) and np.all(beyond > 4.5)


def test_unused_places_of_the_table_change_no_derivative():
    structure = random_structure(3, 7, SKEWED, True)
    tight, roomy = (ms.find_neighbors(structure, 4.0, capacity=c) for c in (None, Capacity(400, 90)))

    @jax.jit
    def derivatives(neighbors):
        def energy(x):
            r = jnp.linalg.norm(neighbors.table().vectors(structure.at(x)), axis=-1)
            return jnp.sum(jnp.where(r < 4.0, (4.0 - r) ** 3 * r**-6, 0.0))

        return jax.grad(energy)(structure.positions), jax.hessian(energy)(structure.positions)

    for one, other in zip(derivatives(tight), derivatives(roomy), strict=True):
        assert np.isfinite(one).all() and np.abs(one).max() > 0
        assert_allclose(other, one, rtol=1e-9, atol=1e-12 * np.abs(one).max())


def test_a_table_is_there_for_atoms_without_neighbors():
    alone = ms.Structure.create([[0.0, 0.0, 0.0]], ["Ar"])
    none = np.zeros(0, np.int32)
    exact = list_of_pairs(
        none, none, np.zeros((0, 3)), np.zeros((1, 3)), np.zeros((3, 3)), np.inf, Capacity(0, 1)
    )
    for neighbors in (ms.find_neighbors(alone, 3.0), ms.find_neighbors(alone, np.inf), exact):
        table = neighbors.table()
        assert not table.valid.any() and np.isfinite(table.vectors(alone)).all()


@jax.jit
def slack_of(neighbors: ms.Neighbors, structure: ms.Structure):
    return neighbors.slack(structure, jnp.asarray(3.0))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**16),
    move=st.floats(0, 0.6),
    strain=st.floats(0, 0.2),
    pbc=st.sampled_from([True, (True, False, True), False]),
)
def test_a_list_with_slack_misses_no_pair(seed, move, strain, pbc):
    rng = np.random.default_rng(seed)
    structure = random_structure(seed, 6, SKEWED, pbc)
    neighbors = ms.find_neighbors(structure, 3.0, 1.0, Capacity(400, 200))
    steps = rng.normal(size=(6, 3))
    steps *= move / np.linalg.norm(steps, axis=1, keepdims=True)
    deformation = rng.normal(size=(3, 3))
    deformation = np.eye(3) + strain * deformation / np.linalg.norm(deformation, 2)
    moved = structure.at(structure.positions + steps).deformed(jnp.asarray(deformation))
    slack = float(slack_of(neighbors, moved))
    missed = brute_force(moved, 3.0) - pairs_of(neighbors)
    assert slack <= 0 or not missed
    # not idle: small motions keep their slack, and for moves alone it is exactly skin - 2 |move|
    if strain == 0:
        assert_allclose(slack, 1.0 - 2 * move, atol=1e-12)
    assert slack > 0 or move > 0.2 or strain > 0.05


def test_slack_ends_just_before_a_pair_is_missed():
    # Two atoms a little farther apart than reach = 4 walk towards each other; each may go half the skin.
    structure = ms.Structure.create([[0.0, 0, 0], [4.01, 0, 0]], ["Ar", "Ar"], [20.0] * 3)
    neighbors = ms.find_neighbors(structure, 3.0, 1.0)
    walk = jnp.array([[1.0, 0, 0], [-1.0, 0, 0]])
    assert float(slack_of(neighbors, structure.at(structure.positions + 0.49 * walk))) > 0
    assert float(slack_of(neighbors, structure.at(structure.positions + 0.51 * walk))) < 0
    assert not pairs_of(neighbors)


@pytest.mark.parametrize(
    "potential",
    [
        ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=6.0),
        ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=6.0, cut=ms.Smooth()),
    ],
    ids=["force-shifted", "smooth"],
)
def test_padded_slots_change_no_number_and_no_derivative(potential):
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(0.1, seed=1)
    structure = ms.Structure.from_ase(atoms)

    @jax.jit
    def everything(potential, neighbors):
        energy = lambda potential, x: potential.energy(structure.at(x), neighbors)
        parameters = jax.grad(energy)(potential, structure.positions)
        return (
            energy(potential, structure.positions),
            jax.hessian(energy, 1)(potential, structure.positions),
            parameters,
        )

    exact = everything(potential, ms.find_neighbors(structure, 6.0))
    padded = everything(potential, ms.find_neighbors(structure, 6.0, capacity=Capacity(2000, 500)))
    for mine, theirs in zip(jax.tree.leaves(padded), jax.tree.leaves(exact), strict=True):
        # sums in another order
        assert_allclose(mine, theirs, rtol=1e-12, atol=1e-15)


def test_a_list_made_anew_keeps_its_shapes():
    structure = random_structure(5, 30, np.diag([9.0, 9.0, 9.0]), True)
    old = ms.find_neighbors(structure, 4.0)
    fewer = ms.find_neighbors(structure, 3.0, capacity=old.capacity)
    assert fewer.capacity == old.capacity
    assert len(pairs_of(fewer)) < len(pairs_of(old))
    more = ms.find_neighbors(structure, 6.0, capacity=old.capacity)
    assert pairs_of(more) == brute_force(structure, 6.0)
    assert jax.tree.structure(fewer) == jax.tree.structure(old)
    assert [leaf.shape for leaf in jax.tree.leaves(fewer)] == [leaf.shape for leaf in jax.tree.leaves(old)]


def test_derivatives_pass_through_a_list_found_on_the_way():
    potential = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=6.0)
    structure = random_structure(6, 4, 2 * SKEWED, True)
    neighbors = ms.find_neighbors(structure, 6.0)

    def energy(strain, neighbors=None):
        deformed = structure.deformed(jnp.eye(3) + strain)
        return ms.energy(
            potential, deformed, ms.find_neighbors(deformed, 6.0) if neighbors is None else neighbors
        )

    zero = jnp.zeros((3, 3))
    # the same list, found once inside the derivative and once outside
    assert_allclose(jax.grad(energy)(zero), jax.grad(energy)(zero, neighbors), rtol=1e-12)
    assert_allclose(
        jax.jacfwd(jax.grad(energy))(zero), jax.jacfwd(jax.grad(energy))(zero, neighbors), rtol=1e-12
    )


def test_what_cannot_be_searched_is_an_error():
    structure = random_structure(7, 5, SKEWED, True)
    with pytest.raises(ms.errors.NonFiniteError, match="atom 2 is at"):
        ms.find_neighbors(structure.at(structure.positions.at[2, 1].set(jnp.nan)), 3.0)
    with pytest.raises(ms.errors.NonFiniteError, match="the cell is not finite"):
        ms.find_neighbors(structure.at(structure.positions, structure.cell.at[0, 0].set(jnp.inf)), 3.0)
    with pytest.raises(ms.errors.TracedError, match="pass neighbors="):
        jax.jit(lambda x: ms.find_neighbors(structure.at(x), 3.0))(structure.positions)
    with pytest.raises(ms.errors.InputError, match="infinitely many pairs"):
        ms.find_neighbors(structure, np.inf)
    with pytest.raises(ms.errors.InputError, match="all pairs of 5001 atoms"):
        ms.find_neighbors(random_structure(0, 5001, None, False), np.inf)
    for cutoff, skin in [(0.0, 0.1), (-1.0, 2.0), (np.nan, 0.0), (3.0, -0.1), (3.0, np.inf)]:
        with pytest.raises(ms.errors.InputError, match="the cutoff must be positive"):
            ms.find_neighbors(structure, cutoff, skin)


@pytest.mark.parametrize(
    "pbc", [False, (True, False, False), (True, True, False)], ids=["cluster", "wire", "slab"]
)
def test_atoms_very_far_away_along_open_directions_are_searched_like_any(pbc):
    cell = np.diag([6.0, 7.0, 8.0])
    structure = random_structure(8, 8, cell, pbc)
    far = np.where(structure.pbc, 0.0, [1e6, -3e7, 2e9])
    near = pairs_of(ms.find_neighbors(structure, 4.0))
    apart = structure.at(structure.positions.at[2].add(far).at[5].add(2 * far))
    found = pairs_of(ms.find_neighbors(apart, 4.0))
    assert found == {p for p in near if {p[0], p[1]}.isdisjoint({2, 5}) or p[0] == p[1]}


def test_no_cutoff_beyond_the_extent_of_a_cluster_is_searched():
    pair = ms.Structure.create([[0.0, 0, 0], [0.74, 0, 0]], ["H", "H"])
    assert len(pairs_of(ms.find_neighbors(pair, 1e5))) == 1


def test_the_cell_of_a_cluster_does_not_matter():
    # two equal vectors: the list is right, and knows how long it stays so
    structure = random_structure(9, 6, np.array([[4.0, 0, 0], [4.0, 0, 0], [0, 0, 5.0]]), False)
    neighbors = ms.find_neighbors(structure, 3.0, 1.0)
    assert pairs_of(neighbors) == brute_force(structure.at(structure.positions, jnp.zeros((3, 3))), 4.0)
    assert_allclose(float(slack_of(neighbors, structure)), 1.0, atol=1e-12)


def test_periodic_vectors_that_are_linearly_dependent_are_refused():
    structure = random_structure(9, 6, np.diag([4.0, 5.0, 6.0]), (True, True, False))
    with pytest.raises(ms.errors.InputError, match="linearly dependent or zero"):
        ms.find_neighbors(structure.at(structure.positions, structure.cell.at[1].set(structure.cell[0])), 3.0)


@pytest.mark.parametrize(
    ("pbc", "cutoff", "images"),
    [((False, True, False), 2e4, 2 * 2e4 / 5), ((True, True, False), 200.0, np.pi * 200**2 / (4 * 5))],
    ids=["wire", "slab"],
)
def test_cutoffs_far_beyond_the_extent_along_open_directions_are_searched(pbc, cutoff, images):
    positions = np.random.default_rng(4).uniform(0, 3, (4, 3))
    structure = ms.Structure.create(positions, ["Ar"] * 4, np.diag([4.0, 5.0, 6.0]), pbc)
    # each of 4 atoms sees 4 in every image of the cell that is within reach
    found = int(ms.find_neighbors(structure, cutoff).valid.sum())
    assert_allclose(found, 4 * 4 / 2 * images, rtol=0.01)


@pytest.mark.parametrize(
    "pbc", [(False, False, True), (True, False, True), True], ids=["wire", "slab", "crystal"]
)
def test_more_pairs_than_memory_holds_are_refused_with_their_number(pbc):
    structure = random_structure(3, 7, SKEWED, pbc)
    with pytest.raises(ms.errors.InputError, match=r"about \S+ pairs of the 7 atoms.*Take a cutoff below"):
        ms.find_neighbors(structure, 1e9)


@pytest.mark.parametrize("n_atoms", [7, 300])
@pytest.mark.parametrize("pbc", [True, False])
def test_the_room_for_a_list_is_that_of_the_list(n_atoms, pbc):
    x = np.random.default_rng(3).uniform(0, 5, (n_atoms, 3)) @ (SKEWED / 5)
    structure = ms.Structure.create(x, ["Ar"] * n_atoms, SKEWED, pbc)
    for one in (structure, with_ghosts(structure)):
        assert room_for(one, 2.0, 0.3) == ms.find_neighbors(one, 2.0, 0.3).capacity
    with pytest.raises(ms.errors.InputError, match="the cutoff must be positive"):
        room_for(structure, -1.0, 0.3)
