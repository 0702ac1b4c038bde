"""Free energies and expansion of a crystal: phonopy, exact identities, tables, differences."""

import functools

import ase.build
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import mdsens as ms
from mdsens.errors import InputError, NotConvergedError
from mdsens.observables import (
    grueneisen,
    quasiharmonic,
    quasiharmonic_table,
    thermal_expansion,
    thermal_volume,
    vibrational_entropy,
    vibrational_free_energy,
    vibrational_heat_capacity,
)
from mdsens.observables.observable import State
from mdsens.observables.quasiharmonic import Settling

ARGON = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5)
# phonopy 4.10.0 on the force constants of the crystal relaxed with ARGON, 3 x 3 x 3 waves, at 20 K: eV, eV/K
PHONOPY = {
    vibrational_free_energy: 0.007314957087537176,
    vibrational_entropy: 6.096314496639211e-05,
    vibrational_heat_capacity: 0.0001224176975441528,
}
# phonopy 4.10.0 likewise, 4 x 4 x 4 cells at volumes 1e-3 larger and smaller, at [1/2, 1/2, 0]
GRUENEISEN = [2.953872402267481, 2.9538724022673537, 3.1553976849745906]
SMOOTH = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=8.5, cut=ms.Smooth())


def relaxed_with(potential):
    start = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=5.3))
    return ms.relax(potential, start, cell="isotropic", fmax=1e-11)


@functools.cache
def crystal(kind):
    return relaxed_with({"cut": ARGON, "smooth": SMOOTH}[kind])


def measured(observable, state):
    bound = observable.bound({"structure": state})
    seen = State(state.structure, state.neighbors)
    return float(bound.measure(state.potential, {"structure": seen})[0])


def test_functions_of_state_are_those_of_phonopy():
    state = crystal("cut").equilibrium
    for make, right in PHONOPY.items():
        # phonopy's constants differ from those of CODATA 2018 in the seventh digit
        assert_allclose(measured(make(20, 3), state), right, rtol=4e-6)


def test_zero_point_energy_goes_as_the_root_of_the_stiffness():
    (value,), rows = ms.first_order(crystal("cut"), vibrational_free_energy(0, 3), ["epsilon"])
    assert_allclose(rows[0, 0] * 0.0104, value / 2, rtol=1e-8)


def test_free_energy_depends_on_frequency_over_temperature():
    # F = T f(nu / T): dF/dln(epsilon) = 1/2 dF/dln(nu) = 1/2 (F - T dF/dT) = 1/2 (F + T S)
    relaxed = crystal("cut")
    (value,), rows = ms.first_order(relaxed, vibrational_free_energy(20, 3), ["epsilon"], mode="reverse")
    entropy = measured(vibrational_entropy(20, 3), relaxed.equilibrium)
    assert_allclose(rows[0, 0] * 0.0104, (value + 20 * entropy) / 2, rtol=1e-7)


# --- expansion ------------------------------------------------------------------------------------


def test_modes_stiffen_with_pressure_as_phonopy_finds_by_differences():
    state = crystal("cut").equilibrium
    bound = grueneisen([0.5, 0.5, 0]).bound({"structure": state})
    seen = State(state.structure, state.neighbors)
    values = bound.measure(ARGON, {"structure": seen})[0]
    assert_allclose(values, GRUENEISEN, rtol=1e-5)  # (1e-3)² times third derivatives of some ten


@pytest.mark.validation
def test_the_crystal_expands_as_the_table_of_its_free_energies_says():
    relaxed = crystal("smooth")
    volume = measured(thermal_volume(20, 2), relaxed.equilibrium)
    stretch = (volume / float(ms.volume(relaxed.structure))) ** (1 / 3) - 1
    V, E, F = [], [], []
    for x in stretch + np.linspace(-0.002, 0.002, 5):
        structure = relaxed.structure.deformed((1 + x) * jnp.eye(3))
        state = ms.Equilibrium.at(SMOOTH, structure)
        V.append(float(ms.volume(structure)))
        E.append(float(ms.energy(SMOOTH, structure)))
        F.append(measured(vibrational_free_energy(20, 2), state))
    table = quasiharmonic_table(V, E, [20.0], [F])
    assert_allclose(volume, table.volumes[0], rtol=1e-5)


def gapped(potential):
    """Argon with every eighth atom missing: the layers beside the gaps are free to move towards them."""
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True) * (1, 1, 2)
    del atoms[0]
    return ms.relax(potential, ms.Structure.from_ase(atoms), cell="isotropic", fmax=1e-11)


def in_cell(relaxed, volume):
    """The crystal of another volume, its atoms at rest."""
    stretch = np.cbrt(volume / float(ms.volume(relaxed.structure)))
    strained = relaxed.structure.deformed(stretch * jnp.eye(3))
    return ms.relax(relaxed.potential, strained, fmax=1e-11)


@pytest.mark.validation
def test_heat_capacity_and_grueneisen_parameters_follow_the_parameters():
    observables = [vibrational_heat_capacity(20, 2), grueneisen([0.5, 0.5, 0], modes=[1, 2])]
    _, rows = ms.first_order(crystal("smooth"), observables, ["epsilon", "sigma"], mode="forward")
    step = 1e-4
    for k, (name, value) in enumerate({"epsilon": 0.0104, "sigma": 3.405}.items()):
        twins = []
        for sign in (1, -1):
            changed = ms.replace_parameters(SMOOTH, {name: value * (1 + sign * step)})
            state = relaxed_with(changed).equilibrium
            twins.append([measured(o, state) for o in observables])
        twin = (np.array(twins[0]) - twins[1]) / (2 * step * value)
        # a Grueneisen parameter has no energy to scale with
        assert_allclose(rows[:, k], twin, rtol=1e-5, atol=1e-6)


