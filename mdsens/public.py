"""Every public name: what `import mdsens` offers, and where it comes from.

`mdsens` itself loads this file when one of the names is first asked for.
"""

from mdsens import (
    batches,
    calculators,
    campaign,
    continuation,
    datasets,
    dynamics,
    errors,
    fitting,
    flows,
    implicit,
    observables,
    saddles,
    strain,
    testing,
    thermal,
    training,
    uncertainty,
    units,
)
from mdsens.batches import MeasuredBatch, RelaxedBatch, observables_batch, relax_batch, sensitivity_batch
from mdsens.continuation.branch import Branch
from mdsens.continuation.expansion import Expansion, expand
from mdsens.continuation.follow import follow
from mdsens.datasets import Dataset, read_dataset, write_dataset
from mdsens.equilibria.gaussian import GaussianState, gaussian_state
from mdsens.gauge import find_gauge
from mdsens.implicit.contraction import (
    Contraction,
    PositivePicard,
    contraction,
    homogeneity,
    thompson_distance,
)
from mdsens.implicit.iterations import Anderson, FixedPoint, Halpern, Iterated, Picard, find_fixed_point
from mdsens.implicit.linear import ConjugateGradient, Dense
from mdsens.implicit.steady import SteadyState, steady_state
from mdsens.io.hdf5 import Quantity, RelaxedRecord, read_hdf5, read_relaxed, write_hdf5, write_relaxed
from mdsens.io.structures import read_structure, read_trajectory
from mdsens.io.trajectory import write_structure, write_trajectory
from mdsens.neighbors import Neighbors, find_neighbors
from mdsens.observables.observable import Observable
from mdsens.potentials.base import Potential, parameter
from mdsens.potentials.bonded import HarmonicAngles, HarmonicBonds, PeriodicDihedrals
from mdsens.potentials.cutoffs import ForceShifted, Shifted, Smooth, Truncated
from mdsens.potentials.damped import DampedShiftedForce, Wolf
from mdsens.potentials.dipoles import InducedDipoles
from mdsens.potentials.eam import EAM
from mdsens.potentials.eam_files import mix_funcfl
from mdsens.potentials.edip import EDIP
from mdsens.potentials.equilibration import ChargeEquilibration
from mdsens.potentials.equilibrium_network import Contracting, Subhomogeneous, equilibrium_network
from mdsens.potentials.ewald import Ewald
from mdsens.potentials.exported import ExportedNetwork, from_kups
from mdsens.potentials.graphs import GraphPotential
from mdsens.potentials.gupta import Gupta
from mdsens.potentials.ionic import BornMayerHuggins, Buckingham
from mdsens.potentials.jaxmd import JaxMDPotential
from mdsens.potentials.johnson import Johnson
from mdsens.potentials.mapped import MappedPotential, mapped
from mdsens.potentials.networks import (
    from_ace_jax,
    from_apax,
    from_jax_md_nequip,
    from_mlip,
    from_nequix,
)
from mdsens.potentials.nonbonded import MolecularCharges, MolecularLennardJones
from mdsens.potentials.openmm_files import read_openmm
from mdsens.potentials.pair import LennardJones, Morse, PairPotential, SoftSphere
from mdsens.potentials.parameter_sets import (
    available_potentials,
    load_potential,
    parameter_table,
    save_potential,
)
from mdsens.potentials.parameters import (
    check_parameters,
    parameter_entries,
    parameter_values,
    replace_parameters,
)
from mdsens.potentials.particle_mesh import ParticleMeshEwald
from mdsens.potentials.programs import ProgramPotential, from_ase, from_program
from mdsens.potentials.snap import SNAP
from mdsens.potentials.snap_files import read_snap
from mdsens.potentials.stillinger_weber import StillingerWeber
from mdsens.potentials.sums import SumPotential
from mdsens.potentials.tersoff import Tersoff
from mdsens.potentials.tersoff_variants import TersoffMod, TersoffZBL
from mdsens.potentials.vashishta import Vashishta
from mdsens.potentials.zbl import ZBL
from mdsens.quantities import EnergyForcesStress, energy, energy_forces_stress, neighbors_of
from mdsens.relaxation.certificate import Certificate
from mdsens.relaxation.equilibrium import Equilibrium, certify
from mdsens.relaxation.fire import FIRE, JaxMDFIRE
from mdsens.relaxation.gradient_flow import GradientFlow
from mdsens.relaxation.lbfgs import LBFGS
from mdsens.relaxation.newton import DampedNewton, NewtonCG
from mdsens.relaxation.plan import AutoRelaxer
from mdsens.relaxation.relax import Relaxed, relax
from mdsens.relaxation.walk import RelaxationProgress, Status
from mdsens.saddles.barrier import Barrier, barrier
from mdsens.saddles.path import ReactionPath
from mdsens.saddles.saddle import Saddle, saddle
from mdsens.sensitivity.analysis import sensitivities
from mdsens.sensitivity.first_order import first_order
from mdsens.sensitivity.functional import change_function, functional_sensitivities
from mdsens.sensitivity.report import SensitivityReport
from mdsens.structure import Structure, volume
from mdsens.thermal import Ensemble, ThermalAverages, ThermalObservable, sample

