"""Structures with labels: read, divided, looked through, generated, and put into batches for fits."""

from mdsens.datasets.batches import BatchValues, LabelledBatch, batch_values, make_batches
from mdsens.datasets.dataset import Dataset, LabelCounts, LabelledStructure, LabelWeights, labelled
from mdsens.datasets.describe import describe, in_words
from mdsens.datasets.files import write_dataset
from mdsens.datasets.generate import GenerationProgress, Heat, Rattle, generate
from mdsens.datasets.inspection import (
    DatasetReport,
    Duplicate,
    Outlier,
    find_duplicates,
    find_outliers,
    inspect,
)
from mdsens.datasets.label import label
from mdsens.datasets.read import read_dataset
from mdsens.datasets.references import ReferenceEnergies, reference_energies, subtract_references
from mdsens.datasets.split import DatasetSplit, split

__all__ = [
    "BatchValues",
    "Dataset",
    "DatasetReport",
    "DatasetSplit",
    "Duplicate",
    "GenerationProgress",
    "Heat",
    "LabelCounts",
    "LabelWeights",
    "LabelledBatch",
    "LabelledStructure",
    "Outlier",
    "Rattle",
    "ReferenceEnergies",
    "batch_values",
    "describe",
    "find_duplicates",
    "find_outliers",
    "generate",
    "in_words",
    "inspect",
    "label",
    "labelled",
    "make_batches",
    "read_dataset",
    "reference_energies",
    "split",
    "subtract_references",
    "write_dataset",
]
