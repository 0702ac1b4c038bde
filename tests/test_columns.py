"""Numbers of each atom beside its charge: they go wherever the atoms go, and potentials may take them."""

import dataclasses

import ase.io
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.datasets.batches import _filled
from mdsens.datasets.dataset import Dataset, labelled
from mdsens.datasets.files import write_dataset
from mdsens.datasets.read import read_dataset
from mdsens.dynamics import Trajectory
from mdsens.errors import InputError
from mdsens.ghosts import with_ghosts, without_ghosts
from mdsens.potentials.base import parameter

RADII = np.array([1.0, 1.1, 0.9])
DIPOLES = np.arange(9.0).reshape(3, 3)
PLACES = [[0.0, 0.0, 0.0], [1.4, 0.0, 0.0], [0.2, 1.5, 0.0]]


@pytest.fixture
def cluster() -> ms.Structure:
    """Three atoms with charges, radii and dipoles."""
    columns = {"radii": RADII, "dipoles": DIPOLES}
    charges = [1.0, -0.5, -0.5]
    return ms.Structure.create(PLACES, ["Si"] * 3, [5.0, 5.0, 5.0], charges=charges, columns=columns)


class Spheres(ms.Potential):
    """E = k sum_{i<j} (R_i + R_j - r)², where spheres overlap; radii are those of the structure."""

    k: jax.Array = parameter("eV/Å²")
    elements: tuple[str, ...] = eqx.field(static=True, default=())
    source: str = eqx.field(static=True, default="")
    columns = ("radii",)

    @property
    def cutoff(self):
        return jnp.asarray(2.5)

    def energy(self, structure, neighbors):
        return jnp.sum(self.site_energies(structure, neighbors))

    def site_energies(self, structure, neighbors):
        radii = structure.columns["radii"]
        r = jnp.sqrt(jnp.sum(neighbors.vectors(structure) ** 2, axis=-1))
        overlap = jnp.maximum(radii[neighbors.i] + radii[neighbors.j] - r, 0.0)
        pairs = self.k * jnp.where(neighbors.valid, overlap**2, 0.0)
        return jnp.zeros(structure.n_atoms).at[neighbors.i].add(pairs)


def same(found, columns):
    assert set(found) == set(columns)
    for name, values in columns.items():
        assert_array_equal(found[name], values)


def test_columns_move_deform_and_repeat_with_their_atoms(cluster):
    same(cluster.at(2 * cluster.positions).columns, cluster.columns)
    same(cluster.deformed(1.1 * jnp.eye(3)).columns, cluster.columns)
    twice = cluster.repeat((1, 2, 1)).columns
    same(twice, {"radii": np.tile(RADII, 2), "dipoles": np.tile(DIPOLES, (2, 1))})


def test_columns_pass_through_ase_and_its_files_by_name(cluster, tmp_path):
    atoms = cluster.to_ase()
    assert_array_equal(atoms.arrays["dipoles"], DIPOLES)
    names = ["radii", "dipoles"]
    same(ms.Structure.from_ase(atoms, names).columns, cluster.columns)
    # what nobody asks for may be the result of a calculation, and stays behind
    assert ms.Structure.from_ase(atoms).columns == {}
    ms.write_structure(tmp_path / "a.extxyz", cluster)
    same(ms.read_structure(tmp_path / "a.extxyz", columns=names).columns, cluster.columns)
    same(ms.Structure.from_ase(cluster.to_ase(like=atoms), names).columns, cluster.columns)
    with pytest.raises(InputError, match=r"no array 'radi' .*dipoles, radii.*Did you mean 'radii'"):
        ms.Structure.from_ase(atoms, ["radi"])


def test_frames_of_a_trajectory_and_of_a_batch_have_the_columns_of_their_file(cluster, tmp_path):
    from mdsens.cli.batch import _systems

    twice = dataclasses.replace(cluster, columns={"radii": 2 * cluster.columns["radii"]})
    ase.io.write(tmp_path / "a.extxyz", [cluster.to_ase(), twice.to_ase()])
    one, other = ms.read_trajectory(tmp_path / "a.extxyz", columns=["radii"])
    same(one.columns, {"radii": RADII})
    same(other.columns, {"radii": 2 * RADII})
    assert ms.read_trajectory(tmp_path / "a.extxyz")[0].columns == {}
    systems = _systems([tmp_path / "a.extxyz"], Spheres.columns)
    same(systems["a-1"].columns, {"radii": 2 * RADII})
    with pytest.raises(InputError, match=r"no array 'radi'.*Did you mean 'radii'"):
        ms.read_trajectory(tmp_path / "a.extxyz", columns=["radi"])
    (tmp_path / "a.pdb").write_text("END\n")
    with pytest.raises(InputError, match=r"columns = \['radii'\].*Give the frames as .extxyz"):
        ms.read_trajectory(tmp_path / "a.pdb", columns=["radii"])


