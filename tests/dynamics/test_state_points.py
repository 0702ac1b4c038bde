"""The Lennard-Jones liquid: energies and pressures of NIST's Monte Carlo runs, by molecular dynamics."""

import numpy as np
import pytest

import mdsens as ms
from mdsens.dynamics import langevin
from mdsens.units import BOLTZMANN

pytest.importorskip("jax_md", reason="jax-md is not installed")

EPSILON, SIGMA = 0.0103, 3.4  # eV, Å: argon
CUTOFF = 3.0  # sigma
TEMPERATURE = 0.85  # epsilon
# Density, energy of an atom and pressure with their errors, all reduced; 500 atoms, truncated at 3 sigma,
# with corrections for what lies beyond. NIST Standard Reference Simulation Website, Lennard-Jones fluid
# properties, Monte Carlo in the canonical ensemble, T* = 0.85.
NIST = [
    (0.776, -5.5121, 4.55e-4, 6.7714e-3, 1.72e-3),
    (0.860, -6.0305, 2.38e-3, 1.2660, 1.36e-2),
]


def corrections(density: float) -> tuple[float, float]:
    """Of energy and pressure, for a fluid without structure beyond the cutoff."""
    third, ninth = CUTOFF**-3, CUTOFF**-9
    energy = 8 / 3 * np.pi * density * (ninth / 3 - third)
    pressure = 16 / 3 * np.pi * density**2 * (2 / 3 * ninth - third)
    return energy, pressure


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Of (records, replicas), the error from ten blocks of each replica."""
    blocks = np.stack([block.mean(0) for block in np.array_split(values, 10)]).ravel()
    return float(blocks.mean()), float(blocks.std(ddof=1) / np.sqrt(len(blocks)))


@pytest.mark.validation
@pytest.mark.parametrize(("density", "energy", "energy_error", "pressure", "pressure_error"), NIST)
def test_energy_and_pressure_of_the_liquid_are_those_of_nist(
    density, energy, energy_error, pressure, pressure_error
):
    potential = ms.LennardJones(EPSILON, SIGMA, ("Ar",), CUTOFF * SIGMA, ms.Truncated())
    edge = (500 / density) ** (1 / 3) * SIGMA / 5
    cell = ms.Structure.create(
        edge * np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]), ["Ar"] * 4, [edge] * 3
    )
    options = {"temperature": TEMPERATURE * EPSILON / BOLTZMANN, "timestep": 8.0, "friction": 2e-3}
    options |= {"record_every": 50, "replicas": 2, "skin": 1.5}
    melted = langevin(potential, cell.repeat(5), steps=4_000, **options)
    run = langevin(potential, melted, steps=10_000, **(options | {"seed": 1, "replicas": None}))
    beyond = corrections(density)
    found, error = mean_and_error(run.potential / 500 / EPSILON)
    assert abs(found + beyond[0] - energy) < 3 * np.hypot(error, energy_error)
    # the motion contributes its mean, density times temperature, without its scatter
    of_potential = -np.trace(run.stress, axis1=-2, axis2=-1) / 3 * SIGMA**3 / EPSILON
    found_p, error_p = mean_and_error(of_potential)
    ideal = density * TEMPERATURE
    assert abs(found_p + ideal + beyond[1] - pressure) < 3 * np.hypot(error_p, pressure_error)
    print(f"U* {found + beyond[0]:.4f} +- {error:.4f} ({energy}), ", end="")
    print(f"p* {found_p + ideal + beyond[1]:.4f} +- {error_p:.4f} ({pressure})")
    assert error < 0.006 and error_p < 0.03
