"""The Lennard-Jones fluid: energies and pressures of NIST's Monte Carlo runs, by molecular dynamics."""

from typing import NamedTuple

import numpy as np
import pytest

import mdsens as ms
from mdsens.dynamics import langevin
from mdsens.units import BOLTZMANN

pytest.importorskip("jax_md", reason="jax-md is not installed")

EPSILON, SIGMA = 0.0103, 3.4  # eV, Å: argon
CUTOFF = 3.0  # sigma
TEMPERATURE = 0.85  # epsilon


class StatePoint(NamedTuple):
    """Density, energy of an atom and pressure with their errors, all reduced; how they are sampled here."""

    density: float
    energy: float
    energy_error: float
    pressure: float
    pressure_error: float
    atoms: int
    options: dict
    good: tuple[float, float]  # our own errors are below these


# A liquid starts from a crystal, whose melting takes some thousand steps. Its own bath is fast.
LIQUID = {"replicas": 4, "timestep": 8.0, "friction": 1e-3, "skin": 1.5, "warm": 4_000, "steps": 8_000}
# In a gas pairs find and lose each other within 7 ps, if friction does not hinder them: 320 ps of eight runs
# are a few hundred independent samples. Lists reach far, for atoms fly.
GAS = {"replicas": 8, "timestep": 20.0, "friction": 3e-4, "skin": 8.0, "warm": 3_000, "steps": 16_000}
# NIST Standard Reference Simulation Website, Lennard-Jones fluid properties, Monte Carlo in the canonical
# ensemble, T* = 0.85: 500 atoms, truncated at 3 sigma, with corrections for what lies beyond.
NIST = {
    "gas": StatePoint(0.009, -9.3973e-2, 1.29e-4, 7.1641e-3, 2.24e-6, 500, GAS, (8e-4, 1e-5)),
    "liquid": StatePoint(0.776, -5.5121, 4.55e-4, 6.7714e-3, 1.72e-3, 256, LIQUID, (6e-3, 3e-2)),
    "dense": StatePoint(0.860, -6.0305, 2.38e-3, 1.2660, 1.36e-2, 256, LIQUID, (6e-3, 3e-2)),
}


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


def crystal(atoms: int, edge: float) -> ms.Structure:
    """Face-centered cubic, in a cube (Å)."""
    cells = round((atoms / 4) ** (1 / 3))
    places = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    unit = ms.Structure.create(edge / cells * places, ["Ar"] * 4, [edge / cells] * 3)
    return unit.repeat(cells)


def scattered(atoms: int, edge: float, seed: int) -> ms.Structure:
    """Random places in a cube, none nearer to another than sigma.

    On a lattice of this density no atom would have a neighbor, and pairs would have to find each other first.
    """
    rng = np.random.default_rng(seed)
    found = np.zeros((0, 3))
    while len(found) < atoms:
        place = edge * rng.random(3)
        apart = found - place
        apart -= edge * np.round(apart / edge)
        if np.all(np.linalg.norm(apart, axis=1) > SIGMA):
            found = np.vstack([found, place])
    return ms.Structure.create(found, ["Ar"] * atoms, [edge] * 3)


def starts(state: StatePoint) -> list[ms.Structure]:
    """Of each replica."""
    edge = (state.atoms / state.density) ** (1 / 3) * SIGMA
    seeds = range(state.options["replicas"])
    if state.density < 0.1:
        return [scattered(state.atoms, edge, seed) for seed in seeds]
    return [crystal(state.atoms, edge) for _ in seeds]


def test_scattered_atoms_are_a_diameter_apart():
    gas = scattered(60, 30.0, seed=0)
    near = ms.find_neighbors(gas, cutoff=SIGMA)
    assert gas.n_atoms == 60 and not np.any(near.valid)


@pytest.mark.validation  # a minute or two each
@pytest.mark.parametrize("name", NIST)
def test_energy_and_pressure_of_the_fluid_are_those_of_nist(name):
    state = NIST[name]
    potential = ms.LennardJones(EPSILON, SIGMA, ("Ar",), CUTOFF * SIGMA, ms.Truncated())
    options = {key: state.options[key] for key in ("timestep", "friction", "skin")}
    options |= {"temperature": TEMPERATURE * EPSILON / BOLTZMANN, "record_every": 50}
    warm = langevin(potential, starts(state), steps=state.options["warm"], **options)
    run = langevin(potential, warm, steps=state.options["steps"], seed=1, **options)
    beyond = corrections(state.density)
    energy, error = mean_and_error(run.potential / state.atoms / EPSILON)
    energy += beyond[0]
    # the motion contributes its mean, density times temperature, without its scatter
    of_potential = -np.trace(run.stress, axis1=-2, axis2=-1) / 3 * SIGMA**3 / EPSILON
    pressure, error_p = mean_and_error(of_potential)
    pressure += beyond[1] + state.density * TEMPERATURE
    print(f"U* {energy:.5f} +- {error:.5f} ({state.energy}), ", end="")
    print(f"p* {pressure:.6f} +- {error_p:.6f} ({state.pressure})")
    assert abs(energy - state.energy) < 3 * np.hypot(error, state.energy_error)
    assert abs(pressure - state.pressure) < 3 * np.hypot(error_p, state.pressure_error)
    assert error < state.good[0] and error_p < state.good[1]
