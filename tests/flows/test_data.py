"""Frames from files: the units come out right by hand, and what is missing or wrong is named."""

import re
import warnings
from pathlib import Path

import ase
import ase.io
import h5py
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.errors import FileFormatError, InputError
from mdsens.flows.data import ForceData, known_again
from mdsens.flows.read_data import read_force_data
from mdsens.molecules.topology import Molecule

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
    with h5py.File(tmp_path / "celsius.h5", "w") as file:
        file["positions"], file["temperature"] = POSITIONS, 27.0
        file["temperature"].attrs["unit"] = "°C"
    with pytest.raises(InputError, match="its temperature is in '°C': give it in K"):
        read_force_data(tmp_path / "celsius.h5")
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


def test_frames_that_are_not_finite_are_left_out_with_a_count(tmp_path):
    path, said = write(tmp_path / "md.h5", positions=with_nan(POSITIONS)), []
    data = read_force_data(path, drop_outliers=True, notice=said.append)
    assert_array_equal(data.positions, np.delete(POSITIONS, [3, 7], axis=0))
    assert data.forces.shape == data.positions.shape and len(data.energies) == 8
    assert len(said) == 1 and "2 of 10 frames are not finite: they are left out" in said[0]


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


# --- files of other programs, and of mdsens itself ------------------------------------------------------

METHANOL = (6, 8, 1, 1, 1, 1)
METHANOL_FRAMES = 0.15 * np.random.default_rng(1).normal(size=(4, 6, 3))  # nm


def methanol(path: Path, orders: list[list[int]], without: dict[int, tuple[str, ...]] | None = None) -> Path:
    """Frames of methanol whose atoms come in these orders; some without forces or energy."""
    frames = []
    for k, order in enumerate(orders):
        atoms = ase.Atoms([METHANOL[i] for i in order], 10 * METHANOL_FRAMES[k][order])
        labels = {"energy": float(k), "forces": np.full((6, 3), k + 1.0)}
        for name in (without or {}).get(k, ()):
            del labels[name]
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    ase.io.write(path, frames)
    return path


def test_atoms_in_another_order_are_named_with_their_frame(tmp_path):
    usual = list(range(6))
    path = methanol(tmp_path / "md.extxyz", [usual, usual, [1, 0, 2, 3, 4, 5], usual])
    with pytest.raises(InputError, match=r"atom 0 is C in frame 0 and O in frame 2.*same order"):
        read_force_data(path, temperature=300.0)
    whole = methanol(tmp_path / "same.extxyz", [usual] * 4)
    assert read_force_data(whole, temperature=300.0, molecule=Molecule(None, METHANOL, "")).n_frames == 4
    swapped = Molecule(None, (8, 6, 1, 1, 1, 1), "")
    with pytest.raises(InputError, match=r"atom 0 is C in '.*same.extxyz', and O in the topology"):
        read_force_data(whole, temperature=300.0, molecule=swapped)
    with pytest.raises(InputError, match="positions of 6 atoms, and the topology has 3"):
        read_force_data(whole, temperature=300.0, molecule=Molecule(None, (1, 8, 1), ""))


def test_frames_without_forces_are_counted_and_the_others_used(tmp_path):
    usual = [list(range(6))] * 4
    path, said = methanol(tmp_path / "md.extxyz", usual, {2: ("forces",)}), []
    data = read_force_data(path, temperature=300.0, notice=said.append)
    assert data.n_frames == 3 and data.energies is not None
    assert_allclose(data.forces[:, 0, 0] * KT["eV"] / 10, [1, 2, 4], rtol=1e-6)
    assert len(said) == 1 and "1 of 4 frames have no forces, first frame 2: they are left out" in said[0]
    with pytest.warns(UserWarning, match="1 of 4 frames have no forces"):
        read_force_data(path, temperature=300.0)
    # a missing energy costs no frame: forces are what is learned from
    path, said = methanol(tmp_path / "energy.extxyz", usual, {1: ("energy",)}), []
    data = read_force_data(path, temperature=300.0, notice=said.append)
    assert data.n_frames == 4 and data.energies is None and "energies are not used" in said[0]
    # frames that all lack forces are frames without forces
    path = methanol(tmp_path / "none.extxyz", usual, dict.fromkeys(range(4), ("forces",)))
    data = read_force_data(path, temperature=300.0, notice=said.append)
    assert data.n_frames == 4 and data.forces is None and len(said) == 1


