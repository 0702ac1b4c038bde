"""Reports made of plain numbers: forms of a derivative, tables, CSV, and everything back from HDF5."""

import csv
import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.errors import FileFormatError, InputError, OutputExistsError
from mdsens.relaxation.certificate import Certificate
from mdsens.sensitivity.forms import KINDS, in_form
from mdsens.sensitivity.report import ReRelaxation, SensitivityReport
from mdsens.sensitivity.show import COLUMNS, UNKNOWN, _difference, _error, _range, _share, _with_error

NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)
MATRIX = arrays(float, (3, 2), elements=NUMBERS)
POSITIVE = st.floats(1e-3, 1e3)
THETA = arrays(float, 2, elements=POSITIVE)
VALUES = arrays(float, 3, elements=POSITIVE)


def certificate(**changes) -> Certificate:
    numbers = dict(
        fmax=1e-9,
        stress_error=1e-12,
        lowest_curvature=0.5,
        highest_curvature=20.0,
        curvature_error=1e-9,
        mode=np.eye(2, 3),
        strain_mode=np.zeros(0),
        unknowns=6,
        gauge=3,
        linear_residual=1e-13,
    )
    return Certificate(**(numbers | changes))


def report(**changes) -> SensitivityReport:
    fields = dict(
        observables=("energy", "C11", "x[0][2]"),
        units=("eV", "GPa", "Å"),
        parameters=("epsilon[Ni-Cu]", "sigma"),
        parameter_units=("eV", "Å"),
        theta=np.array([0.5, 3.0]),
        values=np.array([-2.0, 100.0, 0.0]),
        value_errors=np.array([1e-12, 1e-9, 0.0]),
        clamped=np.array([[4.0, 0.0], [10.0, -20.0], [0.0, 1.0]]),
        relaxation=np.array([[0.0, 1.0], [-2.0, 5.0], [0.0, -1.0]]),
        errors=np.full((3, 2), 1e-9),
        mode="forward",
        certificate={"structure": certificate()},
        relaxed={},
        moves={"structure": np.arange(12.0).reshape(2, 2, 3)},
        second=np.arange(6.0).reshape(3, 2),
        radius=np.array([[0.1, 0.5], [2.0, np.inf], [0.0, 1e-8]]),
        check=ReRelaxation(np.ones((3, 2)), 1e-4, np.full((3, 2), 0.1), ("sigma: elsewhere",)),
        structures={"structure": ms.Structure.create([[0.0, 0, 0], [2.0, 0, 0]], ["Ni", "Cu"])},
    )
    return SensitivityReport(**(fields | changes))


# --- forms of a derivative ------------------------------------------------------------------------------


@given(MATRIX, THETA, VALUES)
def test_forms_are_those_of_the_chain_rule(derivative, theta, values):
    # dO/dln(theta) = theta dO/dtheta, dln(O) = dO / O
    assert_array_equal(in_form("plain", derivative, theta, values), derivative)
    log = in_form("log", derivative, theta, values)
    assert_allclose(log, derivative * theta[None, :])
    assert_allclose(in_form("elasticity", derivative, theta, values), log / values[:, None])


@given(MATRIX, THETA, VALUES, st.floats(0.01, 100.0), st.floats(0.01, 100.0))
def test_an_elasticity_knows_no_units(derivative, theta, values, of_theta, of_value):
    plain = in_form("elasticity", derivative, theta, values)
    other = in_form("elasticity", derivative * of_value / of_theta, theta * of_theta, values * of_value)
    assert_allclose(other, plain, rtol=1e-9, atol=1e-12)


@given(THETA, st.floats(-3, 3), st.floats(-3, 3), POSITIVE)
def test_the_elasticity_of_a_power_is_its_exponent(theta, p, q, scale):
    value = scale * theta[0] ** p * theta[1] ** q
    derivative = np.array([[p * value / theta[0], q * value / theta[1]]])
    assert_allclose(in_form("elasticity", derivative, theta, np.array([value])), [[p, q]], atol=1e-12)


