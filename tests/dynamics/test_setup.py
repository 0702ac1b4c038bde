"""What is asked of a simulation, before anything moves: checked, and drawn as Maxwell's distribution says."""

import ase.build
import jax.numpy as jnp
import numpy as np
import peroxide
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import mdsens as ms
from mdsens.dynamics import Movable, Trajectory
from mdsens.dynamics.setup import Choices, Environment, prepare
from mdsens.errors import InputError, NonFiniteError
from mdsens.units import ACCELERATION, BOLTZMANN

LJ = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=5.0)
ARGON = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.3, cubic=True))
FREE = Movable(lambda x: 0.0 * jnp.sum(x), peroxide.SPECIES, peroxide.TEMPERATURE)
START = peroxide.positions()
DEFAULTS = dict(
    steps=10,
    record_every=5,
    timestep=1.0,
    temperature=300.0,
    velocities=None,
    masses=None,
    replicas=None,
    skin=None,
    seed=0,
)


def setup(system=FREE, start=START, friction=None, **choices):
    return prepare(system, start, Choices(**(DEFAULTS | choices)), Environment(friction))


def held(rows) -> ms.Structure:
    fixed = np.zeros((4, 3), bool)
    fixed[rows] = True
    return ms.Structure.create(ARGON.positions, ["Ar"] * 4, ARGON.cell, fixed=fixed)


# --- velocities -----------------------------------------------------------------------------------------


def test_velocities_are_those_of_maxwell():
    many = setup(replicas=4000, friction=1e-3).velocities  # a bath: the center of mass moves as well
    masses = setup().masses
    # each component has the variance kT / m; 4000 · 4 · 3 numbers tell it to 1 / sqrt(24 000) = 0.6 %
    kinetic = (masses[:, None] * many**2).mean() / ACCELERATION
    assert_allclose(kinetic, BOLTZMANN * 300.0, rtol=0.03)
    variances = many.var(axis=(0, 2)) * masses / ACCELERATION
    assert_allclose(variances, BOLTZMANN * 300.0, rtol=0.1)


def test_without_a_bath_the_center_of_mass_rests():
    drawn = setup(replicas=7)
    assert_allclose((drawn.masses[:, None] * drawn.velocities).sum(1), 0, atol=1e-15)


def test_what_a_replica_draws_does_not_depend_on_how_many_there_are():
    few, many = setup(replicas=2, seed=5), setup(replicas=6, seed=5)
    assert_array_equal(few.velocities, many.velocities[:2])
    assert not np.array_equal(few.velocities[0], few.velocities[1])
    assert not np.array_equal(few.velocities, setup(replicas=2, seed=6).velocities)


def test_held_coordinates_rest():
    drawn = setup(LJ, held([1, 3]))
    assert_array_equal(drawn.velocities[0, [1, 3]], 0)
    assert np.all(drawn.velocities[0, [0, 2]] != 0)


def test_at_zero_kelvin_nothing_moves():
    assert_array_equal(setup(temperature=0.0).velocities, 0)


@given(st.floats(1.0, 1e4), st.floats(0.01, 10.0))
def test_momenta_are_velocities_in_units_of_the_run(temperature, timestep):
    one = setup(temperature=temperature, timestep=timestep)
    assert_allclose(one.momenta, one.masses[:, None] * one.velocities * timestep, rtol=1e-14)
    assert_allclose(one.electronvolt, ACCELERATION * timestep**2, rtol=1e-14)
    assert_allclose(one.scales.kT, BOLTZMANN * temperature * one.electronvolt, rtol=1e-12)


# --- systems and starts ---------------------------------------------------------------------------------


def test_the_temperature_of_a_system_is_that_of_the_run_unless_told():
    assert setup(temperature=None).run.temperature == peroxide.TEMPERATURE
    assert setup(temperature=500.0).run.temperature == 500.0


