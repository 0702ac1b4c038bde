"""Frames from files: the units come out right by hand, and what is missing or wrong is named."""

from pathlib import Path

import ase
import ase.io
import h5py
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.testing import assert_allclose, assert_array_equal

from mdsens.errors import FileFormatError, InputError
from mdsens.flows.data import ForceData, read_force_data

ALANINE = Path(__file__).parents[2] / "data" / "alanine-dipeptide.h5"
RNG = np.random.default_rng(0)
POSITIONS, FORCES, ENERGIES = RNG.normal(size=(10, 4, 3)), RNG.normal(size=(10, 4, 3)), RNG.normal(size=10)
UNITS = {"positions": "nm", "forces": "kJ/mol/nm", "potential_energy": "kJ/mol"}
# kT at 300 K: R = 8.314462618 J/mol/K, and k = 8.617333262e-5 eV/K
KT = {"kJ/mol": 2.494338785, "kcal/mol": 2.494338785 / 4.184, "eV": 0.025851999786, "kT": 1.0}


def write(
    path: Path, *, temperature: object = 300.0, units: dict[str, str] = UNITS, **arrays: np.ndarray
) -> Path:
    arrays = {"positions": POSITIONS, "forces": FORCES, "potential_energy": ENERGIES} | arrays
    with h5py.File(path, "w") as file:
        if temperature is not None:
            file.attrs["temperature"] = temperature
        for name, array in arrays.items():
            if array is not None:
                file[name] = array
                if name in units:
                    file[name].attrs["unit"] = units[name]
    return path


@pytest.mark.parametrize(("length", "nm"), [("nm", 1.0), ("Å", 0.1), ("angstrom", 0.1), ("A", 0.1)])
@pytest.mark.parametrize("energy", list(KT))
def test_units_become_nm_and_kT(length, nm, energy, tmp_path):
    units = {"positions": length, "forces": f"{energy}/{length}", "potential_energy": energy}
    data = read_force_data(write(tmp_path / "md.h5", units=units))
    assert data.temperature == 300.0 and data.n_frames == 10
    assert_allclose(data.positions, nm * POSITIONS, rtol=1e-15)
    assert_allclose(data.energies, ENERGIES / KT[energy], rtol=1e-9)  # constants to ten digits
    assert_allclose(data.forces, FORCES / KT[energy] / nm, rtol=1e-9)


def test_options_name_the_units_of_a_file_that_does_not(tmp_path):
    path = write(tmp_path / "md.h5", units={})
    data = read_force_data(path, length_unit="angstrom", energy_unit="kcal/mol")
    expected = read_force_data(
        write(
            tmp_path / "same.h5",
            units={"positions": "Å", "forces": "kcal/mol/Å", "potential_energy": "kcal/mol"},
        )
    )
    for one, other in zip(data, expected, strict=True):
        assert_array_equal(one, other)
    # what the file says counts for more
    assert_array_equal(
        read_force_data(write(tmp_path / "own.h5"), length_unit="angstrom").positions, POSITIONS
    )


def test_precision_stays_and_whole_numbers_are_not_cut(tmp_path):
    path = write(tmp_path / "md.h5", positions=POSITIONS.astype(np.float32), potential_energy=np.arange(10))
    data = read_force_data(path)
    assert data.positions.dtype == np.float32 and data.forces.dtype == np.float64
    assert_allclose(data.energies, np.arange(10) / KT["kJ/mol"], rtol=1e-9)


def test_forces_and_energies_may_be_missing(tmp_path):
    data = read_force_data(write(tmp_path / "md.h5", forces=None, potential_energy=None))
    assert data.forces is None and data.energies is None
    train, test = data.split(0.2)
    assert train.n_frames == 8 and train.forces is None and test.energies is None


def test_the_temperature_of_the_call_is_for_files_that_do_not_say(tmp_path):
    path, silent = write(tmp_path / "md.h5"), write(tmp_path / "silent.h5", temperature=None)
    assert read_force_data(path, default_temperature=500.0).temperature == 300.0
    assert read_force_data(path, temperature=300.0).temperature == 300.0
    assert read_force_data(silent, default_temperature=500.0).temperature == 500.0
    hot = read_force_data(silent, temperature=600.0, default_temperature=500.0)
    assert hot.temperature == 600.0
    assert_allclose(hot.energies, ENERGIES / (2 * KT["kJ/mol"]), rtol=1e-9)
    with pytest.raises(InputError, match=r"says 300 K, and 600 K is asked for: .* Leave out temperature="):
        read_force_data(path, temperature=600.0)
    with pytest.raises(
        InputError,
        match=r"does not say at which temperature it was made: give temperature= \(--temperature\)",
    ):
        read_force_data(silent)
    for wrong in (0.0, -300.0, float("nan")):
        with pytest.raises(InputError, match="K: must be positive"):
            read_force_data(path, temperature=wrong)
    with pytest.raises(InputError, match="its temperature '300 K' is no number"):
        read_force_data(write(tmp_path / "text.h5", temperature="300 K"))