def test_samples_and_trajectories_of_mdsens_are_data(tmp_path):
    molecule = Molecule(None, (1, 1, 1, 1), "")
    content = {
        "positions": ms.Quantity(POSITIONS, "nm", "samples, atoms, xyz"),
        "species": np.array(molecule.species),
        "temperature": ms.Quantity(300.0, "K"),
        "potential_energy": ms.Quantity(ENERGIES, "kJ/mol", "samples"),
        "log_weights": ms.Quantity(np.log([1.0] * 9 + [0.5]), "1", "samples"),
    }
    ms.write_hdf5(tmp_path / "samples.h5", content)
    data = read_force_data(tmp_path / "samples.h5", molecule=molecule)
    assert data.temperature == 300.0 and data.forces is None
    assert_allclose(data.energies, ENERGIES / KT["kJ/mol"], rtol=1e-9)
    assert_allclose(data.weights, [1.0] * 9 + [0.5], rtol=1e-12)
    for replicas in (None, 3):
        lead = (5,) if replicas is None else (5, replicas)
        run = ms.dynamics.Trajectory(
            time=np.arange(5.0),
            positions=np.random.default_rng(2).normal(size=(*lead, 4, 3)),
            velocities=np.zeros((*lead, 4, 3)),
            potential=np.arange(float(np.prod(lead))).reshape(lead),
            kinetic=np.zeros(lead),
            masses=np.ones(4),
            species=molecule.species,
            temperature=310.0,
            timestep=1.0,
        )
        run.to_hdf5(tmp_path / f"md-{replicas}.h5")
        data = read_force_data(tmp_path / f"md-{replicas}.h5", molecule=molecule)
        assert data.temperature == 310.0 and data.n_frames == np.prod(lead)
        assert_allclose(data.positions, 0.1 * run.positions.reshape(-1, 4, 3), rtol=1e-12)
        # eV; the frames of one time stand together, so that the last ones are the latest
        assert_allclose(data.energies * KT["eV"] * 310 / 300, np.arange(np.prod(lead)), rtol=1e-9)
    with pytest.raises(InputError, match=r"atom 0 is H in .*, and C in the topology"):
        read_force_data(tmp_path / "md-3.h5", molecule=Molecule(None, (6, 1, 1, 1), ""))


@pytest.mark.parametrize("name", ["potential", "potentialEnergy", "energies", "energy"])
def test_energies_have_several_names(name, tmp_path):
    path = write(tmp_path / "md.h5", potential_energy=None)
    with h5py.File(path, "r+") as file:
        file[name] = ENERGIES
    with pytest.raises(InputError, match=f"the dataset '{name}' does not say its unit"):
        read_force_data(path)
    with h5py.File(path, "r+") as file:
        file[name].attrs["unit"] = "eV"
    assert_allclose(read_force_data(path).energies, ENERGIES / KT["eV"], rtol=1e-9)


@pytest.fixture(scope="module")
def mdtraj_frames():
    import mdtraj

    topology = mdtraj.Topology()
    residue = topology.add_residue("MOH", topology.add_chain())
    for k, z in enumerate(METHANOL):
        element = mdtraj.element.Element.getByAtomicNumber(z)
        topology.add_atom(f"{element.symbol}{k}", element, residue)
    return mdtraj.Trajectory(METHANOL_FRAMES.astype(np.float32), topology)


