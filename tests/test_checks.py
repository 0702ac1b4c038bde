"""What may be passed in: every kind of wrong value is refused with the value in the message."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdsens.checks import existing_file, instance, nearest, number, short, whole
from mdsens.errors import FileFormatError, InputError


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_finite_number_comes_back_as_it_was(value):
    assert number("x", value) == value
    assert number("x", np.float64(value)) == value
    assert number("x", np.array(value)) == value


@given(st.integers(-(2**40), 2**40))
def test_whole_numbers_are_numbers(value):
    assert number("x", value) == value and isinstance(number("x", value), float)
    assert whole("n", value, at_least=-(2**40)) == value
    assert whole("n", np.int64(value), at_least=-(2**40)) == value


def test_arrays_of_jax_and_numpy_without_axes_are_numbers():
    assert number("x", jnp.asarray(2.5)) == 2.5
    assert number("x", np.float32(0.5)) == 0.5


NO_NUMBERS = {
    "a text": "8",
    "bytes": b"8",
    "nothing": None,
    "complex": 1j,
    "a flag": True,
    "a list": [1.0],
    "an array": np.zeros(3),
    "a matrix": np.eye(2),
    "a mapping": {"x": 1},
    "ragged": [[1.0], [1.0, 2.0]],
    "a function": abs,
}


@pytest.mark.parametrize("value", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_what_is_no_number_is_refused_with_its_name_and_unit(value):
    with pytest.raises(InputError, match=r"^pressure = .*: give one real number in eV/Å³\.$"):
        number("pressure", value, "eV/Å³")


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (np.nan, {}, "finite"),
        (np.inf, {}, "finite"),
        (0.0, {"above": 0.0}, "finite and above 0"),
        (-1e-300, {"above": 0.0}, "above 0"),
        (-0.5, {"at_least": 0.0}, "at least 0"),
        (1.5, {"at_most": 1.0}, "at most 1"),
        (2.0, {"above": 0.0, "at_most": 1.0}, "finite and above 0 and at most 1"),
        (np.nan, {"finite": False}, "a number"),
    ],
)
def test_a_number_out_of_bounds_is_refused_with_its_bounds(value, bounds, message):
    with pytest.raises(InputError, match=f"fmax = .*it must be .*{message}"):
        number("fmax", value, **bounds)


def test_the_ends_of_closed_bounds_are_inside():
    assert number("x", 0.0, at_least=0.0, at_most=1.0) == 0.0
    assert number("x", 1.0, at_least=0.0, at_most=1.0) == 1.0
    assert number("cutoff", np.inf, above=0.0, finite=False) == np.inf


@pytest.mark.parametrize("value", [1.0, 1.9, "3", None, True, np.bool_(True), 1j, [1], np.array([1, 2])])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(InputError, match=r"^steps = .*: give a whole number, 1 or more\.$"):
        whole("steps", value, at_least=1)


@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_a_whole_number_is_refused_exactly_below_its_bound(value, least):
    if value >= least:
        assert whole("n", value, at_least=least) == value
        return
    with pytest.raises(InputError, match=f"n = {value}: give a whole number, {least} or more"):
        whole("n", value, at_least=least)


def test_an_object_of_another_class_is_named_with_the_call_to_write():
    with pytest.raises(InputError, match=r"^data must be an int, not str \('3'\)\. Give 3\.$"):
        instance("data", "3", int, "Give 3.")
    with pytest.raises(InputError, match=r"must be a dict, not the class dict itself"):
        instance("options", dict, dict, "Write dict().")
    assert instance("n", 3, int, "") == 3


@given(st.text(max_size=300))
def test_a_value_in_a_message_is_one_short_line(text):
    shown = short(text)
    assert len(shown) <= 60 and "\n" not in shown


def test_a_traced_value_is_not_printed():
    seen = []
    jax.jit(lambda x: seen.append(short(x)) or x)(1.0)
    assert seen == ["traced"]


@pytest.mark.parametrize(
    ("word", "suggested"),
    [
        ("epsilno", "epsilon"),
        ("sigm", "sigma"),
        ("lambda_", "lambda"),
        ("SIGMA", "sigma"),
        ("Lambda", "lambda"),
    ],
)
def test_a_misspelled_word_gets_the_nearest_one(word, suggested):
    assert nearest(word, ["epsilon", "sigma", "lambda"]) == f" Did you mean '{suggested}'?"


def test_a_word_like_no_other_gets_no_suggestion():
    assert nearest("q", ["epsilon", "sigma"]) == ""
    assert nearest("sigma", []) == ""


def test_a_file_that_is_not_there_is_said_with_the_folder_it_was_sought_in(tmp_path):
    with pytest.raises(FileFormatError, match="no potential file .*relative to " + str(Path.cwd())):
        existing_file(tmp_path / "nothing", "potential file")
    with pytest.raises(FileFormatError, match="is a folder, and a trajectory is needed"):
        existing_file(tmp_path, "trajectory")
    (tmp_path / "here").write_text("")
    assert existing_file(str(tmp_path / "here")) == tmp_path / "here"
