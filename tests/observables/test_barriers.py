"""Barriers, attempt frequencies and rates: closed forms, identities between both directions, differences."""

import jax
import numpy as np
import passes
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError, SaddlePointError
from mdsens.units import BOLTZMANN, THZ

NAMES = ["barrier", "attempt_frequency", "rate_400K"]


@pytest.fixture(scope="module")
def over() -> ms.Barrier:
    """The atom passes between the fixed ones."""
    return ms.barrier(passes.morse(), passes.structure(passes.UP), passes.structure(-passes.UP), images=4)


@pytest.fixture(scope="module")
def uneven() -> ms.Barrier:
    """The same with a fourth atom above: the two minima differ in energy and in frequencies."""
    fixed = np.ones((4, 3), bool)
    fixed[2, :2] = False
    at = lambda y: ms.Structure.create(
        [[-passes.HALF, 0, 0], [passes.HALF, 0, 0], [0.0, y, 0], [0.3, 4.6, 0]], ["Cu"] * 4, fixed=fixed
    )
    return ms.barrier(passes.morse(), at(passes.UP), at(-passes.UP), images=4)


def frequency(D: float, alpha: float, r0: float) -> float:
    """Vineyard's, THz: both vibrations of the minimum over that of the saddle point across the path."""
    c = passes.curvatures(D, alpha, r0)
    mass = float(passes.structure(0.0).masses[2])
    return THZ * np.sqrt(c["minimum x"] * c["minimum y"] / c["saddle x"] / mass)


THETA = (passes.D, passes.ALPHA, passes.R0)


def slopes(function, step=1e-5):
    """By the parameters, central differences of a closed form."""
    found = []
    for k in range(3):
        ends = [function(*(t + sign * step * (j == k) for j, t in enumerate(THETA))) for sign in (1, -1)]
        found.append((ends[0] - ends[1]) / (2 * step))
    return found


def test_the_attempt_frequency_is_that_of_the_closed_form(over):
    assert_allclose(over.attempt_frequency, frequency(*THETA), rtol=1e-10)


def test_barrier_frequency_and_rate_follow_the_parameters_as_the_closed_forms_do(over):
    values, jacobian = ms.first_order(over.states, NAMES, ["D0", "alpha", "r0"], mode="forward")
    expected = passes.height(*THETA), frequency(*THETA)
    boltzmann = np.exp(-expected[0] / (BOLTZMANN * 400))
    assert_allclose(values, [*expected, 1e12 * expected[1] * boltzmann], rtol=1e-9)
    # the differences are good to step² ~ 1e-10 and rounding / step ~ 1e-11
    assert_allclose(jacobian[0], slopes(passes.height), rtol=1e-8)
    assert_allclose(jacobian[1], slopes(frequency), rtol=1e-8)
    log_rate = jacobian[1] / values[1] - jacobian[0] / (BOLTZMANN * 400)
    assert_allclose(jacobian[2] / values[2], log_rate, rtol=1e-9)
    reverse = ms.first_order(over.states, "attempt_frequency", ["D0", "alpha", "r0"], mode="reverse")[1]
    assert_allclose(reverse[0], jacobian[1], rtol=1e-9)


def test_both_directions_differ_by_the_minima_alone(uneven):
    energies = [ms.observables.energy("initial"), ms.observables.energy("final")]
    names = ["barrier", "backward_barrier", "attempt_frequency", "backward_attempt_frequency"]
    values, jacobian = ms.first_order(uneven.states, [*names, *energies])
    assert abs(values[-1] - values[-2]) > 1e-3
    for part in (values, jacobian):
        assert_allclose(part[1] - part[0], part[4] - part[5], atol=1e-11)
    # the saddle point drops out: nu / nu' = sqrt(det D(initial) / det D(final)), one mass throughout
    ratio = np.sqrt(determinant(uneven.initial) / determinant(uneven.final))
    assert_allclose(values[2] / values[3], ratio, rtol=1e-10)


def determinant(state: ms.Relaxed) -> float:
    """Of the Hessian over the coordinates that move, by LAPACK."""
    matrix, _ = state.equilibrium.hessian
    free = np.asarray(state.equilibrium.gauge.free)
    return np.linalg.det(matrix[np.ix_(free, free)])


