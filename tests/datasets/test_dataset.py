"""Labels: what is missing stays missing, in memory, in files, in other units, and in other people's files."""

import ase.build
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.datasets import (
    Dataset,
    LabelWeights,
    inspect,
    labelled,
    read_dataset,
    reference_energies,
    split,
    subtract_references,
    write_dataset,
)
from mdsens.errors import FileFormatError, InputError, OutputExistsError
from mdsens.units import GPA


def silent(_text: str) -> None:
    pass


def crystal(seed: int = 0, symbols: str = "Si") -> ms.Structure:
    atoms = ase.build.bulk("Si", cubic=True)
    atoms.symbols[:] = symbols
    atoms.rattle(0.1, seed=seed)
    return ms.Structure.from_ase(atoms)


def molecule() -> ms.Structure:
    return ms.Structure.from_ase(ase.build.molecule("H2O"))


def mixed() -> Dataset:
    """A crystal with everything, a molecule one force of which is unknown, and a bare crystal."""
    rng = np.random.default_rng(0)
    stress = rng.normal(size=(3, 3))
    known = np.array([True, False, True])
    return Dataset(
        (
            labelled(
                crystal(), -34.5, rng.normal(size=(8, 3)), stress + stress.T, group="bulk", origin="a:0"
            ),
            labelled(
                molecule(), -14.0, rng.normal(size=(3, 3)), known=known, weights=(1.0, 2.0, 0.0), origin="b:1"
            ),
            labelled(crystal(1), None, None, None, group="bulk"),
        )
    )


def assert_same(one: Dataset, other: Dataset, rtol: float = 0.0) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert_allclose(a.structure.positions, b.structure.positions, rtol=rtol, atol=rtol)
        assert_allclose(a.structure.cell, b.structure.cell, rtol=rtol)
        assert_array_equal(a.structure.species, b.structure.species)
        assert a.structure.pbc == b.structure.pbc
        assert (a.energy is None, a.forces is None, a.stress is None) == (
            b.energy is None,
            b.forces is None,
            b.stress is None,
        )
        for label in ("energy", "forces", "stress", "known"):
            if getattr(a, label) is not None:
                assert_allclose(getattr(a, label), getattr(b, label), rtol=rtol, atol=rtol)
        assert (a.weights, a.group) == (b.weights, b.group)


# --- labels


def test_labels_are_counted_and_those_that_are_missing_are_not():
    counts = mixed().counts()
    assert counts == (3, 19, 2, 2, 10, 1)


def test_joined_chosen_and_left_out():
    data = mixed()
    assert len(data + data) == 6
    assert data[[2, 0]][1].energy == -34.5
    assert [entry.group for entry in data.without([1])] == ["bulk", "bulk"]
    assert data.elements == ("H", "O", "Si") and data.groups == ("bulk", "")
    assert data.weighted({"bulk": 3.0})[0].weights == LabelWeights(3.0, 3.0, 3.0)
    with pytest.raises(InputError, match=r"no group is called 'bluk'. Did you mean 'bulk'"):
        data.weighted({"bluk": 1.0})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"energies": [np.nan]}, "the energy of structure 0 = nan"),
        ({"energies": [1.0, 2.0]}, "2 energies for 1 structures"),
        ({"forces": [np.full((8, 3), np.inf)]}, "the force on atom 0 of structure 0 is .* must be finite"),
        ({"forces": [np.zeros((3, 3))]}, r"8 atoms need \(8, 3\)"),
        ({"stresses": [np.zeros(5)]}, r"shape \(5,\): give \(3, 3\), or \(6,\)"),
        ({"stresses": [np.full(6, np.nan)]}, "is not finite: leave it out"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, message):
    with pytest.raises(InputError, match=message):
        Dataset.create([crystal()], **labels)


def test_a_molecule_has_no_stress():
    with pytest.raises(InputError, match="has a stress and no volume"):
        labelled(molecule(), stress=np.zeros((3, 3)))


def test_negative_weights_are_refused():
    with pytest.raises(InputError, match="weight of the forces of the structure = -1"):
        labelled(molecule(), weights=(1, -1, 1))


# --- files


def test_hdf5_keeps_every_bit(tmp_path):
    write_dataset(tmp_path / "data.h5", mixed())
    back = read_dataset(tmp_path / "data.h5", notice=silent)
    assert_same(mixed(), back)
    assert [entry.origin for entry in back] == ["a:0", "b:1", ""]
    assert back.fingerprint() == mixed().fingerprint()


def test_extxyz_keeps_labels_masks_weights_and_groups(tmp_path):
    write_dataset(tmp_path / "data.extxyz", mixed())
    assert_same(mixed(), read_dataset(tmp_path / "data.extxyz", notice=silent), rtol=1e-14)


def test_nothing_is_overwritten_and_nothing_is_written_of_nothing(tmp_path):
    write_dataset(tmp_path / "data.h5", mixed())
    with pytest.raises(OutputExistsError):
        write_dataset(tmp_path / "data.h5", mixed())
    with pytest.raises(InputError, match="the data set is empty"):
        write_dataset(tmp_path / "none.h5", Dataset(()))
    with pytest.raises(InputError, match=r"written as \.h5"):
        write_dataset(tmp_path / "data.csv", mixed())


