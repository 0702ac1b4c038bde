"""What a sensitivity may be asked for: states, parameters and observables, each refused by its name."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import mdsens as ms
from mdsens.errors import InputError
from mdsens.relaxation.equilibrium import Equilibrium
from mdsens.sensitivity.problem import (
    SensitivityProblem,
    chosen_observables,
    equilibria_of,
    main_state,
    select,
)

ARGON = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5)
PAIR = ms.Structure.create([[0.0, 0, 0], [3.8, 0, 0]], ["Ar"] * 2)
STATE = Equilibrium.at(ARGON, PAIR)


@pytest.mark.parametrize(
    ("names", "state"),
    [
        (("anything",), "anything"),
        (("structure", "other"), "structure"),
        (("defect", "bulk"), "bulk"),
        (("bulk", "structure"), "structure"),
    ],
)
def test_names_are_measured_on_the_state_that_is_meant(names, state):
    assert main_state(names) == state


def test_where_no_state_is_meant_the_observable_must_say_its_own():
    with pytest.raises(InputError, match=r"the states are one, other: name one of them so, or pass"):
        main_state(("one", "other"))


def test_parameters_are_all_or_those_named_in_their_order():
    assert select(ARGON, None).names == ("epsilon", "sigma")
    assert select(ARGON, ["sigma"]).names == ("sigma",)
    chosen = select(ARGON, ["sigma", "epsilon"])
    np.testing.assert_array_equal(chosen.values(ARGON), [3.405, 0.0104])
    assert ms.parameter_values(chosen.replaced(ARGON, jnp.array([3.5, 0.01])))["sigma"] == 3.5


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            [],
            "no parameters to differentiate by: leave parameters out for all, or name some of epsilon, sigma",
        ),
        ("sigma", r"parameters = 'sigma': give a list of names, such as \['sigma'\]"),
        (["sigm"], "has no parameter 'sigm'. Did you mean 'sigma'"),
        (["epsilon", "sigma", "epsilon"], "the parameter epsilon is named 2 times: name each once"),
        ([3], "has no parameter '3'"),
    ],
)
def test_parameters_that_are_none_are_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        select(ARGON, parameters)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ({}, "no states are given: pass one relaxed state, or several by name"),
        (PAIR, r"the state 'structure' must be a Relaxed, not Structure .*mdsens\.relax"),
        ({"bulk": None}, "the state 'bulk' must be a Relaxed, not NoneType"),
        ({"bulk": STATE, "defect": ARGON}, "the state 'defect' must be a Relaxed, not LennardJones"),
    ],
)
def test_what_is_no_state_is_refused_with_the_call_that_makes_one(states, message):
    with pytest.raises(InputError, match=message):
        equilibria_of(states)


def test_one_state_is_called_structure():
    assert list(equilibria_of(STATE)) == ["structure"]
    assert list(equilibria_of({"a": STATE, "b": STATE})) == ["a", "b"]


@pytest.mark.parametrize(
    ("observables", "message"),
    [
        ([], r"no observables are given: name some, such as \[\"energy\", \"volume\"\]"),
        (["energi"], "no observable 'energi'. Did you mean 'energy'"),
        ([3], "an observable must be an Observable, not int"),
        ([None], "an observable must be an Observable, not NoneType"),
        ([abs], "an observable must be an Observable"),
    ],
)
def test_what_is_no_observable_is_refused(observables, message):
    with pytest.raises(InputError, match=message):
        chosen_observables(observables, ("structure",))


def test_one_name_or_one_observable_needs_no_list():
    (one,) = chosen_observables("energy", ("structure",))
    (same,) = chosen_observables(one, ("structure",))
    assert one.names == same.names == ("energy",)


def test_elastic_constants_that_follow_each_other_are_one_observable():
    chosen = chosen_observables(["C11", "C12", "energy", "C44"], ("structure",))
    assert [observable.names for observable in chosen] == [("C11", "C12"), ("energy",), ("C44",)]


def test_a_problem_looks_once_at_its_states():
    problem = SensitivityProblem.of(STATE, ["energy"], None)
    assert problem.names == ("energy",) and problem.units == ("eV",)
    assert problem.views is problem.views and problem.theta is problem.theta
    assert float(problem.values()[0]) == pytest.approx(float(ms.energy(ARGON, PAIR)), rel=1e-12)


def test_an_observable_is_traced_once_for_states_of_one_shape():
    traced = []

    def length(potential, states):
        traced.append(states["structure"].structure.n_atoms)
        return (jnp.linalg.norm(states["structure"].structure.positions[1]),)

    observable = ms.Observable(("length",), ("Å",), length)
    farther = Equilibrium.at(ARGON, PAIR.at(1.1 * PAIR.positions))
    for state in (STATE, farther, STATE):
        assert SensitivityProblem.of(state, observable, None).names == ("length",)
    assert traced == [2]
    # states of another size are looked at anew
    three = ms.Structure.create([[0.0, 0, 0], [3.8, 0, 0], [0, 3.8, 0]], ["Ar"] * 3)
    SensitivityProblem.of(Equilibrium.at(ARGON, three), observable, None)
    assert traced == [2, 3]


def test_an_observable_without_a_hash_is_looked_at_each_time():
    @dataclasses.dataclass
    class Scaled:
        factors: list[float]

        def __call__(self, potential, states):
            return [factor * states["structure"].structure.positions[1, 0] for factor in self.factors]

    observable = ms.Observable(("once", "twice"), ("Å", "Å"), Scaled([1.0, 2.0]))
    for _ in range(2):
        assert SensitivityProblem.of(STATE, observable, None).names == ("once", "twice")
