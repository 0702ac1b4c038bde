"""Soft-disc packings: the script reproduces reference minima and derivatives, and keeps.

Resumes and protects its results.
"""

import importlib.util
from pathlib import Path

import h5py
import numpy as np
import pytest
from references import table

import mdsens as ms

SCRIPT = Path(__file__).parents[2] / "workflows" / "soft_sphere_packing.py"
spec = importlib.util.spec_from_file_location("soft_sphere_packing", SCRIPT)
assert spec is not None and spec.loader is not None
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

REFERENCES = table("soft_sphere_packing")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packings") / "quick"
    script.main(["--quick", "--output", str(folder)])
    return folder


@pytest.fixture
def starts(folder):
    with h5py.File(folder / "packings.h5") as file:
        return [{key: dataset[()] for key, dataset in group.items()} for group in file.values()]


def centered(v):
    return v - v.mean(axis=0)


def test_random_starts_are_those_of_the_references():
    for seed in range(5):
        assert np.array_equal(
            script.random_start(seed), REFERENCES[f"packing-seed-{seed}"]["structure"]["positions"]
        )


@pytest.mark.parametrize("name", REFERENCES)
def test_minimum_and_sensitivity_agree_with_the_reference(name):
    case = REFERENCES[name]
    x = np.array(case["values"]["positions"]["value"])
    # the nearest contact change of these packings is 3e-6 away
    found, dx = script.implicit(x + np.random.default_rng(1).normal(0, 1e-7, x.shape), 1e-12)
    # The residual force of 1e-12 over the softest curvature of 0.01 leaves 1e-10 in x, a hundred times that
    # in dx/dD.
    assert np.abs(centered(found) - centered(x)).max() < 1e-9
    assert np.abs(dx - case["sensitivities"]["positions"]["D"]["value"]).max() < 1e-7


def test_error_of_the_implicit_derivative_is_linear_in_the_distance_to_the_minimum():
    case = REFERENCES["packing-seed-0"]
    x, dx = (
        np.array(case["values"]["positions"]["value"]),
        np.array(case["sensitivities"]["positions"]["D"]["value"]),
    )
    direction = np.random.default_rng(2).normal(size=x.shape)
    near, far = (np.abs(script.implicit(x + h * direction, script.ANY)[1] - dx).max() for h in (1e-6, 1e-5))
    # the next order is h times the softest contact's 1/lambda = 100 smaller: 1e-3
    assert far / near == pytest.approx(10, rel=0.02)


def test_sensitivity_is_that_of_packings_relaxed_anew(starts):
    for start in starts:
        h, at = 1e-6, script.packing(start["minimum"])
        up, down = (
            ms.relax(script.discs(script.D + s * h), at, fmax=1e-12).structure.positions for s in (1, -1)
        )
        twin = np.asarray(up - down)[:, :2] / (2 * h)
        moving = np.linalg.norm(start["dx_minimum"], axis=1) > 0
        twin = np.where(moving[:, None], twin - twin[moving].mean(axis=0), 0.0)
        # residual force 1e-12 / curvature 0.03 / step 1e-6 = 3e-5
        assert np.abs(twin - start["dx_minimum"]).max() < 1e-4


def test_before_the_minimum_both_derivatives_can_be_wrong(starts):
    # start 0 after 300 steps: not yet in a basin where H is positive definite
    assert starts[0]["negative_modes"][0] > 0
    assert starts[0]["error_implicit"][0] > 0.1
    assert starts[0]["error_unrolled"][0] > 10
    # after 700 steps |x - x*| < 1e-9: both are right, and the unrolled derivative lags behind
    assert starts[0]["error_implicit"][1] < 1e-8
    assert starts[0]["error_implicit"][1] < starts[0]["error_unrolled"][1] < script.RIGHT


def test_rattlers_have_no_implicit_derivative_and_an_accidental_unrolled_one(starts):
    start = starts[1]
    assert start["rattlers"] == 1
    assert np.sum(np.all(start["dx_minimum"] == 0, axis=1)) == 1
    assert start["lowest_curvature"] > 1e-3  # nothing soft is left once the rattler is out
    assert start["error_unrolled"][1] < script.RIGHT  # on the discs with contacts
    assert (
        start["l1_unrolled"][1] > 2 * start["l1_minimum"]
    )  # the place where the rattler was left is history


def test_table_and_pictures_are_written(folder):
    rows = np.genfromtxt(folder / "packings.csv", delimiter=",", names=True)
    assert rows["start"].tolist() == [0, 0, 1, 1] and rows["steps"].tolist() == [300, 700, 300, 700]
    for name in ("packing.png", "comparison.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_a_second_run_computes_only_what_is_missing(folder, starts, monkeypatch):
    with h5py.File(folder / "packings.h5", "a") as file:
        del file["start-001"]
        file["unfinished/max_force"] = 1.0  # as a run leaves it that was stopped while writing
    asked = []
    monkeypatch.setattr(script, "analyse", lambda seed, steps: asked.append(seed) or starts[seed])
    script.main(["--quick", "--output", str(folder)])
    assert asked == [1]
    with h5py.File(folder / "packings.h5") as file:
        assert sorted(file) == ["start-000", "start-001"]
        assert file["start-001/max_force"].shape == (2,)


def test_other_data_is_not_overwritten(folder, tmp_path):
    with pytest.raises(ms.errors.OutputExistsError, match="steps is"):
        script.main(["--starts", "2", "--steps", "100", "--output", str(folder)])
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ms.errors.OutputExistsError, match="not empty"):
        script.main(["--quick", "--output", str(tmp_path)])
    (tmp_path / "packings.h5").write_text("mine")
    with pytest.raises(ms.errors.OutputExistsError, match="no HDF5 file"):
        script.main(["--quick", "--output", str(tmp_path)])
    with h5py.File(tmp_path / "packings.h5", "w") as file:
        file["x"] = 1.0
    with pytest.raises(ms.errors.OutputExistsError, match="format is"):
        script.main(["--quick", "--output", str(tmp_path)])
    with h5py.File(tmp_path / "packings.h5") as file:
        assert list(file) == ["x"] and not file.attrs
