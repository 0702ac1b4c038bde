"""A potential beside the data: errors in numbers, and the points of a parity plot."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from mdsens.datasets.dataset import Dataset
from mdsens.datasets.label import label
from mdsens.io.files import new_file
from mdsens.io.hdf5 import Quantity, write_hdf5
from mdsens.potentials.base import Potential
from mdsens.strain import VOIGT
from mdsens.units import GPA

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table


class ParityPoints(NamedTuple):
    """Labels of one kind, and what a potential says of them.

    Attributes:
        data, found: in `unit`: energies per atom, components of forces and of stresses.
    """

    data: Float[np.ndarray, "labels"]
    found: Float[np.ndarray, "labels"]
    unit: str

    @property
    def rmse(self) -> float:
        """Root mean square error; 0 without labels."""
        return float(np.sqrt(np.mean((self.found - self.data) ** 2))) if len(self.data) else 0.0

    @property
    def mae(self) -> float:
        """Mean absolute error; 0 without labels."""
        return float(np.mean(np.abs(self.found - self.data))) if len(self.data) else 0.0

    @property
    def largest(self) -> float:
        """Largest absolute error; 0 without labels."""
        return float(np.abs(self.found - self.data).max(initial=0.0))


@dataclasses.dataclass(frozen=True)
class Parity:
    """A potential against a data set.

    Attributes:
        energy: eV per atom, without the shift. forces: eV/Å. stress: GPa.
        shift: energy of each element (eV) by which data and potential differ, taken off; empty if it was not.
    """

    energy: ParityPoints
    forces: ParityPoints
    stress: ParityPoints
    shift: dict[str, float]

    def kinds(self) -> dict[str, ParityPoints]:
        """Points of the labels that there are, by name."""
        every = {"energy": self.energy, "forces": self.forces, "stress": self.stress}
        return {name: points for name, points in every.items() if len(points.data)}

    def lines(self) -> list[tuple[str, ...]]:
        """label, how many, RMSE, MAE, largest error, unit."""
        return [
            (name, f"{len(p.data)}", f"{p.rmse:.4g}", f"{p.mae:.4g}", f"{p.largest:.4g}", p.unit)
            for name, p in self.kinds().items()
        ]

    def __rich__(self) -> "Table":
        from rich.table import Table

        table = Table(*HEADER)
        for line in self.lines():
            table.add_row(*line)
        return table

    def markdown(self) -> str:
        """The table as text."""
        rows = [HEADER, ("---",) * len(HEADER), *self.lines()]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def to_hdf5(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write all points, with units."""
        content = {
            name: {"data": Quantity(p.data, p.unit), "found": Quantity(p.found, p.unit), "rmse": p.rmse}
            for name, p in self.kinds().items()
        }
        write_hdf5(path, {**content, "shift": self.shift}, kind="parity", overwrite=overwrite)

    def plot(self, path: str | Path | None = None, *, overwrite: bool = False) -> "Figure":
        """One panel for each kind of label; written to `path` if given."""
        from matplotlib.figure import Figure

        kinds = self.kinds()
        figure = Figure(figsize=(4 * max(len(kinds), 1), 4), layout="constrained")
        for k, (name, points) in enumerate(kinds.items()):
            axes = figure.add_subplot(1, len(kinds), k + 1)
            ends = [min(points.data.min(), points.found.min()), max(points.data.max(), points.found.max())]
            axes.plot(ends, ends, color="0.7", linewidth=1)
            axes.plot(points.data, points.found, ".", markersize=3, color="#1f6f8b", rasterized=True)
            axes.set_xlabel(f"{name} of the data ({points.unit})")
            axes.set_ylabel(f"{name} of the potential ({points.unit})")
            axes.set_title(f"RMSE {points.rmse:.3g} {points.unit}", fontsize=10)
        if path is not None:
            with new_file(path, overwrite) as unfinished:
                figure.savefig(unfinished)
        return figure


HEADER = ("label", "number", "RMSE", "MAE", "largest", "unit")


def parity(potential: Potential, data: Dataset, *, shift_energies: bool = False) -> Parity:
    """Compare a potential with a data set.

    Args:
        shift_energies: take off the energy of each element by which the two differ, by least squares.
    Raises:
        InputError, NonFiniteError: as `mdsens.datasets.label`.
    """
    found = label(potential, data)
    rows = [k for k, entry in enumerate(data) if entry.energy is not None]
    sizes = np.array([data[k].structure.n_atoms for k in rows], float)
    energies = np.array([data[k].energy for k in rows], float)
    mine = np.array([found[k].energy for k in rows], float)
    shift: dict[str, float] = {}
    if shift_energies and rows:
        counts = data.compositions()[rows]
        solution = np.linalg.lstsq(counts / sizes[:, None], (mine - energies) / sizes, rcond=1e-10)[0]
        shift = dict(zip(data.elements, solution.tolist(), strict=True))
        mine = mine - counts @ solution
    return Parity(
        ParityPoints(energies / sizes, mine / sizes, "eV per atom"),
        _forces(data, found),
        _stress(data, found),
        shift,
    )


def _forces(data: Dataset, found: Dataset) -> ParityPoints:
    pairs = []
    for entry, mine in zip(data, found, strict=True):
        if entry.forces is not None and mine.forces is not None:
            known = slice(None) if entry.known is None else entry.known
            pairs.append((entry.forces[known].ravel(), mine.forces[known].ravel()))
    return _points(pairs, "eV/Å")


def _stress(data: Dataset, found: Dataset) -> ParityPoints:
    a, b = np.transpose(VOIGT)
    pairs = [
        (GPA * entry.stress[a, b], GPA * mine.stress[a, b])
        for entry, mine in zip(data, found, strict=True)
        if entry.stress is not None and mine.stress is not None
    ]
    return _points(pairs, "GPa")


def _points(pairs: list[tuple[np.ndarray, np.ndarray]], unit: str) -> ParityPoints:
    if not pairs:
        return ParityPoints(np.zeros(0), np.zeros(0), unit)
    data, found = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return ParityPoints(data, found, unit)