@pytest.mark.parametrize("ending", ["xtc", "trr", "dcd", "nc", "h5", "pdb"])
def test_trajectories_of_other_programs_are_read_with_a_molecule(ending, mdtraj_frames, tmp_path):
    path, molecule = tmp_path / f"md.{ending}", Molecule(None, METHANOL, "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # netCDF4 is not installed: scipy is used
        mdtraj_frames.save(str(path))
    data = read_force_data(path, molecule=molecule, temperature=300.0)
    decimals = {"xtc": 5e-4, "pdb": 5e-5}.get(ending, 1e-6)  # nm
    assert_allclose(data.positions, METHANOL_FRAMES, atol=1.01 * decimals)
    assert data.forces is None and data.temperature == 300.0
    assert read_force_data(path, molecule=molecule, temperature=300.0, stride=2).n_frames == 2
    with pytest.raises(InputError, match="does not say at which temperature"):
        read_force_data(path, molecule=molecule)
    if ending in ("h5", "pdb"):  # they know their atoms
        with pytest.raises(InputError, match=r"atom 0 is C in .*, and H in the topology"):
            read_force_data(path, molecule=Molecule(None, METHANOL[::-1], ""), temperature=300.0)
    else:
        with pytest.raises(InputError, match=r"does not say of which atoms: give molecule= \(--topology"):
            read_force_data(path, temperature=300.0)
        with pytest.raises(FileFormatError, match="cannot be read as frames of 3 atoms by mdtraj"):
            read_force_data(path, molecule=Molecule(None, (1, 8, 1), ""), temperature=300.0)


def test_weights_are_read_written_and_split_apart(tmp_path):
    weights = np.array([1.0, 2, 1, 1, 0, 0, 0, 0, 1, 1])
    data = ForceData(POSITIONS, FORCES, ENERGIES, 300.0, weights)
    data.write(tmp_path / "data.h5")
    back = read_force_data(tmp_path / "data.h5")
    assert_allclose(back.forces, FORCES, rtol=1e-12)
    assert_allclose(back.energies, ENERGIES, rtol=1e-12)
    assert_array_equal(back.weights, weights)
    split = data.divide(0.25)  # of six frames of equilibrium 2, and of four others 1
    assert_array_equal(split.rows, [7, 8, 9])
    assert_array_equal(split.held_out.weights, [0, 1, 1])
    assert_array_equal(np.concatenate([split.rows, [0, 1, 2, 3, 4, 5, 6]]), [7, 8, 9, *range(7)])
    joined = ForceData(POSITIONS, FORCES, ENERGIES, 300.0).join(data.rows(slice(0, 3)))
    assert_array_equal(joined.weights, [1] * 10 + [0] * 3)
    assert joined.energies is None and joined.n_frames == 13
    for other, message in (
        (data.rows(slice(None))._replace(temperature=310.0), "at 300 K and at 310 K"),
        (data._replace(forces=None), "only one of the two sets of frames has forces"),
        (data._replace(positions=POSITIONS[:, :3]), "of 4 and of 3 atoms"),
    ):
        with pytest.raises(InputError, match=message):
            data.join(other)
    with pytest.raises(InputError, match="the weight of frame 2 is -1: weights are not negative"):
        read_force_data(write(tmp_path / "negative.h5", weights=np.where(np.arange(10) == 2, -1.0, 1.0)))


def test_a_frame_is_known_again_turned_or_rounded():
    alanine = read_force_data(ALANINE)
    train, test = alanine.divide(0.5).parts().values()
    known = train.signatures()
    assert known.shape == (1000, 16)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    for same in (alanine.positions, alanine.positions.round(3), alanine.positions @ turn + 1.0):
        again = known_again(alanine._replace(positions=same).signatures(), known)
        assert again[:1000].all() and not again[1000:].any()
    assert not known_again(ForceData(POSITIONS, None, None, 300.0).signatures(), known).any()  # 4 atoms
    assert test.n_frames == 1000


def test_frames_get_other_labels_and_another_fingerprint():
    data = ForceData(POSITIONS, None, None, 300.0)
    moved = POSITIONS.copy()
    moved[4, 1, 2] += 1e-6
    assert data.fingerprint() != data._replace(positions=moved).fingerprint()
    labelled = data.labelled_by(lambda x: (x**2).sum())
    assert_allclose(labelled.forces, -2 * POSITIONS)
    assert labelled.energies.shape == (10,)


def test_weights_in_the_force_error_are_read_written_and_joined(tmp_path):
    own = np.arange(10.0)
    data = read_force_data(write(tmp_path / "md.h5", force_weights=own))
    assert_array_equal(data.force_weights, own)
    assert data.weights is None
    data.write(tmp_path / "again.h5")
    again = read_force_data(tmp_path / "again.h5")
    assert_array_equal(again.force_weights, own)
    assert_array_equal(data.rows([3, 7]).force_weights, [3.0, 7.0])
    # frames without such weights count as 1
    plain = read_force_data(write(tmp_path / "plain.h5"))
    assert_array_equal(plain.join(data).force_weights, [1.0] * 10 + own.tolist())
    assert_array_equal(data.join(plain).force_weights, own.tolist() + [1.0] * 10)
    assert plain.join(plain).force_weights is None
    assert plain.fingerprint() != plain._replace(force_weights=own).fingerprint()


def test_weights_of_frames_in_extended_xyz(tmp_path):
    frames = []
    for k in range(4):
        atoms = ase.Atoms("H2O", np.eye(3) * (1 + 0.01 * k))
        atoms.info.update(weight=float(k), force_weight=2.0 * k, temperature=300.0)
        frames.append(atoms)
    ase.io.write(tmp_path / "a.extxyz", frames)
    data = read_force_data(tmp_path / "a.extxyz")
    assert_array_equal(data.weights, np.arange(4.0))
    assert_array_equal(data.force_weights, 2 * np.arange(4.0))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.arange(10.0) - 3, "the force weight of frame 0 is -3: weights are not negative"),
        (np.zeros(10), "all force weights are zero"),
        (np.arange(9.0), "force_weights of shape (9,) do not belong to positions of shape (10, 4, 3)"),
        (np.full(10, np.nan), "force_weights of 10 frames are not finite, first in frame 0"),
    ],
)
def test_weights_in_the_force_error_that_make_no_sense_are_refused(tmp_path, weights, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read_force_data(write(tmp_path / "md.h5", force_weights=weights))
