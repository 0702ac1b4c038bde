"""Batches: many structures of different sizes at once, with few compilations; nothing finished is lost."""

from mdsens.batches.batch import observables_batch, relax_batch, sensitivity_batch
from mdsens.batches.results import MeasuredBatch, RelaxedBatch
from mdsens.batches.work import BatchProgress

__all__ = [
    "BatchProgress",
    "MeasuredBatch",
    "RelaxedBatch",
    "observables_batch",
    "relax_batch",
    "sensitivity_batch",
]
