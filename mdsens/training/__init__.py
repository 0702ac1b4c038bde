"""Training: steps of an optimizer on any loss of any model, with checkpoints to go on from bit for bit."""

from mdsens.training.checkpoint import Checkpoint, read_history
from mdsens.training.loop import RowGroups, Trained, TrainingProgress, train, train_step
from mdsens.training.schedule import Schedule

__all__ = [
    "Checkpoint",
    "RowGroups",
    "Schedule",
    "Trained",
    "TrainingProgress",
    "read_history",
    "train",
    "train_step",
]
