"""Barriers between minima: against closed forms, against saddle points found anew, and with themselves."""

import ase.build
import jax
import numpy as np
import passes
import pytest
from continuation_crystal import crystal, nearest_only
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError, SaddlePointError
from mdsens.saddles import in_order, interpolate
from mdsens.saddles.barrier import _climbing_image, _minimum

ENDS = passes.structure(passes.UP), passes.structure(-passes.UP)


def vacancy_hop(host: ase.Atoms, neighbor: int = 1) -> tuple[ms.Structure, ms.Structure]:
    """A vacancy at atom 0, and where its nearest atom has hopped into it; with one order of atoms."""
    order = np.argsort(host.get_all_distances(mic=True)[0])
    hopping = int(order[neighbor])
    start, end = host.copy(), host.copy()
    end.positions[hopping] = host.positions[0]
    del start[0], end[0]
    return ms.Structure.from_ase(start), ms.Structure.from_ase(end)


COPPER = vacancy_hop(ase.build.bulk("Cu", cubic=True, a=3.615) * (2, 2, 2))


@pytest.fixture(scope="module")
def hop() -> ms.Barrier:
    """A vacancy in copper hops."""
    return ms.barrier(ms.load_potential("cu-gupta-1993"), *COPPER, images=3, band_fmax=0.3)


@pytest.fixture(scope="module")
def over() -> ms.Barrier:
    """The atom passes between the fixed ones, on a band that begins crooked."""
    return ms.barrier(passes.morse(), *ENDS, images=4)


def test_a_barrier_is_that_of_the_closed_form(over):
    assert_allclose(over.forward, passes.height(passes.D, passes.ALPHA, passes.R0), rtol=1e-11)
    assert_allclose(over.backward, over.forward, rtol=1e-11)
    assert_allclose(over.initial.structure.positions[2], [0, passes.UP, 0], atol=1e-9)


@pytest.mark.parametrize("mode", [jax.grad, jax.jacfwd])
def test_derivatives_of_a_barrier_are_those_of_the_closed_form(mode):
    slope = mode(lambda p: ms.barrier(p, *ENDS, images=4).forward)(passes.morse())
    D, alpha, r0, half = passes.D, passes.ALPHA, passes.R0, passes.HALF
    e = np.exp(-alpha * (half - r0))
    assert_allclose(slope.D0, 2 * (1 - e) ** 2, rtol=1e-10)
    assert_allclose(slope.alpha, 4 * D * (1 - e) * e * (half - r0), rtol=1e-10)
    assert_allclose(slope.r0, -4 * D * (1 - e) * e * alpha, rtol=1e-10)


def test_a_vacancy_in_copper_hops_over_one_negative_mode(hop):
    # Cleri and Rosato's copper, 31 atoms at 3.615 Å: as many programs find, about 0.7 eV
    assert 0.6 < float(hop.forward) < 0.8
    assert ms.certify(hop.saddle).is_transition_state
    assert float(hop.saddle.fmax) < 1e-10
    assert_allclose(hop.backward, hop.forward, atol=1e-9)  # both vacancies are alike


def test_derivatives_of_a_copper_barrier_are_those_of_saddle_points_found_anew(hop):
    states, potential = hop.states, hop.saddle.potential
    _, jacobian = ms.first_order(states, [ms.observables.energy("saddle"), ms.observables.energy("initial")])
    names = list(ms.parameter_values(potential))
    slope = jacobian[0] - jacobian[1]
    for name in ("xi[Cu-Cu]", "q[Cu-Cu]") if "xi[Cu-Cu]" in names else ("xi", "q"):
        value, step = ms.parameter_values(potential)[name], 1e-4
        height = []
        for sign in (1, -1):
            changed = ms.replace_parameters(potential, {name: value * (1 + sign * step)})
            minimum = ms.relax(changed, hop.initial.structure, fmax=1e-10)
            height.append(float(hop.saddle.again(changed).energy - minimum.energy))
        twin = (height[0] - height[1]) / (2 * step * value)
        # truncation step², rounding 1e-13 / 1e-4
        assert_allclose(slope[names.index(name)], twin, rtol=1e-6)


def test_the_path_starts_and_ends_at_the_minima_and_climbs_in_between(over):
    path = over.path
    assert path.highest in (2, 3) and path.climbing == path.highest
    assert_allclose(path.energies[[0, -1]], float(over.initial.energy), atol=1e-9)
    assert path.intermediate_minima == []
    assert path.distances[0] == 0 and np.all(np.diff(path.distances) > 0)
    assert_allclose(path.energies.max() - path.energies[0], float(over.forward), atol=2e-3)


