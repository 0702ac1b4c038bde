"""Observables written as calls."""

import pickle
from fractions import Fraction

import pytest

from mdsens.errors import InputError
from mdsens.observables import named


def test_a_call_makes_the_observable_that_it_names():
    text = "phonon(q=[1/2, 0, 0.5], modes=[1, 2])"
    (found,) = named([text], "bulk")
    assert found.names == (text,) and found.units == ("THz",) and found.states == ("bulk",)
    modes = found.function.modes
    assert modes.q == (Fraction(1, 2), 0, Fraction(1, 2)) and modes.numbers == (1, 2)
    assert pickle.loads(pickle.dumps(found)) == found


def test_calls_and_names_stand_side_by_side():
    found = named(["C11", "gamma_phonon(rank=2)", "energy", "lattice_constant(cells=4)"])
    assert [o.names[0] for o in found] == [
        "gamma_phonon(rank=2)",
        "energy",
        "lattice_constant(cells=4)",
        "C11",
    ]


WRONG = {
    "fonon(q=[0, 0, 0])": r"no observable 'fonon' with arguments.*Did you mean 'phonon'",
    "phonon(k=[0, 0, 0])": r"phonon has no argument 'k'.*It takes q, mode, modes",
    "phonon(mode=1)": "missing a required argument: 'q'|missing 1 required positional argument: 'q'",
    "phonon([0, 0, 0], 1, [1], 's', 5, 6, 7, 8)": "and 8 are given",
    "phonon(q=[0, 0, 1/0])": "'1/0' in .* is no fraction",
    "phonon(q=[0, 0, 2**3])": r"'2 \*\* 3' in .*: write numbers, fractions",
    "phonon(q=[0, 0, 0]": "is no observable: write a name, or a call",
    "phonon(q=[0, 0, 0], mode=0)": "mode = 0: give a whole number, 1 or more",
    "phonon(q=[0, 0])": r"q = \[0, 0\]: give three fractions",
    "phonon(q=[0, 0, 'x'])": "q: 'x' is no fraction",
    "phonon(q=[0, 0, 0.3001])": r"commensurate with no supercell.*The nearest that are: \[0, 0, 1/3\]",
    "phonon(q=[0, 0, 0], mode=1, modes=[1])": "mode and modes are both given",
    "phonon(q=[0, 0, 0], modes=1)": "modes = 1: give numbers of equal modes",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(InputError, match=WRONG[text]):
        named([text])
