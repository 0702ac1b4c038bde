"""The edit of a foundation model: its small stand-in, its structures, its tables, and the whole of it."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.fitting import LabelShifts, TermRow
from mdsens.fitting.edits import EditProgress, TargetCost, WeightEdit

SCRIPT = Path(__file__).parents[2] / "workflows" / "edit_foundation_model.py"
spec = importlib.util.spec_from_file_location("edit_foundation_model", SCRIPT)
assert spec is not None and spec.loader is not None
script = importlib.util.module_from_spec(spec)
sys.modules["edit_foundation_model"] = script
spec.loader.exec_module(script)


def test_angles_cost_what_the_sum_over_pairs_of_neighbors_says():
    rng = np.random.default_rng(0)
    d = rng.normal(size=(5, 3))
    d /= np.linalg.norm(d, axis=1)[:, None]
    r = rng.uniform(2.2, 3.0, size=5)
    w = (1 - (r / 3.8) ** 2) ** 3
    pairs = sum(w[j] * w[k] * (d[j] @ d[k] + 1 / 3) ** 2 for j in range(5) for k in range(5) if j != k)
    params = {name: np.zeros_like(x) for name, x in script.small_network().weights.items()}
    params["stiffness"] = 1.0
    zeros = np.zeros(6, int)
    found = script.small_energies(params, r[:, None] * d, zeros, 1 + np.arange(5), zeros[:5])
    assert_allclose(found[0], pairs, rtol=1e-12)


def test_other_crystals_are_those_whose_elements_the_network_knows():
    network = script.small_network()
    assert list(script.known(network, 7)) == ["Ge"]
    structures = script.structures(script.known(network, 7), seed=1)
    assert {name: s.n_atoms for name, s in structures.items()} == {"Ge": 4, "Si": 8}
    other = script.structures(script.known(network, 7), seed=2)
    assert np.abs(np.asarray(other["Si"].positions) - np.asarray(structures["Si"].positions)).max() > 0.01


def variant(title, size):
    network = script.small_network()
    row = TermRow("C44", "GPa", 79.0, 79.6, 2.0)
    history = (EditProgress(1, 0.3, size, 4),)
    edit = WeightEdit(network, size, (row,), (row,), (TargetCost("C44", size, 1.0),), history, 0, 1, True)
    shifts = LabelShifts(np.array([3e-3, -4e-3, 1.0]) * size, np.array([0.03, 0.04, 1.0]) * size)
    return script.Variant(title, edit, shifts, shifts)


def test_what_came_of_it_is_shown_and_written(tmp_path):
    from matplotlib.image import imread

    variants = [variant("smallest", 1.0), variant("others held", 0.1)]
    assert script.means(variants[0].held) == pytest.approx((3.5355, 3.5355), rel=1e-4)
    assert script.summary(variants).row_count == 2
    names = ("Ge", "C", "Si")
    assert script.collateral(variants, names).row_count == 3
    script.write(tmp_path, script.small_network(), variants, names, overwrite=False)
    content = ms.read_hdf5(tmp_path / "edit.h5", kind="edit of weights")
    assert not np.any(content["smallest"]["weights"]["w1"])
    assert np.ptp(imread(tmp_path / "collateral.png")) > 0.5


def test_a_figure_of_no_change_at_all_has_no_logarithms():
    assert script.draw([variant("nothing", 0.0)], ("Ge", "C", "Si")).axes[0].get_yscale() == "linear"
    assert script.draw([variant("some", 1.0)], ("Ge", "C", "Si")).axes[0].get_yscale() == "log"


@pytest.mark.validation  # a minute and a half of compiling
def test_what_is_held_moves_a_tenth_of_what_it_would(tmp_path):
    script.main(["--output", str(tmp_path), "--within", "0.01"])
    content = ms.read_hdf5(tmp_path / "edit.h5", kind="edit of weights")
    free, held = content["smallest"], content["smallest, others held"]
    for name in script.MEASURED:
        assert held["targets"][name] == pytest.approx(free["targets"][name], rel=1e-3)
    for what in ("held", "unseen"):  # silicon, the last, has to change
        for label in ("forces", "energy"):
            collateral, without = held[what][label][:-1], free[what][label][:-1]
            assert np.linalg.norm(collateral) < 0.1 * np.linalg.norm(without)
    assert free["change"] < held["change"] < 0.1