def test_what_is_zero_has_no_elasticity_but_where_it_stays_zero():
    shown = in_form("elasticity", np.array([[1.0, 0.0]]), np.array([2.0, 2.0]), np.array([0.0]))
    assert np.isnan(shown[0, 0]) and shown[0, 1] == 0.0


def test_what_lies_within_its_own_error_bar_has_no_elasticity_and_says_why():
    # C14 of a cubic crystal: 5e-18 GPa and its derivative are what rounding leaves
    noise = report(
        observables=("energy", "C14", "x[0][2]"),
        values=np.array([-2.0, 5e-18, 3.0]),
        clamped=np.array([[4.0, 0.0], [3e-18, 0.0], [0.0, 1.0]]),
        relaxation=np.zeros((3, 2)),
        value_errors=np.array([1e-15, 2e-12, 0.0]),
    )
    shown = noise.matrix()
    assert np.isnan(shown[1, 0]) and shown[1, 1] == 0
    assert_allclose(shown[[0, 2]], [[-1.0, 0.0], [0.0, 1.0]])
    text = " ".join(str(noise).split())
    assert "C14 is zero within its error bar, 2e-12 GPa: it has no elasticity" in text
    assert "energy is zero" not in text and "x[0][2] is zero" not in text
    # nothing is known of the error of an old report: its numbers stand
    assert np.isfinite(dataclasses.replace(noise, value_errors=None).matrix()).all()
    # other forms are shown as they are, and need no reason
    assert noise.table("log").caption is None


def test_an_exact_zero_says_why_it_has_no_elasticity():
    text = " ".join(str(report(relaxation=np.zeros((3, 2)))).split())
    assert "x[0][2] is zero: it has no elasticity" in text


def test_a_form_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="kind 'logarithmic' is unknown: use elasticity, log, plain"):
        report().matrix("logarithmic")


# --- what is shown --------------------------------------------------------------------------------------


@given(st.floats(-1e4, 1e4), st.floats(1e-12, 1e3))
def test_a_shown_number_lies_within_its_error_and_its_last_digit(x, error):
    shown = _with_error(x, error)
    if shown == UNKNOWN:
        assert error >= 0.5
        return
    # four decimals, or the decade of the error; five digits where it is large
    last = max(0.5e-4, error, 1e-4 * abs(x) if abs(x) >= 1000 else 0.0)
    assert abs(float(shown) - x) <= 1.01 * last


@given(st.floats(), st.floats(min_value=0))
def test_no_cell_ever_shows_nan_or_inf(x, error):
    for text in (_with_error(x, error), _error(x), _difference(x), _range(abs(x)), _share(abs(x))):
        assert "nan" not in text and "inf" not in text


@pytest.mark.parametrize(
    ("radius", "shown"), [(np.inf, "> 100 %"), (2.0, "> 100 %"), (0.25, "25 %"), (1e-3, "0.1 %"), (0.0, "-")]
)
def test_ranges_are_shares_of_the_parameter(radius, shown):
    assert _range(radius) == shown


