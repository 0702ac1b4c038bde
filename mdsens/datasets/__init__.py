"""Structures with labels: read, divided, looked through, generated, and put into batches for fits."""

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
from mdsens.datasets.read import read_dataset
from mdsens.datasets.references import ReferenceEnergies, reference_energies, subtract_references
from mdsens.datasets.split import DatasetSplit, split

__all__ = [
    "Dataset",
    "DatasetReport",
    "DatasetSplit",
    "Duplicate",
    "GenerationProgress",
    "Heat",
    "LabelCounts",
    "LabelWeights",
    "LabelledStructure",
    "Outlier",
    "Rattle",
    "ReferenceEnergies",
    "describe",
    "find_duplicates",
    "find_outliers",
    "generate",
    "in_words",
    "inspect",
    "labelled",
    "read_dataset",
    "reference_energies",
    "split",
    "subtract_references",
    "write_dataset",
]
