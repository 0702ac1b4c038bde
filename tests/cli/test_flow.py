"""`mdsens flow`, as typed: train, evaluate, sample, md; and how it refuses."""

import csv
from pathlib import Path

import ase
import h5py
import jax
import jax.numpy as jnp
import matplotlib.image
import mdtraj
import numpy as np
import peroxide
import pytest
from command_line import run
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.cli.flow.evaluate import row_of_dynamics, trusted, write_rows
from mdsens.cli.flow.inputs import force_field_energy, with_forces
from mdsens.ensembles import FreeEnergy
from mdsens.errors import InputError
from mdsens.flows.samples import FlowSamples
from mdsens.io.frames import mdtraj_topology
from mdsens.units import BOLTZMANN, KJ_PER_MOL

KT = BOLTZMANN * peroxide.TEMPERATURE / KJ_PER_MOL  # kJ/mol
SMALL = (
    "--hidden",
    "8",
    "--soft-layers",
    "0",
    "--stiff-layers",
    "0",
    "--batch",
    "64",
    "--learning-rate",
    "0.01",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Frames of peroxide with forces, in the units of OpenMM, and the molecule as a structure file."""
    folder = tmp_path_factory.mktemp("flow")
    flow = peroxide.generator().flow
    positions, _ = flow.sample(jax.random.key(0), 600)
    energies, forces = ms.flows.energies_and_forces(flow, jnp.asarray(positions))
    with h5py.File(folder / "data.h5", "w") as file:
        for name, values, unit in (
            ("positions", positions, "nm"),
            ("forces", np.asarray(forces) * KT, "kJ/mol/nm"),
            ("potential_energy", np.asarray(energies) * KT, "kJ/mol"),
        ):
            file[name] = values
            file[name].attrs["unit"] = unit
        file.attrs["temperature"] = peroxide.TEMPERATURE
    ase.Atoms(peroxide.SPECIES, peroxide.positions()).write(folder / "molecule.xyz")
    ase.Atoms("H2O", [[0.76, 0.59, 0], [-0.76, 0.59, 0], [0, 0, 0]]).write(folder / "water.xyz")
    return folder


@pytest.fixture(scope="module")
def model(folder) -> Path:
    """A trained model."""
    path = folder / "model.h5"
    command = ("flow", "train", folder / "data.h5", "--topology", folder / "molecule.xyz", "-o", path)
    code, text = run(*command, *SMALL, "--steps", "40", "--evaluate-every", "20")
    assert code == 0, text
    assert "held out: nll" in text and "600 frames of 4 atoms at 300 K" in text
    return path


def test_train_writes_a_model_that_python_loads(model):
    generator = ms.flows.load(model)
    assert generator.species == peroxide.SPECIES and generator.temperature == 300.0
    assert np.isfinite(generator.energy(jnp.asarray(peroxide.positions() / 10)))
    assert np.ptp(matplotlib.image.imread(model.with_suffix(".png"))) > 0.5, "the picture is blank"


def test_train_goes_on_where_it_was(folder, model, tmp_path):
    path = tmp_path / "copy.h5"
    path.write_bytes(model.read_bytes())
    command = ("flow", "train", folder / "data.h5", "--topology", folder / "molecule.xyz", "-o", path, *SMALL)
    code, text = run(*command, "--steps", "40", "--evaluate-every", "20", "--resume")
    assert code == 0, text
    assert list(ms.flows.read_history(path)["step"]) == [20, 40]
    code, text = run(*command, "--steps", "50", "--evaluate-every", "20", "--resume")
    assert code == 2 and "checkpoint of another training: its schedule" in text


def test_frames_of_enhanced_sampling_and_choices_of_the_flow(folder, tmp_path):
    data = ms.flows.read_force_data(folder / "data.h5")
    data.rows(slice(0, 100)).write(tmp_path / "enhanced.h5")
    path = tmp_path / "model.h5"
    command = ("flow", "train", folder / "data.h5", "--topology", folder / "molecule.xyz", "-o", path)
    also = ("--also", tmp_path / "enhanced.h5", "--force-weight", "0", "--narrow", "179", "--patience", "1")
    sizes = ("--circle-ramps", "2", "--line-ramps", "1", "--harmonics", "1", "--learning-rate", "1e-9")
    code, text = run(*command, *SMALL[:-2], *also, *sizes, "--steps", "4", "--evaluate-every", "1")
    assert code == 0, text
    assert "700 frames of 4 atoms at 300 K, 70 of them held out" in text
    assert "coordinates: ZMatrix of 4 atoms" in text and "1 soft torsions: H3-O2-O1-H0" in text
    assert f"'{folder / 'data.h5'}" not in text
    record = ms.flows.read_record(path)
    assert_array_equal(record.held_out, [*range(540, 600), *range(690, 700)])
    assert "a list of atoms such as 0,1,5 is needed" in refused(*command[1:-2], "--block", "0-3")


def test_evaluate_prints_and_writes_what_python_measures(folder, model):
    code, text = run(
        "flow", "evaluate", model, folder / "data.h5", "--samples", "100", "-o", f"{folder}/out/"
    )
    assert code == 0, text
    with (folder / "out" / "model-evaluation.csv").open() as file:
        rows = {row["quantity"]: float(row["value"]) for row in csv.DictReader(file)}
    data = ms.flows.read_force_data(folder / "data.h5")
    found = ms.flows.evaluate_on_data(ms.flows.load(model), data.split(0.1)[1])
    assert "trained on 540 of these 600 frames: the other 60 are used (--all uses all)" in text
    assert_allclose(rows["negative log-likelihood"], found.nll, atol=1e-4)
    assert_allclose(rows["force RMSE on data"], found.force_rmse, rtol=1e-3)
    assert f"{found.nll:.4f}" in text
    assert np.ptp(matplotlib.image.imread(folder / "out" / "model-evaluation.png")) > 0.5


def test_evaluate_leaves_out_what_was_trained_on(folder, model, tmp_path):
    record = ms.flows.read_record(model)
    assert record.source == str(folder / "data.h5") and record.n_frames == 600
    assert_array_equal(record.held_out, np.arange(540, 600))
    data = ms.flows.read_force_data(folder / "data.h5")
    data.rows(slice(100, 200)).write(tmp_path / "seen.h5")  # another file, the same frames
    assert "trained on all 100 frames" in refused("evaluate", model, tmp_path / "seen.h5")
    data.rows(slice(550, 600)).write(tmp_path / "unseen.h5")
    few = ("--samples", "10", "-o", f"{tmp_path}/")
    code, text = run("flow", "evaluate", model, tmp_path / "unseen.h5", *few)
    assert code == 0 and "trained on none of these 50 frames" in text
    code, text = run("flow", "evaluate", model, tmp_path / "seen.h5", "--all", "--overwrite", *few)
    assert code == 0 and "100 frames" in text, text
    ms.flows.save(tmp_path / "plain.h5", ms.flows.load(model))
    code, text = run("flow", "evaluate", tmp_path / "plain.h5", tmp_path / "seen.h5", *few)
    assert code == 0 and "nor is there a note. All 100 frames are used" in text, text


def test_no_free_energy_is_shown_of_few_effective_samples(folder, model, tmp_path):
    few, enough = (
        FreeEnergy(*(jnp.asarray(number) for number in (154.01, 0.81, samples))) for samples in (1.5, 40.0)
    )
    assert trusted("154.01 ± 0.81", enough) == "154.01 ± 0.81"
    text = trusted("154.01 ± 0.81", few)
    assert text == "unknown: 1.5 effective samples, 10 are needed"
    write_rows(tmp_path / "table.csv", [("free energy of the force field", text, "kT")], overwrite=False)
    assert (tmp_path / "table.csv").read_text().splitlines()[1] == "free energy of the force field,,,kT"


def test_samples_are_those_of_the_flow(folder, model):
    code, text = run("flow", "sample", model, "--samples", "50", "--seed", "3", "-o", folder / "samples.h5")
    assert code == 0, text
    with h5py.File(folder / "samples.h5") as file:
        positions, log_density = file["positions"][:], file["log_density"][:]
        assert file["positions"].attrs["unit"] == "nm"
    assert positions.shape == (50, 4, 3)
    energies, _ = ms.flows.in_pieces(ms.flows.load(model), positions)
    assert_allclose(log_density, -energies, rtol=1e-12)
    # the same file in mdtraj, and as frames to train on
    opened = mdtraj.load(folder / "samples.h5")
    assert [atom.element.atomic_number for atom in opened.topology.atoms] == list(peroxide.SPECIES)
    assert_allclose(opened.xyz, positions, rtol=1e-6, atol=1e-7)
    read = ms.flows.read_force_data(folder / "samples.h5")
    assert_array_equal(read.positions, positions)
    assert read.temperature == peroxide.TEMPERATURE and read.forces is None


def test_samples_are_written_by_their_ending_or_refused(tmp_path):
    positions = np.asarray(peroxide.positions())[None] / 10 * [[[1.0]], [[1.1]], [[1.2]]]
    pdb = tmp_path / "named.pdb"
    topology = mdtraj_topology(peroxide.SPECIES)
    mdtraj.Trajectory(positions[:1], topology).save(str(pdb))
    samples = FlowSamples(positions, np.arange(3.0), peroxide.SPECIES, 300.0, pdb.read_text())
    for name in ("samples.pdb", "samples.dcd", "samples.xtc", "samples.extxyz"):
        samples.write(tmp_path / name)
    read = [mdtraj.load(tmp_path / f"samples.{kind}", top=pdb) for kind in ("pdb", "dcd", "xtc")]
    assert read[0].topology == topology  # names and residues are those of the model
    for frames in read:
        assert_allclose(frames.xyz, positions, atol=6e-4)  # .xtc and .pdb have three decimals
    frames = ase.io.read(tmp_path / "samples.extxyz", index=":")
    assert [atoms.info["log_density"] for atoms in frames] == [0.0, 1.0, 2.0]
    assert_allclose([atoms.positions for atoms in frames], 10 * positions, atol=1e-7)
    labelled = samples._replace(potential_energy=np.arange(3.0), log_weights=np.log([1.0, 0.5, 0.25]))
    labelled.write(tmp_path / "labelled.h5")
    data = ms.flows.read_force_data(tmp_path / "labelled.h5")
    assert_allclose(data.weights, [1.0, 0.5, 0.25], rtol=1e-14)
    assert_allclose(data.energies, np.arange(3.0) / KT, rtol=1e-9)
    assert mdtraj.load(tmp_path / "labelled.h5").topology == topology
    assert "a trajectory is written as one of .h5" in refused("sample", pdb, "-o", tmp_path / "samples.cif")
    with pytest.raises(InputError, match=r"samples.txt': a trajectory is written as one of \.h5"):
        samples.write(tmp_path / "samples.txt")


def test_md_conserves_energy(folder, model):
    options = ("--steps", "40", "--timestep", "0.25", "--record-every", "1", "--start", folder / "data.h5")
    code, text = run("flow", "md", model, *options, "-o", folder / "md.h5")
    assert code == 0, text
    total = ms.dynamics.Trajectory.from_hdf5(folder / "md.h5").total  # eV
    printed = float(text.split("total energy per degree of freedom")[1].split()[0])
    assert_allclose(printed, total.std() / 12 / KJ_PER_MOL, rtol=1e-4)
    assert 0 < printed < 0.01 * KT


@pytest.mark.parametrize("name", ["md.extxyz", "md.pdb"])
def test_md_is_written_by_its_ending(folder, model, name):
    options = ("--steps", "40", "--timestep", "0.25", "--record-every", "1", "--start", folder / "data.h5")
    code, text = run("flow", "md", model, *options, "-o", folder / name)
    assert code == 0, text
    assert len(ase.io.read(folder / name, index=":")) == 41
    # a run too short for a drift ends well, too
    code, text = run("flow", "md", model, "--steps", "1", "--record-every", "1", "-o", folder / f"1-{name}")
    assert code == 0 and "mean temperature" in text and "drift" not in text
    assert "written as one of" in refused("md", model, "-o", folder / "md.json")
    assert "only .h5 holds several" in refused("md", model, "--replicas", "2", "-o", folder / f"2-{name}")


def refused(*arguments) -> str:
    code, text = run("flow", *arguments)
    assert code == 2, text
    return text


def test_wrong_input_is_refused_with_a_remedy(folder, model, tmp_path):
    train = ("train", folder / "data.h5", "--topology", folder / "molecule.xyz", *SMALL)
    code, text = run("flow", *train, "-o", model)
    assert code == 5 and "exists" in text

    with h5py.File(folder / "data.h5") as source, h5py.File(tmp_path / "bare.h5", "w") as file:
        for name in source:
            file[name] = source[name][:]
    new = ("-o", tmp_path / "new.h5")
    text = refused("train", tmp_path / "bare.h5", "--topology", folder / "molecule.xyz", *new)
    assert "does not say at which temperature" in text and "--temperature" in text
    text = refused(
        "train", tmp_path / "bare.h5", "--topology", folder / "molecule.xyz", "--temperature", "300", *new
    )
    assert "'positions' does not say its unit" in text and "--length-unit nm --energy-unit kJ/mol" in text
    said = ("--temperature", "300", "--length-unit", "angstrom", "--energy-unit", "eV")
    assert "are these positions in nm?" in refused(
        "train", tmp_path / "bare.h5", "--topology", folder / "molecule.xyz", *said, *new
    )

    assert "positions of 4 atoms, and the topology has 3" in refused(
        "train", folder / "data.h5", "--topology", folder / "water.xyz", *new
    )
    assert "no file" in refused("train", folder / "data.h5", "--topology", folder / "missing.pdb", *new)
    assert "--hidden 8,x" in refused(
        "train", folder / "data.h5", "--topology", folder / "molecule.xyz", "--hidden", "8,x", *new
    )
    assert "--reverse-kl-weight compares with an energy" in refused(
        *train, "--reverse-kl-weight", "0.1", *new
    )
    assert "holds no flow" in refused("evaluate", folder / "data.h5", folder / "data.h5")
    assert "train with --topology FILE.pdb" in refused(
        "evaluate", model, folder / "data.h5", "--force-field", "amber99sbildn.xml", *new
    )
    assert "--check-md moves atoms with a force field" in refused(
        "evaluate", model, folder / "data.h5", "--check-md", "100"
    )
    assert "steps = 15" in refused("md", model, "--steps", "15", "--record-every", "10", *new)
    assert not (tmp_path / "new.h5").exists()


def test_a_loss_that_is_not_finite_names_the_last_good_model(folder, tmp_path):
    path = tmp_path / "model.h5"
    command = (
        "flow",
        "train",
        folder / "data.h5",
        "--topology",
        folder / "molecule.xyz",
        "-o",
        path,
        "--steps",
        "40",
    )
    code, text = run(*command, *SMALL, "--evaluate-every", "20", "--learning-rate", "1e30", "--clip", "1e30")
    assert code == 2 and "is not finite" in text and "Lower learning_rate" in text


def test_forces_come_from_the_force_field_where_a_file_has_none(tmp_path):
    pytest.importorskip("openmm", reason="OpenMM computes the forces")
    import mdtraj

    data = Path(__file__).parents[2] / "data"
    alanine = ms.flows.read_force_data(data / "alanine-dipeptide.h5", stride=500)
    molecule = ms.flows.read_molecule(data / "alanine-dipeptide.pdb")
    mdtraj.Trajectory(alanine.positions, molecule.topology).save(str(tmp_path / "alanine.trr"))
    bare = ms.flows.read_force_data(tmp_path / "alanine.trr", molecule=molecule, temperature=300.0)
    assert bare.forces is None
    field = force_field_energy(molecule.pdb, 300.0, "amber99sbildn.xml,amber99_obc.xml", "")
    labelled = with_forces(bare, field)
    # positions and forces of the file are float32: a bond of 3e5 kJ/mol/nm² turns 1e-8 nm into 1e-3 kT/nm
    assert_allclose(labelled.forces, alanine.forces, atol=0.05)
    assert_allclose(labelled.energies, alanine.energies, atol=1e-3)
    assert with_forces(alanine, field) is alanine
    with pytest.raises(ms.errors.InputError, match="knows no residues"):
        force_field_energy("", 300.0, "amber99sbildn.xml", "")


def wider(model, stretch, x):
    """The flow's own energy with softer bonds: atoms go where the flow has no density."""
    bonds = model.coordinates.forward(x)[0]["bonds"]
    middle = jnp.asarray([peroxide.OH, peroxide.OO, peroxide.OH])
    return model.energy(x) - stretch * jnp.sum((jnp.sort(bonds) - jnp.sort(middle)) ** 2)


def test_dynamics_from_the_samples_of_a_flow_finds_what_it_never_draws():
    flow = peroxide.generator()
    samples = flow.flow.sample(jax.random.key(0), 100)[0]
    stiffness = 0.5 / peroxide.BOND_WIDTH**2  # of u = k (b - b0)²
    found = {}
    for share in (0.0, 0.9):  # a tenth of the stiffness: three times as wide
        energy = jax.tree_util.Partial(wider, flow, jnp.asarray(share * stiffness))
        name, found[share], _ = row_of_dynamics(flow, energy, samples, 395, seed=0)
    assert name == "frames of 16 runs of 0.2 ps > 5 kT too unlikely"
    assert found[0.0] == "0 of 320"
    missed, _, total = found[0.9].partition(" of ")
    assert int(missed) > 60 and total == "320"


def test_md_that_is_interrupted_is_written_up_to_there(folder, model, monkeypatch):
    from mdsens.cli.progress import LiveLine

    def stop(self, text):
        if text.startswith("step"):
            raise KeyboardInterrupt

    monkeypatch.setattr(LiveLine, "__call__", stop)
    out = folder / "interrupted.h5"
    code, text = run("flow", "md", model, "--steps", "2000", "--record-every", "10", "-o", out)
    assert code == 130, text
    assert "interrupted. " in text and "interrupted.h5' holds the run up to" in text
    kept = ms.dynamics.Trajectory.from_hdf5(out)
    assert 1 < len(kept.time) < 201 and np.isfinite(kept.positions).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("md", "--replicas", "2", "-o", "md.dcd"), "only .h5 holds several runs"),
        (("md", "-o", "md.txt"), "a trajectory is written as one of"),
        (("md", "--steps", "0"), "--steps"),
        (("md", "--replicas", "0"), "--replicas"),
        (("md", "--start", "nothing.h5", "-o", "new.h5"), "no file 'nothing.h5'"),
        (("sample", "-o", "samples.txt"), "a trajectory is written as one of"),
        (("sample", "--samples", "1"), "--samples"),
        (("sample", "--force-field", "amber99sbildn.xml", "-o", "new.h5"), "train with --topology FILE.pdb"),
        (("evaluate", "nothing.h5"), "no file 'nothing.h5'"),
        (("evaluate", "data.h5", "--stride", "0"), "--stride"),
        (("evaluate", "data.h5", "--temperature", "500"), "says 300 K, and 500 K is asked for"),
        (("train", "--topology", "molecule.xyz", "--topology-format", "xyzz"), "Did you mean 'xyz'"),
        (("train", "--topology", "molecule.xyz", "--held-out", "1.5"), "held_out"),
        (("train", "--topology", "molecule.xyz", "--learning-rate", "-1"), "learning_rate"),
        (("train", "--topology", "molecule.xyz", "--block", "a,b"), "a list of atoms such as 0,1,5"),
        (("train", "--topology", "molecule.xyz", "--transforms", "rough"), "--transforms"),
        (("train", "--topology", "molecule.xyz", "--likelihood-weight", "-1"), "none may be negative"),
    ],
)
def test_more_that_is_refused_before_any_work(folder, model, monkeypatch, words, message):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    verb, *others = words
    first = ["data.h5", "-o", "new.h5"] if verb == "train" else [model]
    code, text = run("flow", verb, *first, *others)
    assert code in (2, 5), text
    assert message in text and "Traceback" not in text
    assert sorted(folder.iterdir()) == before
