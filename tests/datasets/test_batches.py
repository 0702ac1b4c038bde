"""Structures of different sizes in one shape: what a potential says of them is what it says of each alone."""

import ase.build
import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.datasets import Dataset, label, labelled, make_batches
from mdsens.datasets.batches import size_for
from mdsens.errors import InputError

SILICON = ms.load_potential("si-stillinger-weber-1985")


def crystal(seed: int, vacancies: int = 0) -> ms.Structure:
    atoms = ase.build.bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=seed)
    return ms.Structure.from_ase(atoms[vacancies:])


def network() -> ms.Potential:
    """Energies of single atoms that are not zero, also of those that are alone."""

    def energies(params, vectors, species, senders, receivers):
        near = jax.nn.relu(1 - (vectors**2).sum(-1) / 9.0) ** 3
        density = jax.ops.segment_sum(near, receivers, num_segments=len(species))
        return params["scale"] * jax.numpy.tanh(density + params["shift"][species])

    params = {"scale": 2.0, "shift": np.array([0.3, 0.5])}
    return ms.GraphPotential(energies, params, cutoff=3.0, elements=("Si", "C"))


def test_a_rule_puts_structures_into_groups_as_large_as_their_largest():
    structures = [crystal(0, 5), crystal(1, 6), crystal(2, 1), crystal(3), crystal(4, 2)]
    batches = make_batches(Dataset.create(structures), SILICON, rule=lambda n: 4 if n <= 4 else 16)
    assert {batch.forces.shape[:2]: batch.entry.tolist() for batch in batches} == {
        (2, 3): [0, 1],
        (3, 8): [2, 3, 4],
    }


@pytest.mark.parametrize("potential", [SILICON, network()], ids=["shells", "network"])
def test_ghosts_change_no_energy_no_force_and_no_stress(potential):
    # 7, 8 and 5 atoms in the shape of 8
    structures = [crystal(1, 1), crystal(0), crystal(2, 3)]
    data = Dataset.create(structures, energies=[1.0, None, 2.0], group="a")
    (batch,) = make_batches(data, potential)
    assert batch.forces.shape == (3, 8, 3)
    assert_allclose(batch.ghosts, [1, 0, 3])
    for entry, structure in zip(label(potential, data), structures, strict=True):
        alone = ms.energy_forces_stress(potential, structure)
        assert entry.structure is structure and entry.group == "a"
        assert_allclose(entry.energy, alone.energy, rtol=1e-13)
        assert_allclose(entry.forces, alone.forces, atol=1e-13)
        assert_allclose(entry.stress, alone.stress, atol=1e-15)


def test_labels_that_are_missing_weigh_nothing():
    forces = np.ones((7, 3))
    known = np.arange(7) != 2
    data = Dataset(
        (
            labelled(crystal(0), energy=-30.0, weights=(2.0, 1.0, 1.0)),
            labelled(crystal(1, 1), forces=forces, known=known, weights=(1.0, 3.0, 1.0)),
        )
    )
    (batch,) = make_batches(data, SILICON, one_shape=True)
    assert_allclose(batch.energy_weight, [2.0, 0.0])
    assert_allclose(batch.forces_weight[1], [3, 3, 0, 3, 3, 3, 3, 0])
    assert not np.any(batch.stress_weight) and not np.any(batch.forces_weight[0])


def test_many_sizes_take_few_shapes_and_rows_that_fill_up_weigh_nothing():
    sizes = {size_for(n) for n in range(1, 201)}
    assert len(sizes) < 30 and all(n <= size_for(n) <= 1.25 * n for n in range(9, 201))
    data = Dataset.create([crystal(k) for k in range(3)], energies=[-30.0] * 3)
    batches = make_batches(data, SILICON, atoms_at_once=16)
    assert [batch.entry.tolist() for batch in batches] == [[0, 1], [2, -1]]
    assert_allclose(batches[1].energy_weight, [1.0, 0.0])


def test_what_has_no_common_shape_is_said():
    slab = ms.Structure.create(crystal(0).positions, ["Si"] * 8, crystal(0).cell, pbc=(True, True, False))
    with pytest.raises(InputError, match="periodic along different vectors"):
        make_batches(Dataset.create([crystal(0), slab]), SILICON, one_shape=True)
    assert len(make_batches(Dataset.create([crystal(0), slab]), SILICON)) == 2
    with pytest.raises(InputError, match="the data set is empty"):
        make_batches(Dataset(()), SILICON)
    carbon = Dataset((labelled(ms.Structure.create([[0, 0, 0]], ["C"]), 0.0, origin="my.extxyz:7"),))
    with pytest.raises(
        InputError, match=r"my.extxyz:7: StillingerWeber has no parameters for C; it knows Si"
    ):
        make_batches(carbon, SILICON)
    with pytest.raises(InputError, match=r"Read one with ms.read_dataset"):
        label(SILICON, [crystal(0)])


def salt(n: int, strain: float) -> ms.Structure:
    atoms = ase.build.bulk("NaCl", "rocksalt", a=5.64, cubic=n == 8)
    atoms.set_cell(atoms.cell.array * (1 + strain), scale_atoms=True)
    return ms.Structure.from_ase(atoms)


def test_coulomb_sums_share_shapes_only_with_as_many_atoms():
    potential = ms.Ewald(charge=[1.0, -1.0], elements=("Na", "Cl"), cutoff_radius=6.0)
    data = Dataset.create([salt(8, 0.0), salt(2, 0.0), salt(8, 0.05)])
    eight, two = make_batches(data, potential)
    assert eight.entry.tolist() == [0, 2] and two.entry.tolist() == [1]
    assert not np.any(eight.ghosts) and eight.neighbors.waves.shape[0] == 2
    with pytest.raises(InputError, match="structures of 2 to 8 atoms have no common shape for Ewald"):
        make_batches(data, potential, one_shape=True)


@pytest.mark.validation
def test_coulomb_sums_in_a_batch_are_those_of_each_alone():
    potential = ms.Ewald(charge=[1.0, -1.0], elements=("Na", "Cl"), cutoff_radius=6.0)
    data = Dataset.create([salt(8, 0.0), salt(2, 0.0), salt(8, 0.05)])
    for entry in label(potential, data):
        assert_allclose(entry.energy, ms.energy(potential, entry.structure), rtol=1e-12)


def test_functions_of_positions_see_no_ghosts():
    def all_pairs(R, k=1.0, **_):
        return k * jax.numpy.sum(R**2)

    potential = ms.JaxMDPotential(all_pairs, {"k": 1.0}, cutoff=np.inf)
    clusters = [ms.Structure.create(np.eye(n, 3) + np.arange(n)[:, None], ["Si"] * n) for n in (2, 3)]
    for entry in label(potential, Dataset.create(clusters)):
        assert_allclose(entry.energy, np.sum(np.asarray(entry.structure.positions) ** 2))


def test_programs_see_no_ghosts():
    from ase.calculators.emt import EMT

    potential = ms.from_ase(EMT(), elements=("Cu",))
    atoms = ase.build.bulk("Cu", cubic=True)
    atoms.rattle(0.1)
    data = Dataset.create([ms.Structure.from_ase(atoms), ms.Structure.from_ase(atoms[1:])])
    assert {batch.forces.shape[1] for batch in make_batches(data, potential)} == {4, 3}
    for entry, one in zip(label(potential, data), (atoms, atoms[1:]), strict=True):
        one.calc = EMT()
        assert_allclose(entry.energy, one.get_potential_energy(), rtol=1e-10)
        assert_allclose(entry.forces, one.get_forces(), atol=1e-10)
