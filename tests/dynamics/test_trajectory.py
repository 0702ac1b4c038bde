"""What is read off a trajectory: drift of the energy, temperature, and files."""

import dataclasses

import ase.io
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.dynamics import Trajectory
from mdsens.errors import InputError, OutputExistsError
from mdsens.units import BOLTZMANN, KJ_PER_MOL

MASSES = np.array([1.0, 16.0, 1.0])


def trajectory(records: int = 50, replicas: int = 2) -> Trajectory:
    rng = np.random.default_rng(0)
    velocities = 0.01 * rng.normal(size=(records, replicas, 3, 3))
    return Trajectory(
        time=5.0 * np.arange(records),
        positions=rng.normal(size=(records, replicas, 3, 3)),
        velocities=velocities,
        potential=-40.0 + 0.1 * rng.normal(size=(records, replicas)),
        kinetic=0.1 + 0.01 * rng.normal(size=(records, replicas)),
        masses=MASSES,
        species=(1, 8, 1),
        temperature=300.0,
        timestep=0.5,
        seed=7,
    )


def test_drift_is_slope_and_deviation_of_the_total_energy_per_degree_of_freedom():
    plain = trajectory()
    # total energies that climb in a line, by 2 and -3 kJ/mol per degree of freedom and ns
    slope = np.array([2.0, -3.0])
    total = 9 * slope * plain.time[:, None] * 1e-6 * KJ_PER_MOL
    straight = dataclasses.replace(plain, potential=total - plain.kinetic + 123.0)
    drift = straight.drift()
    # 1e-16 of 123 eV, against changes of 1e-5 eV
    assert_allclose(drift.slope, slope, rtol=1e-8)
    # standard deviation of k = 0 ... n - 1 is sqrt((n² - 1) / 12)
    assert_allclose(drift.fluctuation, np.abs(slope) * 5e-6 * np.sqrt((50**2 - 1) / 12), rtol=1e-8)
    assert drift.degrees_of_freedom == 9
    internal = straight.drift(degrees_of_freedom=3)
    assert_allclose(internal.slope, 3 * drift.slope, rtol=1e-14)
    assert_allclose(internal.fluctuation, 3 * drift.fluctuation, rtol=1e-14)


def test_drift_needs_a_conserved_energy_and_enough_records():
    with pytest.raises(InputError, match="Langevin"):
        dataclasses.replace(trajectory(), friction=0.001).drift()
    with pytest.raises(InputError, match="three records or more, there are 2"):
        trajectory(records=2).drift()
    with pytest.raises(InputError, match="degrees_of_freedom = 0"):
        trajectory().drift(0)


def test_temperature_counts_the_center_of_mass_unless_it_rests():
    plain = trajectory()
    assert_allclose(plain.temperatures, 2 * plain.kinetic / (9 * BOLTZMANN), rtol=1e-14)
    center = np.average(plain.velocities, axis=2, weights=MASSES)[:, :, None]
    resting = dataclasses.replace(plain, velocities=plain.velocities - center)
    assert_allclose(resting.temperatures, 2 * plain.kinetic / (6 * BOLTZMANN), rtol=1e-14)


def test_hdf5_holds_everything_with_its_units(tmp_path):
    written = trajectory()
    written.to_hdf5(tmp_path / "md.h5")
    read = ms.read_hdf5(tmp_path / "md.h5")
    for name in ("time", "positions", "velocities", "potential", "kinetic", "masses"):
        assert np.array_equal(read[name].value, getattr(written, name))
    assert [read[name].unit for name in ("time", "positions", "velocities", "potential")] == [
        "fs",
        "Å",
        "Å/fs",
        "eV",
    ]
    assert read["positions"].axes == "records, replicas, atoms, xyz"
    assert read["species"].tolist() == [1, 8, 1] and int(read["seed"]) == 7 and "friction" not in read
    with pytest.raises(OutputExistsError):
        written.to_hdf5(tmp_path / "md.h5")


@pytest.mark.parametrize("name", ["md.xyz", "md.pdb", "md.extxyz"])
def test_other_programs_read_the_positions(tmp_path, name):
    written = trajectory(records=4)
    written.write(tmp_path / name, replica=1)
    frames = ase.io.read(tmp_path / name, index=":")
    # .pdb has three decimals, .xyz eight or more
    assert_allclose(
        [frame.positions for frame in frames],
        written.positions[:, 1],
        atol=5.1e-4 if name == "md.pdb" else 1e-8,
    )
    assert frames[0].symbols.get_chemical_formula("reduce") == "HOH"
    with pytest.raises(InputError, match="replica = None: there are 2"):
        written.write(tmp_path / "other.xyz")
