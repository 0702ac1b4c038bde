"""What data say of parameters (Laplace, Fisher), and which combinations they leave open.

Near the best fit the loss is |r|² with r = r_0 + J dz, so that, with tolerances that are standard errors,

    Sigma_z = (J^T J)^-1,

priors being residuals like any other. On the log scale dz is a relative change of a parameter. J = U S V^T:
stiff directions (large s) are known, sloppy ones (s below one) are not. Two kinds of data know different
directions: forces pin what bonds do at one distance, relaxed observables what is left when atoms have
answered.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from mdsens.errors import InputError
from mdsens.fitting.fit import FitProblem
from mdsens.fitting.identifiability import Identifiability, in_words
from mdsens.fitting.result import FitResult
from mdsens.fitting.space import ParameterSpace
from mdsens.fitting.terms import FitTerm
from mdsens.io.files import new_file
from mdsens.potentials.base import Potential
from mdsens.precision import require_x64
from mdsens.uncertainty.distribution import ParameterDistribution

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table


def laplace(
    start: Potential | ParameterSpace, terms: FitTerm | Sequence[FitTerm], *, scaled: bool = False
) -> ParameterDistribution:
    """The distribution of parameters that data allow around where they are.

    Args:
        start: a potential, of which all parameters are then open, or a space: what is free, its scales and
            priors.
        terms: data: `fitting.ForceMatching`, `fitting.RelaxedTargets`, or several.
        scaled: times the root mean square of the residuals, where tolerances are only weights.
    Raises:
        InputError: directions that the data do not know at all; they are named.
    """
    require_x64()
    space = start if isinstance(start, ParameterSpace) else ParameterSpace.of(start)
    value = FitProblem.of(space, terms).evaluate(space.start, {})
    found = Identifiability.of(space.names, value.jacobian)
    scale = _noise(value.residuals, len(space.names)) if scaled else 1.0
    return _distribution(space, space.start, found, scale, "Laplace")


def from_fit(result: FitResult, *, scaled: bool = False) -> ParameterDistribution:
    """The distribution around the optimum of a fit; arguments and errors as for `laplace`."""
    scale = _noise(result.residuals, len(result.z)) if scaled else 1.0
    return _distribution(result.space, result.z, result.identifiability, scale, "fit")


def _noise(residuals: np.ndarray, free: int) -> float:
    """Root of the loss by degrees of freedom."""
    if len(residuals) <= free:
        raise InputError(
            f"scaled = True: {len(residuals)} residuals of {free} variables leave none to tell the noise by. "
            "Give more data, or tolerances that are standard errors (scaled=False)."
        )
    return float(np.sqrt(residuals @ residuals / (len(residuals) - free)))


def _distribution(
    space: ParameterSpace, z: np.ndarray, found: Identifiability, scale: float, source: str
) -> ParameterDistribution:
    lost = [space.names[k] for k in np.flatnonzero(np.isinf(found.errors))]
    if lost:
        worst = in_words(found.directions[-1], space.names)
        raise InputError(
            f"the data say nothing about {', '.join(lost)} (least of all about {worst}): freeze them "
            "(ParameterSpace.of(..., frozen=...)), or say what is known before (priors=...)."
        )
    # dtheta = T dz, and V S^-1 is a root of (J^T J)^-1
    root = scale * found.directions.T / found.singular
    L = np.stack([space.push(z, column) for column in root.T], axis=1)
    n = len(space.parameters)
    return ParameterDistribution(space.parameters, space.theta(z), L, np.zeros(n), source=source)


@dataclasses.dataclass(frozen=True)
class SloppySpectra:
    """What several kinds of data know, side by side.

    Attributes:
        names: of the variables.
        found: kind of data -> singular values and directions, in changes of a variable by itself.
    """

    names: tuple[str, ...]
    found: dict[str, Identifiability]

    def error(self, of: str, by: str) -> Float[np.ndarray, "variables"]:
        """How far the stiff directions of one kind of data are known by another, stiffest first.

        Returns:
            standard errors along the directions of `of` (1 is the whole of a parameter); inf where `by` does
            not know them.
        """
        directions, known = self._kind(of).directions, self._kind(by)
        share = directions @ known.directions.T
        with np.errstate(divide="ignore", invalid="ignore"):
            squares = np.where(np.abs(share) > 1e-9, (share / known.singular) ** 2, 0.0)
        return np.sqrt(squares.sum(1))

    def _kind(self, name: str) -> Identifiability:
        if name not in self.found:
            raise InputError(f"no data are called '{name}': there are {', '.join(self.found)}.")
        return self.found[name]

    def table(self) -> "Table":
        """Singular values, and what the directions are made of."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(
            title="what data know: residuals per change of a parameter by itself", title_justify="left"
        )
        for kind in self.found:
            table.add_column(escape(kind), justify="right", no_wrap=True)
            table.add_column(f"direction ({escape(kind)})")
        for k in range(len(self.names)):
            cells = []
            for one in self.found.values():
                words = in_words(one.directions[k], self.names)
                cells += [f"{one.singular[k]:.3g}", escape(words)]
            table.add_row(*cells)
        return table

    def plot(self, path: str | Path | None = None, *, overwrite: bool = False) -> "Figure":
        """Singular values on a log scale; written to `path` if given."""
        from matplotlib.figure import Figure

        drawing = Figure(figsize=(1.8 + 1.5 * len(self.found), 3.6), layout="constrained")
        axes = drawing.subplots()
        for place, one in enumerate(self.found.values()):
            there = one.singular[one.singular > 0]
            axes.hlines(there, place - 0.35, place + 0.35, lw=1)
        axes.axhline(1.0, color="0.6", lw=0.8)
        axes.set_yscale("log")
        axes.set_xticks(range(len(self.found)), list(self.found))
        axes.set(ylabel="residuals per change by itself", title="stiff above, sloppy below")
        if path is not None:
            with new_file(path, overwrite) as unfinished:
                drawing.savefig(unfinished, dpi=150)
        return drawing

    def __rich__(self) -> "Table":
        return self.table()


def sloppiness(
    start: Potential | ParameterSpace, kinds: Mapping[str, FitTerm | Sequence[FitTerm]]
) -> SloppySpectra:
    """Spectra of what several kinds of data know of the same parameters, priors left out.

    Args:
        start: as for `laplace`.
        kinds: name -> data, such as {"forces": ForceMatching(...), "relaxed": RelaxedTargets(...)}.
    """
    require_x64()
    space = start if isinstance(start, ParameterSpace) else ParameterSpace.of(start)
    bare = ParameterSpace(space.potential, space.variables, {})
    found = {}
    for name, terms in kinds.items():
        value = FitProblem.of(bare, terms).evaluate(bare.start, {})
        found[name] = Identifiability.of(space.names, value.jacobian)
    return SloppySpectra(space.names, found)