def test_sensitivities_report_passages_with_error_bars(over):
    report = ms.sensitivities(NAMES, passes.morse(), over.states, second_order=False)
    assert report.observables == tuple(NAMES)
    assert report.units == ("eV", "THz", "1/s")
    assert report.certificate["saddle"].is_transition_state
    # by the depth of the well alone: barrier ~ D, frequency ~ sqrt(D)
    elasticities = report.matrix()[:, report.parameters.index("D0")]
    assert_allclose(elasticities[:2], [1.0, 0.5], rtol=1e-9)


def test_a_check_converges_saddle_points_anew(over):
    report = ms.sensitivities("barrier", passes.morse(), over.states, second_order=False, check=True)
    assert report.check is not None and report.check.elsewhere == ()
    assert_allclose(report.check.derivative, report.derivative, rtol=1e-6)


def test_masses_enter_the_attempt_frequency_by_their_root(over):
    potential = over.saddle.potential
    initial, saddle = (heavy(state.structure) for state in (over.initial, over.saddle))
    top = ms.saddle(potential, saddle)
    slow = ms.Barrier(ms.relax(potential, initial), top, over.final, over.path).attempt_frequency
    assert_allclose(slow, over.attempt_frequency / 2, rtol=1e-10)


def heavy(structure: ms.Structure) -> ms.Structure:
    arrays = {name: getattr(structure, name) for name in ("positions", "species", "fixed")}
    return ms.Structure.create(**arrays, masses=4 * structure.masses)


def test_a_barrier_needs_a_minimum_and_a_saddle_point(over):
    states = over.states
    with pytest.raises(SaddlePointError, match="the state 'saddle' is a minimum and no saddle point"):
        ms.first_order({"initial": states["initial"], "saddle": states["final"]}, ["barrier"])
    with pytest.raises(SaddlePointError, match="the state 'initial' is a saddle point"):
        ms.first_order({"initial": states["saddle"], "saddle": states["saddle"]}, ["attempt_frequency"])
    with pytest.raises(InputError, match="measured on the state 'saddle', and there is none"):
        ms.first_order({"initial": states["initial"]}, ["barrier"])


def test_a_passage_keeps_its_atoms(over, uneven):
    with pytest.raises(InputError, match=r"of different atoms \(3 and 4\)"):
        ms.first_order({"initial": over.initial, "saddle": uneven.saddle}, ["barrier"])


@pytest.mark.parametrize("name", ["rate_K", "rate_-5K", "rate_hotK", "bariers"])
def test_names_that_are_no_passage_are_refused(over, name):
    with pytest.raises(InputError, match=r"no observable|temperature = -5"):
        ms.first_order(over.states, [name])


def test_attempt_frequencies_of_too_many_atoms_are_refused(over, monkeypatch):
    monkeypatch.setattr(ms.observables.barriers, "DENSE_LIMIT", 5)
    with pytest.raises(InputError, match="needs all vibrations of 3 atoms"):
        ms.first_order(over.states, ["attempt_frequency"])


@pytest.mark.validation
def test_a_free_cluster_turns_without_cost():
    # 7 Lennard-Jones atoms: the determinants leave six motions out, and the derivative is that of differences
    potential = ms.LennardJones(0.01, 3.0, elements=("Ar",))
    axis = [[0, 0, 1.7], [0, 0, -1.7]]
    ring = [[2.8 * np.cos(k), 2.8 * np.sin(k), 0] for k in 2 * np.pi * np.arange(5) / 5]
    start = ms.Structure.create([*axis, *ring], ["Ar"] * 7)
    minimum = ms.relax(potential, start, fmax=1e-12)
    top = ms.saddle(
        potential,
        minimum.structure,
        direction=np.asarray(minimum.equilibrium.spectrum.mode)[:21].reshape(7, 3),
    )
    names = ["attempt_frequency"]

    def measured(p):
        low = ms.relax(p, minimum.structure, fmax=1e-12)
        return ms.first_order({"initial": low, "saddle": top.again(p)}, names)

    _, jacobian = measured(potential)
    # omega² ~ epsilon / sigma²
    values, _ = measured(potential)
    assert_allclose(jacobian[0] * [0.01, 3.0], [values[0] / 2, -values[0]], rtol=1e-7)
    assert jax.numpy.isfinite(values).all()
