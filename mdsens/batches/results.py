"""What a batch gives back: states by name, or a table of numbers with a row for each system."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mdsens.errors import InputError, MDSensError
from mdsens.io.files import new_file
from mdsens.io.hdf5 import read_hdf5
from mdsens.relaxation.relax import Relaxed
from mdsens.structure import Structure

FAILED = "failed"  # in what is kept of a system: why


def failures_of(outcomes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Why systems failed, by name, out of what was kept of each."""
    return {name: str(kept[FAILED]) for name, kept in outcomes.items() if FAILED in kept}


@dataclasses.dataclass(frozen=True)
class RelaxedBatch(Mapping[str, Relaxed]):
    """Relaxed states by name; those that failed are in `failures`.

    Attributes:
        relaxed: the states, in the order of the structures.
        failures: name -> why.
    """

    relaxed: dict[str, Relaxed]
    failures: dict[str, str]

    def __getitem__(self, name: str) -> Relaxed:
        if name in self.failures:
            raise MDSensError(f"'{name}' of the batch failed. {self.failures[name]}")
        return self.relaxed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.relaxed)

    def __len__(self) -> int:
        return len(self.relaxed)


@dataclasses.dataclass(frozen=True)
class MeasuredBatch:
    """Numbers of many systems: NaN in the rows of those that failed.

    Attributes:
        systems: names, in the order of the structures. failures: name -> why.
        names, units: of the numbers, arrays spelled out.
        values: of each system.
        parameters: by which they are differentiated.
        jacobian: derivatives of each number of each system by each parameter, through relaxation; None where
            none were asked for.
        structures: where each system came to rest.
    """

    systems: tuple[str, ...]
    failures: dict[str, str]
    names: tuple[str, ...]
    units: tuple[str, ...]
    values: Float[np.ndarray, "systems numbers"]
    parameters: tuple[str, ...]
    jacobian: Float[np.ndarray, "systems numbers parameters"] | None
    structures: dict[str, Structure]

    def column(self, name: str) -> Float[np.ndarray, "systems"]:
        """One number of all systems.

        Raises:
            InputError: no such number.
        """
        if name not in self.names:
            raise InputError(f"the batch has no number '{name}'. There are {', '.join(self.names)}.")
        return self.values[:, self.names.index(name)]

    def pull(self, weights: Float[np.ndarray, "systems numbers"]) -> Float[np.ndarray, "parameters"]:
        """Derivative of sum_k weights_k . values_k by the parameters; systems that failed do not count.

        Args:
            weights: dL/dO of a loss L over all systems.
        Raises:
            InputError: there are no derivatives.
        """
        if self.jacobian is None:
            raise InputError("this batch has no derivatives: mdsens.sensitivity_batch computes them.")
        each = np.einsum("sn,snp->sp", weights, self.jacobian)
        return np.nansum(each, axis=0)

    def to_csv(self, path: str | Path, *, overwrite: bool = False) -> None:
        """One row for each system: its numbers, their derivatives, and why it failed, if it did.

        Raises:
            OutputExistsError: the file exists, and `overwrite` is False.
        """
        import csv

        heads = [f"{name} ({unit})" for name, unit in zip(self.names, self.units, strict=True)]
        slopes = [f"d {name} / d {by}" for name in self.names for by in self.parameters]
        with new_file(path, overwrite) as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["system", *heads, *slopes, "failed"])
            for k, name in enumerate(self.systems):
                derivatives = [] if self.jacobian is None else self.jacobian[k].reshape(-1).tolist()
                reason = self.failures.get(name, "")
                writer.writerow([name, *self.values[k].tolist(), *derivatives, reason])

    @classmethod
    def read(cls, path: str | Path) -> "MeasuredBatch":
        """Of the file that `observables_batch` or `sensitivity_batch` wrote.

        Raises:
            FileFormatError: no such file, or it holds something else.
        """
        content = read_hdf5(path, kind="measured batch")
        outcomes = content["systems"]
        order = tuple(str(name) for name in content["order"])
        return cls.gathered({name: outcomes[name] for name in order})

    @classmethod
    def gathered(cls, outcomes: Mapping[str, Mapping[str, Any]]) -> "MeasuredBatch":
        """Of what was kept of each system."""
        failures = failures_of(outcomes)
        good = {name: kept for name, kept in outcomes.items() if name not in failures}
        first: Mapping[str, Any] = next(iter(good.values()), _NOTHING)
        names, units, parameters = (texts(first[key]) for key in ("names", "units", "parameters"))
        for name, kept in good.items():
            if texts(kept["names"]) != names:
                failures[name] = f"it has other numbers than the first system: {', '.join(kept['names'])}."
        systems = tuple(outcomes)
        structures = {name: kept["structure"] for name, kept in good.items()}
        rows = {k: good[name] for k, name in enumerate(systems) if name not in failures}
        values = np.full((len(systems), len(names)), np.nan)
        for k, kept in rows.items():
            values[k] = np.asarray(kept["values"])
        if not parameters:
            return cls(systems, failures, names, units, values, (), None, structures)
        jacobian = np.full((*values.shape, len(parameters)), np.nan)
        for k, kept in rows.items():
            jacobian[k] = np.asarray(kept["jacobian"])
        return cls(systems, failures, names, units, values, parameters, jacobian, structures)


_NOTHING: dict[str, Any] = {"names": (), "units": (), "parameters": ()}


def texts(values: Any) -> tuple[str, ...]:
    """Texts, as they come back from a file or as they are."""
    return tuple(str(value) for value in values)