def test_a_crystal_has_no_temperature_of_its_own():
    with pytest.raises(InputError, match="velocities are drawn at a temperature: give temperature= in K"):
        setup(LJ, ARGON, temperature=None)
    assert setup(LJ, ARGON, temperature=None, velocities=np.zeros((4, 3))).run.temperature is None


def test_one_run_has_no_axis_for_replicas_and_several_have():
    assert setup().single and not setup(replicas=1).single
    assert setup(replicas=3).positions.shape == (3, 4, 3)
    assert setup(start=np.stack([START, START])).positions.shape == (2, 4, 3)
    assert setup(LJ, [ARGON, ARGON]).positions.shape == (2, 4, 3)
    assert setup().of(0) == "" and setup(replicas=2).of(1) == " of replica 1"


def test_masses_are_those_given_or_of_the_structure():
    assert_allclose(setup(masses=[1.0, 2.0, 3.0, 4.0]).masses, [1, 2, 3, 4])
    heavy = ms.Structure.create(ARGON.positions, ["Ar"] * 4, ARGON.cell, masses=[40.0] * 4)
    assert_allclose(setup(LJ, heavy).masses, 40.0)


def test_a_skin_is_a_tenth_of_the_cutoff_and_none_where_all_pairs_interact():
    assert_allclose(setup(LJ, ARGON).run.skin, 0.5)
    assert setup(LJ, ARGON, skin=0.3).run.skin == 0.3
    assert setup().run.skin == 0.0 and not setup().uses_neighbors


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"steps": 0}, "steps = 0: give a whole number"),
        ({"steps": 1.5}, "steps = 1.5"),
        ({"steps": True}, "steps = True"),
        ({"record_every": 0}, "record_every = 0"),
        ({"steps": 11}, "no multiple of record_every = 5: .* Take 15 steps"),
        ({"timestep": 0.0}, "timestep = 0.0: it must be finite and above 0"),
        ({"timestep": np.nan}, "timestep = nan"),
        ({"timestep": "1 fs"}, "give one real number in fs"),
        ({"temperature": -1.0}, "temperature = -1.0"),
        ({"temperature": np.inf}, "temperature = inf"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**32}, r"a number from 0 to 2³² - 1"),
        ({"seed": 0.5}, "seed = 0.5"),
        ({"replicas": 0}, "replicas = 0: give a whole number, 1 or more"),
        ({"masses": [1.0, 2.0]}, r"masses of shape \(2,\)"),
        ({"masses": [1.0, 2.0, 3.0, 0.0]}, "the smallest 0 u: give 4 positive ones"),
        ({"velocities": np.zeros((3, 3))}, r"velocities have the shape \(3, 3\)"),
        ({"start": START[:3]}, r"positions have the shape \(3, 3\)"),
        ({"start": START[None, None]}, "positions have the shape"),
        ({"start": np.zeros((0, 4, 3))}, "positions have the shape"),
        ({"start": 0.1 * START}, "come. If these positions are in nm"),
        ({"start": START * 0}, "atoms .* are 0 Å apart"),
        ({"start": [START] * 2, "replicas": 3}, "replicas = 3, and 2 frames to start from"),
        ({"start": ARGON}, "give the same atoms in the same order"),
        ({"system": "si-stillinger-weber-1985"}, "a str cannot be moved. Give a potential"),
        ({"system": LJ, "start": START}, r"moves the atoms of a mdsens\.Structure"),
        ({"system": LJ, "start": []}, r"Structure\.create"),
        ({"system": LJ, "start": ARGON, "skin": 0.0}, "skin = 0.0"),
    ],
)
def test_what_makes_no_simulation_is_refused_with_a_remedy(choices, message):
    with pytest.raises(InputError, match=message):
        setup(**choices)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_places_and_velocities_that_are_not_finite_are_named(value):
    broken = START.copy()
    broken[2, 1] = value
    with pytest.raises(NonFiniteError, match=r"positions: atom 2 has .* Å"):
        setup(start=broken)
    with pytest.raises(NonFiniteError, match=r"positions: atom 2 of replica 1 has"):
        setup(start=np.stack([START, broken]))
    with pytest.raises(NonFiniteError, match=r"velocities: atom 2 has"):
        setup(velocities=broken * 1e-3)