__all__ = [
    "Anderson",
    "AutoRelaxer",
    "Barrier",
    "BornMayerHuggins",
    "Branch",
    "Buckingham",
    "Certificate",
    "ChargeEquilibration",
    "ConjugateGradient",
    "Contracting",
    "Contraction",
    "DampedNewton",
    "DampedShiftedForce",
    "Dataset",
    "Dense",
    "EAM",
    "EDIP",
    "EnergyForcesStress",
    "Ensemble",
    "Equilibrium",
    "Ewald",
    "Expansion",
    "ExportedNetwork",
    "FIRE",
    "FixedPoint",
    "ForceShifted",
    "GaussianState",
    "GradientFlow",
    "GraphPotential",
    "Gupta",
    "Halpern",
    "HarmonicAngles",
    "HarmonicBonds",
    "InducedDipoles",
    "Iterated",
    "JaxMDFIRE",
    "JaxMDPotential",
    "Johnson",
    "LBFGS",
    "LennardJones",
    "MappedPotential",
    "MeasuredBatch",
    "MolecularCharges",
    "MolecularLennardJones",
    "Morse",
    "Neighbors",
    "NewtonCG",
    "Observable",
    "PairPotential",
    "ParticleMeshEwald",
    "PeriodicDihedrals",
    "Picard",
    "PositivePicard",
    "Potential",
    "ProgramPotential",
    "Quantity",
    "ReactionPath",
    "RelaxationProgress",
    "Relaxed",
    "RelaxedBatch",
    "RelaxedRecord",
    "SNAP",
    "Saddle",
    "SensitivityReport",
    "Shifted",
    "Smooth",
    "SoftSphere",
    "Status",
    "SteadyState",
    "StillingerWeber",
    "Structure",
    "Subhomogeneous",
    "SumPotential",
    "Tersoff",
    "TersoffMod",
    "TersoffZBL",
    "ThermalAverages",
    "ThermalObservable",
    "Truncated",
    "Vashishta",
    "Wolf",
    "ZBL",
    "available_potentials",
    "barrier",
    "batches",
    "calculators",
    "campaign",
    "certify",
    "change_function",
    "check_parameters",
    "continuation",
    "contraction",
    "datasets",
    "dynamics",
    "energy",
    "energy_forces_stress",
    "equilibrium_network",
    "errors",
    "expand",
    "find_fixed_point",
    "find_gauge",
    "find_neighbors",
    "first_order",
    "fitting",
    "flows",
    "follow",
    "from_ace_jax",
    "from_apax",
    "from_ase",
    "from_jax_md_nequip",
    "from_kups",
    "from_mlip",
    "from_nequix",
    "from_program",
    "functional_sensitivities",
    "gaussian_state",
    "homogeneity",
    "implicit",
    "load_potential",
    "mapped",
    "mix_funcfl",
    "neighbors_of",
    "observables",
    "observables_batch",
    "parameter",
    "parameter_entries",
    "parameter_table",
    "parameter_values",
    "read_dataset",
    "read_hdf5",
    "read_openmm",
    "read_relaxed",
    "read_snap",
    "read_structure",
    "read_trajectory",
    "relax",
    "relax_batch",
    "replace_parameters",
    "saddle",
    "saddles",
    "sample",
    "save_potential",
    "sensitivities",
    "sensitivity_batch",
    "steady_state",
    "strain",
    "testing",
    "thermal",
    "thompson_distance",
    "training",
    "uncertainty",
    "units",
    "volume",
    "write_dataset",
    "write_hdf5",
    "write_relaxed",
    "write_structure",
    "write_trajectory",
]