def test_a_cut_file_and_another_kind_are_told_apart(tmp_path):
    write_dataset(tmp_path / "data.h5", mixed())
    (tmp_path / "cut.h5").write_bytes((tmp_path / "data.h5").read_bytes()[:100])
    with pytest.raises(FileFormatError, match="is a damaged HDF5 file"):
        read_dataset(tmp_path / "cut.h5")
    with pytest.raises(FileFormatError, match="no data set"):
        read_dataset(tmp_path / "none.h5")


def labelled_atoms(energy: float = -34.5):
    atoms = crystal().to_ase()
    results = {"energy": energy, "forces": np.ones((8, 3)), "stress": np.arange(6.0)}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def test_databases_of_ase_are_read(tmp_path):
    from ase.db import connect

    with connect(str(tmp_path / "data.db")) as database:
        database.write(labelled_atoms(), config_type="bulk", dft_energy=-40.0)
        database.write(crystal(1).to_ase())
    said: list[str] = []
    data = read_dataset(tmp_path / "data.db", notice=said.append)
    assert data[0].energy == -34.5 and data[0].group == "bulk" and data[1].energy is None
    assert_array_equal(data[0].stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], np.arange(6.0))
    assert "1 of 2 have no energy, 1 of 2 have no forces, 1 of 2 have no stress" in said[0]
    assert read_dataset(tmp_path / "data.db", energy="dft_energy", notice=silent)[0].energy == -40.0


def test_labels_in_other_units_and_with_the_sign_of_a_pressure(tmp_path):
    import ase.io

    ase.io.write(tmp_path / "data.extxyz", labelled_atoms())
    plain = read_dataset(tmp_path / "data.extxyz")[0]
    other = read_dataset(
        tmp_path / "data.extxyz",
        energy_unit="hartree",
        length_unit="bohr",
        stress_unit="GPa",
        positive_in_compression=True,
    )[0]
    hartree, bohr = 27.211386245988, 0.529177210903
    assert_allclose(other.energy, hartree * plain.energy)
    assert_allclose(other.forces, hartree / bohr * plain.forces)
    assert_allclose(other.structure.cell, bohr * plain.structure.cell)
    assert_allclose(other.stress, -plain.stress / GPA)
    with pytest.raises(InputError, match=r"energy_unit = 'Hartre' is not known. Did you mean 'hartree'"):
        read_dataset(tmp_path / "data.extxyz", energy_unit="Hartre")


def test_a_virial_is_minus_the_volume_times_the_stress(tmp_path):
    import ase.io

    atoms = crystal().to_ase()
    atoms.info["virial"] = np.diag([1.0, 2.0, 3.0])
    ase.io.write(tmp_path / "data.extxyz", atoms)
    entry = read_dataset(tmp_path / "data.extxyz")[0]
    assert_allclose(entry.stress, -np.diag([1.0, 2.0, 3.0]) / atoms.get_volume())


def test_a_name_that_nothing_has_is_answered_by_the_nearest(tmp_path):
    import ase.io

    atoms = crystal().to_ase()
    atoms.info["REF_energy"] = -40.0
    ase.io.write(tmp_path / "data.extxyz", atoms)
    assert read_dataset(tmp_path / "data.extxyz", energy="REF_energy")[0].energy == -40.0
    with pytest.raises(InputError, match=r"under the name 'REFenergy'. Did you mean 'REF_energy'"):
        read_dataset(tmp_path / "data.extxyz", energy="REFenergy")


def test_labels_that_are_nan_are_refused_or_missing(tmp_path):
    import ase.io

    ase.io.write(tmp_path / "data.extxyz", labelled_atoms(np.nan))
    with pytest.raises(InputError, match=r"the energy of data.extxyz:0 is not finite.*--nan missing"):
        read_dataset(tmp_path / "data.extxyz")
    entry = read_dataset(tmp_path / "data.extxyz", nan="missing")[0]
    assert entry.energy is None and entry.forces is not None


def test_trajectories_of_mdtraj_and_of_simulations_are_read(tmp_path):
    from mdsens.dynamics import Trajectory

    rng = np.random.default_rng(0)
    start = crystal()
    frames = np.asarray(start.positions) + 0.1 * rng.normal(size=(3, 8, 3))
    forces = rng.normal(size=(3, 8, 3))
    trajectory = Trajectory(
        time=np.arange(3.0),
        positions=frames,
        velocities=np.zeros_like(frames),
        potential=np.arange(3.0),
        kinetic=np.zeros(3),
        masses=np.asarray(start.masses),
        species=(14,) * 8,
        temperature=300.0,
        timestep=1.0,
        forces=forces,
        cell=np.asarray(start.cell),
        pbc=(True, True, True),
    )
    trajectory.to_hdf5(tmp_path / "run.h5")
    data = read_dataset(tmp_path / "run.h5")
    assert_array_equal([entry.energy for entry in data], np.arange(3.0))
    assert_array_equal(data[2].forces, forces[2])
    assert_array_equal(data[2].structure.positions, frames[2])
    # the same file as mdtraj sees it: float32, in nm and kJ/mol
    import h5py

    with h5py.File(tmp_path / "run.h5", "r+") as file:
        del file["mdsens"]
    again = read_dataset(tmp_path / "run.h5")
    assert_allclose(again[2].forces, forces[2], rtol=1e-6, atol=1e-6)
    assert_allclose(again[2].energy, 2.0, rtol=1e-6)
    assert_allclose(again[2].structure.cell, start.cell, rtol=1e-6, atol=1e-5)


