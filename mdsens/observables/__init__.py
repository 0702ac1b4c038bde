"""Measurable numbers of a relaxed state."""

from mdsens.observables.barriers import attempt_frequency, barrier, rate
from mdsens.observables.defects import formation
from mdsens.observables.dispersion import phonon, phonon_velocity
from mdsens.observables.elastic import bulk_modulus, cubic_constants, elastic_constants
from mdsens.observables.named import (
    NAMED,
    cell_parameters,
    cell_volume,
    elastic,
    energy,
    energy_per_atom,
    lattice_constant,
    named,
)
from mdsens.observables.observable import Observable, State
from mdsens.observables.phonons import gamma_phonon

__all__ = [
    "NAMED",
    "Observable",
    "State",
    "attempt_frequency",
    "barrier",
    "bulk_modulus",
    "cell_parameters",
    "cell_volume",
    "cubic_constants",
    "elastic",
    "elastic_constants",
    "energy",
    "energy_per_atom",
    "formation",
    "gamma_phonon",
    "lattice_constant",
    "named",
    "phonon",
    "phonon_velocity",
    "rate",
]
