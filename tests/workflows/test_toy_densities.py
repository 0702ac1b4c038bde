"""Toy densities: targets are what they claim to be, measures exact; the script protects its results."""

import csv
import importlib.util
import sys
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mdsens.errors import OutputExistsError
from mdsens.flows.files import load

SCRIPT = Path(__file__).parents[2] / "workflows" / "toy_densities.py"
spec = importlib.util.spec_from_file_location("toy_densities", SCRIPT)
assert spec is not None and spec.loader is not None
script = importlib.util.module_from_spec(spec)
sys.modules["toy_densities"] = script  # dataclasses look their module up
spec.loader.exec_module(script)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "quick"
    script.main(["--quick", "--output", str(folder)])
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    with (folder / "toy_densities.csv").open() as file:
        found = list(csv.DictReader(file))
    texts = ("density", "flow", "trained_on")
    return {
        (row["flow"], row["trained_on"]): {k: float(v) for k, v in row.items() if k not in texts}
        for row in found
    }


@pytest.mark.parametrize("name", script.TARGETS)
def test_samples_have_the_mean_energy_and_the_mean_squared_force_of_the_density(name):
    target, n = script.TARGETS[name], 4000
    u, forces = script.fields(target.energy, script.grid())
    p = np.exp(-u) / np.mean(np.exp(-u))
    sampled_u, sampled_forces = script.fields(target.energy, target.sample(n, 1))
    for function, sampled in ((u, sampled_u), (np.sum(forces**2, 1), np.sum(sampled_forces**2, 1))):
        mean = np.mean(p * function)
        spread = np.sqrt(np.mean(p * (function - mean) ** 2) / n)
        assert abs(sampled.mean() - mean) < 4 * spread


@pytest.mark.parametrize("name", ["rings", "torus"])
def test_sum_over_the_grid_is_the_integral_to_many_digits(name, monkeypatch):
    # midpoint sums of what is smooth and periodic, or vanishes at the edges, converge faster than any power
    z = []
    for n in (script.GRID, script.GRID // 2):
        monkeypatch.setattr(script, "GRID", n)
        z.append(np.mean(np.exp(-script.fields(script.TARGETS[name].energy, script.grid())[0])))
    assert_allclose(z[1], z[0], rtol=1e-8)


def test_rings_are_normalized_as_shells_are():
    # int exp(-(r - R)²/2s²) 2 pi r dr = (2 pi)^(3/2) R s for s << R; X runs over a square of edge 2 pi
    radii, weights, s = np.array([1, 1.5, 2, 2.5]), np.array([1, 0.6, 0.8, 0.4]), 0.06
    exact = np.sum(weights * radii) * (2 * np.pi) ** 1.5 * s / (2 * np.pi) ** 2
    assert_allclose(np.mean(np.exp(-script.fields(script.rings, script.grid())[0])), exact, rtol=1e-12)


@pytest.mark.parametrize("name, largest", [("torus", 1e-3), ("torus_with_seam", np.inf)])
def test_forces_of_the_torus_are_continuous_where_it_closes(name, largest):
    across = np.stack([0.5 + script.line(0)[:, 0], np.full(script.AT_ONCE, 0.3)], -1)
    jump = script.jumps(lambda x: script.fields(script.TARGETS[name].energy, x)[1], across).max()
    # the published form has a kink there, whose size is that of the forces
    assert jump < largest and (name == "torus" or jump > 10)


def test_a_jump_of_a_force_is_found_with_its_size():
    kink = lambda x: jnp.abs(x[0] - 0.3) * 5 + jnp.sin(200 * x[0])
    jump = script.jumps(lambda x: script.fields(kink, x)[1], script.line(0.5))
    assert_allclose(np.sort(jump)[-1], 10, rtol=1e-6)
    # elsewhere: slope 4e4 times 4000^-1 2^-26
    assert np.sort(jump)[-2] < 1e-5


def test_forces_of_smooth_flows_are_continuous_and_those_of_splines_are_not(rows):
    for (flow, _), row in rows.items():
        # float64, so the floor is rounding of the forces and their slope times 1e-11
        assert row["largest_jump"] < 1e-6 if flow == "smooth" else row["largest_jump"] > 1e-3


def test_divergence_by_quadrature_agrees_with_that_of_samples(rows, folder):
    with h5py.File(folder / "toy_densities.h5") as file:
        n = len(file["torus/held_out/positions"])
        log_p = file["torus/log_density"][()]
        for (flow, trained_on), row in rows.items():
            log_q = file[f"torus/{flow}, {trained_on}/log_density"][()]
            assert_allclose(
                np.mean(np.exp(log_q)), 1, atol=1e-3
            )  # the kinks of splines cost the sum its digits
            spread = np.sqrt(np.mean(np.exp(log_p) * (log_p - log_q - row["kl"]) ** 2) / n)
            assert row["kl"] > 0 and abs(row["kl_of_samples"] - row["kl"]) < 4 * spread


def test_flows_in_the_folder_are_those_of_the_table(rows, folder):
    with h5py.File(folder / "toy_densities.h5") as file:
        x, forces = file["torus/held_out/positions"][()], file["torus/held_out/forces"][()]
    for (flow, trained_on), row in rows.items():
        name = f"torus-{flow}-{'forces' if 'forces' in trained_on else 'samples'}"
        for path in (folder / f"{name}.h5", folder / f"{name}-training.h5"):
            own = script.fields(load(path).astype(jnp.float64).energy, x)[1]
            assert_allclose(np.sqrt(np.mean((own - forces) ** 2)), row["force_rmse"], rtol=1e-12)


def test_pictures_are_not_blank(folder):
    from matplotlib.image import imread

    for name in ("torus.png", "torus-cut.png"):
        assert np.ptp(imread(folder / name)) > 0.5


def test_results_are_not_overwritten_unless_asked(folder):
    before = (folder / "toy_densities.csv").read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        script.main(["--quick", "--output", str(folder)])
    with pytest.raises(OutputExistsError, match="--overwrite"):
        script.main(["--quick", "--output", str(folder / "toy_densities.csv")])
    assert (folder / "toy_densities.csv").read_bytes() == before
