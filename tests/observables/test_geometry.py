"""Bonds, angles, planes, dipoles and cohesion: closed forms, differences, what is refused."""

import ase.build
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError
from mdsens.observables import (
    angle,
    cohesive_energy,
    distance,
    elastic_dipole,
    named,
    stacking_fault_energy,
    steinhardt,
    surface_energy,
    tetrahedrality,
)
from mdsens.observables.observable import State

ARGON = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5, cut=ms.ForceShifted())
BULK = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.3, cubic=True))


def at(atoms, potential=ARGON):
    return ms.Equilibrium.at(potential, ms.Structure.from_ase(atoms))


def measured(observable, **states):
    bound = observable.bound(states)
    seen = {key: State(state.structure, state.neighbors) for key, state in states.items()}
    return np.asarray(bound.measure(next(iter(states.values())).potential, seen)[0])


def test_bonds_of_a_crystal_are_those_of_the_nearest_images():
    silicon = ms.load_potential("si-stillinger-weber-1985")
    state = at(ase.build.bulk("Si", "diamond", a=5.43, cubic=True), silicon)
    assert_allclose(measured(distance(0, 1), structure=state), 5.43 * np.sqrt(3) / 4)
    found = measured(named(["angle(0, 1, 2)"])[0], structure=state)
    assert_allclose(np.cos(np.radians(found)), -1 / 3, atol=1e-12)
    assert_allclose(measured(tetrahedrality(3), structure=state), 1.0, atol=1e-12)


# Mickel, Kapfer, Schröder-Turk, Mecke, J. Chem. Phys. 138, 044501 (2013), table I: neighbors, q_4, q_6
PERFECT = {
    "fcc": (12, 0.191, 0.575),
    "hcp": (12, 0.097, 0.485),
    "bcc": (8, 0.509, 0.629),
    "sc": (6, 0.764, 0.354),
}


@pytest.mark.parametrize("lattice", PERFECT)
def test_order_of_perfect_crystals_is_that_of_the_literature(lattice):
    neighbors, *right = PERFECT[lattice]
    c = {"c": 5.3 * np.sqrt(8 / 3)} if lattice == "hcp" else {}
    # the smallest cell: all neighbors are images
    state = at(ase.build.bulk("Ar", lattice, a=5.3, **c))
    found = [measured(steinhardt(0, degree, neighbors), structure=state) for degree in (4, 6)]
    assert_allclose(found, right, atol=6e-4)


def test_order_is_the_length_of_the_mean_of_spherical_harmonics():
    from scipy.special import sph_harm_y

    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(0.3, seed=2)
    (found,) = named(["steinhardt(1, degree=5, neighbors=7)"])
    images = atoms.repeat(3)
    center = 4 * 13 + 1
    d = np.delete(images.positions - images.positions[center], center, axis=0)
    x, y, z = d[np.argsort(np.linalg.norm(d, axis=1))[:7]].T
    theta, phi = np.arccos(z / np.sqrt(x**2 + y**2 + z**2)), np.arctan2(y, x)
    means = [np.mean(sph_harm_y(5, m, theta, phi)) for m in range(-5, 6)]
    right = np.sqrt(4 * np.pi / 11 * np.sum(np.abs(means) ** 2))
    assert_allclose(measured(found, structure=at(atoms)), right, rtol=1e-10)


def test_order_is_a_target_whose_derivative_is_that_of_differences():
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.rattle(0.3, seed=2)
    structure = ms.Structure.from_ase(atoms)
    state = at(atoms)
    bound = steinhardt(0, 6, 9).bound({"structure": state})
    order = lambda x: bound.measure(ARGON, {"structure": State(structure.at(x), state.neighbors)})[0]
    direction = np.random.default_rng(1).normal(size=(4, 3))
    _, slope = jax.jvp(order, (structure.positions,), (jnp.asarray(direction),))
    up, down = (float(order(structure.positions + h * direction)) for h in (1e-5, -1e-5))
    assert_allclose(slope, (up - down) / 2e-5, rtol=1e-7)


def test_neighbors_that_are_neighbors_by_accident_are_refused():
    crystal = at(ase.build.bulk("Ar", "bcc", a=5.3))
    with pytest.raises(
        InputError, match=r"neighbor 12 of atom 0 and the next one .* ask for neighbors=8 or 14"
    ):
        steinhardt(0).bound({"structure": crystal})
    with pytest.raises(InputError, match="ask for neighbors=8"):
        steinhardt(0, 6, 3).bound({"structure": crystal})
    with pytest.raises(InputError, match="there is no atom 5"):
        steinhardt(5).bound({"structure": crystal})
    for wrong in ({"degree": 0}, {"degree": 1.5}, {"neighbors": 0}):
        with pytest.raises(InputError, match="give a whole number, 1 or more"):
            steinhardt(0, **wrong)


def test_the_bond_of_a_dimer_scales_with_sigma():
    pair = ms.Structure.create([[0.0, 0, 0], [3.8, 0, 0]], ["Ar"] * 2)
    potential = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=100.0)
    (length,), row = ms.first_order(ms.relax(potential, pair), distance(0, 1), ["sigma"])
    assert_allclose([length, row[0, 0] * 3.405], 2 ** (1 / 6) * 3.405, rtol=1e-6)


