"""What is read off a trajectory: drift of the energy, temperature, and files."""

import dataclasses

import ase.io
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.dynamics import Trajectory
from mdsens.errors import FileFormatError, InputError, OutputExistsError
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


def periodic() -> Trajectory:
    cell = np.array([[9.0, 0, 0], [1.0, 8.0, 0], [0.5, 0.2, 7.0]])
    rng = np.random.default_rng(1)
    plain = trajectory(records=4).of_replica(0)
    forces = rng.normal(size=plain.positions.shape)
    return dataclasses.replace(plain, cell=cell, pbc=(True, True, True), forces=forces)


def molecule() -> Trajectory:
    lines = [
        f"HETATM{k + 1:5d} {name:<4} HOH A   1    {0.0:8.3f}{0.0:8.3f}{k:8.3f}  1.00  0.00{name[0]:>12}"
        for k, name in enumerate(("H1", "O", "H2"))
    ]
    return dataclasses.replace(trajectory(records=4).of_replica(0), topology="\n".join([*lines, "END", ""]))


@pytest.mark.parametrize(
    "written", [trajectory(), periodic(), molecule(), dataclasses.replace(periodic(), temperature=None)]
)
def test_hdf5_reads_back_to_the_last_bit(tmp_path, written):
    written.to_hdf5(tmp_path / "md.h5")
    read = Trajectory.from_hdf5(tmp_path / "md.h5")
    for field in dataclasses.fields(Trajectory):
        mine, theirs = getattr(written, field.name), getattr(read, field.name)
        assert np.array_equal(mine, theirs) and type(mine) is type(theirs), field.name
    content = ms.read_hdf5(tmp_path / "md.h5")["mdsens"]
    assert (content["positions"].unit, content["velocities"].unit) == ("Å", "Å/fs")
    with pytest.raises(OutputExistsError):
        written.to_hdf5(tmp_path / "md.h5")


def test_mdtraj_opens_the_hdf5_file(tmp_path):
    mdtraj = pytest.importorskip("mdtraj")
    pytest.importorskip("tables", reason="mdtraj reads HDF5 through tables")
    written = periodic()
    written.write(tmp_path / "md.h5")
    read = mdtraj.load(str(tmp_path / "md.h5"))
    # float32
    assert_allclose(10 * read.xyz, written.positions, atol=1e-6)
    assert_allclose(1000 * read.time, written.time, rtol=1e-6)
    assert_allclose(10 * read.unitcell_lengths[2], np.linalg.norm(written.cell, axis=1), rtol=1e-6)
    assert [atom.element.symbol for atom in read.topology.atoms] == ["H", "O", "H"]
    with mdtraj.formats.HDF5TrajectoryFile(str(tmp_path / "md.h5")) as file:
        more = file.read()
    assert_allclose(more.potentialEnergy, written.potential / KJ_PER_MOL, rtol=1e-6)
    assert_allclose(more.temperature, written.temperatures, rtol=1e-6)
    assert_allclose(more.velocities, 100 * written.velocities, atol=1e-6)


@pytest.mark.parametrize(
    "written", [trajectory(records=4), dataclasses.replace(periodic(), cell=None, pbc=(False,) * 3)]
)
def test_a_simulation_is_data_to_train_on(tmp_path, written):
    written.to_hdf5(tmp_path / "md.h5")
    data = ms.flows.read_force_data(tmp_path / "md.h5")
    assert data.temperature == 300.0 and data.n_frames == written.potential.size
    assert_allclose(10 * data.positions, written.positions.reshape(-1, 3, 3), atol=1e-6)
    kT = BOLTZMANN * 300.0
    assert_allclose(data.energies, written.potential.ravel() / kT, rtol=1e-6)
    if written.forces is not None:
        assert_allclose(data.forces, written.forces.reshape(-1, 3, 3) * 10 / kT, rtol=1e-5, atol=1e-4)


def test_extxyz_keeps_time_energies_forces_velocities_and_cell(tmp_path):
    written = periodic()
    written.write(tmp_path / "md.extxyz")
    frames = ase.io.read(tmp_path / "md.extxyz", index=":")
    assert_allclose([frame.info["time"] for frame in frames], written.time)
    assert_allclose([frame.get_potential_energy() for frame in frames], written.potential, atol=1e-8)
    assert_allclose([frame.get_forces() for frame in frames], written.forces, atol=1e-8)
    # eight decimals of momenta, and the femtosecond of another CODATA
    assert_allclose([frame.get_kinetic_energy() for frame in frames], _kinetic(written), rtol=1e-5)
    assert_allclose(frames[2].cell.array, written.cell, atol=1e-8)


def _kinetic(written):
    return 0.5 * (MASSES[:, None] * written.velocities**2).sum((1, 2)) / ms.units.ACCELERATION


