"""Fits over folds and flows over seeds, as tasks: the numbers of the functions themselves."""

import ase
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import peroxide
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.campaign import load, run
from mdsens.campaign.learning import fit_tasks, flow_task
from mdsens.campaign.plan import plan_of
from mdsens.datasets import generate
from mdsens.datasets.generate import Rattle
from mdsens.datasets.split import fold_of
from mdsens.errors import FileFormatError, InputError
from mdsens.units import BOLTZMANN, KJ_PER_MOL

CONFIG = """
potential = "ar-lennard-jones"
free = ["epsilon"]
scale = "linear"
[set]
epsilon = 0.02
[data]
file = "data.extxyz"
tolerances = { energy = 0.001, forces = 0.01, stress = false }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Labelled argon, and a fit of it."""
    folder = tmp_path_factory.mktemp("fits")
    crystal = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.3, cubic=True))
    data = generate(ms.load_potential("ar-lennard-jones"), crystal, [Rattle(0.1, 0.01)], count=6)
    ms.write_dataset(folder / "data.extxyz", data)
    (folder / "fit.toml").write_text(CONFIG)
    return folder


def test_every_fold_is_fitted_to_the_others_and_judged_by_itself(folder, tmp_path):
    tasks = fit_tasks(folder / "fit.toml", 3, seed=1)
    assert [task.name for task in tasks] == ["fit-0", "fit-1", "fit-2"]
    report = run(tasks, tmp_path / "out")
    assert report.done == 3, report.reasons
    truth = ms.parameter_values(ms.load_potential("ar-lennard-jones"))["epsilon"]
    for result in load(tmp_path / "out"):
        # the data are the form's own: epsilon is found again, and what was left out is met
        assert_allclose(result.content["fitted"]["epsilon"], truth, rtol=1e-6)
        assert result.values["unseen_forces_rmse"] < 1e-6 and "epsilon" in result.content["potential"]


def test_folds_leave_each_structure_out_once(folder):
    data = ms.read_dataset(folder / "data.extxyz")
    parts = [fold_of(data, k, 3, seed=2) for k in range(3)]
    left_out = [entry.place() for _, unseen in parts for entry in unseen]
    assert sorted(left_out) == sorted(entry.place() for entry in data)
    assert all(len(seen) + len(unseen) == len(data) for seen, unseen in parts)
    with pytest.raises(InputError, match="the data have 6 different structures"):
        fold_of(data, 0, 7)
    with pytest.raises(InputError, match="they are 0 to 2"):
        fold_of(data, 3, 3)


def test_changed_data_make_other_fits(folder):
    first = fit_tasks(folder / "fit.toml", 2)
    text = (folder / "data.extxyz").read_text()
    (folder / "data.extxyz").write_text(text.replace("5.", "5.0", 1))
    second = fit_tasks(folder / "fit.toml", 2)
    (folder / "data.extxyz").write_text(text)
    keys = {task.key for task in (*first, *second)}
    assert len(keys) == 4 and first[0].key == fit_tasks(folder / "fit.toml", 2)[0].key


def test_faults_of_fits_and_flows_are_said_before_anything_is_sent(folder, tmp_path):
    (tmp_path / "bad.toml").write_text('potential = "ar-lennard-jones"\nfre = []\n')
    with pytest.raises(InputError, match="Did you mean 'free'"):
        fit_tasks(tmp_path / "bad.toml")
    with pytest.raises(FileFormatError, match="is not TOML"):
        fit_tasks(folder / "data.extxyz")
    with pytest.raises(InputError, match=r"fit\.fold is unknown. Did you mean 'folds'"):
        plan_of({"kind": "fit", "fit": {"config": "fit.toml", "fold": 2}}, folder)
    with pytest.raises(InputError, match=r"fit\.config is missing"):
        plan_of({"kind": "fit"}, folder)
    with pytest.raises(InputError, match="structures has no meaning"):
        plan_of({"kind": "fit", "fit": {"config": "fit.toml"}, "structures": []}, folder)
    assert len(plan_of({"kind": "fit", "fit": {"config": "fit.toml", "folds": 3}}, folder)) == 3
    with pytest.raises(InputError, match=r"flow\.topology is missing"):
        plan_of({"kind": "flow", "flow": {"data": "data.h5"}}, folder)
    with pytest.raises(InputError, match=r"Did you mean 'batch'"):
        flow_task(folder / "data.extxyz", folder / "data.extxyz", bach=3)


def test_flows_of_several_seeds_are_trained_and_kept_whole(tmp_path):
    flow = peroxide.generator().flow
    positions, _ = flow.sample(jax.random.key(0), 400)
    _, forces = ms.flows.energies_and_forces(flow, jnp.asarray(positions))
    kT = BOLTZMANN * peroxide.TEMPERATURE / KJ_PER_MOL
    with h5py.File(tmp_path / "data.h5", "w") as file:
        for name, values, unit in (("positions", positions, "nm"), ("forces", forces * kT, "kJ/mol/nm")):
            file[name] = np.asarray(values)
            file[name].attrs["unit"] = unit
        file.attrs["temperature"] = peroxide.TEMPERATURE
    ase.Atoms(peroxide.SPECIES, peroxide.positions()).write(tmp_path / "molecule.xyz")
    small = {
        "hidden": [8],
        "soft_layers": 0,
        "stiff_layers": 0,
        "steps": 20,
        "batch": 64,
        "evaluate_every": 10,
    }
    table = {"data": "data.h5", "topology": "molecule.xyz", "seeds": [0, 1], **small}
    tasks = plan_of({"kind": "flow", "flow": table}, tmp_path)
    report = run(tasks, tmp_path / "out")
    assert report.done == 2, report.reasons
    results = list(load(tmp_path / "out"))
    for result in results:
        model = tmp_path / f"{result.name}.h5"
        model.write_bytes(np.asarray(result.content["model"]).tobytes())
        assert ms.flows.load(model).flow.dtype == jnp.float32
        assert np.isfinite(result.values["held_out_nll"])
    assert results[0].values != results[1].values