def test_replicas_differ_in_positions_alone():
    other = ms.Structure.create(ARGON.positions, ["Ar"] * 4, 1.01 * ARGON.cell)
    for one in (other, held([0]), ms.Structure.create(ARGON.positions, ["Ar"] * 4)):
        with pytest.raises(InputError, match="structures 0 and 1 differ in more than positions"):
            setup(LJ, [ARGON, one])


def test_a_held_atom_has_no_velocity():
    velocities = np.full((4, 3), 1e-3)
    with pytest.raises(InputError, match="atom 1 is fixed and has the velocity"):
        setup(LJ, held([1]), velocities=velocities)


def test_atoms_and_numbers_are_checked_as_everywhere():
    with pytest.raises(InputError, match="no parameters for Kr; it knows Ar"):
        setup(LJ, ms.Structure.create(ARGON.positions, ["Kr"] * 4, ARGON.cell))
    with pytest.raises(InputError, match="outside its bounds"):
        setup(ms.LennardJones(-1.0, 3.4, ("Ar",), 5.0), ARGON)


# --- going on -------------------------------------------------------------------------------------------


def trajectory(**changes) -> Trajectory:
    fields = dict(
        time=np.array([0.0, 5.0]),
        positions=np.stack([START, START + 0.01]),
        velocities=np.full((2, 4, 3), 1e-3),
        potential=np.zeros(2),
        kinetic=np.zeros(2),
        masses=np.array([2.0, 16.0, 16.0, 2.0]),
        species=peroxide.SPECIES,
        temperature=310.0,
        timestep=1.0,
    )
    return Trajectory(**(fields | changes))


def test_a_run_goes_on_from_the_last_record_of_another():
    one = setup(start=trajectory(), temperature=None)
    assert_array_equal(one.positions[0], START + 0.01)
    assert_array_equal(one.velocities[0], np.full((4, 3), 1e-3))
    assert_array_equal(one.masses, [2, 16, 16, 2])
    assert (one.run.temperature, one.run.begun) == (310.0, 5.0)


def test_what_the_call_chooses_counts_more_than_what_the_run_before_had():
    one = setup(start=trajectory(), temperature=200.0, velocities=np.zeros((4, 3)), masses=[1.0] * 4)
    assert one.run.temperature == 200.0
    assert_array_equal(one.velocities, 0)
    assert_array_equal(one.masses, 1)


def test_the_same_noise_does_not_come_twice():
    before = trajectory(friction=1e-3, seed=7)
    with pytest.raises(InputError, match="seed = 7: the run that this one goes on from had the same"):
        setup(start=before, friction=1e-3, seed=7)
    assert setup(start=before, friction=1e-3, seed=8).run.seed == 8
    assert setup(start=before, friction=None, seed=7).run.seed == 7  # without a bath there is no noise


def test_a_crystal_goes_on_with_its_cell_and_held_coordinates():
    fixed = np.zeros((4, 3), bool)
    fixed[0] = True
    velocities = np.full((2, 4, 3), 1e-3)
    velocities[:, 0] = 0
    places = np.asarray(ARGON.positions)
    before = trajectory(
        positions=np.stack([places, places]),
        velocities=velocities,
        species=(18,) * 4,
        masses=np.full(4, 39.95),
        cell=np.asarray(ARGON.cell),
        pbc=(True, True, True),
        fixed=fixed,
    )
    one = setup(LJ, before)
    assert_array_equal(one.system.structure.fixed, fixed)
    assert_array_equal(one.system.structure.cell, ARGON.cell)
    assert one.system.structure.pbc == (True, True, True)