@pytest.mark.parametrize("name", list(UNITS))
def test_a_number_without_unit_is_not_read(name, tmp_path):
    path = write(tmp_path / "md.h5", units={key: unit for key, unit in UNITS.items() if key != name})
    advice = rf"the dataset '{name}' does not say its unit. .*--length-unit nm --energy-unit kJ/mol"
    with pytest.raises(InputError, match=advice):
        read_force_data(path)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("positions", "bohr"),
        ("positions", "kJ/mol"),
        ("forces", "kJ/mol"),
        ("forces", "eV/bohr"),
        ("forces", "hartree/nm"),
        ("potential_energy", "hartree"),
        ("potential_energy", "kJ/mol/nm"),
    ],
)
def test_a_unit_that_is_not_known_is_named(name, unit, tmp_path):
    path = write(tmp_path / "md.h5", units=UNITS | {name: unit})
    with pytest.raises(
        InputError,
        match=f"the unit '{unit}' of '{name}' is not known. Lengths: nm, angstrom.*energies: kJ/mol",
    ):
        read_force_data(path)


def with_nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[[3, 7]] = np.nan
    return array


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"positions": with_nan(POSITIONS)},
            "positions of 2 frames are not finite, first in frame 3. Remove",
        ),
        ({"forces": with_nan(FORCES)}, "forces of 2 frames are not finite, first in frame 3"),
        (
            {"potential_energy": with_nan(ENERGIES)},
            "potential_energy of 2 frames are not finite, first in frame 3",
        ),
        (
            {"positions": POSITIONS[0]},
            r"positions of shape \(4, 3\); two frames or more of \(frames, atoms, 3\) are needed",
        ),
        ({"positions": POSITIONS[..., :2]}, r"positions of shape \(10, 4, 2\)"),
        ({"positions": POSITIONS[:1]}, r"positions of shape \(1, 4, 3\)"),
        (
            {"forces": FORCES[:, :3]},
            r"forces of shape \(10, 3, 3\) do not belong to positions of shape \(10, 4, 3\)",
        ),
        ({"potential_energy": ENERGIES[:, None]}, r"potential_energy of shape \(10, 1\) do not belong"),
        ({"positions": None}, r"has no dataset 'positions' but \['forces', 'potential_energy'\]"),
    ],
)
def test_arrays_that_are_no_frames_are_refused(arrays, message, tmp_path):
    path = write(tmp_path / "md.h5", **arrays)
    with pytest.raises(InputError, match=message):
        read_force_data(path)


def test_files_that_are_no_trajectories_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match=r"no file '.*nothing.h5'. The path is relative to"):
        read_force_data(tmp_path / "nothing.h5")
    for ending, message in (
        (".h5", "is not an HDF5 file, or damaged"),
        (".xyz", "cannot be read as a trajectory by ASE"),
    ):
        path = tmp_path / f"text{ending}"
        path.write_text("hello\n")
        with pytest.raises(FileFormatError, match=message):
            read_force_data(path)
    with pytest.raises(InputError, match="stride = 0"):
        read_force_data(write(tmp_path / "md.h5"), stride=0)


def trajectory(path: Path, sizes: list[int]) -> Path:
    frames = []
    for k, n in enumerate(sizes):
        atoms = ase.Atoms("H" * n, positions=POSITIONS[k, :n])
        atoms.calc = SinglePointCalculator(atoms, energy=ENERGIES[k], forces=FORCES[k, :n])
        frames.append(atoms)
    ase.io.write(path, frames)
    return path


def test_trajectories_of_ase_have_its_units(tmp_path):
    path = trajectory(tmp_path / "md.extxyz", [4] * 10)
    data = read_force_data(path, temperature=300.0)
    assert_allclose(data.positions, 0.1 * POSITIONS, atol=1e-8)  # the file has eight decimals
    assert_allclose(data.energies, ENERGIES / KT["eV"], atol=1e-6)
    assert_allclose(data.forces, 10 * FORCES / KT["eV"], atol=1e-5)
    every = read_force_data(path, temperature=300.0, stride=3)
    assert_array_equal(every.positions, data.positions[::3])
    with pytest.raises(InputError, match="temperature"):
        read_force_data(path)
    with pytest.raises(InputError, match=r"frames of \[3, 4\] atoms: all must be of one molecule"):
        read_force_data(trajectory(tmp_path / "mixed.extxyz", [4, 3, 4]), temperature=300.0)


def test_the_last_frames_are_held_out():
    data = ForceData(POSITIONS, FORCES, ENERGIES, 300.0)
    train, test = data.split(0.3)
    assert_array_equal(np.concatenate([train.energies, test.energies]), ENERGIES)
    assert test.n_frames == 3 and train.temperature == test.temperature == 300.0
    assert_array_equal(data.rows([5, 1]).forces, FORCES[[5, 1]])
    for share in (0.0, 0.01, 1.0):
        with pytest.raises(InputError, match=f"held_out = {share:g} of 10 frames leaves"):
            data.split(share)


def test_the_dipeptide_of_the_examples_is_read_with_its_units():
    data = read_force_data(ALANINE)
    assert data.n_frames == 2000 and data.positions.shape[1:] == (22, 3) and data.temperature == 300.0
    # a C-H bond has 0.11 nm; and <x . dU/dx> of a bound molecule is kT for each of its 3 N - 3 coordinates
    # relative to the center
    bond = np.linalg.norm(data.positions[:, 1] - data.positions[:, 0], axis=1)
    assert 0.105 < bond.mean() < 0.115
    centered = data.positions - data.positions.mean(1, keepdims=True)
    virial = -np.sum(centered * data.forces, axis=(1, 2))
    assert_allclose(virial.mean(), 3 * 22 - 3, atol=4 * virial.std() / np.sqrt(len(virial) / 10))
    every = read_force_data(ALANINE, stride=100)
    assert_array_equal(every.positions, data.positions[::100])