def test_ends_relaxed_with_their_cell_are_relaxed_again_with_it_held():
    # else a minimum would answer a change of the potential by its cell, and the saddle point would not
    potential = nearest_only()
    free = ms.relax(potential, crystal(), cell="isotropic")
    held = _minimum(potential, free, free.structure, None)
    assert len(held.basis) == 0 and len(free.basis) == 1
    assert _minimum(potential, held, held.structure, None) is held


def test_saddle_between_two_minima_is_that_of_the_barrier(over):
    assert_allclose(ms.saddle(passes.morse(), *ENDS, images=4).energy, over.saddle.energy, rtol=1e-12)


def test_an_interpolated_path_keeps_atoms_apart():
    # an atom moves straight through another one
    start = ms.Structure.create([[0, 0, 0], [0.05, 2.5, 0.0], [0, 5, 0]], ["Cu"] * 3)
    end = ms.Structure.create([[0, 5.0, 0], [0.05, 2.5, 0.0], [0, 0, 0]], ["Cu"] * 3)
    images = interpolate(start, end, 3)
    apart = [np.linalg.norm(x[:, None] - x[None], axis=2)[np.triu_indices(3, 1)].min() for x in images]
    assert min(apart) > 1.5
    assert_allclose(images[0], start.positions)


def test_ends_wrapped_into_the_cell_are_unwrapped():
    start, end = COPPER
    cell = np.asarray(end.cell)
    shift = cell[0] * (np.arange(31) % 2)[:, None]
    shifted = with_(end, positions=np.asarray(end.positions) + shift)
    move = np.asarray(ms.saddles.path.nearest_images(start, shifted).positions) - np.asarray(start.positions)
    assert np.linalg.norm(move, axis=1).max() < 2.6


def test_atoms_in_another_order_are_noticed_and_put_in_order():
    start, end = COPPER
    order = np.random.default_rng(3).permutation(31)
    mixed = ms.Structure.create(np.asarray(end.positions)[order], ["Cu"] * 31, end.cell)
    with pytest.raises(InputError, match=r"numbered otherwise.*in_order\(start, end\)"):
        ms.barrier(ms.load_potential("cu-gupta-1993"), start, mixed)
    sorted_end = in_order(start, mixed)
    move = np.asarray(ms.saddles.path.nearest_images(start, sorted_end).positions) - np.asarray(
        start.positions
    )
    assert np.sum(np.linalg.norm(move, axis=1) > 0.1) == 1


def with_(structure, **changes):
    arrays = {name: getattr(structure, name) for name in ("positions", "species", "cell", "pbc", "fixed")}
    return ms.Structure.create(**(arrays | changes))


@pytest.mark.parametrize(
    "end, words",
    [
        (with_(ENDS[1], positions=np.eye(3)[:2], species=["Cu"] * 2, fixed=None), "3 atoms and the end 2"),
        (with_(ENDS[1], species=["Cu", "Cu", "Ag"]), "atom 2 is Cu in the start and Ag in the end"),
        (with_(ENDS[1], fixed=None), "hold different coordinates fixed"),
        (with_(ENDS[1], cell=[9.0, 9.0, 9.0], pbc=True), "different cells"),
        (ENDS[0], "relax into the same minimum"),
        ("end.xyz", "read_structure"),
    ],
    ids=["atoms", "species", "fixed", "cell", "same", "text"],
)
def test_ends_that_make_no_path_are_refused(end, words):
    with pytest.raises(InputError, match=words):
        ms.barrier(passes.morse(), ENDS[0], end)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"images": 0}, "images = 0"),
        ({"spring": -1.0}, "spring = -1.0"),
        ({"band_fmax": 0}, "band_fmax = 0"),
        ({"band_steps": 0}, "band_steps = 0"),
    ],
)
def test_wrong_options_of_a_band_are_named(options, words):
    with pytest.raises(InputError, match=words):
        ms.barrier(passes.morse(), *ENDS, **options)


def test_a_path_through_a_deeper_minimum_says_where_it_lies():
    images = np.zeros((4, 3, 3))
    path = ms.ReactionPath(ENDS[0], images, np.array([0.0, -1.0, -1.5, 0.1]), 0.02, 2, 50)
    with pytest.raises(
        SaddlePointError, match=r"higher than its end.*Image 2 lies 1.50 eV below both"
    ) as caught:
        _climbing_image(path, ENDS[0])
    assert caught.value.partial is path


def test_other_atoms_have_no_order():
    with pytest.raises(InputError, match="made of different atoms"):
        in_order(ENDS[0], with_(ENDS[1], species=["Cu", "Cu", "Ag"]))
