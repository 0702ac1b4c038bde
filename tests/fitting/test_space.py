"""Free parameters as one vector: names and patterns, scales, bounds, ties, priors; and its derivative."""

import numpy as np
import pytest

import mdsens as ms
from mdsens.errors import InputError
from mdsens.fitting import ParameterSpace
from mdsens.fitting.terms import PriorTerm

ALLOY = ms.LennardJones(
    epsilon=[0.01, 0.02, 0.03], sigma=[3.0, 3.1, 3.2], elements=("Ne", "Ar"), cutoff_radius=8.0
)
SILICON = ms.load_potential("si-stillinger-weber-1985")


@pytest.mark.parametrize(
    ("free", "names"),
    [
        (None, ("epsilon[Ne-Ne]", "epsilon[Ne-Ar]", "epsilon[Ar-Ar]", "sigma[Ne-Ne]")),
        ("epsilon", ("epsilon[Ne-Ne]", "epsilon[Ne-Ar]", "epsilon[Ar-Ar]")),
        (["*[Ne-*]"], ("epsilon[Ne-Ne]", "epsilon[Ne-Ar]", "sigma[Ne-Ne]", "sigma[Ne-Ar]")),
        (["sigma[Ar-Ar]", "epsilon[Ne-A?]"], ("sigma[Ar-Ar]", "epsilon[Ne-Ar]")),
    ],
)
def test_parameters_are_freed_by_name_by_array_or_by_pattern(free, names):
    assert ParameterSpace.of(ALLOY, free).names[: len(names)] == names


def test_frozen_parameters_do_not_change():
    space = ParameterSpace.of(SILICON, frozen=["a", "p", "q", "costheta0"])
    assert space.names == ("epsilon", "sigma", "lambda", "gamma", "A", "B")


def test_the_start_of_a_space_is_its_potential():
    space = ParameterSpace.of(SILICON)
    assert ms.parameter_values(space.at(space.start)) == pytest.approx(
        ms.parameter_values(SILICON), rel=1e-15
    )


def test_a_step_of_a_tenth_is_about_ten_percent_of_every_parameter():
    space = ParameterSpace.of(SILICON, frozen="q")
    there = space.theta(space.start + 0.1) / space.theta(space.start)
    np.testing.assert_allclose(there, [np.exp(0.1) if v.log else 1.1 for v in space.variables], rtol=1e-14)
    assert {v.name for v in space.variables if v.log} >= {"epsilon", "sigma"}


def test_tied_parameters_keep_their_ratios():
    space = ParameterSpace.of(ALLOY, "epsilon", ties=["epsilon"])
    assert space.names == ("epsilon[Ne-Ne]",)
    values = space.theta(space.start + 0.3)
    np.testing.assert_allclose(values / values[0], [1, 2, 3], rtol=1e-14)


def test_derivative_of_the_map_is_that_of_differences():
    space = ParameterSpace.of(
        ALLOY, ties=[("epsilon[Ne-Ne]", "epsilon[Ar-Ar]")], scale={"sigma": "linear", "epsilon": "log"}
    )
    z, rng = space.start + 0.1, np.random.default_rng(0)
    step = 1e-6 * rng.normal(size=len(z))
    change = space.theta(z + step) - space.theta(z - step)
    np.testing.assert_allclose(2 * space.push(z, step), change, rtol=1e-8)
    rows = rng.normal(size=(3, len(space.parameters)))
    np.testing.assert_allclose(space.pull(z, rows) @ step, rows @ space.push(z, step), rtol=1e-12)


def test_bounds_of_the_form_and_of_the_user_hold_together():
    space = ParameterSpace.of(SILICON, ["epsilon", "costheta0"], bounds={"epsilon": (1.0, None)})
    lower, upper = space.bounds
    assert space.values(lower)[0] == pytest.approx(1.0)
    assert upper[0] == np.inf
    # costheta0 is negative at the start: z runs the other way
    ends = [space.values(np.array([0.0, end]))[1] for end in (upper[1], lower[1])]
    assert ends == pytest.approx([-1.5, 1.5])
    ms.check_parameters(space.at(np.array([0.0, lower[1]])))


def test_a_prior_is_gaussian_in_the_scale_of_its_variable():
    space = ParameterSpace.of(
        SILICON, ["epsilon", "costheta0"], priors={"epsilon": (2.0, 0.05), "costheta0": (None, 0.1)}
    )
    z = space.start
    value = PriorTerm(space).evaluate(space.at(z), space.parameters, {})
    np.testing.assert_allclose(value.residuals, [np.log(2.1683 / 2) / 0.05, 0.0], atol=1e-14)
    np.testing.assert_allclose(space.pull(z, value.jacobian), [[1 / 0.05, 0], [0, -1 / 3 / 0.1]], rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"free": []}, "no parameter is free"),
        ({"free": ["epsilonn"]}, "free: there is no parameter 'epsilonn'. Did you mean 'epsilon'"),
        ({"frozen": ["lamda"]}, "frozen: there is no parameter 'lamda'. Did you mean 'lambda'"),
        ({"bounds": {"epsilon": (3.0, 4.0)}}, "epsilon = 2.1683 eV lies outside 3 to 4 at the start"),
        ({"bounds": {"epsilon": (4.0, 3.0)}}, "the lowest must be below the highest"),
        ({"bounds": {"epsilon": 3.0}}, "give two numbers, lowest and highest"),
        ({"scale": "ln"}, "scale: 'ln' of epsilon is unknown: use one of auto, log, linear"),
        ({"scale": {"q": "log"}}, "q is zero and has no logarithm"),
        ({"ties": [("p", "q")]}, "ties: q is zero, and has no ratio to p"),
        ({"ties": [("p", "a"), ("a", "A")]}, "the parameter a is in two ties"),
        ({"free": ["p"], "ties": [("p", "a")]}, "ties: the parameter a is not free"),
        ({"priors": {"epsilon": (2.0, 0.0)}}, "the width = 0.0: it must be finite and above 0"),
        ({"priors": {"epsilon": (-2.0, 0.1)}}, "the mean -2 has another sign than 2.1683"),
        ({"free": ["a"], "priors": {"p": (4.0, 0.1)}}, "priors: there is no parameter 'p'"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(").replace(")", r"\)")):
        ParameterSpace.of(SILICON, **options)
