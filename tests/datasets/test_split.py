"""Divisions of data: every structure once, shares as asked, the same for the same data and seed."""

import numpy as np
import pytest

import mdsens as ms
from mdsens.datasets import Dataset, split
from mdsens.errors import InputError


def data(n, group=""):
    structures = [ms.Structure.create([[0.0, 0, 0], [1.0 + 0.1 * k, 0, 0]], ["H"] * 2) for k in range(n)]
    return Dataset.create(structures, energies=np.arange(float(n)), group=group)


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.1), (0.0, 0.2), (0.3, 0.0), (0.0, 0.0), (0.4, 0.5)])
def test_every_structure_is_in_one_part_and_shares_are_as_asked(validation, test):
    whole = data(40)
    parts = split(whole, validation=validation, test=test)
    rows = np.concatenate(list(parts.rows.values()))
    np.testing.assert_array_equal(np.sort(rows), np.arange(40))
    assert (len(parts.validation), len(parts.test)) == (round(40 * validation), round(40 * test))
    for name in ("train", "validation", "test"):
        energies = [entry.energy for entry in getattr(parts, name)]
        np.testing.assert_array_equal(energies, parts.rows[name])


def test_a_share_that_is_not_zero_has_one_structure_at_least():
    parts = split(data(5), validation=0.01, test=0.01)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (3, 1, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": -0.1}, "validation = -0.1: it must be .*at least 0"),
        ({"test": float("nan")}, "test = nan: it must be finite"),
        ({"validation": 0.5, "test": 0.5}, "leave nothing to train on"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_shares_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        split(data(10), **options)


def test_groups_count_as_one_and_all_in_one_group_cannot_be_divided():
    grouped = data(6, "a") + data(6, "b") + data(6, "c")
    parts = split(grouped, validation=0.3, test=0.3, by_group=True)
    names = [{entry.group for entry in part} for part in (parts.train, parts.validation, parts.test)]
    assert [len(some) for some in names] == [1, 1, 1]
    with pytest.raises(InputError, match="of 1 groups leave nothing to train on"):
        split(data(6, "a"), by_group=True)
