"""What makes a sensitivity trustworthy: numbers that say how good the relaxed state and the linear solve are."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from mdsens.errors import SaddlePointError
from mdsens.neighbors import Neighbors
from mdsens.relaxation.coordinates import Coordinates, Landscape
from mdsens.relaxation.precondition import grid_of
from mdsens.relaxation.relax import Relaxed
from mdsens.relaxation.search import Found, default_skin, make_scene
from mdsens.relaxation.walk import look_around, measure

SOFT = 1e-7  # of the highest curvature: below, a mode counts as free, and a sensitivity as undefined


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Quality of one relaxed state.

    Attributes:
        fmax: largest force on a free atom, eV/Å. stress_error: largest stress off target, eV/Å³.
        lowest_curvature, highest_curvature: ends of the spectrum of the Hessian off the gauge, eV/Å² (strains
            in the length units of `Coordinates`).
        curvature_error: an eigenvalue lies within this of the lowest, eV/Å².
        mode: (atoms, 3) atomic part of the softest mode; strain_mode: its strain part.
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

    @property
    def condition(self) -> float:
        """Condition number of the Hessian off the gauge."""
        return self.highest_curvature / self.lowest_curvature

    @property
    def is_minimum(self) -> bool:
        """All curvatures off the gauge are positive, beyond doubt."""
        return self.unknowns == self.gauge or self.lowest_curvature > SOFT * abs(self.highest_curvature)

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each number, for tables."""
        return [
            ("max force (eV/Å)", f"{self.fmax:.1e}"),
            ("max stress off target (eV/Å³)", f"{self.stress_error:.1e}"),
            ("lowest curvature (eV/Å²)", f"{self.lowest_curvature:.4g} ± {self.curvature_error:.0e}"),
            ("condition number", f"{self.condition:.3g}"),
            ("linear residual", f"{self.linear_residual:.0e}"),
            ("unknowns (gauge)", f"{self.unknowns} ({self.gauge})"),
        ]

    def require_minimum(self, name: str = "the state") -> None:
        """Raise unless the state is a minimum.

        Raises:
            SaddlePointError: negative curvature, or a mode too soft to have a derivative.
        """
        if self.is_minimum:
            return
        atom = int(np.argmax(np.linalg.norm(self.mode, axis=1)))
        kind = (
            "a saddle point"
            if self.lowest_curvature < -SOFT * abs(self.highest_curvature)
            else "not a strict minimum"
        )
        raise SaddlePointError(
            f"{name} is {kind}: forces vanish ({self.fmax:.1e} eV/Å) but the curvature along one mode, "
            f"mostly on atom {atom}, is "
            f"{self.lowest_curvature:.3g} eV/Å². Its position there has no derivative. Displace the atoms "
            "along `certificate.mode` "
            "(or rattle them) and relax again; a mode of zero curvature may also be an atom or molecule that "
            "touches nothing.",
            self,
        )


def around(relaxed: Relaxed) -> Found:
    """The landscape around a relaxed state, with its origin there, and what linear solves on it need."""
    coordinates = Coordinates(relaxed.structure, relaxed.basis)
    cutoff = float(relaxed.potential.cutoff)
    skin = default_skin(relaxed.potential)

    def landscape_of(neighbors: Neighbors) -> Landscape:
        return Landscape(relaxed.potential, coordinates, relaxed.target, neighbors)

    w = jnp.zeros(coordinates.size)
    scene = make_scene(
        landscape_of,
        coordinates,
        w,
        cutoff,
        skin,
        relaxed.neighbors.capacity,
        grid_of(relaxed.structure),
        settled=True,
    )
    fmax, stress, _ = measure(scene, w, look_around(scene, w)[1])
    return Found(w, scene, relaxed.status, int(relaxed.steps), float(fmax), float(stress))


def certify(relaxed: Relaxed) -> Certificate:
    """Certificate of a relaxed state (without the linear residual, which belongs to a sensitivity)."""
    return certificate_of(around(relaxed))


def certificate_of(found: Found) -> Certificate:
    """Certificate of the state that `around` looked at."""
    n = found.scene.landscape.coordinates.reference.n_atoms
    unknowns, rank = len(found.w), int(found.scene.gauge.rank)
    numbers: dict[str, Any] = dict(
        fmax=found.fmax, stress_error=found.stress, unknowns=unknowns, gauge=unknowns - rank
    )
    if rank == 0:
        numbers |= dict(mode=np.zeros((n, 3)), strain_mode=np.zeros(unknowns - 3 * n))
        return Certificate(**numbers, lowest_curvature=np.inf, highest_curvature=np.inf, curvature_error=0.0)
    s = found.spectrum
    mode = np.asarray(s.mode)
    return Certificate(
        lowest_curvature=float(s.lowest),
        highest_curvature=float(s.highest),
        curvature_error=float(s.residual),
        mode=mode[: 3 * n].reshape(n, 3),
        strain_mode=mode[3 * n :],
        **numbers,
    )
