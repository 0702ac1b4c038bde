"""What a trajectory says of itself, on random numbers: replicas, energies, drift, every bit from its file."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mdsens.dynamics import Trajectory
from mdsens.errors import InputError, OutputExistsError
from mdsens.units import BOLTZMANN, KJ_PER_MOL

SPECIES = (8, 1, 1)
MASSES = np.array([16.0, 1.0, 1.0])
FILES = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
SIZES = st.integers(3, 6)
SEEDS = st.integers(0, 2**31)


def recorded(records: int = 5, replicas: int | None = None, seed: int = 0, **changes) -> Trajectory:
    """Any numbers, of three atoms."""
    rng = np.random.default_rng(seed)
    lead = (records,) if replicas is None else (records, replicas)
    fields = dict(
        time=2.5 * np.arange(records),
        positions=rng.normal(size=(*lead, 3, 3)),
        velocities=0.01 * rng.normal(size=(*lead, 3, 3)),
        potential=rng.normal(size=lead),
        kinetic=rng.random(lead),
        masses=MASSES,
        species=SPECIES,
        temperature=300.0,
        timestep=0.5,
        forces=rng.normal(size=(*lead, 3, 3)),
    )
    return Trajectory(**(fields | changes))


@FILES
@given(SIZES, st.sampled_from([None, 1, 3]), SEEDS, st.booleans(), st.booleans())
def test_every_bit_comes_back_from_its_file(tmp_path, records, replicas, seed, with_cell, held):
    rng = np.random.default_rng(seed)
    changes = {}
    if with_cell:
        changes |= {"cell": np.diag(rng.uniform(3, 9, 3)), "pbc": (True, False, True)}
    if held:
        changes |= {"fixed": rng.random((3, 3)) < 0.5, "friction": 1e-3, "temperature": None}
    written = recorded(records, replicas, seed, **changes)
    written.to_hdf5(tmp_path / "md.h5", overwrite=True)
    read = Trajectory.from_hdf5(tmp_path / "md.h5")
    for name in vars(written):
        mine, theirs = getattr(read, name), getattr(written, name)
        if isinstance(theirs, np.ndarray):
            assert_array_equal(mine, theirs, err_msg=name)
        else:
            assert mine == theirs, name


@given(SIZES, st.integers(1, 4), SEEDS, st.data())
def test_a_replica_alone_is_what_it_was_among_others(records, replicas, seed, data):
    whole = recorded(records, replicas, seed)
    k = data.draw(st.integers(0, replicas - 1))
    alone = whole.of_replica(k)
    for name in ("positions", "velocities", "potential", "kinetic", "forces"):
        assert_array_equal(getattr(alone, name), getattr(whole, name)[:, k])
    assert_array_equal(alone.total, whole.total[:, k])
    assert alone.of_replica(0) is alone and alone.of_replica() is alone


@pytest.mark.parametrize("replica", [None, 2, -1])
def test_one_of_several_replicas_must_be_named(replica):
    with pytest.raises(InputError, match="there are 2 of them; name one, from 0"):
        recorded(replicas=2).of_replica(replica)
    with pytest.raises(InputError, match="there are 2 of them"):
        recorded(replicas=2).structures(replica)


def test_a_single_run_has_no_other_replica():
    with pytest.raises(InputError, match="replica = 1: this trajectory has no replicas"):
        recorded().of_replica(1)


@given(SIZES, SEEDS)
def test_the_last_structure_is_the_last_of_all(records, seed):
    run = recorded(records, None, seed, cell=np.diag([5.0, 6.0, 7.0]), pbc=(True, True, False))
    last, all_of_them = run.last_structure(), run.structures()
    assert len(all_of_them) == records
    for name in ("positions", "cell", "species", "masses", "fixed"):
        assert_array_equal(getattr(last, name), getattr(all_of_them[-1], name))
    assert last.pbc == all_of_them[-1].pbc == (True, True, False)


# --- temperature ----------------------------------------------------------------------------------------


@given(SEEDS)
def test_temperature_is_twice_the_kinetic_energy_by_the_coordinates_that_move(seed):
    run = recorded(seed=seed)
    assert run.freedom == 9
    assert_allclose(run.temperatures, 2 * run.kinetic / (9 * BOLTZMANN), rtol=1e-14)


def test_coordinates_that_are_held_have_no_temperature():
    fixed = np.array([[True, True, True], [False, False, True], [False] * 3])
    assert recorded(fixed=fixed).freedom == 5
    assert recorded(fixed=np.ones((3, 3), bool)).freedom == 0
    assert np.isfinite(recorded(fixed=np.ones((3, 3), bool)).temperatures).all()


def test_a_center_of_mass_at_rest_takes_three():
    run = recorded()
    moving = run.velocities
    resting = moving - (MASSES[:, None] * moving).sum(1, keepdims=True) / MASSES.sum()
    assert recorded(velocities=resting).freedom == 6
    assert recorded(velocities=moving).freedom == 9


# --- drift ----------------------------------------------------------------------------------------------


@given(st.integers(3, 20), st.floats(-1.0, 1.0), st.floats(-100.0, 100.0))
def test_the_drift_of_a_straight_line_is_its_slope(records, slope, start):
    time = 2.5 * np.arange(records)  # fs
    run = recorded(records, potential=start + slope * time, kinetic=np.zeros(records))
    found = run.drift()
    # eV/fs for nine degrees of freedom, as kJ/mol and ns each; the constant costs digits
    exact = slope / KJ_PER_MOL / 9 * 1e6
    assert_allclose(found.slope, exact, rtol=1e-8, atol=1e-3)
    assert found.degrees_of_freedom == 9


@given(SEEDS, st.floats(-1e3, 1e3))
def test_a_constant_in_the_energy_is_no_drift(seed, constant):
    run = recorded(20, None, seed)
    shifted = recorded(20, None, seed, potential=run.potential + constant)
    assert_allclose(shifted.drift().fluctuation, run.drift().fluctuation, rtol=1e-9)
    assert_allclose(shifted.drift().slope, run.drift().slope, rtol=1e-6, atol=1e-3)


def test_each_replica_has_its_own_drift():
    found = recorded(10, 4).drift()
    assert np.shape(found.fluctuation) == np.shape(found.slope) == (4,)
    alone = recorded(10, 4).of_replica(2).drift()
    assert_allclose(found.slope[2], alone.slope, rtol=1e-12)


@pytest.mark.parametrize("degrees", [0, -3])
def test_a_drift_by_no_degrees_of_freedom_is_refused(degrees):
    with pytest.raises(InputError, match=f"degrees_of_freedom = {degrees}: it must be positive"):
        recorded().drift(degrees)


# --- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["md.txt", "md", "md.trr", "md.lammpstrj"])
def test_an_ending_that_is_not_written_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"\.h5 keeps everything"):
        recorded().write(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["md.h5", "md.extxyz", "md.dcd"])
def test_a_trajectory_that_is_there_stays(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputExistsError):
        recorded().write(tmp_path / name)
    assert (tmp_path / name).read_text() == "mine"
    recorded().write(tmp_path / name, overwrite=True)
    assert (tmp_path / name).read_bytes() != b"mine"


def test_one_of_several_replicas_goes_into_other_formats(tmp_path):
    with pytest.raises(InputError, match="there are 2 of them"):
        recorded(replicas=2).write(tmp_path / "md.extxyz")
    recorded(replicas=2).write(tmp_path / "md.extxyz", replica=1)
    recorded(replicas=2).write(tmp_path / "md.h5")
    recorded(replicas=2).write(tmp_path / "one.h5", replica=1)
    assert Trajectory.from_hdf5(tmp_path / "md.h5").positions.ndim == 4
    assert Trajectory.from_hdf5(tmp_path / "one.h5").positions.ndim == 3
