"""What was relaxed is remembered by the numbers it was made of, up to a size, the latest longest."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from mdsens.relaxation import memory


class Kept(NamedTuple):
    name: str
    nbytes: int


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(memory, "_remembered", type(memory._remembered)())


def finder():
    calls = []

    def find(name, size=1):
        def run():
            calls.append(name)
            return Kept(name, size)

        return run

    return find, calls


def test_the_same_numbers_are_found_once_whatever_arrays_they_are_in():
    find, calls = finder()
    one = memory.remember({"x": np.arange(3.0)}, "options", find("a"))
    again = memory.remember({"x": jnp.arange(3.0)}, "options", find("a"))
    assert again is one
    assert calls == ["a"]


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ({"x": np.array([0.0, 1.0, 2.0 + 1e-15])}, "options"),
        ({"x": np.arange(3.0).reshape(3, 1)}, "options"),
        ({"x": np.arange(3)}, "options"),
        ({"y": np.arange(3.0)}, "options"),
        ({"x": np.arange(3.0)}, "others"),
    ],
    ids=["value", "shape", "type", "name", "options"],
)
def test_another_value_shape_type_name_or_option_is_another_relaxation(inputs, options):
    find, calls = finder()
    memory.remember({"x": np.arange(3.0)}, "options", find("a"))
    memory.remember(inputs, options, find("b"))
    assert calls == ["a", "b"]


def test_what_was_asked_for_longest_ago_is_forgotten_first(monkeypatch):
    monkeypatch.setattr(memory, "SIZE", 10)
    find, calls = finder()
    ask = lambda name, size=4: memory.remember(np.array([float(ord(name))]), None, find(name, size))
    ask("a"), ask("b"), ask("a")
    ask("c")  # twelve bytes: b goes
    ask("a"), ask("c")
    assert calls == ["a", "b", "c"]
    ask("b")
    assert calls == ["a", "b", "c", "b"]


def test_one_result_larger_than_the_memory_is_kept_until_the_next(monkeypatch):
    monkeypatch.setattr(memory, "SIZE", 10)
    find, calls = finder()
    ask = lambda name: memory.remember(np.array([float(ord(name))]), None, find(name, 1000))
    ask("a"), ask("a"), ask("b"), ask("a")
    assert calls == ["a", "b", "a"]


def test_an_error_is_not_remembered_and_forgetting_empties_all():
    find, calls = finder()

    def fails():
        raise ValueError("no minimum")

    with pytest.raises(ValueError, match="no minimum"):
        memory.remember(np.zeros(1), None, fails)
    memory.remember(np.zeros(1), None, find("a"))
    memory.forget()
    memory.remember(np.zeros(1), None, find("a"))
    assert calls == ["a", "a"]


class Grows:
    """What is kept of a state grows while it is used."""

    nbytes = 1


def test_what_has_grown_since_it_was_found_is_weighed_again(monkeypatch):
    monkeypatch.setattr(memory, "SIZE", 10)
    first = Grows()
    found = memory.remember(np.array([1.0]), None, lambda: first)
    found.nbytes = 9
    find, calls = finder()
    memory.remember(np.array([2.0]), None, find("b", 4))
    memory.remember(np.array([1.0]), None, find("a"))
    assert calls == ["b", "a"]
