"""What makes a state and its derivative trustworthy, in numbers; and the one criterion of a minimum."""

import dataclasses

import numpy as np

from mdsens.errors import SaddlePointError

SOFT = 1e-7  # of the highest curvature: a softer mode counts as free, and a derivative along it as undefined


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Quality of one relaxed state.

    Attributes:
        fmax: largest force on a free atom, eV/Å. stress_error: largest stress off target, eV/Å³.
        lowest_curvature, highest_curvature: ends of the spectrum of the Hessian off the gauge, eV/Å² (strains
            in the length units of `Coordinates`).
        curvature_error: an eigenvalue lies within this of the lowest, eV/Å².
        mode: (atoms, 3) atomic part of the softest mode; strain_mode: its strain part.
        difference_error: how far the lowest curvature may be off because second derivatives are differences
            of forces, eV/Å²; NaN where they are exact.
        next_curvature: the lowest curvature but one, eV/Å²; NaN where the lowest is not negative.
        linear_residual: |H dx + b| / |b| of the solves behind the derivatives, the worst of them.
        unknowns, gauge: number of coordinates, and how many of them cost no energy or are fixed.
    """

    fmax: float
    stress_error: float
    lowest_curvature: float
    highest_curvature: float
    curvature_error: float
    mode: np.ndarray
    strain_mode: np.ndarray
    unknowns: int
    gauge: int
    linear_residual: float = float("nan")
    difference_error: float = float("nan")
    next_curvature: float = float("nan")

    @property
    def condition(self) -> float:
        """Condition number of the Hessian off the gauge; 1 where nothing can move."""
        return 1.0 if self.unknowns == self.gauge else self.highest_curvature / self.lowest_curvature

    @property
    def is_minimum(self) -> bool:
        """All curvatures off the gauge are positive, beyond doubt."""
        return self.unknowns == self.gauge or self.lowest_curvature > self._doubt

    @property
    def is_saddle(self) -> bool:
        """The energy falls along some mode, beyond doubt."""
        return self.unknowns > self.gauge and self.lowest_curvature < -self._doubt

    @property
    def is_transition_state(self) -> bool:
        """The energy falls along one mode and rises along all others, beyond doubt."""
        return self.is_saddle and self.next_curvature > self._doubt

    @property
    def _doubt(self) -> float:
        soft = SOFT * abs(self.highest_curvature)
        return soft if np.isnan(self.difference_error) else max(soft, self.difference_error)

    @property
    def is_singular(self) -> bool:
        """Some mode off the gauge has no curvature.

        The state has no derivative along it, and solves give noise.
        """
        return not (self.is_minimum or self.is_saddle)

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each number, for tables."""
        still = self.unknowns == self.gauge
        return [
            ("max force (eV/Å)", f"{self.fmax:.1e}"),
            ("max stress off target (eV/Å³)", f"{self.stress_error:.1e}"),
            (
                "lowest curvature (eV/Å²)",
                "-" if still else f"{self.lowest_curvature:.4g} ± {self.curvature_error:.0e}",
            ),
            *self._next(),
            ("condition number", "-" if still else f"{self.condition:.3g}"),
            ("linear residual", f"{self.linear_residual:.0e}" if np.isfinite(self.linear_residual) else "-"),
            ("unknowns (gauge)", f"{self.unknowns} ({self.gauge})"),
            *self._differences(),
        ]

    def _next(self) -> list[tuple[str, str]]:
        if np.isnan(self.next_curvature):
            return []
        return [("next curvature (eV/Å²)", f"{self.next_curvature:.4g}")]

    def _differences(self) -> list[tuple[str, str]]:
        if np.isnan(self.difference_error):
            return []
        return [("second derivatives", f"by differences, ± {self.difference_error:.0e} eV/Å²")]

    def require_minimum(self, name: str = "the state", partial: object = None) -> None:
        """Raise unless the state is a minimum.

        Args:
            partial: what the error carries; by default this certificate.
        Raises:
            SaddlePointError: negative curvature, or a mode too soft to have a derivative.
        """
        if not self.is_minimum:
            raise self.error(name, partial)

    def require_transition_state(self, name: str = "the state", partial: object = None) -> None:
        """Raise unless the energy falls along exactly one mode.

        Args:
            partial: what the error carries; by default this certificate.
        Raises:
            SaddlePointError: a minimum, a saddle point of higher order, or a mode without curvature.
        """
        if self.is_transition_state:
            return
        if not self.is_saddle:
            raise self._no_saddle_error(name, partial)
        raise SaddlePointError(
            f"{name} is a saddle point of higher order: the energy falls along two modes or more, with the "
            f"curvatures {self.lowest_curvature:.3g} and {self.next_curvature:.3g} eV/Å². No path of least "
            "energy crosses it. Symmetry holds it there: rattle the starting positions by 0.05 Å, or give a "
            "band more images.",
            self if partial is None else partial,
        )

    def _no_saddle_error(self, name: str, partial: object) -> SaddlePointError:
        if not self.is_minimum:
            return self.error(name, partial)
        return SaddlePointError(
            f"{name} is a minimum and no saddle point: the lowest curvature is {self.lowest_curvature:.3g} "
            "eV/Å². Start closer to the saddle point, or give both minima: ms.saddle(potential, start, end).",
            self if partial is None else partial,
        )

    def error(self, name: str = "the state", partial: object = None) -> SaddlePointError:
        """What is wrong with a state that is no minimum, and what to do."""
        atom = int(np.argmax(np.linalg.norm(self.mode, axis=1)))
        carried = self if partial is None else partial
        if self.is_saddle:
            return SaddlePointError(
                f"{name} is a saddle point: forces vanish ({self.fmax:.1e} eV/Å) but the curvature along one "
                "mode is "
                f"{self.lowest_curvature:.3g} eV/Å², mostly on atom {atom}. Start from a structure displaced "
                "along it "
                "(mdsens.certify(state).mode; error.partial holds what was found), or rattle the atoms by "
                "0.05 Å.",
                carried,
            )
        return SaddlePointError(
            f"{name} has no derivative, and is not a strict minimum: one mode, mostly on atom {atom}, has "
            "the curvature "
            f"{self.lowest_curvature:.1e} eV/Å² (stiffest: {self.highest_curvature:.2g}). Something moves "
            "freely there, "
            "such as a molecule or a group of atoms that touches nothing: remove it, fix one of its "
            "coordinates, or relax at "
            "a higher density.",
            carried,
        )
