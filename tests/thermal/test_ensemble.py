"""Ensembles: other states from the same frames, files that read back, and what is refused."""

import dataclasses

import equinox as eqx
import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from thermal_cases import Quartic, T, balloon_ensemble, quartic_ensemble, ring_ensemble

import mdsens as ms
from mdsens.errors import FileFormatError, InputError, NotConvergedError, OutputExistsError


@pytest.fixture(scope="module")
def quartic():
    return quartic_ensemble()


def test_reweighted_frames_are_those_of_the_other_state(quartic):
    there = quartic.reweighted({"a": 0.5, "b": 0.3}, temperature=250.0)
    exact = quartic_ensemble(a=0.5, b=0.3, temperature=250.0)
    assert there.parameters == {"a": 0.5, "b": 0.3} and there.temperature == 250.0
    names = ["energy", "heat_capacity"]
    one, other = there.average(names), exact.average(names)
    assert_allclose(one.values, other.values, rtol=1e-10)
    assert_allclose(one.derivatives, other.derivatives, rtol=1e-9)
    assert_allclose(
        there.reweighted(quartic.potential, temperature=T).log_weights, quartic.log_weights, atol=1e-9
    )


def test_reweighting_to_the_same_state_changes_nothing(quartic):
    same = quartic.reweighted()
    assert_allclose(same.log_weights, quartic.log_weights)
    assert_allclose(same.effective.samples, quartic.effective.samples)


def test_a_cell_follows_the_pressure_that_it_is_reweighted_to():
    there = balloon_ensemble().reweighted(pressure=0.02).average("volume", parameters=())
    assert_allclose(there["volume"].value, 100.0 * (1 - 0.02 / 0.5), rtol=1e-9)


def test_states_too_far_away_are_refused_with_the_samples_that_are_left(quartic):
    with pytest.raises(
        NotConvergedError, match=r"only .* independent samples are left .* the other state"
    ) as raised:
        quartic.reweighted(temperature=1.0)
    assert raised.value.partial.temperature == 1.0
    assert quartic.reweighted(temperature=1.0, min_effective=0).effective.samples < 10


def test_a_pressure_on_a_cell_that_was_held_is_refused():
    with pytest.raises(InputError, match=r"the cell was held, so these frames have one volume"):
        ring_ensemble().reweighted(pressure=0.1)


def test_frames_of_one_state_are_joined_and_others_are_refused(quartic):
    both = ms.thermal.joined([quartic, quartic])
    assert len(both.frames) == 2 * len(quartic.frames)
    one, other = both.average("energy"), quartic.average("energy")
    assert_allclose(one.values, other.values)
    assert_allclose(one.derivatives, other.derivatives, rtol=1e-12)
    with pytest.raises(InputError, match=r"ensemble 1 is of Ar3, and ensemble 0 of Ar1"):
        ms.thermal.joined([quartic, ring_ensemble()])
    with pytest.raises(InputError, match=r"ensemble 1 is of another potential, temperature"):
        ms.thermal.joined([quartic, quartic.reweighted({"a": 0.31})])
    with pytest.raises(InputError, match=r"no ensembles are given"):
        ms.thermal.joined([])
    with pytest.raises(InputError, match=r"an ensemble must be an Ensemble, not str"):
        ms.thermal.joined(["liquid.h5"])


# --- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [quartic_ensemble, ring_ensemble, balloon_ensemble])
def test_ensembles_read_back_to_the_last_bit(make, tmp_path):
    ensemble = make()
    file = tmp_path / "ensemble.h5"
    ensemble.to_hdf5(file)
    other = eqx.tree_at(lambda p: p, ensemble.potential, type(ensemble.potential)(1.0, 2.0))
    again = ms.Ensemble.from_hdf5(
        file, other
    )  # a potential of the same form: parameters are those of the file
    assert again.parameters == ensemble.parameters
    for name in ("energies", "log_weights", "temperature", "pressure", "replicas", "interval", "seed"):
        assert_array_equal(getattr(again, name), getattr(ensemble, name))
    assert_array_equal(again.frames.positions, ensemble.frames.positions)
    assert_array_equal(again.frames.cells, ensemble.frames.cells)
    assert eqx.tree_equal(again.frames.structure, ensemble.frames.structure)
    with pytest.raises(OutputExistsError):
        ensemble.to_hdf5(file)


