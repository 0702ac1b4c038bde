"""The refit of silicon: its structures, its rival without derivatives, and the script as a user runs it."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from test_workflows import run

import mdsens as ms
from mdsens.fitting import TermRow, TermValue

SCRIPT = Path(__file__).parents[2] / "workflows" / "refit_silicon.py"


@pytest.fixture(scope="module")
def refit():
    spec = importlib.util.spec_from_file_location("refit_silicon", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["refit_silicon"] = module
    spec.loader.exec_module(module)
    return module


def test_the_vacancy_is_one_atom_short_of_the_crystal(refit):
    found = refit.structures(2)
    bulk, vacancy = found["bulk"].structure, found["vacancy"].structure
    assert (bulk.n_atoms, vacancy.n_atoms) == (2, 63)
    assert float(ms.volume(vacancy)) == pytest.approx(32 * float(ms.volume(bulk)))
    silicon = ms.load_potential("si-stillinger-weber-1985")
    # four bonds of half of 2.1683 eV each are missing, ideally; three-body terms vanish there
    energy = float(ms.energy(silicon, vacancy)) - 63 / 2 * float(ms.energy(silicon, bulk))
    assert energy == pytest.approx(2 * 2.1683, abs=0.01)


def test_a_vacancy_is_looked_for_with_its_neighbors_nearer_to_each_other_too(refit):
    vacancy = refit.structures(2)["vacancy"].structure
    starts = refit.vacancy_starts(vacancy)
    cell = np.asarray(vacancy.cell)

    def nearest(name):
        inside = np.asarray(starts[name].positions) @ np.linalg.inv(cell)
        return np.sort(np.linalg.norm((inside - np.round(inside)) @ cell, axis=1))[:5]

    bond = 5.431 * np.sqrt(3) / 4
    np.testing.assert_allclose(nearest("as cut")[:4], bond, rtol=1e-12)
    np.testing.assert_allclose(nearest("moved in")[:4], bond - refit.INWARD, rtol=1e-12)
    assert nearest("moved in")[4] > 3.8
    pairs = np.asarray(starts["in pairs"].positions - vacancy.positions)
    moved = np.linalg.norm(pairs, axis=1) > 0.3
    assert moved.sum() == 4 and np.abs(pairs[moved].sum(axis=0)).max() < 1


@pytest.mark.validation  # a minute of compiling
def test_the_lowest_vacancy_of_the_published_set_is_not_the_one_that_is_cut(refit):
    silicon = ms.load_potential("si-stillinger-weber-1985")
    setups = refit.structures(2)
    bulk = ms.relax(silicon, setups["bulk"].structure, cell="isotropic")
    _, energy = refit.lowest_vacancy(silicon, setups["vacancy"].structure)
    # all four neighbors move in by a quarter; as cut it stays at 4.3366 eV, the two bonds that are missing
    assert energy - 63 / 2 * float(bulk.energy) == pytest.approx(2.5526, abs=1e-3)


def test_beta_tin_has_its_four_and_two_neighbors(refit):
    tin = refit.beta_tin()
    neighbors = ms.find_neighbors(tin, cutoff=2.8)
    d = np.linalg.norm(np.asarray(neighbors.vectors(tin)), axis=1)[np.asarray(neighbors.valid)]
    # 4 atoms, each with four neighbors and two a little farther along the short axis
    assert len(d) == 4 * 6 / 2
    assert np.sum(d < 2.65) == 4 * 4 / 2


def test_the_price_of_an_angle_is_a_change_in_percent(refit):
    table = refit.price_table({"phonon": 10.0}, {"phonon": 11.0})
    assert list(table.columns[3].cells) == ["+10.0 %"]


@pytest.mark.validation  # a minute of compiling
def test_the_freed_angle_is_paid_for(refit):
    silicon = ms.load_potential("si-stillinger-weber-1985")
    freed = {"epsilon": 1.906672, "sigma": 2.090210, "lambda": 31.128884, "costheta0": -0.395717}
    before, after = (refit.properties(p, 2) for p in (silicon, ms.replace_parameters(silicon, freed)))
    assert before["cohesive energy (eV)"] == pytest.approx(4.3366, abs=1e-4)
    tin = "beta-tin above diamond (eV per atom)"
    assert 0.15 < before[tin] < 0.25 and after[tin] > 3 * before[tin]
    assert after["cohesive energy (eV)"] < 0.9 * before["cohesive energy (eV)"]


class Quadratic:
    """Residuals that are squares of the parameters, from one structure that does not move."""

    memory = {"bulk": {"dpositions": np.ones(3), "dcell": np.ones(3), "theta": np.ones(2)}}  # noqa: RUF012

    def residuals(self, potential, parameters, memory):
        assert not memory["bulk"]["dpositions"].any()
        return np.array([float(potential.epsilon) ** 2, float(potential.sigma) ** 2])

    def evaluate(self, potential, parameters, memory):
        r = np.array([float(potential.epsilon) ** 2, float(potential.sigma) ** 2])
        rows = tuple(TermRow(name, "1", value, 0.0, 1.0) for name, value in zip("ab", r, strict=True))
        return TermValue(r, np.zeros((2, 2)), rows, self.memory, None, 1)


def test_differences_relax_once_more_for_every_parameter(refit):
    argon = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5)
    value = refit.DifferencedTargets(Quadratic()).evaluate(argon, ("epsilon", "sigma"), {})
    assert value.relaxations == 3
    np.testing.assert_allclose(value.jacobian, np.diag([2 * 0.0104, 2 * 3.405]), rtol=1e-4)


@pytest.mark.validation  # minutes of compiling
def test_exact_derivatives_save_most_of_the_relaxations(tmp_path):
    text = run("refit_silicon", "--differences", "--output", "out", folder=tmp_path)
    times = float(text.split("times as many")[0].rsplit("(", 1)[1])
    assert times >= 5
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"fit.h5", "fit.md", "silicon.sw"}
