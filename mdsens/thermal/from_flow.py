"""Samples of a flow as an ensemble of a potential: weighted, and independent of each other.

A flow draws x with the density p(x), so that the weights exp(-U(x) / kT) / p(x) make its samples those of the
potential. How many of them count says how well the flow has learned the potential.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mdsens.checks import instance, whole
from mdsens.ensembles.weights import MIN_EFFECTIVE
from mdsens.errors import InputError
from mdsens.flows.boltzmann import BoltzmannGenerator
from mdsens.potentials.base import Potential, check_elements, require_potential
from mdsens.precision import require_x64
from mdsens.structure import Structure
from mdsens.thermal.ensemble import Ensemble
from mdsens.thermal.frames import Frames, energy, measure_frames
from mdsens.units import BOLTZMANN, from_nm


def sample_flow(
    generator: BoltzmannGenerator,
    potential: Potential,
    *,
    samples: int = 1000,
    temperature: float | None = None,
    seed: int = 0,
    min_effective: float = MIN_EFFECTIVE,
) -> Ensemble:
    """Independent samples of a flow, weighted to be those of a potential.

    Args:
        generator: of the molecule; its atoms in the order of the potential's.
        potential: any for these atoms.
        samples: how many are drawn.
        temperature: K; by default that of the flow.
        seed: of the draws.
        min_effective: independent samples that must be left.
    Raises:
        InputError: no flow of a molecule, or a potential without parameters for its atoms.
        NotConvergedError: fewer effective samples than `min_effective`; `partial` is the ensemble.
    """
    require_x64()
    hint = "Read one with mdsens.flows.load(path)."
    instance("generator", generator, BoltzmannGenerator, hint)
    n = whole("samples", samples, at_least=2)
    T = generator.temperature if temperature is None else temperature
    flow = generator.flow.astype(jnp.float64)
    keys = jax.random.split(jax.random.key(whole("seed", seed)), n)
    x, log_p = jax.jit(jax.vmap(flow.draw))(keys)
    positions = np.asarray(from_nm(x))
    structure = Structure.create(positions[0], generator.species)
    check_elements(require_potential(potential), structure)
    frames = Frames(structure, positions, np.asarray(structure.cell))
    energies = np.asarray(measure_frames(potential, frames, (energy,))[energy].value)
    if not T > 0:
        raise InputError(f"temperature = {T}: it must be above 0 (K).")
    log_w = -energies / (BOLTZMANN * T) - np.asarray(log_p)
    ensemble = Ensemble(potential, frames, energies, float(T), None, 0, log_w - log_w.max(), seed=seed)
    ensemble.require_effective(min_effective)
    return ensemble
