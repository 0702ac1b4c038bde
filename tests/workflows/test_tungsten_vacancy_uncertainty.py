"""The uncertain vacancy of tungsten: the whole script with Morse's potential, much of it known exactly."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms

SCRIPT = Path(__file__).parents[2] / "workflows" / "tungsten_vacancy_uncertainty.py"
spec = importlib.util.spec_from_file_location("tungsten_vacancy_uncertainty", SCRIPT)
assert spec is not None and spec.loader is not None
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


def test_coefficients_alone_are_free():
    space = script.free_coefficients(ms.load_potential("w-snap-2017"))
    assert len(space.names) == 56 and all("beta" in name for name in space.names)
    assert script.vacancy(2).n_atoms == 15


@pytest.mark.validation
def test_the_script_runs_and_energies_hang_on_the_only_energy(tmp_path, monkeypatch):
    # Girifalco and Weizer, Phys. Rev. 114, 687 (1959)
    morse = ms.Morse(0.9906, 1.4116, 3.032, elements=("W",), cutoff_radius=7.0, cut=ms.Smooth())
    ms.save_potential(morse, tmp_path / "w.toml")
    options = ["--potential", tmp_path / "w.toml", "--cells", 2, "--frames", 1, "--draws", 3]
    words = [str(word) for word in ["script", *options, "--output", tmp_path / "out"]]
    monkeypatch.setattr("sys.argv", words)
    script.main()
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "uncertainty.h5",
        "uncertainty.csv",
        "correlation.png",
        "tungsten_vacancy.png",
    }
    with (tmp_path / "out" / "uncertainty.csv").open() as file:
        found = {row["observable"]: row for row in csv.DictReader(file)}
    content = ms.read_hdf5(tmp_path / "out" / "uncertainty.h5")
    jacobian = content["jacobian"].value
    # D0 is the only energy: dE / dln(D0) = E, and lengths do not know it
    for k, (name, power) in enumerate([("lattice_constant", 0), ("energy_per_atom", 1), ("C11", 1)]):
        value = float(found[name]["value"])
        assert_allclose(jacobian[k, 0] * 0.9906 / value, power, atol=1e-6)
    assert float(found["formation_energy"]["error"]) > 0
    shares = [float(found["formation_energy"][f"share {name}"]) for name in ("D0", "alpha", "r0")]
    assert np.sum(shares) == pytest.approx(1, abs=1e-9)
