"""Averages with their derivatives and error bars, for people and for other programs."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mdsens.checks import nearest
from mdsens.errors import FileFormatError, InputError
from mdsens.io.hdf5 import Quantity, read_hdf5, write_hdf5
from mdsens.thermal import show

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

KIND = "thermal averages"
AXES = {
    "derivatives": "numbers, variables",
    "derivative_errors": "numbers, variables",
    "second": "numbers, variables, variables",
    "second_errors": "numbers, variables, variables",
}


class AverageWithError(NamedTuple):
    """A number or an array with its standard error."""

    value: Any
    error: Any


class ArrayGrid(NamedTuple):
    """Where the numbers of an array stand, and the unit of these places."""

    places: Float[np.ndarray, " numbers"]
    unit: str


class ThermalAverages(NamedTuple):
    """Averages over an ensemble; arrays of observables are laid end to end.

    Attributes:
        names, units: of each observable.
        shapes: of each observable; () for a number.
        variables, variable_units, variable_values: parameters, temperature, and pressure where the cell
            moves.
        values, errors: averages and their standard errors.
        derivatives, derivative_errors: by each variable, and their standard errors.
        second, second_errors: by each pair of variables; None unless asked for.
        frames: how many there were.
        effective_samples: how many independent ones would tell as much, of the mean energy.
        inefficiency: frames that count as one because they remember each other.
        grids: of arrays by name, where their numbers stand: the distances of a radial distribution.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    variables: tuple[str, ...]
    variable_units: tuple[str, ...]
    variable_values: Float[np.ndarray, " variables"]
    values: Float[np.ndarray, " numbers"]
    errors: Float[np.ndarray, " numbers"]
    derivatives: Float[np.ndarray, "numbers variables"]
    derivative_errors: Float[np.ndarray, "numbers variables"]
    frames: int
    effective_samples: float
    inefficiency: float
    grids: Mapping[str, ArrayGrid] = MappingProxyType({})
    second: Float[np.ndarray, "numbers variables variables"] | None = None
    second_errors: Float[np.ndarray, "numbers variables variables"] | None = None

    def __getitem__(self, name: Any) -> Any:
        """Value and error of an observable: `found["pressure"].value`."""
        if not isinstance(name, str):
            return tuple(self)[name]
        here, shape = self._place(name)
        return AverageWithError(_shaped(self.values[here], shape), _shaped(self.errors[here], shape))

    def derivative(self, name: str, variable: str) -> AverageWithError:
        """Derivative of an observable by a variable, and its error.

        Raises:
            InputError: an observable or a variable that is not here.
        """
        here, shape = self._place(name)
        k = self._variable(variable)
        found, errors = self.derivatives[here, k], self.derivative_errors[here, k]
        return AverageWithError(_shaped(found, shape), _shaped(errors, shape))

    def second_derivative(self, name: str, one: str, other: str) -> AverageWithError:
        """Second derivative by two variables, and its error.

        Raises:
            InputError: names that are not here, or an average without `second_order=True`.
        """
        if self.second is None or self.second_errors is None:
            raise InputError("these averages have no second derivatives: ask with second_order=True.")
        here, shape = self._place(name)
        j, k = self._variable(one), self._variable(other)
        found, errors = self.second[here, j, k], self.second_errors[here, j, k]
        return AverageWithError(_shaped(found, shape), _shaped(errors, shape))

    def _place(self, name: str) -> tuple[slice, tuple[int, ...]]:
        self._require(name, self.names, "observable")
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        k = self.names.index(name)
        start = sum(sizes[:k])
        return slice(start, start + sizes[k]), self.shapes[k]

    def _variable(self, name: str) -> int:
        self._require(name, self.variables, "variable")
        return self.variables.index(name)

    def _require(self, name: str, known: tuple[str, ...], what: str) -> None:
        if name not in known:
            listed = ", ".join(known)
            raise InputError(f"no {what} '{name}' here.{nearest(name, known)} There are: {listed}.")

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Name and unit of every number: "energy", or "rdf[3]"."""
        rows = []
        for name, unit, shape in zip(self.names, self.units, self.shapes, strict=True):
            rows += [(name + "".join(f"[{k}]" for k in index), unit) for index in np.ndindex(*shape)]
        return rows

    def table(self) -> "Table":
        """Averages with ±."""
        return show.average_table(self)

    def derivative_table(self) -> "Table":
        """Derivatives by each variable with ±."""
        return show.derivative_table(self)

    def plot(self, path: str | Path | None = None, *, overwrite: bool = False) -> "Figure":
        """Relative derivatives d ln O / d ln z with error bars; arrays as curves."""
        return show.figure(self, path, overwrite)

    def to_csv(self, path: str | Path, *, overwrite: bool = False) -> None:
        """One line for each number and variable.

        Raises:
            OutputExistsError: the file exists, and `overwrite` is False.
        """
        show.write_csv(self, path, overwrite)

    def to_hdf5(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write everything; `from_hdf5` reads it back.

        Raises:
            OutputExistsError: the file exists, and `overwrite` is False.
        """
        content: dict[str, Any] = self._asdict()
        content["shapes"] = [",".join(map(str, shape)) for shape in self.shapes]
        texts = ("names", "units", "variables", "variable_units")
        content |= {name: list(getattr(self, name)) for name in texts}
        content["grids"] = {name: Quantity(*grid) for name, grid in self.grids.items()}
        for name, axes in AXES.items():
            if content[name] is not None:
                content[name] = Quantity(content[name], "", axes)
        write_hdf5(path, content, kind=KIND, overwrite=overwrite)

    @classmethod
    def from_hdf5(cls, path: str | Path) -> "ThermalAverages":
        """Read what `to_hdf5` wrote.

        Raises:
            FileFormatError: no such file, or not one of `to_hdf5`.
        """
        content = read_hdf5(path, kind=KIND)
        try:
            return cls(**_typed(content))
        except (TypeError, KeyError, ValueError) as error:
            raise FileFormatError(f"'{path}' is no whole file of thermal averages ({error}).") from error


def _typed(content: dict[str, Any]) -> dict[str, Any]:
    """What a file holds, in the types of the fields."""
    found = {name: getattr(value, "value", value) for name, value in content.items()}
    for name in ("names", "units", "variables", "variable_units"):
        found[name] = tuple(str(text) for text in found[name])
    texts = [str(text) for text in found["shapes"]]
    found["shapes"] = tuple(tuple(int(k) for k in text.split(",") if k) for text in texts)
    grids = found.get("grids", {})
    found["grids"] = {name: ArrayGrid(grid.value, grid.unit) for name, grid in grids.items()}
    found["frames"] = int(found["frames"])
    for name in ("effective_samples", "inefficiency"):
        found[name] = float(found[name])
    return found


def _shaped(values: np.ndarray, shape: tuple[int, ...]) -> Any:
    return float(values[0]) if shape == () else values.reshape(shape)
