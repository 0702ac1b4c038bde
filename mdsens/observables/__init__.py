"""Measurable numbers of a relaxed state."""

from mdsens.observables.barriers import attempt_frequency, barrier, rate
from mdsens.observables.defects import formation
from mdsens.observables.dispersion import phonon, phonon_velocity
from mdsens.observables.elastic import bulk_modulus, cubic_constants, elastic_constants
from mdsens.observables.equation_of_state import (
    EquationOfState,
    equation_of_state,
    fit_equation_of_state,
)
from mdsens.observables.geometry import angle, distance, steinhardt, tetrahedrality
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
from mdsens.observables.planes import (
    cohesive_energy,
    elastic_dipole,
    stacking_fault_energy,
    surface_energy,
)
from mdsens.observables.quasiharmonic import grueneisen, thermal_expansion, thermal_volume
from mdsens.observables.quasiharmonic_tables import QuasiHarmonicTable, quasiharmonic_table
from mdsens.observables.thermal import (
    vibrational_entropy,
    vibrational_free_energy,
    vibrational_heat_capacity,
)
from mdsens.observables.vibrations import Bands, DensityOfStates, LatticeVibrations

__all__ = [
    "Bands",
    "DensityOfStates",
    "EquationOfState",
    "LatticeVibrations",
    "NAMED",
    "Observable",
    "QuasiHarmonicTable",
    "State",
    "angle",
    "attempt_frequency",
    "barrier",
    "bulk_modulus",
    "cell_parameters",
    "cell_volume",
    "cohesive_energy",
    "cubic_constants",
    "distance",
    "elastic",
    "elastic_constants",
    "elastic_dipole",
    "energy",
    "energy_per_atom",
    "equation_of_state",
    "fit_equation_of_state",
    "formation",
    "gamma_phonon",
    "grueneisen",
    "lattice_constant",
    "named",
    "phonon",
    "phonon_velocity",
    "quasiharmonic_table",
    "rate",
    "stacking_fault_energy",
    "steinhardt",
    "surface_energy",
    "tetrahedrality",
    "thermal_expansion",
    "thermal_volume",
    "vibrational_entropy",
    "vibrational_free_energy",
    "vibrational_heat_capacity",
]
