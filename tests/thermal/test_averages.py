"""Averages and their derivatives against quadrature, closed forms and identities."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from thermal_cases import (
    T,
    balloon_ensemble,
    grid_ensemble,
    kT,
    log_Z_of_quartic,
    log_Z_of_ring,
    quartic_ensemble,
    ring_ensemble,
)

import mdsens as ms
from mdsens.errors import InputError, NotConvergedError
from mdsens.units import BOLTZMANN, GPA


def square(potential, states):
    structure, _ = states["structure"]
    return (structure.positions[0, 0] ** 2, potential.a * structure.positions[0, 0])


SQUARE = ms.Observable(("x²", "a x"), ("Å²", "eV/Å"), square)


@pytest.fixture(scope="module")
def quartic():
    return quartic_ensemble().average([SQUARE, "energy", "heat_capacity"], second_order=True)


def x_squared(a, b, T):
    """<x²> = -2 kT d log Z / da."""
    return -2 * BOLTZMANN * T * jax.grad(log_Z_of_quartic)(a, b, T)


def energy(a, b, T):
    """<U> = kT² d log Z / dT."""
    return BOLTZMANN * T**2 * jax.grad(log_Z_of_quartic, 2)(a, b, T)


def heat_capacity(a, b, T):
    """With the motion along x."""
    return jax.grad(energy, 2)(a, b, T) + BOLTZMANN / 2


OF_QUARTIC = {"x²": x_squared, "energy": energy, "heat_capacity": heat_capacity}


@pytest.mark.parametrize("name", OF_QUARTIC)
def test_quartic_oscillator_and_its_derivatives_are_those_of_its_partition_function(quartic, name):
    of, z = OF_QUARTIC[name], (0.3, 0.5, T)
    assert_allclose(quartic[name].value, of(*z), rtol=1e-9)
    variables = ("a", "b", "temperature")
    first, second = jax.grad(of, (0, 1, 2))(*z), jax.hessian(of, (0, 1, 2))(*z)
    for j, one in enumerate(variables):
        assert_allclose(quartic.derivative(name, one).value, first[j], rtol=1e-8)
        for k, other in enumerate(variables):
            found = quartic.second_derivative(name, one, other).value
            # of the heat capacity: sixth derivatives of log Z
            assert_allclose(found, second[j][k], rtol=1e-6)


def test_virial_theorem_of_the_quartic_oscillator(quartic):
    # <x dU/dx> = kT, and U = a x²/2 + b x⁴/4 gives <U> = kT/4 + a <x²> / 4
    assert_allclose(quartic["energy"].value, kT / 4 + 0.3 * quartic["x²"].value / 4, rtol=1e-10)
    # odd in x: zero, with a derivative of zero
    assert_allclose(quartic["a x"].value, 0.0, atol=1e-14)


def test_averages_are_homogeneous_in_parameters_and_temperature(quartic):
    # a, b and kT times the same number: x stays, U and its average are multiplied
    names = {"a": 0.3, "b": 0.5, "temperature": T}
    for name, degree in (("x²", 0), ("energy", 1), ("heat_capacity", 0)):
        total = sum(value * quartic.derivative(name, v).value for v, value in names.items())
        assert_allclose(total, degree * quartic[name].value, atol=1e-12)


def test_a_lennard_jones_dimer_in_a_trap_responds_as_its_integral_does():
    r = np.linspace(2.9, 8.0, 60)
    positions = np.zeros((len(r), 2, 3))
    positions[:, 1, 0] = r
    fixed = np.ones((2, 3), bool)
    fixed[1, 0] = False
    start = ms.Structure.create(positions[0], ["Ar"] * 2, fixed=fixed)

    def mean_distance(sigma, k):
        sixth = (sigma / r) ** 6
        U = 4 * 0.02 * (sixth**2 - sixth) + k * (r - 4.0) ** 2 / 2
        return jax.nn.softmax(-U / kT) @ r

    trap = ms.HarmonicBonds(k=[0.05], r0=[4.0], types=("Ar-Ar",), atoms=[[0, 1]], kind=[0])
    ensemble = grid_ensemble(ms.LennardJones(0.02, 3.4, ("Ar",)) + trap, start, positions)
    found = ensemble.average("distance(0, 1)")
    assert_allclose(found["distance(0, 1)"].value, mean_distance(3.4, 0.05), rtol=1e-9)
    exact = jax.grad(mean_distance, (0, 1))(3.4, 0.05)
    for part, value in zip((".sigma", ".k"), exact, strict=True):
        (name,) = [variable for variable in found.variables if part in variable]
        assert_allclose(found.derivative("distance(0, 1)", name).value, value, rtol=1e-8)


# --- pressure and stiffness -----------------------------------------------------------------------------


def pressure_of_ring(h, sigma, T, V):
    """P = kT d log Z / dV, GPa."""
    return GPA * BOLTZMANN * T * jax.grad(log_Z_of_ring, 3)(h, sigma, T, V)


def stiffness_of_ring(h, sigma, T, V):
    """K = -V dp/dV, GPa."""
    return -V * jax.grad(pressure_of_ring, 3)(h, sigma, T, V)


@pytest.mark.parametrize(
    ("name", "of"), [("pressure", pressure_of_ring), ("bulk_modulus", stiffness_of_ring)]
)
def test_pressure_and_stiffness_of_a_ring_are_those_of_its_partition_function(name, of):
    found = ring_ensemble().average(["pressure", "bulk_modulus"])
    z = (0.02, 9.0, T, 1000.0)
    assert_allclose(found[name].value, of(*z), rtol=1e-9)
    slopes = jax.grad(of, (0, 1, 2))(*z)
    for variable, exact in zip(("h", "sigma", "temperature"), slopes, strict=True):
        assert_allclose(found.derivative(name, variable).value, exact, rtol=1e-8)


@pytest.fixture(scope="module")
def balloon():
    names = ["volume", "bulk_modulus", "thermal_expansion", "heat_capacity", "density"]
    return balloon_ensemble().average(names)


def test_a_cell_on_a_spring_has_the_averages_of_a_gaussian(balloon):
    K, V_0, p = 0.5, 100.0, 0.01
    V = V_0 * (1 - p / K)
    assert_allclose(balloon["volume"].value, V, rtol=1e-10)
    # var V = kT V_0 / K, whatever the pressure
    assert_allclose(balloon["bulk_modulus"].value, GPA * K * V / V_0, rtol=1e-10)
    assert_allclose(balloon["thermal_expansion"].value, 0.0, atol=1e-12)
    # one quadratic coordinate, the volume; the atom is held
    assert_allclose(balloon["heat_capacity"].value, BOLTZMANN / 2, rtol=1e-9)
    assert_allclose(balloon.derivative("volume", "pressure").value, -V_0 / K / GPA, rtol=1e-10)
    assert_allclose(balloon.derivative("volume", "K").value, V_0 * p / K**2, rtol=1e-9)
    assert_allclose(balloon.derivative("volume", "V_0").value, V / V_0, rtol=1e-9)
    assert_allclose(balloon.derivative("density", "pressure").value, V_0 / K / V**2 / GPA, rtol=1e-9)


# --- crystals -------------------------------------------------------------------------------------------

LJ = ms.LennardJones(0.0104, 3.405, elements=("Ar",), cutoff_radius=5.0, cut=ms.Smooth())
ARGON = ms.Structure.create(
    5.3 * np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]), ["Ar"] * 4, cell=[5.3] * 3
)


@pytest.fixture(scope="module")
def shaken():
    """Frames that come with no probability in particular: identities hold for all."""
    noise = 0.1 * np.random.default_rng(0).normal(size=(40, 4, 3))
    return ms.Ensemble.of_frames(LJ, ARGON, np.asarray(ARGON.positions) + noise, temperature=40.0)


def test_elastic_constants_and_bulk_modulus_agree_in_every_ensemble(shaken):
    names = ["C11", "C22", "C33", "C12", "C13", "C23", "C21", "C31", "C32"]
    found = shaken.average(["bulk_modulus", *names], parameters=["epsilon"])
    mean = np.mean([found[name].value for name in names])
    assert_allclose(found["bulk_modulus"].value, mean, rtol=1e-10)
    slopes = [found.derivative(name, "epsilon").value for name in names]
    assert_allclose(found.derivative("bulk_modulus", "epsilon").value, np.mean(slopes), rtol=1e-9)


def test_elastic_constants_of_cold_atoms_are_those_of_clamped_ions():
    frames = np.repeat(np.asarray(ARGON.positions)[None], 12, axis=0)
    cold = ms.Ensemble.of_frames(LJ, ARGON, frames, temperature=1e-9)
    found = cold.average(["C11", "C12", "C44"], parameters=())
    C = GPA * np.asarray(ms.observables.elastic_constants(LJ, ARGON, clamped=True, check=False))
    assert_allclose(found.values, [C[0, 0], C[0, 1], C[3, 3]], rtol=1e-9)


def test_pressure_is_that_of_stress_and_ideal_gas(shaken):
    found = shaken.average("pressure", parameters=())["pressure"].value
    stresses = [ms.energy_forces_stress(LJ, one).stress for one in shaken.structures()[:40]]
    of_potential = -np.mean([np.trace(stress) / 3 for stress in stresses])
    ideal = 4 * BOLTZMANN * 40.0 / 5.3**3
    assert_allclose(found, GPA * (of_potential + ideal), rtol=1e-10)


def test_pairs_of_a_perfect_crystal_stand_at_its_distances(tmp_path):
    frames = np.repeat(np.asarray(ARGON.positions)[None], 12, axis=0)
    cold = ms.Ensemble.of_frames(LJ, ARGON, frames, temperature=1.0)
    g = cold.average("rdf(r_max=5.6, bins=56)", parameters=())["rdf"].value
    # 12 neighbors at 5.3 / sqrt 2 = 3.75 Å, 6 at 5.3 Å; the number of pairs is N (N - 1) / 2 here
    shells = 4 / 3 * np.pi * np.diff(np.linspace(0, 5.6, 57) ** 3)
    counted = g * shells * (3 / 5.3**3)
    assert_allclose(counted[37], 12.0, rtol=1e-9)
    assert_allclose(counted[[52, 53]].sum(), 6.0, rtol=1e-9)
    assert_allclose(counted.sum(), 18.0, rtol=1e-9)
    found = cold.average("rdf(r_max=5.6, bins=56)", parameters=())
    assert found.grids["rdf"].unit == "Å" and found.grids["rdf"].places[37] == pytest.approx(3.75)
    found.to_hdf5(tmp_path / "rdf.h5")
    again = ms.ThermalAverages.from_hdf5(tmp_path / "rdf.h5")
    assert_allclose(again.grids["rdf"].places, found.grids["rdf"].places)
    assert found.plot(tmp_path / "rdf.png").axes[0].get_xlabel() == "place, Å"
    by_name = ms.thermal.radial_distribution(5.6, 56, between=("Ar", "Ar"))
    assert_allclose(cold.average(by_name, parameters=())["rdf"].value, g, rtol=1e-12)


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observables", "message"),
    [
        ("presure", "no thermal observable 'presure'. Did you mean 'pressure'"),
        ([], "no observables are given"),
        (3.0, "an observable is"),
        ("C17", "no thermal observable 'C17'"),
        ("thermal_expansion", "the cell was held: sample with pressure=0.0"),
        (["energy", "energy"], "two observables are called 'energy'"),
        (["rdf(r_max=3)", "rdf(r_max=4)"], "two observables are called 'rdf'"),
        ("rdf(r=3)", "rdf has no argument 'r'"),
        ("rdf(r_max=-1)", "r_max = -1: it must be finite and above 0"),
        ("rdf(r_max=4, between=[Ar])", "give two chemical symbols"),
    ],
)
def test_observables_without_a_meaning_are_refused(shaken, observables, message):
    with pytest.raises(InputError, match=message):
        shaken.average([observables] if isinstance(observables, float) else observables)


def test_parts_of_results_that_are_not_there_are_refused(balloon):
    with pytest.raises(InputError, match=r"no observable 'volum' here\. Did you mean 'volume'"):
        balloon["volum"]
    with pytest.raises(InputError, match=r"no variable 'p' here"):
        balloon.derivative("volume", "p")
    with pytest.raises(InputError, match=r"no second derivatives: ask with second_order=True"):
        balloon.second_derivative("volume", "K", "K")
    with pytest.raises(InputError, match=r"C11 is the stress that a strain makes, so the cell must be held"):
        balloon_ensemble().average("C11")
    with pytest.raises(InputError, match=r"pressure needs a structure that is periodic in three"):
        quartic_ensemble().average("pressure")
    with pytest.raises(InputError, match=r"Quartic has no parameter 'c'"):
        quartic_ensemble().average("energy", parameters="c")


def test_few_effective_samples_are_an_error_that_carries_the_averages():
    ensemble = quartic_ensemble(points=8)
    with pytest.raises(
        NotConvergedError, match=r"the 8 frames amount to .* below min_effective = 10"
    ) as raised:
        ensemble.average("energy")
    assert_allclose(
        raised.value.partial["energy"].value, ensemble.average("energy", min_effective=0).values[0]
    )
