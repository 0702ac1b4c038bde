"""Distributions of parameters as tables: the names in the first line, then a matrix, or one draw a line.

epsilon,sigma
4.3e-8,1.2e-6
1.2e-6,1.1e-3
"""

import csv
from pathlib import Path

import numpy as np

from mdsens.checks import existing_file
from mdsens.errors import FileFormatError
from mdsens.io.files import new_file
from mdsens.potentials.base import Potential
from mdsens.uncertainty.distribution import ParameterDistribution


def read_covariance(potential: Potential, path: str | Path) -> ParameterDistribution:
    """A matrix under the names of its parameters, in products of their units.

    Raises:
        FileFormatError: no such file, a line with more or fewer numbers than names, or with something else.
        InputError: as `ParameterDistribution.from_covariance`.
    """
    names, numbers = _read(path)
    return ParameterDistribution.from_covariance(potential, numbers, names)


def read_samples(potential: Potential, path: str | Path) -> ParameterDistribution:
    """Draws under the names of their parameters, one a line; errors as of `read_covariance`."""
    names, numbers = _read(path)
    return ParameterDistribution.from_samples(potential, numbers, names)


def write_covariance(
    distribution: ParameterDistribution, path: str | Path, *, overwrite: bool = False
) -> None:
    """The matrix under the names of its parameters.

    Raises:
        OutputExistsError: the file is there and `overwrite` is False.
    """
    with new_file(path, overwrite) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(distribution.names)
        for row in distribution.covariance:
            writer.writerow([repr(float(x)) for x in row])


def _read(path: str | Path) -> tuple[list[str], np.ndarray]:
    found = existing_file(path)
    with found.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise FileFormatError(f"'{found}' is empty: the names of the parameters come first.")
    names = [name.strip() for name in rows[0]]
    numbers = np.zeros((len(rows) - 1, len(names)))
    for k, row in enumerate(rows[1:]):
        if len(row) != len(names):
            raise FileFormatError(f"'{found}', row {k + 2}: {len(row)} numbers for {len(names)} names.")
        try:
            numbers[k] = [float(text) for text in row]
        except ValueError as error:
            raise FileFormatError(f"'{found}', row {k + 2}: {error}.") from error
    return names, numbers