@pytest.mark.parametrize("part", ["total", "clamped", "relaxation", "errors", "radius", "check", "at_range"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_part_has_a_row_for_each_observable_and_a_column_for_each_parameter(kind, part):
    table = report().table(kind, part)
    assert table.row_count == 3
    headers = [str(column.header).replace("\\", "") for column in table.columns]
    assert headers == ["observable", "value", "epsilon[Ni-Cu]", "sigma"]


def test_a_part_that_was_not_computed_names_the_option():
    bare = report(second=None, radius=None, check=None)
    for part, option in (
        ("radius", "second_order=True"),
        ("check", "check=True"),
        ("at_range", "check=True"),
    ):
        with pytest.raises(InputError, match=f"made without it: call sensitivities.*{option}"):
            bare.table(part=part)
    with pytest.raises(InputError, match="part 'frozen' is unknown: use total, clamped, relaxation"):
        bare.table(part="frozen")


def test_brackets_of_names_survive_the_marks_of_rich():
    text = str(report())
    assert "epsilon[Ni-Cu]" in text and "x[0][2]" in text


# --- what is kept ---------------------------------------------------------------------------------------


def test_csv_has_a_row_for_each_observable_and_parameter(tmp_path):
    report().to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 6
    row = rows[3]
    assert (row["observable"], row["parameter"], row["parameter_unit"]) == ("C11", "sigma", "Å")
    assert float(row["dO_dtheta"]) == -15.0
    assert float(row["dO_dln_theta"]) == -45.0
    assert float(row["dlnO_dln_theta"]) == -0.45
    assert (float(row["clamped"]), float(row["relaxation"])) == (-20.0, 5.0)
    # an observable that is zero has no elasticity, and an empty cell says so
    assert rows[4]["dlnO_dln_theta"] == "0.0" and rows[5]["dO_dtheta"] == "0.0"


def test_csv_leaves_cells_empty_that_were_not_computed(tmp_path):
    report(second=None, radius=None, check=None).to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert row["range_10_percent"] == row["re_relaxed"] == row["d2O_dln_theta2"] == ""


@pytest.mark.parametrize("bare", [False, True])
def test_a_report_comes_back_from_its_file(tmp_path, bare):
    written = report()
    if bare:
        written = report(second=None, radius=None, check=None, moves={}, value_errors=None)
    written.to_hdf5(tmp_path / "a.h5")
    read = SensitivityReport.from_hdf5(tmp_path / "a.h5")
    for field in ("observables", "units", "parameters", "parameter_units", "mode"):
        assert getattr(read, field) == getattr(written, field)
    for field in ("theta", "values", "clamped", "relaxation", "errors", "second", "radius", "value_errors"):
        assert_array_equal(getattr(read, field), getattr(written, field))
    for field in dataclasses.fields(Certificate):
        mine, theirs = (getattr(one.certificate["structure"], field.name) for one in (read, written))
        assert_array_equal(mine, theirs)
    assert_array_equal(read.structures["structure"].positions, written.structures["structure"].positions)
    if bare:
        assert read.check is None and read.moves == {}
    else:
        assert read.check.elsewhere == ("sigma: elsewhere",) and read.check.step == 1e-4
        assert_array_equal(read.moves["structure"], written.moves["structure"])
    assert str(read) == str(written)


def test_files_of_reports_are_kept_and_others_are_refused(tmp_path):
    report().to_hdf5(tmp_path / "a.h5")
    for write in (report().to_hdf5, report().to_csv):
        with pytest.raises(OutputExistsError):
            write(tmp_path / "a.h5")
    ms.write_hdf5(tmp_path / "b.h5", {"x": 1})
    with pytest.raises(FileFormatError, match="is no sensitivity report of this version"):
        SensitivityReport.from_hdf5(tmp_path / "b.h5")
    with pytest.raises(FileFormatError, match="no file"):
        SensitivityReport.from_hdf5(tmp_path / "nothing.h5")


# --- certificates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lowest", "kind"),
    [(0.5, "minimum"), (1e-3, "minimum"), (-0.5, "saddle"), (0.0, "singular"), (1e-7, "singular")],
)
def test_a_state_is_a_minimum_a_saddle_or_neither(lowest, kind):
    state = certificate(lowest_curvature=lowest)
    assert [state.is_minimum, state.is_saddle, state.is_singular].count(True) == 1
    assert getattr(state, f"is_{kind}")


def test_a_state_that_cannot_move_is_a_minimum():
    still = certificate(unknowns=3, gauge=3, lowest_curvature=np.nan, highest_curvature=np.nan)
    assert still.is_minimum and not still.is_saddle and not still.is_singular
    assert still.condition == 1.0
    assert certificate().condition == 40.0
