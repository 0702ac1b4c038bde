"""Branches of states: folds and bifurcations where closed forms have them; every point a relaxed state."""

import numpy as np
import passes
import pytest
from continuation_crystal import EPSILON, SIGMA, crystal, nearest_only, spinodal
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.continuation import AlongParameter, AlongPressure, AlongStrain
from mdsens.errors import InputError, NotConvergedError


@pytest.fixture(scope="module")
def torn() -> ms.Branch:
    """The crystal is pulled until it tears."""
    end = 1.3 * spinodal()[0]
    return ms.follow(
        nearest_only(), crystal(), "pressure", end, cell="isotropic", observables=["volume", "energy"]
    )


def test_a_crystal_tears_at_its_spinodal(torn):
    pressure, volume = spinodal()
    assert not torn.finished
    assert torn.fold is not None
    assert_allclose(torn.fold.s, pressure, rtol=1e-9)
    assert_allclose(ms.volume(torn.fold.structure), volume, rtol=1e-6)
    assert [event.kind for event in torn.events] == ["fold"]
    assert torn.points[-1].lowest < 0.3 * torn.points[0].lowest


def test_every_point_of_a_branch_is_a_relaxed_state(torn):
    middle = torn.points[len(torn.points) // 2]
    pressure, volume = middle.s, middle.values[0]
    A = 96 * EPSILON * (np.sqrt(2) * SIGMA) ** 12
    B = 96 * EPSILON * (np.sqrt(2) * SIGMA) ** 6
    assert_allclose(4 * A / volume**5 - 2 * B / volume**3, pressure, rtol=1e-8)
    assert_allclose(middle.values[1], A / volume**4 - B / volume**2, rtol=1e-10)
    # dV/dp and d2V/dp2 of the closed form
    slope = 1 / (-20 * A / volume**6 + 6 * B / volume**4)
    bend = -(120 * A / volume**7 - 24 * B / volume**5) * slope**3
    assert_allclose(middle.slopes[0], slope, rtol=1e-7)
    assert_allclose(middle.bends[0], bend, rtol=1e-6)
    # along a pressure dE = -p dV
    assert_allclose(middle.slopes[1], -pressure * slope, rtol=1e-7)


def test_second_order_predicts_better_than_first(torn):
    start, near = torn.points[0], torn.points[2]
    off = [abs(start.predicted(near.s, order)[0] - near.values[0]) for order in (1, 2)]
    assert off[1] < 0.4 * off[0]


def test_a_parameter_leads_to_the_same_fold():
    # p scales as epsilon / sigma³: under a given tension the crystal tears when epsilon falls
    pressure = 0.8 * spinodal()[0]
    found = ms.follow(
        nearest_only(),
        crystal(),
        "epsilon",
        0.5 * EPSILON,
        cell="isotropic",
        pressure=pressure,
        observables="volume",
    )
    assert_allclose(found.fold.s, 0.8 * EPSILON, rtol=1e-9)


def test_a_strain_that_is_followed_gives_the_energy_of_strained_crystals():
    potential = nearest_only()
    branch = ms.follow(potential, crystal(), "strain", -0.02)
    assert branch.finished
    r = 2 ** (1 / 6) * SIGMA * (1 + branch.s)
    expected = 96 * EPSILON * ((SIGMA / r) ** 12 - (SIGMA / r) ** 6)
    assert_allclose(branch.values[:, 0], expected, rtol=1e-10)
    assert_allclose(branch.points[-1].structure.cell, 0.98 * np.asarray(crystal().cell), rtol=1e-12)


def test_pairs_that_come_into_reach_are_reported():
    # the 12 second neighbors per cube of an fcc crystal come within 3.9 Å
    branch = ms.follow(nearest_only(ms.ForceShifted(), cutoff=3.9), crystal(), "strain", -0.03)
    contacts = [event for event in branch.events if event.kind == "contacts"]
    assert len(contacts) == 1 and "12 pairs came into reach" in contacts[0].text
    assert (branch.points[0].contacts, branch.points[-1].contacts) == (24, 36)


def test_a_minimum_that_goes_on_as_a_saddle_point_is_a_bifurcation():
    # between atoms closer than r0 the third one leaves the middle: curvature 2 phi'(half) / half
    branch = ms.follow(passes.morse(r0=2.1), passes.structure(0.0), "r0", 2.4)
    assert not branch.finished and branch.fold is None
    assert [event.kind for event in branch.events] == ["bifurcation"]
    assert_allclose(branch.events[0].s, passes.HALF, atol=1e-7)


def two_wells() -> tuple[ms.Morse, ms.Structure]:
    """An argon atom on a line between copper and silver, at the copper."""
    pairs = [0.1, 0.3, 0.1, 0.1, 0.3, 0.1]  # Ag-Ag, Ag-Ar, Ag-Cu, Ar-Ar, Ar-Cu, Cu-Cu
    potential = ms.Morse(
        pairs, [1.5] * 6, [2.5] * 6, elements=("Ag", "Ar", "Cu"), cutoff_radius=12.0, cut=ms.Truncated()
    )
    fixed = np.ones((3, 3), bool)
    fixed[1, 0] = False
    return potential, ms.Structure.create(
        [[0, 0, 0], [2.5, 0, 0], [6.5, 0, 0]], ["Cu", "Ar", "Ag"], fixed=fixed
    )


def critical_depth() -> float:
    """D of Ar-Cu at which the well at the copper is gone: both derivatives of E(x) vanish."""
    from scipy.optimize import brentq

    slope = lambda r: 2 * 1.5 * np.exp(-1.5 * (r - 2.5)) * (1 - np.exp(-1.5 * (r - 2.5)))
    bend = lambda r: 2 * 1.5**2 * np.exp(-1.5 * (r - 2.5)) * (2 * np.exp(-1.5 * (r - 2.5)) - 1)
    # D phi'(x) = 0.3 phi'(6.5 - x),  D phi''(x) = -0.3 phi''(6.5 - x)
    at = brentq(lambda x: slope(6.5 - x) * bend(x) + bend(6.5 - x) * slope(x), 2.6, 3.2)
    return 0.3 * slope(6.5 - at) / slope(at)


def test_beyond_a_fold_the_state_falls_into_another_minimum_if_asked_to():
    potential, start = two_wells()
    critical = critical_depth()
    end = 0.5 * critical
    branch = ms.follow(potential, start, "D0[Ar-Cu]", end, switch=True)
    assert [event.kind for event in branch.events] == ["fold", "switch"]
    assert branch.finished
    assert_allclose(branch.fold.s, critical, rtol=1e-8)
    assert_allclose(branch.points[-1].structure.positions[1, 0], 4.0, atol=0.05)
    stopped = ms.follow(potential, start, "D0[Ar-Cu]", end)
    assert not stopped.finished and len(stopped.points) < len(branch.points)


def test_a_branch_is_shown_and_kept(torn, tmp_path):
    table = torn.table()
    assert table.row_count == len(torn.points)
    torn.plot(tmp_path / "branch.png")
    assert (tmp_path / "branch.png").stat().st_size > 0
    torn.to_hdf5(tmp_path / "branch.h5")
    content = ms.read_hdf5(tmp_path / "branch.h5", kind="branch")
    assert_allclose(content["s"].value, torn.s)
    assert_allclose(content["fold"]["s"], torn.fold.s)
    assert list(content["events"]["kind"]) == ["fold"]


@pytest.mark.parametrize(
    "along, options, words",
    [
        ("pressure", {}, "a pressure moves nothing while the cell is held"),
        ("strain", {"cell": "isotropic"}, "here strains are free"),
        ("epsilom", {}, "no parameter 'epsilom' to follow along. Did you mean 'epsilon'"),
        ("strain_xq", {}, "strain component 'xq' is unknown"),
        (3, {}, "along = 3: give the name"),
        ("epsilon", {"end": EPSILON}, "that is where the branch begins"),
        ("epsilon", {"largest_step": 0.0}, "largest_step = 0.0"),
        ("epsilon", {"max_points": 1}, "max_points = 1"),
    ],
)
def test_what_cannot_be_followed_is_refused(along, options, words):
    end = options.pop("end", 0.2)
    with pytest.raises(InputError, match=words):
        ms.follow(nearest_only(), crystal(), along, end, **options)


def test_a_cluster_has_no_strain():
    with pytest.raises(InputError, match="this structure has none"):
        ms.follow(passes.morse(), passes.structure(passes.UP), AlongStrain("xx"), 0.1)


def test_a_branch_with_too_many_points_says_so():
    with pytest.raises(NotConvergedError, match="max_points = 2 points") as caught:
        ms.follow(nearest_only(), crystal(), AlongParameter("epsilon"), 0.2, max_points=2)
    assert len(caught.value.partial.points) == 2


def test_controls_name_what_they_turn():
    assert (AlongPressure().name, AlongPressure().unit) == ("pressure", "eV/Å³")
    assert AlongStrain("xy").name == "strain_xy"
    assert_allclose(AlongStrain("xy").tensor, AlongStrain("xy").tensor.T)
