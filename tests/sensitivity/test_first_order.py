"""First derivatives of known states: which mode is chosen, what is refused, what a failed solve says."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import states

import mdsens as ms
from mdsens.errors import InputError, NonFiniteError, NotConvergedError
from mdsens.sensitivity.first_order import Parts, checked_derivative, chosen_mode


def problem(parameters: int, numbers: int) -> Any:
    selection = SimpleNamespace(names=tuple(f"p{k}" for k in range(parameters)))
    return SimpleNamespace(selection=selection, names=tuple(f"O{k}" for k in range(numbers)))


@pytest.mark.parametrize(
    ("parameters", "numbers", "mode"), [(2, 3, "forward"), (3, 3, "forward"), (3, 2, "reverse")]
)
def test_the_mode_with_fewer_solves_is_chosen_and_forward_where_both_have_as_many(parameters, numbers, mode):
    assert chosen_mode(problem(parameters, numbers), None) == mode


def test_a_mode_that_is_none_is_refused():
    assert chosen_mode(problem(3, 2), "forward") == "forward"
    with pytest.raises(InputError, match="mode 'backward' is unknown: use 'forward', 'reverse' or None"):
        chosen_mode(problem(3, 2), "backward")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_derivative_that_is_not_finite_is_named_whichever_part_it_is_in(bad):
    clamped, relaxation = np.ones((2, 3)), np.ones((2, 3))
    parts = Parts(clamped, relaxation, {}, {}, {})
    np.testing.assert_array_equal(checked_derivative(problem(3, 2), parts), 2.0)
    relaxation[1, 2] = bad
    with pytest.raises(NonFiniteError, match=f"the derivative of O1 by p2 is {bad}"):
        checked_derivative(problem(3, 2), parts)


def test_a_linear_solve_that_does_not_converge_is_an_error_of_ours_that_names_the_state():
    potential, structure = states.copper()
    relaxed = ms.relax(potential, structure)
    hurried = ms.ConjugateGradient(max_steps=1)
    message = r"a linear solve of the derivatives did not converge. The softest mode, of the state 'crystal'"
    for mode in ("forward", "reverse"):
        with pytest.raises(NotConvergedError, match=message) as error:
            ms.first_order({"crystal": relaxed}, "energy", ["alpha"], mode=mode, linear_solver=hurried)
        assert error.value.partial is relaxed.equilibrium.certificate
