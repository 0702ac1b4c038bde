"""What a fit comes to: the potential, how sure it is, what was met and what the form cannot meet."""

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from mdsens.fitting import show
from mdsens.fitting.identifiability import MISSED, Identifiability, errors_of_parameters, in_words
from mdsens.fitting.space import ParameterSpace
from mdsens.fitting.state import StepRecord
from mdsens.fitting.terms import TermRow
from mdsens.io.hdf5 import Quantity, write_hdf5
from mdsens.potentials.base import Potential

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table


class FloorEntry(NamedTuple):
    """A target that is missed by more than its tolerance at the optimum.

    Attributes:
        row: of the report. residual: (value - target) / tolerance. share: of the loss, 0 to 1.
    """

    row: TermRow
    residual: float
    share: float


@dataclasses.dataclass(frozen=True)
class FitResult:
    """A fit that has ended.

    Attributes:
        potential: with the parameters found. space: what was free. z: the variables.
        status: how it ended, in words.
        residuals: (value - target) / tolerance. jacobian: their derivative by z.
        rows: of the report. before: the same at the start.
        history: of all steps tried.
    """

    potential: Potential
    space: ParameterSpace
    z: Float[np.ndarray, "variables"]
    status: str
    residuals: Float[np.ndarray, "rows"]
    jacobian: Float[np.ndarray, "rows variables"]
    rows: tuple[TermRow, ...]
    before: tuple[TermRow, ...]
    history: tuple[StepRecord, ...]

    @property
    def loss(self) -> float:
        """Sum of squared residuals."""
        return float(self.residuals @ self.residuals)

    @property
    def relaxations(self) -> int:
        """Relaxations after the first evaluation."""
        return sum(record.relaxations for record in self.history)

    @property
    def parameters(self) -> dict[str, float]:
        """Values of all parameters that were free, ties spelled out."""
        names = self.space.parameters
        return {name: float(x) for name, x in zip(names, self.space.theta(self.z), strict=True)}

    # --- how sure -------------------------------------------------------------------------------------

    @functools.cached_property
    def identifiability(self) -> Identifiability:
        """What the targets know of the variables."""
        return Identifiability.of(self.space.names, self.jacobian)

    @property
    def noise(self) -> float:
        """Square root of the loss per degree of freedom.

        About one where tolerances are standard errors of a form that can meet them. Where tolerances are only
        weights, errors of parameters are to be multiplied by it.
        """
        freedom = len(self.residuals) - int(np.sum(np.isfinite(self.identifiability.errors)))
        return float(np.sqrt(self.loss / freedom)) if freedom > 0 else float("nan")

    @property
    def errors(self) -> dict[str, float]:
        """One standard error of each parameter (Laplace), in its unit, if tolerances are standard errors."""
        found = errors_of_parameters(self.space, self.z, self.identifiability)
        return {name: float(x) for name, x in zip(self.space.parameters, found, strict=True)}

    def row_errors(self) -> np.ndarray:
        """One standard error of each row's value that comes from those of the parameters, in its unit.

        NaN for rows that stand for many residuals.
        """
        # directions that no target knows move none of them, so a solve in the known ones is all there is
        J, s = self.jacobian, self.identifiability.singular
        known = s > 1e-9 * max(s[0], np.finfo(float).tiny)
        scaled = J @ self.identifiability.directions[known].T / s[known]
        of_residuals = np.sqrt(np.sum(scaled**2, axis=1))
        starts = np.cumsum([0, *(row.count for row in self.rows[:-1])])
        pairs = zip(self.rows, starts, strict=True)
        return np.array([r.tolerance * of_residuals[k] if r.count == 1 else np.nan for r, k in pairs])

    # --- what cannot be met ---------------------------------------------------------------------------

    @property
    def floor(self) -> list[FloorEntry]:
        """Targets missed by more than their tolerance, the worst first."""
        starts = np.cumsum([0, *(row.count for row in self.rows)])
        entries = []
        for row, a, b in zip(self.rows, starts[:-1], starts[1:], strict=True):
            part = self.residuals[a:b]
            worst = float(part[np.argmax(np.abs(part))]) if len(part) else 0.0
            if abs(worst) > MISSED and row.count == 1:
                entries.append(FloorEntry(row, worst, float(part @ part) / self.loss))
        return sorted(entries, key=lambda entry: -entry.share)

    @property
    def floor_direction(self) -> str:
        """The combination of residuals that is left, in words: no free parameter moves it to first order."""
        starts = np.cumsum([0, *(row.count for row in self.rows)])
        spans = itertools.pairwise(starts)
        sizes = [self.residuals[a] if b == a + 1 else np.linalg.norm(self.residuals[a:b]) for a, b in spans]
        length = float(np.linalg.norm(sizes)) or 1.0
        return in_words(np.array(sizes) / length, tuple(row.name for row in self.rows))

    # --- to look at and to keep -----------------------------------------------------------------------

    def table(self) -> "Table":
        """Rich table: before, after and target of each row."""
        return show.target_table(self)

    def parameter_table(self) -> "Table":
        """Rich table: before, after and error of each parameter."""
        return show.parameter_table(self)

    def markdown(self) -> str:
        """The whole report as a text."""
        return show.markdown(self)

    def plot(self, path: str | Path | None = None, *, overwrite: bool = False) -> "Figure":
        """Correlations of the parameters, and singular values; written to `path` if given."""
        return show.figure(self, path, overwrite)

    def to_markdown(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the report as a text.

        Raises:
            OutputExistsError: the file is there and `overwrite` is False.
        """
        show.write_markdown(self, path, overwrite)

    def to_hdf5(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write everything, with units, for `read_hdf5`.

        Raises:
            OutputExistsError: the file is there and `overwrite` is False.
        """
        found = self.identifiability
        rows = {"name": [r.name for r in self.rows], "unit": [r.unit for r in self.rows]}
        numbers = {
            "value": [r.value for r in self.rows],
            "before": [r.value for r in self.before],
            "target": [r.target for r in self.rows],
            "tolerance": [r.tolerance for r in self.rows],
            "count": [r.count for r in self.rows],
            "error": self.row_errors(),
        }
        variables = self.space.variables
        content = {
            "status": self.status,
            "loss": self.loss,
            "rows": rows | numbers,
            "parameters": {
                "name": list(self.space.parameters),
                "value": self.space.theta(self.z),
                "before": self.space.theta(self.space.start),
                "error": list(self.errors.values()),
            },
            "variables": {
                "name": list(self.space.names),
                "scale": [variable.scale for variable in variables],
                "z": self.z,
                "singular_values": found.singular,
                "directions": Quantity(found.directions, "1", "directions, variables"),
                "covariance": Quantity(found.covariance, "1", "variables, variables"),
                "correlation": Quantity(found.correlation, "1", "variables, variables"),
            },
            "residuals": self.residuals,
            "jacobian": Quantity(self.jacobian, "1", "residuals, variables"),
            "history": {
                "loss": [record.loss for record in self.history],
                "taken": [record.taken for record in self.history],
                "length": [record.length for record in self.history],
                "radius": [record.radius for record in self.history],
                "relaxations": [record.relaxations for record in self.history],
            },
        }
        write_hdf5(path, content, kind="fit result", overwrite=overwrite)

    def __rich__(self) -> "Table":
        return self.table()