def test_columns_come_back_from_hdf5_bit_by_bit(cluster, tmp_path):
    ms.write_hdf5(tmp_path / "a.h5", {"here": cluster})
    read = ms.read_hdf5(tmp_path / "a.h5")["here"]
    same(read.columns, cluster.columns)
    assert jax.tree.structure(read) == jax.tree.structure(cluster)


def test_ghosts_have_zeros_and_what_comes_back_is_as_it_was(cluster):
    filled = with_ghosts(cluster)
    assert filled.columns["dipoles"].shape == (4, 3)
    assert float(filled.columns["radii"][3]) == 0
    same(without_ghosts(filled).columns, cluster.columns)
    assert_array_equal(_filled(cluster, 5, 14).columns["radii"], [*RADII, 0.0, 0.0])


def test_data_sets_keep_columns_where_there_are_some(cluster, tmp_path):
    plain = dataclasses.replace(cluster, columns={}, charges=None)
    data = Dataset((labelled(cluster, energy=1.0), labelled(plain, energy=2.0)))
    write_dataset(tmp_path / "a.h5", data)
    first, second = read_dataset(tmp_path / "a.h5")
    same(first.structure.columns, cluster.columns)
    assert second.structure.columns == {}
    write_dataset(tmp_path / "a.extxyz", data[:1])
    (again,) = read_dataset(tmp_path / "a.extxyz", columns=["radii", "dipoles"])
    same(again.structure.columns, cluster.columns)
    other = dataclasses.replace(cluster, columns={**cluster.columns, "radii": jnp.asarray(2 * RADII)})
    assert labelled(other).content() != labelled(cluster).content()


def test_trajectories_keep_charges_and_columns_in_their_files(cluster, tmp_path):
    still = np.zeros((2, 3, 3))
    run = Trajectory(
        time=np.arange(2.0),
        positions=np.asarray(cluster.positions) + still,
        velocities=still,
        potential=np.zeros(2),
        kinetic=np.zeros(2),
        masses=np.asarray(cluster.masses),
        species=(14, 14, 14),
        temperature=None,
        timestep=1.0,
        cell=np.asarray(cluster.cell),
        pbc=(True, True, True),
        charges=np.asarray(cluster.charges),
        columns={name: np.asarray(values) for name, values in cluster.columns.items()},
    )
    run.write(tmp_path / "a.h5")
    back = Trajectory.from_hdf5(tmp_path / "a.h5").last_structure()
    same(back.columns, cluster.columns)
    assert_array_equal(back.charges, cluster.charges)
    run.write(tmp_path / "a.extxyz")
    last = ms.read_structure(tmp_path / "a.extxyz", columns=["radii", "dipoles"])
    same(last.columns, cluster.columns)
    assert_array_equal(last.charges, cluster.charges)


def test_a_potential_finds_the_columns_that_it_names(cluster):
    # the pairs are 1.4, 1.513 and 1.921 Å apart
    x = np.asarray(PLACES)
    wanted = sum(
        max(RADII[i] + RADII[j] - np.linalg.norm(x[i] - x[j]), 0.0) ** 2 for i, j in ((0, 1), (0, 2), (1, 2))
    )
    assert_allclose(ms.energy(Spheres(1.0), cluster), wanted, rtol=1e-14)
    atoms = cluster.to_ase()
    atoms.calc = ms.calculators.MDSens(Spheres(1.0) + Spheres(1.0))
    assert_allclose(atoms.get_potential_energy(), 2 * wanted, rtol=1e-14)
    atoms.arrays["radii"][:] = 0.0
    assert atoms.get_potential_energy() == 0.0


def test_a_potential_whose_columns_are_missing_is_refused(cluster):
    without = dataclasses.replace(cluster, columns={"dipoles": cluster.columns["dipoles"]})
    with pytest.raises(InputError, match=r"takes 'radii' of each atom .* columns are: dipoles"):
        ms.energy(Spheres(1.0), without)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"radii": [1.0]}, r"radii has shape \(1,\): give \(3,\)"),
        ({"radii": [1.0, np.nan, 1.0]}, r"radii\[1\] = nan.*must be finite"),
        ({"radii": ["a"] * 3}, "radii = .*as real numbers"),
        ({"my radii": RADII}, "cannot name numbers of atoms"),
        ({"forces": DIPOLES}, "'forces' means something else"),
        ([RADII], "Give a mapping of names to arrays"),
    ],
)
def test_columns_that_are_none_are_refused(columns, message):
    with pytest.raises(InputError, match=message):
        ms.Structure.create(PLACES, ["Si"] * 3, columns=columns)
