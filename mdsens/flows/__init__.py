"""Smooth normalizing flows: densities with exact forces, trained on forces, usable as potentials.

Source: Köhler, Krämer, Noé, Smooth Normalizing Flows, NeurIPS 2021, arXiv:2110.00351.
"""

from mdsens.ensembles import (
    Average,
    EnsembleSensitivity,
    FreeEnergy,
    average_sensitivity,
    bennett,
    effective_sample_size,
    free_energy_difference,
    free_energy_sensitivity,
    joint_log_weights,
    log_weights,
    reweighted_average,
)
from mdsens.flows.boltzmann import BoltzmannGenerator, energies_and_forces
from mdsens.flows.coupling import Coupling, Network
from mdsens.flows.data import DataSplit, ForceData
from mdsens.flows.evaluate import evaluate_on_data, evaluate_on_samples, in_pieces
from mdsens.flows.files import TrainingRecord, load, read_notes, read_record, save
from mdsens.flows.flow import Flow, Normal, Uniform
from mdsens.flows.internal_coordinates import GlobalFrame, ZMatrix
from mdsens.flows.layers import (
    AbstractLayer,
    Chain,
    Cut,
    Elementwise,
    Inverted,
    Name,
    Split,
    Turns,
    Unbounded,
    Whiten,
)
from mdsens.flows.losses import Loss
from mdsens.flows.molecule import MoleculeArchitecture, choose_coordinates
from mdsens.flows.plots import plot_comparison, plot_training
from mdsens.flows.prepare import Prepared, prepare
from mdsens.flows.read_data import read_force_data
from mdsens.flows.reference_block import MixedCoordinates, ReferenceBlock
from mdsens.flows.samples import FlowSamples
from mdsens.flows.splines import CircularSpline, IntervalSpline, LineSpline
from mdsens.flows.train import Schedule, Trained, TrainingProgress, read_history, train
from mdsens.flows.transforms import (
    AffineFamily,
    CircleMixture,
    IntervalMixture,
    LineMixture,
    RampMixture,
    RotationFamily,
)
from mdsens.molecules.topology import read_molecule

__all__ = [
    "AbstractLayer",
    "AffineFamily",
    "Average",
    "BoltzmannGenerator",
    "Chain",
    "CircleMixture",
    "CircularSpline",
    "Coupling",
    "Cut",
    "DataSplit",
    "Elementwise",
    "EnsembleSensitivity",
    "Flow",
    "FlowSamples",
    "ForceData",
    "FreeEnergy",
    "GlobalFrame",
    "IntervalMixture",
    "IntervalSpline",
    "Inverted",
    "LineMixture",
    "LineSpline",
    "Loss",
    "MixedCoordinates",
    "MoleculeArchitecture",
    "Name",
    "Network",
    "Normal",
    "Prepared",
    "RampMixture",
    "ReferenceBlock",
    "RotationFamily",
    "Schedule",
    "Split",
    "Trained",
    "TrainingProgress",
    "TrainingRecord",
    "Turns",
    "Unbounded",
    "Uniform",
    "Whiten",
    "ZMatrix",
    "average_sensitivity",
    "bennett",
    "choose_coordinates",
    "effective_sample_size",
    "energies_and_forces",
    "evaluate_on_data",
    "evaluate_on_samples",
    "free_energy_difference",
    "free_energy_sensitivity",
    "in_pieces",
    "joint_log_weights",
    "load",
    "log_weights",
    "plot_comparison",
    "plot_training",
    "prepare",
    "read_force_data",
    "read_history",
    "read_molecule",
    "read_notes",
    "read_record",
    "reweighted_average",
    "save",
    "train",
]