@pytest.mark.filterwarnings("ignore:.*netCDF4")
@pytest.mark.parametrize("ending", [".dcd", ".xtc", ".nc", ".pdb"])
def test_mdtraj_reads_what_has_its_endings_and_the_pdb_keeps_its_names(tmp_path, ending):
    mdtraj = pytest.importorskip("mdtraj")
    written = molecule()
    written.write(tmp_path / f"md{ending}")
    (tmp_path / "molecule.pdb").write_text(written.topology)
    options = {} if ending == ".pdb" else {"top": str(tmp_path / "molecule.pdb")}
    read = mdtraj.load(str(tmp_path / f"md{ending}"), **options)
    # three decimals of Å in .pdb, of nm in .xtc
    assert_allclose(10 * read.xyz, written.positions, atol=6e-3 if ending == ".xtc" else 6e-4)
    assert [(atom.name, atom.residue.name) for atom in read.topology.atoms][:2] == [
        ("H1", "HOH"),
        ("O", "HOH"),
    ]


def test_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"'.*md.json': a trajectory is written as one of .h5"):
        trajectory().write(tmp_path / "md.json")
    ms.write_hdf5(tmp_path / "other.h5", {"a": 1.0})
    with pytest.raises(FileFormatError, match=r"no group 'mdsens'"):
        Trajectory.from_hdf5(tmp_path / "other.h5")
    with pytest.raises(FileFormatError, match="no trajectory"):
        Trajectory.from_hdf5(tmp_path / "missing.h5")


def test_structures_carry_the_cell_of_their_record():
    still = periodic()
    cells = still.cell * np.linspace(1, 1.1, 4)[:, None, None]
    for k, structure in enumerate(dataclasses.replace(still, cell=cells).structures()):
        assert np.array_equal(structure.cell, cells[k]) and structure.pbc == (True, True, True)


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


def breathing() -> Trajectory:
    """Of a cell that moves."""
    still = periodic()
    return dataclasses.replace(still, cell=still.cell * np.linspace(1, 1.1, 4)[:, None, None])


def test_mdtraj_opens_a_cell_that_moves_and_its_replicas(tmp_path):
    mdtraj = pytest.importorskip("mdtraj")
    pytest.importorskip("tables", reason="mdtraj reads HDF5 through tables")
    one = breathing()
    one.write(tmp_path / "md.h5")
    read = mdtraj.load(str(tmp_path / "md.h5"))
    # float32
    assert_allclose(10 * read.unitcell_vectors, turned(one.cell), atol=1e-5)
    names = ("positions", "velocities", "forces", "potential", "kinetic", "cell")
    twice = {name: np.stack([getattr(one, name)] * 2, axis=1) for name in names}
    dataclasses.replace(one, **twice).write(tmp_path / "two.h5")
    read = mdtraj.load(str(tmp_path / "two.h5"))
    assert_allclose(10 * read.xyz, np.repeat(one.positions, 2, axis=0), atol=1e-6)
    assert_allclose(10 * read.unitcell_vectors, np.repeat(turned(one.cell), 2, axis=0), atol=1e-5)


def turned(cells: np.ndarray) -> np.ndarray:
    """Cells turned as mdtraj knows them: the first vector along x, the second in the xy plane."""
    from ase.geometry.cell import cell_to_cellpar, cellpar_to_cell

    return np.array([cellpar_to_cell(cell_to_cellpar(cell)) for cell in cells])


@pytest.mark.filterwarnings("ignore:DCDReader:DeprecationWarning")
@pytest.mark.parametrize("ending", ["dcd", "xtc", "nc"])
def test_mdanalysis_reads_positions_and_cells(tmp_path, ending):
    mdanalysis = pytest.importorskip("MDAnalysis")
    pytest.importorskip("mdtraj")
    from ase.geometry import cell_to_cellpar

    written = breathing()
    for name in ("md.pdb", f"md.{ending}"):
        written.write(tmp_path / name)
    universe = mdanalysis.Universe(tmp_path / "md.pdb", tmp_path / f"md.{ending}")
    frames = [(frame.positions.copy(), frame.dimensions.copy()) for frame in universe.trajectory]
    assert_allclose([x for x, _ in frames], written.positions, atol=5e-3 if ending == "xtc" else 1e-6)
    expected = [cell_to_cellpar(cell) for cell in written.cell]
    assert_allclose([box for _, box in frames], expected, rtol=1e-5)


@pytest.mark.parametrize("ending", ["extxyz", "nc"])
def test_ovito_reads_positions_and_cells(tmp_path, ending):
    files = pytest.importorskip("ovito.io")
    written = breathing()
    written.write(tmp_path / f"md.{ending}")
    pipeline = files.import_file(tmp_path / f"md.{ending}")
    frames = [pipeline.compute(k) for k in range(pipeline.source.num_frames)]
    positions = [np.array(frame.particles.positions) for frame in frames]
    assert_allclose(positions, written.positions, atol=1e-6)
    # the columns of its matrix are the cell vectors
    cells = [np.array(frame.cell)[:, :3].T for frame in frames]
    assert_allclose(cells, written.cell if ending == "extxyz" else turned(written.cell), atol=1e-5)
