"""Sampling by molecular dynamics: what comes out, goes on after a stop, and is refused."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.errors import InputError, OutputExistsError
from mdsens.units import BOLTZMANN

pytest.importorskip("jax_md", reason="jax-md is not installed")

LJ = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=5.0, cut=ms.Smooth())
EDGE = 5.3
ARGON = ms.Structure.create(
    EDGE * np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]), ["Ar"] * 4, cell=[EDGE] * 3
)
OPTIONS = dict(steps=800, record_every=10, timestep=5.0, replicas=4, skin=1.0, friction=0.01)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    file = tmp_path_factory.mktemp("sampled") / "argon.h5"
    return ms.sample(LJ, ARGON, 20.0, output=file, **OPTIONS), file


def test_a_cold_crystal_shares_its_energy_among_its_modes(sampled):
    ensemble, _ = sampled
    found = ensemble.average(["energy", "pressure"])
    at_rest = float(ms.energy(LJ, ARGON))
    # (3N - 3) kT / 2, and a few percent for what is not harmonic at 20 K
    harmonic = 9 * BOLTZMANN * 20.0 / 2
    value, error = found["energy"]
    assert abs(value - at_rest - harmonic) < 3 * error + 0.05 * harmonic
    # epsilon is the only energy: U = epsilon f(kT / epsilon)
    slope, error = found.derivative("energy", "epsilon")
    expected = (value - 20.0 * found.derivative("energy", "temperature").value) / 0.0104
    assert_allclose(slope, expected, rtol=1e-9)
    assert error > 0


def test_energies_are_those_of_the_frames(sampled):
    ensemble, _ = sampled
    assert ensemble.replicas == 4 and len(ensemble.frames) % 4 == 0
    assert ensemble.interval == 50.0
    for k in (0, 5):
        assert_allclose(ensemble.energies[k], ms.energy(LJ, ensemble.frames.at(k)), rtol=1e-10)


def test_a_sampling_that_has_ended_is_read_and_not_made_again(sampled):
    ensemble, file = sampled
    numbers = OPTIONS | {"steps": np.int64(800), "friction": np.float64(0.01)}
    again = ms.sample(LJ, ARGON, 20.0, output=file, resume=True, **numbers)
    assert_array_equal(again.frames.positions, ensemble.frames.positions)
    assert not list(file.parent.glob("*.run.h5*"))
    with pytest.raises(OutputExistsError):
        ms.sample(LJ, ARGON, 20.0, output=file, **OPTIONS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(steps=1200), "its steps is 800, and here 1200"),
        (dict(friction=0.02), "its friction is 0.01, and here 0.02"),
        (dict(temperature=25.0), "its temperature is 20.0, and here 25.0"),
        (dict(pressure=0.0), "its pressure is None, and here 0.0"),
        (dict(equilibration=200), "its equilibration is None, and here 200"),
        (dict(potential=ms.replace_parameters(LJ, {"epsilon": 0.011})), "its potential is LennardJones"),
        (dict(structure=ARGON.at(ARGON.positions + 0.1)), "its start is"),
    ],
)
def test_a_file_of_other_settings_is_not_read_as_if_it_were_this_sampling(sampled, changed, message):
    _, file = sampled
    made = dict(potential=LJ, structure=ARGON, temperature=20.0, output=file, **OPTIONS)
    with pytest.raises(InputError, match=f"holds another sampling: {message}"):
        ms.sample(**(made | changed), resume=True)


def test_a_file_that_does_not_say_its_settings_is_asked_for_the_numbers_it_holds(sampled, tmp_path):
    ensemble, _ = sampled
    file = tmp_path / "old.h5"
    ensemble.to_hdf5(file)
    again = ms.sample(LJ, ARGON, 20.0, output=file, resume=True, **OPTIONS)
    assert_array_equal(again.energies, ensemble.energies)
    with pytest.raises(InputError, match="its seed is 0, and here 3"):
        ms.sample(LJ, ARGON, 20.0, output=file, resume=True, seed=3, **OPTIONS)


def test_a_sampling_that_was_cut_off_goes_on_to_the_same_bits(sampled, tmp_path):
    ensemble, _ = sampled
    file = tmp_path / "argon.h5"

    def stop(now):
        if now.step > 200:
            raise KeyboardInterrupt

    options = OPTIONS | {"output": file}
    with pytest.raises(KeyboardInterrupt):
        ms.sample(LJ, ARGON, 20.0, progress=stop, **options)
    assert not file.exists()
    whole = ms.sample(LJ, ARGON, 20.0, resume=True, **options)
    assert_array_equal(whole.frames.positions, ensemble.frames.positions)
    assert_array_equal(whole.energies, ensemble.energies)
    assert [path.name for path in tmp_path.iterdir()] == ["argon.h5"]


def test_a_cell_under_pressure_is_sampled_with_its_volume():
    options = OPTIONS | {"steps": 400, "barostat_time": 300.0}
    ensemble = ms.sample(LJ, ARGON, 20.0, pressure=0.002, equilibration=100, **options)
    assert ensemble.frames.cells.shape == (len(ensemble.frames), 3, 3)
    assert ensemble.volumes.std() > 0
    found = ensemble.average(["volume", "thermal_expansion"], parameters=(), min_effective=0)
    assert found.variables == ("temperature", "pressure")
    # the response to pressure is a variance, whose sign is known
    assert found.derivative("volume", "pressure").value < 0
    assert_allclose(
        found["thermal_expansion"].value,
        found.derivative("volume", "temperature").value / found["volume"].value,
    )


def test_runs_without_a_bath_have_no_temperature():
    run = ms.dynamics.nve(LJ, ARGON, steps=20, temperature=20.0, replicas=4, skin=1.0, timestep=5.0)
    with pytest.raises(InputError, match=r"this run had no bath"):
        ms.thermal.of_trajectory(LJ, run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 100}, "make 10 frames of each replica: averages need 20 or more"),
        ({"steps": 0}, "steps = 0: give a whole number, 1 or more"),
        ({"equilibration": 790}, "equilibration = 790 steps of 800 leave 1 frames"),
        ({"output": "argon.dcd"}, "ensembles are written in HDF5, end the name in .h5"),
        ({"replicas": 0}, "replicas = 0"),
        ({"pressure": "high"}, "pressure = 'high'"),
        ({"friction": 0.0}, "friction = 0"),
    ],
)
def test_samplings_that_cannot_be_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ms.sample(LJ, ARGON, 20.0, **(OPTIONS | options))
