"""The Hessian written down block by block is the Hessian; certificates and solves that use it are right."""

import graph_network
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.implicit.blocks import BlockMatrix, BorderedMatrix
from mdsens.relaxation.equilibrium import Equilibrium, hessian_times
from mdsens.strain import UNIT_STRAINS


def rattled(atoms: Atoms, amplitude: float = 0.05) -> ms.Structure:
    atoms.rattle(amplitude, seed=1)
    return ms.Structure.from_ase(atoms)


def argon(cutoff: float = 7.0) -> ms.LennardJones:
    return ms.LennardJones(0.0104, 3.4, elements=("Ar",), cutoff_radius=cutoff)


SILICON = "si-stillinger-weber-1985"
CASES = {
    "angles": lambda: (ms.load_potential(SILICON), rattled(bulk("Si", a=5.43, cubic=True))),
    "one atom and its images": lambda: (argon(), rattled(bulk("Ar", a=5.3))),
    "pairs": lambda: (argon(), rattled(bulk("Ar", a=5.3, cubic=True) * (2, 1, 1))),
    "a cluster of all pairs": lambda: (argon(np.inf), rattled(Atoms("Ar4", np.eye(4, 3) * 3.7))),
    "products of a network": lambda: (graph_network.potential(), graph_network.crystal()),
    "a sum": lambda: (argon() + 0.5 * argon(5.0), rattled(bulk("Ar", a=5.3, cubic=True))),
}


@pytest.mark.parametrize("case", CASES)
def test_the_hessian_written_down_gives_the_products_of_the_potential(case):
    potential, structure = CASES[case]()
    basis = UNIT_STRAINS if any(structure.pbc) else None
    start = Equilibrium.at(potential, structure, basis)
    # away from the reference cell, where x = (x0 + u) F differs from x0 + u
    strains = 0 if basis is None else len(basis)
    w = jnp.concatenate([start.w[: start.w.size - strains], 0.05 * jnp.arange(1.0, strains + 1)])
    state = Equilibrium.settled(start.landscape, w)
    matrix = state.assembled
    assert isinstance(matrix, BorderedMatrix)
    vectors = np.random.default_rng(0).normal(size=(3, len(w)))
    exact = hessian_times(state.landscape, w, vectors)
    assert_allclose(jax.vmap(matrix)(vectors), exact, rtol=0, atol=1e-12 * np.abs(exact).max())
    assert_allclose(vectors @ matrix.dense(), exact, rtol=0, atol=1e-12 * np.abs(exact).max())


def test_rows_of_few_and_of_many_neighbors_give_one_matrix(monkeypatch):
    from mdsens.potentials import shells

    potential, structure = CASES["angles"]()
    # an atom more has five neighbors, those around it too, and all others four
    atoms = structure.to_ase()
    atoms.append("Si")
    atoms.positions[-1] = atoms.positions[0] + [-1.6, 1.6, 1.6]
    state = Equilibrium.at(potential, ms.Structure.from_ase(atoms))
    together = state.landscape.assembled(state.w).dense()
    monkeypatch.setattr(shells, "COARSE_ATOMS", 1)
    monkeypatch.setattr(shells, "SHORTEST", 1)
    apart = state.landscape.assembled(state.w).dense()
    assert_allclose(apart, together, rtol=0, atol=1e-12 * np.abs(together).max())


def test_few_long_rows_go_by_themselves(monkeypatch):
    from mdsens.potentials import shells

    lengths = np.array([4] * 60 + [9] * 3)
    there = np.arange(12) < lengths[:, None]
    ((rows, width),) = shells._by_length(there)
    assert_allclose(rows, np.arange(63))
    assert width == 12
    monkeypatch.setattr(shells, "COARSE_ATOMS", 10)
    (all_rows, short), (few, long) = shells._by_length(there)
    assert (len(all_rows), short, long) == (63, 5, 9)
    assert_allclose(few, [60, 61, 62, 62])  # as many as a power of two


def test_blocks_at_one_place_add_up_and_padding_adds_nothing():
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, 5, (2, 40))
    blocks = rng.normal(size=(40, 3, 3))
    whole = np.zeros((5, 3, 5, 3))
    for a, b, block in zip(i, j, blocks, strict=True):
        whole[a, :, b] += block
    matrix = BlockMatrix.of(i, j, blocks, 6)  # the last point has no block
    v = rng.normal(size=18)
    expected = np.concatenate([whole.reshape(15, 15) @ v[:15], np.zeros(3)])
    assert_allclose(matrix(jnp.asarray(v)), expected, atol=1e-14)
    assert_allclose(matrix.dense()[:15, :15], whole.reshape(15, 15), atol=1e-15)


def test_a_form_without_second_derivatives_of_its_shells_is_served_by_products():
    class Own(ms.Potential):
        elements: tuple[str, ...] = ()
        source: str = ""

        @property
        def cutoff(self):
            return jnp.asarray(4.0)

        def energy(self, structure, neighbors):
            r2 = jnp.sum(neighbors.vectors(structure) ** 2, axis=-1)
            return jnp.sum(jnp.where(r2 < 16.0, (16.0 - r2) ** 3, 0.0)) * 1e-4

    structure = rattled(bulk("Ar", a=5.3, cubic=True))
    assert Equilibrium.at(Own(), structure).assembled is None
    assert Equilibrium.at(Own() + argon(), structure).assembled is None


def test_wide_rows_of_many_atoms_are_left_to_products(monkeypatch):
    from mdsens.potentials import shells

    assert not shells.too_wide(4_000, 60) and shells.too_wide(40_000, 60)  # 29 and 173 MB
    monkeypatch.setattr(shells, "WIDEST_ROW", 3)
    state = Equilibrium.at(argon(), rattled(bulk("Ar", a=5.3, cubic=True)))
    assert state.assembled is not None  # few atoms: a full matrix is made of it
    monkeypatch.setattr(shells, "FEW_ATOMS", 3)
    assert Equilibrium.at(argon(), rattled(bulk("Ar", a=5.3, cubic=True))).assembled is None


def test_a_target_stress_with_shear_has_no_symmetric_hessian_to_write_down():
    target = np.array([[0.0, 0.001, 0.0], [0.001, 0.0, 0.0], [0.0, 0.0, 0.0]])
    state = Equilibrium.at(argon(), rattled(bulk("Ar", a=5.3, cubic=True)), UNIT_STRAINS, target)
    assert state.assembled is None


def test_many_atoms_answer_like_few(monkeypatch):
    # above DENSE_LIMIT the matrix written down solves, by iteration; below it is factorised
    from mdsens.relaxation import equilibrium
    from mdsens.relaxation.memory import forget

    potential, structure = argon(), rattled(bulk("Ar", a=5.3, cubic=True) * (2, 1, 1))
    spread = lambda p: jnp.sum(ms.relax(p, structure, cell="full").structure.positions[1] ** 2)
    few = jax.grad(spread)(potential)
    forget()
    monkeypatch.setattr(equilibrium, "DENSE_LIMIT", 3)
    many = jax.grad(spread)(potential)
    forget()
    assert float(few.sigma) != 0
    assert_allclose(many.sigma, few.sigma, rtol=1e-9)
