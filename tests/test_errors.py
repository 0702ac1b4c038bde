"""Errors: one base, the classes that other code expects, and results that survive being sent about."""

import inspect
import pickle

import pytest

from mdsens import errors

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
WITH_PARTIAL = (
    errors.NonFiniteError,
    errors.NotConvergedError,
    errors.SaddlePointError,
    errors.ConformanceError,
    errors.TimestepError,
    errors.CellCollapseError,
)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_caught_by_the_base_and_says_its_message(kind):
    error = kind("what happened, and what to do")
    assert isinstance(error, errors.MDSensError)
    assert str(error) == "what happened, and what to do"
    assert inspect.getdoc(kind)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_can_be_sent_from_another_process(kind):
    again = pickle.loads(pickle.dumps(kind("message")))
    assert type(again) is kind and str(again) == "message"


@pytest.mark.parametrize(
    ("kind", "usual"),
    [
        (errors.InputError, ValueError),
        (errors.FileFormatError, ValueError),
        (errors.OutputExistsError, FileExistsError),
        (errors.WriteError, OSError),
        (errors.TracedError, TypeError),
        (errors.ForkError, RuntimeError),
        (errors.ConformanceError, AssertionError),
    ],
)
def test_code_that_knows_the_errors_of_python_catches_them(kind, usual):
    with pytest.raises(usual):
        raise kind("message")


@pytest.mark.parametrize("kind", WITH_PARTIAL)
def test_what_was_reached_travels_with_the_error(kind):
    error = kind("message", {"reached": 3})
    assert error.partial == {"reached": 3}
    assert pickle.loads(pickle.dumps(error)).partial == {"reached": 3}
    assert kind("message").partial is None
