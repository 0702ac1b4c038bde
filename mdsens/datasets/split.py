"""Which structures a fit sees, which decide when it ends, and which judge it.

The order comes from a hash of each structure with the seed: it depends neither on the order in the file, nor
on the machine, nor on labels and the last digits of positions, and equal structures are never on both sides.
Structures that a fit must not see both of, as neighboring frames of one trajectory, are kept together by
group.
"""

import hashlib
from typing import NamedTuple

import numpy as np

from mdsens.checks import number, whole
from mdsens.datasets.dataset import Dataset, LabelledStructure
from mdsens.errors import InputError


class DatasetSplit(NamedTuple):
    """A data set in three parts, and which of its entries each has.

    Attributes:
        train: what the parameters are fitted to.
        validation: what decides when a fit ends, and which of its states is the best.
        test: what judges the result, and is looked at once.
        rows: of the whole data set, by the name of the part.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    rows: dict[str, np.ndarray]

    def fingerprints(self) -> dict[str, str]:
        """What tells other parts apart from these."""
        return {name: getattr(self, name).fingerprint() for name in ("train", "validation", "test")}


def split(
    data: Dataset, *, validation: float = 0.1, test: float = 0.1, seed: int = 0, by_group: bool = False
) -> DatasetSplit:
    """Divide a data set; the same data and seed are always divided alike, whatever their order.

    Args:
        validation, test: shares of all structures, or of all groups; a share of zero is an empty part, any
            other has one at least.
        seed: another one divides otherwise.
        by_group: keep each group on one side.
    Raises:
        InputError: shares that leave nothing to train on.
    """
    given = {"validation": validation, "test": test}
    shares = [number(name, share, at_least=0.0) for name, share in given.items()]
    whole("seed", seed)
    keys = [_key(entry, seed, by_group) for entry in data]
    units = sorted(set(keys))
    counts = [max(1, round(share * len(units))) if share else 0 for share in shares]
    if sum(counts) >= len(units):
        what = "groups" if by_group else "different structures"
        raise InputError(
            f"validation = {validation:g} and test = {test:g} of {len(units)} {what} leave nothing to train "
            "on. Lower them, or give more data."
        )
    n_validation, n_test = counts
    part = dict.fromkeys(units, "train")
    part |= dict.fromkeys(units[:n_validation], "validation")
    part |= dict.fromkeys(units[n_validation : n_validation + n_test], "test")
    where = np.array([part[key] for key in keys])
    rows = {name: np.flatnonzero(where == name) for name in ("train", "validation", "test")}
    parts = {name: data[chosen] for name, chosen in rows.items()}
    return DatasetSplit(**parts, rows=rows)


def fold_of(
    data: Dataset, fold: int, folds: int, *, seed: int = 0, by_group: bool = False
) -> tuple[Dataset, Dataset]:
    """What a fit of cross-validation sees, and what it does not: each entry is left out by one of the fits.

    Args:
        fold: which of them, from 0. folds: how many.
        seed, by_group: as of `split`.
    Raises:
        InputError: fewer different structures (or groups) than folds, or no such fold.
    """
    whole("folds", folds, at_least=2)
    if whole("fold", fold) >= folds:
        raise InputError(f"fold = {fold}: with folds = {folds} they are 0 to {folds - 1}.")
    keys = [_key(entry, seed, by_group) for entry in data]
    units = sorted(set(keys))
    if len(units) < folds:
        what = "groups" if by_group else "different structures"
        raise InputError(f"folds = {folds}, and the data have {len(units)} {what}: take fewer folds.")
    part = {unit: k % folds for k, unit in enumerate(units)}
    left_out = np.array([part[key] == fold for key in keys])
    return data[np.flatnonzero(~left_out)], data[np.flatnonzero(left_out)]


def _key(entry: LabelledStructure, seed: int, by_group: bool) -> bytes:
    what = entry.group.encode() if by_group else entry.place()
    return hashlib.sha256(f"{seed}:".encode() + what).digest()
