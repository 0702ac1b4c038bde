"""Liquids sampled long enough to compare with published numbers, and with differences of independent runs."""

import numpy as np
import pytest

import mdsens as ms
from mdsens.units import BOLTZMANN, GPA

pytest.importorskip("jax_md", reason="jax-md is not installed")

EPSILON, SIGMA = 0.0103, 3.4  # eV, Å: argon
MOTION = {"timestep": 8.0, "friction": 3e-3, "record_every": 40, "replicas": 4, "skin": 1.0}


def liquid(cells: int, density: float) -> ms.Structure:
    edge = (4 / density) ** (1 / 3) * SIGMA
    places = edge * np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    return ms.Structure.create(places, ["Ar"] * 4, [edge] * 3).repeat(cells)


@pytest.mark.validation
def test_the_liquid_of_nist_has_its_energy_and_pressure():
    # T* = 0.85, density 0.776, cut at 3 sigma with corrections beyond: NIST Standard Reference Simulation
    # Website, Lennard-Jones fluid properties, 500 atoms
    density, energy, pressure = 0.776, -5.5121, 6.7714e-3
    third, ninth = 3.0**-3, 3.0**-9
    beyond_U = 8 / 3 * np.pi * density * (ninth / 3 - third)
    beyond_p = 16 / 3 * np.pi * density**2 * (2 / 3 * ninth - third)
    potential = ms.LennardJones(EPSILON, SIGMA, ("Ar",), 3 * SIGMA, ms.Truncated())
    kelvin = 0.85 * EPSILON / BOLTZMANN
    ensemble = ms.sample(potential, liquid(4, density), kelvin, steps=4000, equilibration=1200, **MOTION)
    found = ensemble.average(["energy_per_atom", "pressure"], parameters=())
    scale = EPSILON, GPA * EPSILON / SIGMA**3
    U, p = (value / unit for value, unit in zip(found.values, scale, strict=True))
    dU, dp = (error / unit for error, unit in zip(found.errors, scale, strict=True))
    print(f"U* {U + beyond_U:.4f} +- {dU:.4f}, p* {p + beyond_p:.4f} +- {dp:.4f}")
    assert abs(U + beyond_U - energy) < 3 * dU + 0.002 and dU < 0.02
    assert abs(p + beyond_p - pressure) < 3 * dp + 0.005 and dp < 0.06


@pytest.mark.validation
def test_responses_of_a_liquid_are_those_of_independent_runs():
    start, kelvin, step = liquid(2, 0.75), 110.0, 0.01

    def at(sigma: float, T: float, seed: int) -> ms.ThermalAverages:
        potential = ms.LennardJones(EPSILON, sigma, ("Ar",), 6.2, ms.Smooth())
        options = MOTION | {"replicas": 8}
        ensemble = ms.sample(potential, start, T, steps=8000, equilibration=2000, seed=seed, **options)
        return ensemble.average(["energy", "pressure"], parameters=["sigma"])

    here = at(SIGMA, kelvin, 0)
    pairs = {
        "sigma": (at(SIGMA * (1 + step), kelvin, 1), at(SIGMA * (1 - step), kelvin, 2), 2 * step * SIGMA),
        "temperature": (at(SIGMA, 1.05 * kelvin, 3), at(SIGMA, 0.95 * kelvin, 4), 0.1 * kelvin),
    }
    for variable, (above, below, width) in pairs.items():
        for name in ("energy", "pressure"):
            twin = (above[name].value - below[name].value) / width
            noise = np.hypot(above[name].error, below[name].error) / width
            slope, error = here.derivative(name, variable)
            print(f"d {name} / d {variable}: {slope:.5g} +- {error:.2g}, twin {twin:.5g} +- {noise:.2g}")
            # the curvature over a step of one percent in sigma is below a tenth of the slope
            assert abs(slope - twin) < 3 * np.hypot(error, noise) + 0.03 * abs(twin), (name, variable)
