"""The workflow of force matching finds the parameters of the data that it made, and writes what it found."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import OutputExistsError

SCRIPT = Path(__file__).parents[2] / "workflows" / "force_matching.py"
spec = importlib.util.spec_from_file_location("force_matching", SCRIPT)
assert spec is not None and spec.loader is not None
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit") / "out"
    free = ["lambda", "gamma", "costheta0", "A", "B"]
    script.main(["--quick", "--count", "3", "--free", *free, "--output", str(folder)])
    return folder


def test_the_known_parameters_are_found_and_written_for_lammps(folder):
    published = ms.parameter_values(ms.load_potential("si-stillinger-weber-1985"))
    for name in ("fitted.toml", "fitted.sw"):
        found = ms.parameter_values(ms.load_potential(folder / name))
        assert_allclose([found[n] for n in published], list(published.values()), rtol=1e-6, atol=1e-12)


def test_the_report_and_the_test_part_are_there(folder):
    from matplotlib.image import imread

    names = {file.name for file in folder.iterdir()}
    assert names == {
        *("checkpoint.h5", "data.h5", "fit.h5", "fit.md"),
        *("fitted.sw", "fitted.toml", "parity.h5", "parity.png"),
    }
    assert "force rmse" in (folder / "fit.md").read_text()
    assert ms.read_hdf5(folder / "parity.h5")["forces"]["rmse"] < 1e-6
    assert np.ptp(imread(folder / "parity.png")) > 0.5
    with pytest.raises(OutputExistsError):
        script.main(["--output", str(folder)])
