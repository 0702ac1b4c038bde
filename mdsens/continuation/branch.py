"""A branch of states: its points, what happened between them, and predictions from any of them."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mdsens.continuation.fold import Fold
from mdsens.structure import Structure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table


@dataclasses.dataclass(frozen=True)
class BranchPoint:
    """One state of a branch.

    Attributes:
        s: the number that is turned.
        structure: the state.
        values, slopes, bends: of the observables, dO/ds and d2O/ds2, all along the relaxation.
        lowest: lowest curvature, eV/Å².
        radius: change of s within which the atoms move as first order says, to 10 %.
        contacts: pairs of atoms that interact; -1 where all do.
    """

    s: float
    structure: Structure
    values: Float[np.ndarray, "observables"]
    slopes: Float[np.ndarray, "observables"]
    bends: Float[np.ndarray, "observables"]
    lowest: float
    radius: float
    contacts: int

    def predicted(self, s: float, order: int = 2) -> Float[np.ndarray, "observables"]:
        """Observables elsewhere, as first or second order from here says."""
        away = s - self.s
        linear = self.values + away * self.slopes
        return linear if order == 1 else linear + away**2 / 2 * self.bends


@dataclasses.dataclass(frozen=True)
class BranchEvent:
    """Something that happened on the way.

    Attributes:
        kind: "fold" (the minimum is gone beyond), "bifurcation" (it goes on as a saddle point), "contacts"
            (pairs came or went), "switch" (it fell into another minimum).
        s: where; the critical value of a fold or bifurcation, else the first point that sees it.
        text: in words.
    """

    kind: str
    s: float
    text: str


@dataclasses.dataclass(frozen=True)
class Branch:
    """States along one number.

    Attributes:
        control, unit: what was turned.
        observables, units: what was measured.
        points: in order. events: in order.
        fold: the end of the branch, if it ends in one (the first, if it went on in another minimum).
        finished: it came to the value asked for.
    """

    control: str
    unit: str
    observables: tuple[str, ...]
    units: tuple[str, ...]
    points: tuple[BranchPoint, ...]
    events: tuple[BranchEvent, ...]
    fold: Fold | None
    finished: bool

    @property
    def s(self) -> Float[np.ndarray, "points"]:
        """The number at each point."""
        return np.array([point.s for point in self.points])

    @property
    def values(self) -> Float[np.ndarray, "points observables"]:
        """Observables at each point."""
        return np.array([point.values for point in self.points])

    def table(self) -> "Table":
        """Rich table, one row a point."""
        from mdsens.continuation.show import branch_table

        return branch_table(self)

    def plot(self, path: str | Path | None = None, *, overwrite: bool = False) -> "Figure":
        """Observables along the branch beside what first and second order from its start predict."""
        from mdsens.continuation.show import plot_branch

        return plot_branch(self, path, overwrite=overwrite)

    def to_hdf5(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Everything, structures included, with units; of kind "branch".

        Raises:
            OutputExistsError: the file is there and `overwrite` is False.
        """
        from mdsens.io.hdf5 import write_hdf5

        write_hdf5(path, self.content(), kind="branch", overwrite=overwrite)

    def content(self) -> dict[str, Any]:
        """The branch as content of an HDF5 file."""
        from mdsens.io.hdf5 import Quantity

        texts = {
            "control": self.control,
            "observables": list(self.observables),
            "units": list(self.units),
            "finished": self.finished,
            "start": self.points[0].structure,
        }
        unit = self.unit or "1"
        numbers: dict[str, Any] = {"contacts": self._of_points("contacts")}
        numbers["s"] = Quantity(self.s, unit, "points")
        numbers["radius"] = Quantity(self._of_points("radius"), unit, "points")
        numbers["lowest_curvature"] = Quantity(self._of_points("lowest"), "eV/Å²", "points")
        for name in ("values", "slopes", "bends"):
            numbers[name] = Quantity(self._of_points(name), "1", "points, observables")
        structures = [point.structure for point in self.points]
        positions = np.array([np.asarray(one.positions) for one in structures])
        cells = np.array([np.asarray(one.cell) for one in structures])
        numbers["positions"] = Quantity(positions, "Å", "points, atoms, xyz")
        numbers["cells"] = Quantity(cells, "Å", "points, vectors, xyz")
        return {**texts, **numbers, "events": self._events_content(), "fold": self._fold_content()}

    def _of_points(self, name: str) -> np.ndarray:
        return np.array([getattr(point, name) for point in self.points])

    def _events_content(self) -> dict[str, Any] | None:
        if not self.events:
            return None
        kinds = [event.kind for event in self.events]
        texts = [event.text for event in self.events]
        return {"kind": kinds, "text": texts, "s": np.array([event.s for event in self.events])}

    def _fold_content(self) -> dict[str, Any] | None:
        from mdsens.io.hdf5 import Quantity

        if self.fold is None:
            return None
        content: dict[str, Any] = {"s": self.fold.s, "force": self.fold.force}
        content["structure"] = self.fold.structure
        content["mode"] = Quantity(self.fold.mode, "1", "atoms, xyz")
        content["bend"] = Quantity(self.fold.bend, "eV/Å³")
        return content