def test_a_surface_costs_what_its_bonds_do():
    bulk = at(ase.build.bulk("Ar", "fcc", a=5.3, cubic=True))
    slab = ase.build.fcc100("Ar", (1, 1, 4), a=5.3, vacuum=12.0)
    slab.pbc = (True, True, False)
    state = at(slab)
    energy = float(ms.energy(ARGON, state.structure)) - 4 / 4 * float(ms.energy(ARGON, bulk.structure))
    right = energy / (2 * 5.3**2 / 2) * ms.units.J_PER_M2
    assert_allclose(measured(surface_energy(), slab=state, bulk=bulk), right, rtol=1e-10)
    # the crystal itself has no fault
    assert_allclose(measured(stacking_fault_energy("fault"), fault=bulk, bulk=bulk), 0.0, atol=1e-12)


def test_a_dipole_is_the_slope_of_the_energy_by_the_strain():
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
    del atoms[0]
    state = at(atoms)
    P = measured(elastic_dipole(), defect=state)
    h = 1e-5
    for index, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        strain = jnp.zeros((3, 3)).at[i, j].add(h / 2).at[j, i].add(h / 2)
        up, down = (ms.energy(ARGON, state.structure.deformed(jnp.eye(3) + s)) for s in (strain, -strain))
        assert_allclose(P[index], -(up - down) / (2 * h), rtol=1e-6, atol=1e-8)


def test_cohesion_is_counted_from_single_atoms():
    bulk = at(ase.build.bulk("Ar", "fcc", a=5.3, cubic=True))
    per_atom = float(ms.energy(ARGON, BULK)) / 4
    assert_allclose(measured(cohesive_energy(), structure=bulk), -per_atom)
    shifted = named(["cohesive_energy(references={'Ar': -0.5})"])[0]
    assert_allclose(measured(shifted, structure=bulk), -0.5 - per_atom)
    with pytest.raises(InputError, match="has no reference for Ar"):
        cohesive_energy({"Kr": 0.0}).bound({"structure": bulk})


def relaxed_states(potential):
    """A crystal, a slab of it, and a crystal with a gap in a held cell."""
    slab = ase.build.fcc100("Ar", (1, 1, 4), a=5.3, vacuum=12.0)
    slab.pbc = (True, True, False)
    gap = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True) * (1, 1, 2)
    del gap[0]
    free = ms.relax(potential, BULK, cell="isotropic", fmax=1e-11)
    held = {"slab": slab, "defect": gap}
    return {"bulk": free} | {
        name: ms.relax(potential, ms.Structure.from_ase(atoms), fmax=1e-11) for name, atoms in held.items()
    }


@pytest.mark.validation
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_planes_dipoles_angles_and_cohesion_follow_the_parameters(mode):
    observables = [
        cohesive_energy(state="bulk"),
        surface_energy(),
        stacking_fault_energy("slab"),
        elastic_dipole(),
        angle(0, 1, 3, state="slab"),
        angle(1, 0, 4, state="defect"),
    ]
    states = relaxed_states(ARGON)
    values, rows = ms.first_order(states, observables, ["epsilon", "sigma"], mode=mode)
    # one energy: what is an energy follows it, geometry does not
    assert_allclose(rows[:-2, 0] * 0.0104, values[:-2], rtol=1e-7, atol=1e-9)
    assert_allclose(rows[-2:, 0], 0.0, atol=1e-6)
    step = 3e-4
    twins = []
    for sign in (1, -1):
        changed = ms.replace_parameters(ARGON, {"sigma": 3.405 + sign * step})
        twins.append(ms.first_order(relaxed_states(changed), observables, ["sigma"])[0])
    assert_allclose(rows[:, 1], (twins[0] - twins[1]) / (2 * step), rtol=2e-6, atol=1e-6)


def test_what_the_states_lack_is_named():
    bulk = at(ase.build.bulk("Ar", "fcc", a=5.3, cubic=True))
    slab = ase.build.fcc100("Ar", (1, 1, 4), a=5.3, vacuum=12.0)
    slab.pbc = (True, True, False)
    state = at(slab)
    with pytest.raises(InputError, match=r"spanned by the cell vectors other than number 1.*normal=0, 1"):
        surface_energy(normal=0).bound({"slab": state, "bulk": bulk})
    with pytest.raises(InputError, match="bulk references of surface_energy need a structure"):
        surface_energy().bound({"slab": bulk, "bulk": state})
    with pytest.raises(InputError, match="measured on the state 'bulk', and there is none"):
        surface_energy().bound({"slab": state})
    with pytest.raises(InputError, match="elastic dipoles need a structure that is periodic"):
        elastic_dipole().bound({"defect": state})
    with pytest.raises(InputError, match="there is no atom 7; 4 atoms are counted from 0 to 3"):
        distance(0, 7).bound({"structure": bulk})
    with pytest.raises(InputError, match="atom 0 has fewer than 4 other atoms"):
        tetrahedrality(0).bound({"structure": at(ase.Atoms("Ar2", [[0, 0, 0], [4.0, 0, 0]]))})
    with pytest.raises(InputError, match="normal = 3: give 0, 1 or 2"):
        surface_energy(normal=3)
    other = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
    other.symbols[0] = "Kr"
    mixed = ms.LennardJones([0.01] * 3, [3.4] * 3, elements=("Ar", "Kr"), cutoff_radius=8.5)
    with pytest.raises(InputError, match=r"composition .*'Kr': 1.* needs the composition of its crystal"):
        states = {"slab": at(slab, mixed), "bulk": at(other, mixed)}
        surface_energy().bound(states)


def test_an_angle_opens_with_its_atoms():
    water = ms.Structure.create([[0.0, 0, 0], [1.0, 0, 0], [0.0, 2.0, 0]], ["Ar"] * 3)
    state = ms.Equilibrium.at(ARGON, water)
    assert_allclose(measured(angle(1, 0, 2), structure=state), 90.0)
    assert_allclose(measured(distance(1, 2), structure=state), np.sqrt(5))