def test_a_file_that_knows_its_units_takes_no_others(tmp_path):
    write_dataset(tmp_path / "data.h5", mixed())
    with pytest.raises(InputError, match="knows its labels and their units itself"):
        read_dataset(tmp_path / "data.h5", energy_unit="Ry")


# --- division


def pool(n: int = 20) -> Dataset:
    structures = [crystal(seed) for seed in range(n)]
    return Dataset.create(structures, energies=[float(k) for k in range(n)])


def test_a_division_depends_on_the_seed_and_not_on_the_order():
    data = pool()
    parts = split(data, validation=0.2, test=0.1)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (14, 4, 2)
    turned = split(data[np.arange(20)[::-1]], validation=0.2, test=0.1)
    energies = lambda part: sorted(entry.energy for entry in part)
    assert energies(turned.validation) == energies(parts.validation)
    assert energies(split(data, validation=0.2, test=0.1, seed=1).train) != energies(parts.train)


def test_equal_structures_are_on_one_side():
    data = pool(6)
    parts = split(data + data, validation=0.34, test=0.17)
    sides = [{entry.energy for entry in part} for part in parts[:3]]
    assert len(set.union(*sides)) == sum(len(side) for side in sides) == 6


def test_groups_are_kept_together():
    named = [entry._replace(group=f"run {k % 4}") for k, entry in enumerate(pool(12))]
    parts = split(Dataset(tuple(named)), validation=0.25, test=0.25, by_group=True)
    assert [len(set(part.groups)) for part in parts[:3]] == [2, 1, 1]


def test_a_division_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match="leave nothing to train on"):
        split(pool(2), validation=0.5, test=0.5)


# --- references, duplicates, outliers


def test_reference_energies_are_found_and_taken_off():
    rng = np.random.default_rng(0)
    structures = [crystal(0, "Si" * n + "C" * (8 - n)) for n in range(9)]
    structures = [ms.Structure.from_ase(s.to_ase()) for s in structures]
    compositions = np.array([[8 - n, n] for n in range(9)])
    energies = compositions @ [-9.0, -5.0] + 8 * 1e-3 * rng.normal(size=9)
    data = Dataset.create(structures, energies)
    found = reference_energies(data)
    assert found.determined
    assert_allclose([found.energies["C"], found.energies["Si"]], [-9.0, -5.0], atol=5e-3)
    rest = subtract_references(data, found)
    assert_allclose(np.sqrt(np.mean([(e.energy / 8) ** 2 for e in rest])), found.residual)
    with pytest.raises(InputError, match="there is no reference energy for Si"):
        subtract_references(data, {"C": -9.0})


def test_references_of_one_compound_are_said_to_be_undetermined():
    quartz = ms.Structure.create([[0, 0, 0], [1, 0, 0], [0, 1, 0]], ["Si", "O", "O"])
    assert not reference_energies(Dataset.create([quartz, quartz], [-3.0, -3.0])).determined
    with pytest.raises(InputError, match="no structure has an energy"):
        reference_energies(Dataset.create([quartz]))


def test_the_same_atoms_in_another_order_place_and_orientation_are_a_duplicate():
    atoms = crystal().to_ase()
    same = atoms[np.random.default_rng(0).permutation(8)]
    same.positions += [0.3, 0.7, -9.0]
    same.wrap()
    same.rotate(30, "z", rotate_cell=True)
    other = atoms.copy()
    other.positions[3, 0] += 0.01
    structures = [ms.Structure.from_ase(a) for a in (atoms, same, other)]
    (found,) = inspect(Dataset.create(structures, [-1.0, -1.1, -1.0])).duplicates
    assert (found.first, found.second) == (0, 1)
    assert found.contradictory
    assert_allclose(found.energy_difference, -0.1 / 8)


def test_outliers_are_named_with_their_value():
    data = pool(10)
    forces = [0.1 * np.random.default_rng(k).normal(size=(8, 3)) for k in range(10)]
    forces[4][2] = [0.0, 50.0, 0.0]
    energies = [-34.0 + 0.01 * k for k in range(10)]
    energies[7] = 5.0
    close = data[9].structure.positions.at[0].set(data[9].structure.positions[1] + np.array([0.5, 0, 0]))
    structures = [*data.structures[:9], data[9].structure.at(close)]
    found = inspect(Dataset.create(structures, energies, forces)).outliers
    assert [(o.row, o.what) for o in found] == [(4, "force"), (7, "energy per atom"), (9, "distance")]
    assert_allclose([found[0].value, found[2].value], [50.0, 0.5])