def test_other_programs_open_ensembles(tmp_path):
    mdtraj = pytest.importorskip("mdtraj")
    pytest.importorskip("tables")
    ensemble = balloon_ensemble()
    file = tmp_path / "ensemble.h5"
    ensemble.to_hdf5(file)
    frames = mdtraj.load(str(file))
    assert_allclose(10 * frames.xyz, ensemble.frames.positions, atol=1e-6)
    assert_allclose(1e3 * frames.unitcell_volumes, ensemble.volumes, rtol=1e-5)
    with h5py.File(file) as content:
        assert content["ensemble/energies"].attrs["unit"] == "eV"
        assert content["ensemble/positions"].attrs["axes"] == "frames, atoms, xyz"


def test_files_of_something_else_are_refused(quartic, tmp_path):
    file = tmp_path / "ensemble.h5"
    quartic.to_hdf5(file)
    with pytest.raises(InputError, match=r"has no parameter 'a', so the frames are of another potential"):
        ms.Ensemble.from_hdf5(file, balloon_ensemble().potential)

    class Shifted(Quartic):
        def energy(self, structure, neighbors):
            return super().energy(structure, neighbors) + 0.1

    with pytest.raises(InputError, match=r"the first frame of .* has the energy .* it is another one"):
        ms.Ensemble.from_hdf5(file, Shifted(0.3, 0.5))
    with pytest.raises(FileFormatError, match=r"no ensemble '.*missing.h5'"):
        ms.Ensemble.from_hdf5(tmp_path / "missing.h5", quartic.potential)
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(FileFormatError, match=r"is no HDF5 file"):
        ms.Ensemble.from_hdf5(tmp_path / "text.h5", quartic.potential)
    ms.write_hdf5(tmp_path / "other.h5", {"x": 1.0})
    with pytest.raises(FileFormatError, match=r"holds no ensemble but"):
        ms.Ensemble.from_hdf5(tmp_path / "other.h5", quartic.potential)


def test_averages_read_back(quartic, tmp_path):
    found = quartic.average(["energy", "heat_capacity"], second_order=True)
    found.to_hdf5(tmp_path / "averages.h5")
    again = ms.ThermalAverages.from_hdf5(tmp_path / "averages.h5")
    for name, value in found._asdict().items():
        assert_array_equal(getattr(again, name), value)
    found.to_csv(tmp_path / "averages.csv")
    lines = (tmp_path / "averages.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 3 and lines[1].startswith("energy,eV,")
    assert found.plot().axes[0].get_ylabel() == "d ln O / d ln z"
    quartic.to_hdf5(tmp_path / "ensemble.h5")
    with pytest.raises(FileFormatError):
        ms.ThermalAverages.from_hdf5(tmp_path / "ensemble.h5")


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, -300.0, np.nan, "hot"])
def test_temperatures_that_are_none_are_refused(quartic, temperature):
    with pytest.raises(InputError, match=r"temperature = "):
        of_frames(temperature=temperature)
    with pytest.raises(InputError, match=r"temperature = "):
        quartic.reweighted(temperature=temperature)
    with pytest.raises(InputError, match=r"temperature = "):
        ms.sample(quartic.potential, quartic.frames.structure, temperature)


def of_frames(positions=None, structure=None, potential=None, **options):
    ensemble = quartic_ensemble(points=16)
    structure = ensemble.frames.structure if structure is None else structure
    positions = ensemble.frames.positions if positions is None else positions
    options = {"temperature": T} | options
    return ms.Ensemble.of_frames(potential or ensemble.potential, structure, positions, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": np.zeros((4, 2, 3))}, r"positions of shape \(4, 2, 3\) for 1 atoms"),
        ({"positions": np.zeros((1, 1, 3))}, "two frames or more"),
        ({"cells": np.zeros((3, 3, 3))}, r"cells of shape \(3, 3, 3\) for 16 frames"),
        ({"replicas": 5}, "16 frames are no multiple of replicas = 5"),
        ({"log_weights": np.zeros(3)}, r"log_weights of shape \(3,\) for 16 frames"),
        ({"structure": ms.Structure.create(np.zeros((1, 3)), ["Si"])}, "has no parameters for Si"),
        ({"potential": "ar-lennard-jones"}, "potential must be a Potential, not str"),
        ({"structure": "POSCAR"}, "structure must be a Structure, not str"),
    ],
)
def test_frames_that_do_not_fit_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        of_frames(**options)


def test_another_potential_must_know_the_atoms(quartic):
    silicon = dataclasses.replace(quartic.potential, elements=("Si",))
    with pytest.raises(InputError, match=r"has no parameters for Ar"):
        quartic.reweighted(silicon)
    with pytest.raises(InputError, match=r"has no parameter 'c'"):
        quartic.reweighted({"c": 1.0})
