"""Quadratic expansions: against the tables' second derivatives, and against states relaxed again."""

import jax.numpy as jnp
import passes
import pytest
import references
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError


def around(case_id: str) -> tuple[dict, ms.Relaxed]:
    case = references.table("second_order")[case_id]
    start = references.structure(case).at(jnp.asarray(case["values"]["positions"]["value"]))
    return case["second_derivatives"], ms.relax(references.potential(case), start, fmax=1e-11)


def check(case_id: str) -> None:
    rows, relaxed = around(case_id)
    names = [references.flat_name(name) for name in rows["energy"]["parameters"]]
    expansion = ms.expand(relaxed, "energy", names)
    references.assert_agrees(expansion.log_second[0], rows["energy"], "energy")
    n = relaxed.structure.n_atoms
    for name, row in rows["positions"].items():
        k = names.index(references.flat_name(name))
        theta = expansion.theta[k]
        bend = theta**2 * expansion.bends["structure"][k, k] + theta * expansion.moves["structure"][k]
        references.assert_agrees(bend[: 3 * n].reshape(n, 3), row, f"positions, {name}")


def test_second_derivatives_of_a_cluster_are_those_of_the_table():
    check("second-order-lj13-binary-cluster")


@pytest.mark.validation
def test_second_derivatives_of_a_vacancy_are_those_of_the_table():
    check("second-order-sw-si-vacancy-63")


@pytest.fixture(scope="module")
def valley() -> ms.Expansion:
    """The atom between two fixed ones; it rests at y = sqrt(r0² - d²)."""
    relaxed = ms.relax(passes.morse(), passes.structure(passes.UP), fmax=1e-12)
    return ms.expand(relaxed, ["energy"], ["D0", "r0"])


def test_a_rest_that_is_known_has_its_own_taylor_series(valley):
    # y(r0) = sqrt(r0² - d²):  y' = r0 / y,  y'' = 1 / y - r0² / y³
    y, r0 = passes.UP, passes.R0
    assert_allclose(valley.moves["structure"][1, 7], r0 / y, rtol=1e-9)
    assert_allclose(valley.bends["structure"][1, 1, 7], 1 / y - r0**2 / y**3, rtol=1e-8)
    assert_allclose(valley.bends["structure"][0], 0, atol=1e-9)  # the depth moves nothing
    predicted = valley.structure({"r0": r0 + 0.05}).positions[2, 1]
    assert_allclose(predicted, y + 0.05 * r0 / y + 0.05**2 / 2 * (1 / y - r0**2 / y**3), rtol=1e-9)


def test_predictions_miss_relaxed_states_by_the_order_left_out(valley):
    errors = {order: [] for order in (1, 2)}
    for step in (0.04, 0.02):
        changed = passes.morse(r0=passes.R0 + step)
        exact = ms.relax(changed, passes.structure(passes.UP), fmax=1e-12)
        for order, found in errors.items():
            predicted = valley.structure({"r0": passes.R0 + step}, order=order).positions[2, 1]
            found.append(abs(float(predicted - exact.structure.positions[2, 1])))
    # the error of order n falls by 2^(n + 1) with half the step
    assert 3.4 < errors[1][0] / errors[1][1] < 4.8
    assert 6.5 < errors[2][0] / errors[2][1] < 10.5


def test_energies_are_predicted_to_second_order(valley):
    changes = {"D0": 0.52, "r0": 2.61}
    exact = float(ms.relax(passes.morse(0.52, passes.ALPHA, 2.61), passes.structure(passes.UP)).energy)
    off = [abs(valley.predict(changes, order)["energy"] - exact) for order in (1, 2)]
    assert off[1] < 0.1 * off[0]
    assert valley.predict({})["energy"] == valley.values[0]


def test_an_expansion_is_shown(valley):
    table = valley.table()
    assert [column.header for column in table.columns] == ["observable", "value", "D0", "r0"]


def test_wrong_names_and_orders_are_refused(valley):
    with pytest.raises(InputError, match=r"no parameter 'DO'. Did you mean 'D0'"):
        valley.predict({"DO": 1.0})
    with pytest.raises(InputError, match="order = 3"):
        valley.predict({}, order=3)
    with pytest.raises(InputError, match="no state 'bulk'"):
        valley.structure({}, state="bulk")


def test_too_many_parameters_are_refused(monkeypatch):
    monkeypatch.setattr(ms.continuation.expansion, "MOST_PARAMETERS", 2)
    relaxed = ms.relax(passes.morse(), passes.structure(passes.UP), fmax=1e-12)
    with pytest.raises(InputError, match="3 parameters have 6 pairs"):
        ms.expand(relaxed)