def test_atoms_that_do_not_come_to_rest_in_a_strained_cell_are_said(monkeypatch):
    atoms = ase.build.bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.positions[0] += [0.1, 0.05, 0.02]
    structure = ms.Structure.from_ase(atoms)
    lists = ms.neighbors_of(SMOOTH, structure)
    settled = Settling.of(SMOOTH, lists, structure, np.zeros((4, 3)))
    at_rest = structure.at(structure.positions + settled.shift)
    assert np.abs(ms.energy_forces_stress(SMOOTH, at_rest).forces).max() < 1e-12
    monkeypatch.setattr(quasiharmonic, "STEPS", 1)
    with pytest.raises(NotConvergedError, match="did not come to rest in a strained cell within 1 Newton"):
        Settling.of(SMOOTH, lists, structure, np.zeros((4, 3)))


@pytest.mark.validation
def test_atoms_that_symmetry_does_not_hold_settle_in_the_expanded_cell():
    relaxed = gapped(SMOOTH)
    (volume,), rows = ms.first_order(relaxed, thermal_volume(20, 1), ["epsilon"], mode="forward")
    V, E, F = volume * (1 + np.linspace(-0.006, 0.006, 5)), [], []
    for one in V:
        state = in_cell(relaxed, one)
        E.append(float(state.energy))
        F.append(measured(vibrational_free_energy(20, 1), state.equilibrium))
    table = quasiharmonic_table(V, E, [20.0], [F])
    assert_allclose(volume, table.volumes[0], rtol=1e-5)  # of the fit through five volumes
    # left where the strain puts them, the atoms would make another volume
    assert not np.isclose(volume, float(ms.volume(relaxed.structure)), rtol=1e-3)
    step = 1e-4
    twins = []
    for sign in (1, -1):
        changed = ms.replace_parameters(SMOOTH, {"epsilon": 0.0104 * (1 + sign * step)})
        twins.append(measured(thermal_volume(20, 1), gapped(changed).equilibrium))
    assert_allclose(rows[0, 0], (twins[0] - twins[1]) / (2 * step * 0.0104), rtol=1e-5)


@pytest.mark.validation  # fourth and fifth derivatives of the energy are compiled
def test_expansion_follows_the_parameters():
    observables = [thermal_volume(20, 2), thermal_expansion(20, 2)]
    values, rows = ms.first_order(crystal("smooth"), observables, ["epsilon", "sigma"], mode="forward")
    warmer, colder = (measured(thermal_volume(T, 2), crystal("smooth").equilibrium) for T in (20.1, 19.9))
    assert_allclose(values[1], (warmer - colder) / 0.2 / values[0], rtol=1e-5)
    step = 1e-4
    twins = []
    for sign in (1, -1):
        changed = ms.replace_parameters(SMOOTH, {"epsilon": 0.0104 * (1 + sign * step)})
        state = relaxed_with(changed).equilibrium
        twins.append([measured(o, state) for o in observables])
    twin = (np.array(twins[0]) - twins[1]) / (2 * step * 0.0104)
    assert_allclose(rows[:, 0], twin, rtol=1e-5)


def test_what_does_not_vibrate_about_a_minimum_has_no_free_energy():
    stretched = ms.Structure.from_ase(ase.build.bulk("Ar", "fcc", a=7.5))
    with pytest.raises(InputError, match=r"a mode has omega² = -.* is not stable there"):
        vibrational_free_energy(20, 2).bound({"structure": ms.Equilibrium.at(ARGON, stretched)})
    slab = ase.build.fcc111("Ar", (1, 1, 2), a=5.3, vacuum=8.0)
    slab.pbc = (True, True, False)
    state = ms.Equilibrium.at(ARGON, ms.Structure.from_ase(slab))
    for observable in (thermal_volume(20, 2), grueneisen([0.5, 0, 0]), vibrational_entropy(20, 2)):
        with pytest.raises(InputError, match="need a structure that is periodic in three directions"):
            observable.bound({"structure": state})


def test_temperatures_and_meshes_are_checked():
    for wrong, message in {
        "T": lambda: vibrational_entropy(-1, 2),
        "T = 0": lambda: thermal_expansion(0, 2),
        "mesh = 'four'": lambda: thermal_volume(20, "four"),
        "mesh = 0": lambda: vibrational_free_energy(20, [0, 2, 2]),
    }.items():
        with pytest.raises(InputError, match=wrong):
            message()


def test_modes_at_rest_feel_no_volume():
    with pytest.raises(InputError, match="modes at rest have no Grueneisen parameter: ask for others"):
        grueneisen([0, 0, 0]).bound({"structure": crystal("cut").equilibrium})


def test_axes_that_do_not_keep_their_angles_do_not_expand_by_themselves():
    skewed = ms.Structure.create([[0.0, 0, 0]], ["Ar"], [[5, 0, 0], [1, 6, 0], [0.7, 1.3, 7]], True)
    with pytest.raises(InputError, match=r"\(2\) do not keep their angles: leave axes out"):
        quasiharmonic._axes(ms.Equilibrium.at(ARGON, skewed), "thermal_volume")


@pytest.mark.parametrize("slack", [-1.0, 1.0], ids=["outgrows its list", "has no stationary volume"])
def test_a_crystal_that_finds_no_volume_at_its_temperature_is_said(monkeypatch, slack):
    unknown = np.full(1, np.nan)
    monkeypatch.setattr(quasiharmonic, "_newton", lambda *_: (unknown, np.eye(1), np.array(slack)))
    with pytest.raises(NotConvergedError, match="the quasi-harmonic crystal is not stable, or it expands"):
        thermal_volume(20, 2).bound({"structure": crystal("cut").equilibrium})
