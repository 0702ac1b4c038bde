"""Saddle points: found from anywhere near, differentiable like minima, refused where they are none."""

import jax
import numpy as np
import passes
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError, NotConvergedError, SaddlePointError


@pytest.fixture(scope="module")
def top() -> ms.Saddle:
    """The saddle point between the fixed atoms, from a place off it."""
    return ms.saddle(passes.morse(), passes.structure(0.15, x=0.05))


def test_a_climb_from_nearby_ends_at_the_saddle_point(top):
    assert_allclose(top.structure.positions[2], 0, atol=1e-11)
    assert float(top.fmax) < 1e-10
    certificate = ms.certify(top)
    assert certificate.is_transition_state
    expected = passes.curvatures(passes.D, passes.ALPHA, passes.R0)
    assert_allclose(certificate.lowest_curvature, expected["saddle y"], rtol=1e-9)
    assert_allclose(certificate.next_curvature, expected["saddle x"], rtol=1e-9)
    assert_allclose(np.abs(top.mode[2]), [0, 1, 0], atol=1e-9)


def test_a_direction_leads_out_of_a_minimum():
    along = np.zeros((3, 3))
    along[2, 1] = 1.0
    found = ms.saddle(passes.morse(), passes.structure(passes.UP), direction=-along)
    assert_allclose(found.structure.positions[2], 0, atol=1e-10)


@pytest.mark.parametrize("mode", [jax.grad, jax.jacfwd])
def test_energy_of_a_saddle_point_follows_the_parameters(mode):
    start = passes.structure(0.1)
    slope = mode(lambda p: ms.saddle(p, start).energy)(passes.morse())
    # E = 2 phi(half) + phi(2 half): by D it is itself over D
    value = float(ms.saddle(passes.morse(), start).energy)
    assert_allclose(slope.D0, value / passes.D, rtol=1e-10)


def test_a_saddle_point_moves_with_the_fixed_atoms():
    def middle(shift):
        structure = passes.structure(0.1)
        return ms.saddle(
            passes.morse(), structure.at(structure.positions.at[0, 0].add(shift))
        ).structure.positions[2, 0]

    # the fixed atoms are alike: the pass stays half way between them
    assert_allclose(jax.grad(middle)(0.0), 0.5, rtol=1e-9)


def test_first_order_and_sensitivities_take_saddle_points_for_states(top):
    values, jacobian = ms.first_order(top, ["energy"])
    report = ms.sensitivities(["energy"], passes.morse(), top)
    assert_allclose(report.values, values, rtol=1e-12)
    assert_allclose(report.derivative, jacobian, rtol=1e-9)
    assert report.second is not None and np.isfinite(report.second).all()
    # linear in D: no second derivative
    assert_allclose(report.second[0, report.parameters.index("D0")], 0, atol=1e-6)


def test_a_minimum_is_no_saddle_point():
    with pytest.raises(SaddlePointError, match="is a minimum and no saddle point") as caught:
        ms.saddle(passes.morse(), passes.structure(passes.UP), max_steps=1, fmax=1.0)
    assert isinstance(caught.value.partial, ms.Saddle)


def test_two_negative_modes_are_refused():
    # an atom in the middle of a ring too wide for it wants to leave along both x and y
    ring = [[3.4 * np.cos(k), 3.4 * np.sin(k), 0] for k in np.arange(6) * np.pi / 3]
    fixed = np.ones((7, 3), bool)
    fixed[6, :2] = False
    middle = ms.Structure.create([*ring, [0, 0, 0]], ["Cu"] * 7, fixed=fixed)
    with pytest.raises(SaddlePointError, match=r"higher order.*two modes or more"):
        ms.saddle(passes.morse(), middle)
    found = ms.saddle(passes.morse(), middle, check_saddle=False)
    assert not ms.certify(found).is_transition_state


def test_a_climb_that_does_not_arrive_says_how_far_it_came():
    with pytest.raises(NotConvergedError, match=r"after 1 steps.*above fmax") as caught:
        ms.saddle(passes.morse(), passes.structure(0.15, x=0.05), max_steps=1)
    assert caught.value.partial.fmax > 1e-10


@pytest.mark.parametrize(
    "options, words",
    [
        ({"direction": np.ones((2, 3))}, r"direction has the shape \(2, 3\)"),
        ({"direction": "up"}, "give a move of each atom"),
        ({"direction": np.zeros((3, 3))}, "not zero"),
        ({"fmax": 0.0}, "fmax = 0.0"),
        ({"max_steps": 0}, "max_steps = 0"),
        ({"images": 5}, "images: options of a path, which needs an end"),
        ({"linear_solver": "dense"}, "linear_solver must be"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(InputError, match=words):
        ms.saddle(passes.morse(), passes.structure(0.1), **options)


def test_a_path_has_its_own_direction():
    with pytest.raises(InputError, match="direction and end are both given"):
        ms.saddle(passes.morse(), passes.structure(1.0), passes.structure(-1.0), direction=np.ones((3, 3)))


def test_a_saddle_point_beyond_dense_hessians_is_the_same(monkeypatch, top):
    from mdsens.relaxation import equilibrium

    monkeypatch.setattr(equilibrium, "DENSE_LIMIT", 0)
    found = ms.saddle(passes.morse(), passes.structure(0.14, x=0.05))
    assert_allclose(found.structure.positions[2], 0, atol=1e-9)
    assert ms.certify(found).is_transition_state
    jacobian = ms.first_order(found, ["energy"])[1]
    assert_allclose(jacobian, ms.first_order(top, ["energy"])[1], rtol=1e-8)
