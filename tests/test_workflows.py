"""Each script of workflows/ runs, as a user runs it, and its results obey what is exact about them."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

ROOT = Path(__file__).parents[1]
SCRIPTS = {p.stem for p in (ROOT / "workflows").glob("*.py")}


def run(script: str, *options: str, folder: Path) -> str:
    """Output of a script, run in an empty folder."""
    command = [sys.executable, str(ROOT / "workflows" / f"{script}.py"), *options]
    environment = {**os.environ, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.01"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_script_has_a_test():
    own_files = {p.stem.removeprefix("test_") for p in (ROOT / "tests" / "workflows").glob("test_*.py")}
    assert own_files | {"silicon_vacancy", "alanine_dipeptide_data"} == SCRIPTS  # the last with its reader


@pytest.fixture(scope="module")
def silicon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("silicon")
    run("silicon_vacancy", "--output", "out", folder=folder)
    return folder / "out"


@pytest.fixture(scope="module")
def elasticities(silicon: Path) -> dict[tuple[str, str], float]:
    """d ln(observable) / d ln(parameter)."""
    with (silicon / "sensitivity.csv").open() as file:
        return {
            (row["observable"], row["parameter"]): float(row["dlnO_dln_theta"])
            for row in csv.DictReader(file)
        }


def test_silicon_vacancy_scales_with_the_only_energy_and_the_only_length(elasticities):
    # every energy is epsilon times, every length sigma times, a function of the other parameters
    energies = {"energy_per_atom": (1, 0), "formation_energy": (1, 0)}
    others = {
        "lattice_constant": (0, 1),
        "formation_volume": (0, 3),
        "C11": (1, -3),
        "C12": (1, -3),
        "C44": (1, -3),
    }
    for name, (energy, length) in (energies | others).items():
        # relaxed to 1e-10 eV/Å; condition number below 1e3
        assert_allclose(
            [elasticities[name, "epsilon"], elasticities[name, "sigma"]],
            [energy, length],
            atol=1e-7,
            err_msg=name,
        )


def test_silicon_vacancy_writes_its_tables_and_figures(silicon: Path):
    from matplotlib.image import imread

    assert {p.name for p in silicon.iterdir()} == {
        "sensitivity.csv",
        "sensitivity.h5",
        "sensitivity.png",
        "vacancy.png",
    }
    for name in ("sensitivity.png", "vacancy.png"):
        assert np.ptp(imread(silicon / name)) > 0.5, f"{name} is blank"


@pytest.mark.validation
def test_silicon_vacancy_agrees_with_relaxing_again_for_every_parameter(tmp_path: Path):
    run("silicon_vacancy", "--check", "--output", "out", folder=tmp_path)
    with (tmp_path / "out" / "sensitivity.csv").open() as file:
        for row in csv.DictReader(file):
            # central differences leave step² / 6 times the third derivative: 60 for C_ij and sigma, which is
            # 1e-7 for steps of 1e-4, and a few times more for a and gamma, where the exponentials are steep
            scale = float(row["theta"]) / float(row["value"])
            exact, twin = float(row["dO_dtheta"]) * scale, float(row["re_relaxed"]) * scale
            assert_allclose(
                exact, twin, rtol=0, atol=1e-6, err_msg=f"{row['observable']}, {row['parameter']}"
            )
